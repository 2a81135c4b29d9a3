package builtin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"sigs.k8s.io/yaml"

	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
)

// Schema is the JSON Schema (draft 2020-12) of a built-in's config, the one place for its fields, types, defaults
// and descriptions. Besides the standard keywords, the top level may have `x-ignored`: fields of Kong that have no
// meaning here, which are accepted with a warning; and a field may have `x-default`: words for a default that is no
// fixed value. Null is absent, as in the annotation, unless a field's type says otherwise. `propertyNames` is not to be
// used: version 6.0.3 of the validator reports a wrong place for it (it keeps a slice that it goes on writing to).
type Schema struct {
	root    *jsonschema.Schema
	ignored []string
	doc     document
}

// everywhereIgnored are fields that Kong knows for every plugin and that have no meaning here.
var everywhereIgnored = []string{"protocols", "consumer", "service", "route", "tags", "instance_name", "keepalive"}

// MustSchema compiles the text of a schema.yaml; a wrong schema is a bug.
func MustSchema(text []byte) *Schema {
	raw, err := yaml.YAMLToJSON(text)
	if err != nil {
		panic(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		panic(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	c.RegisterFormat(&jsonschema.Format{Name: "http-header-name", Validate: headerName})
	if err := c.AddResource("schema.json", doc); err != nil {
		panic(err)
	}
	root, err := c.Compile("schema.json")
	if err != nil {
		panic(err)
	}
	s := &Schema{root: root, ignored: slices.Clone(everywhereIgnored), doc: mustDocument(text)}
	own, _ := doc.(map[string]any)["x-ignored"].([]any)
	for _, f := range own {
		s.ignored = append(s.ignored, f.(string))
	}
	return s
}

// headerName checks RFC 9110 §5.1: a field name is a token.
func headerName(v any) error {
	s, ok := v.(string)
	if !ok {
		return nil
	}
	const token = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune(token, r) }) {
		return errors.New("not a header name")
	}
	return nil
}

// Check returns v without ignored fields and with all defaults, and what is wrong with it. Integers are written
// without point and exponent.
func (s *Schema) Check(v config.Value) (config.Value, []Problem) {
	var problems []Problem
	kept := make(map[string]any, len(v))
	for name, value := range v {
		if _, ours := s.root.Properties[name]; !ours && slices.Contains(s.ignored, name) {
			problems = append(problems, Problem{Path: name, Message: "has no meaning here and is ignored", Warning: true})
			continue
		}
		kept[name] = value
	}
	c := completion{}
	complete := c.complete(s.root, kept, nil).(map[string]any)
	problems = append(problems, c.problems...)
	// The validator cannot calculate with a number that is out of range.
	if len(c.problems) == 0 {
		if err := s.root.Validate(complete); err != nil {
			var invalid *jsonschema.ValidationError
			if !errors.As(err, &invalid) {
				panic(err)
			}
			s.collect(invalid, &problems)
		}
	}
	sort.Slice(problems, func(i, j int) bool {
		return problems[i].Path < problems[j].Path || problems[i].Path == problems[j].Path && problems[i].Message < problems[j].Message
	})
	return complete, slices.Compact(problems)
}

func (s *Schema) collect(e *jsonschema.ValidationError, problems *[]Problem) {
	path := Path(e.InstanceLocation...)
	add := func(path, format string, args ...any) {
		*problems = append(*problems, Problem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	switch k := e.ErrorKind.(type) {
	case *kind.AnyOf:
		s.collectForms(e, problems)
	case *kind.OneOf:
		if len(k.Subschemas) > 0 {
			add(path, "fits more than one of the allowed forms")
			return
		}
		s.collectForms(e, problems)
	case *kind.AdditionalProperties:
		at := s.at(e.InstanceLocation)
		for _, name := range k.Properties {
			known := fieldNames(at)
			if near, ok := finding.Nearest(name, known); ok {
				add(Path(append(slices.Clone(e.InstanceLocation), name)...), "unknown field, did you mean %q?", near)
			} else {
				add(Path(append(slices.Clone(e.InstanceLocation), name)...), "unknown field, known ones are %s", strings.Join(known, ", "))
			}
		}
	case *kind.Required:
		for _, name := range k.Missing {
			add(Path(append(slices.Clone(e.InstanceLocation), name)...), "is required")
		}
	case *kind.Enum:
		add(path, "%s is not allowed, allowed are %s", show(k.Got), showAll(k.Want))
	case *kind.Const:
		add(path, "%s is not allowed, allowed is %s", show(k.Got), show(k.Want))
	case *kind.Type:
		add(path, "must be %s, not %s", article(k.Want), article([]string{k.Got}))
	case *kind.Minimum:
		add(path, "%s is too small, at least %s", decimal(k.Got), decimal(k.Want))
	case *kind.Maximum:
		add(path, "%s is too large, at most %s", decimal(k.Got), decimal(k.Want))
	case *kind.ExclusiveMinimum:
		add(path, "%s is too small, more than %s", decimal(k.Got), decimal(k.Want))
	case *kind.ExclusiveMaximum:
		add(path, "%s is too large, less than %s", decimal(k.Got), decimal(k.Want))
	case *kind.MultipleOf:
		add(path, "%s is not a multiple of %s", decimal(k.Got), decimal(k.Want))
	case *kind.MinItems:
		add(path, "has %d items, at least %d", k.Got, k.Want)
	case *kind.MaxItems:
		add(path, "has %d items, at most %d", k.Got, k.Want)
	case *kind.UniqueItems:
		add(path, "items %d and %d are equal", k.Duplicates[0], k.Duplicates[1])
	case *kind.MinLength:
		add(path, "must not be shorter than %d characters", k.Want)
	case *kind.MaxLength:
		add(path, "must not be longer than %d characters", k.Want)
	case *kind.MinProperties:
		if known := fieldNames(s.at(e.InstanceLocation)); len(known) > 0 {
			add(path, "needs at least %d of %s", k.Want, strings.Join(known, ", "))
		} else {
			add(path, "has %d entries, at least %d", k.Got, k.Want)
		}
	case *kind.MaxProperties:
		add(path, "has %d entries, at most %d", k.Got, k.Want)
	case *kind.DependentRequired:
		add(path, "%s needs %s, too", k.Prop, strings.Join(k.Missing, " and "))
	case *kind.FalseSchema:
		add(path, "is not allowed here")
	case *kind.Pattern:
		add(path, "%s does not match %s", show(k.Got), k.Want)
	case *kind.Format:
		add(path, "%s is no valid %s", show(k.Got), strings.ReplaceAll(k.Want, "-", " "))
	default:
		if len(e.Causes) == 0 {
			add(path, "is not valid (%T)", k)
		}
		for _, cause := range e.Causes {
			s.collect(cause, problems)
		}
	}
}

// collectForms reports a value that has none of several forms: the mistakes in the one form that has its type, or the
// types of all forms where none has.
func (s *Schema) collectForms(e *jsonschema.ValidationError, problems *[]Problem) {
	var types []string
	var near []*jsonschema.ValidationError
	var got string
	for _, form := range e.Causes {
		if mismatch := typeMismatch(form, len(e.InstanceLocation)); mismatch != nil {
			types, got = append(types, mismatch.Want...), mismatch.Got
			continue
		}
		near = append(near, form)
	}
	if len(near) == 0 {
		slices.Sort(types)
		*problems = append(*problems, Problem{Path: Path(e.InstanceLocation...), Message: fmt.Sprintf("must be %s, not %s", article(slices.Compact(types)), article([]string{got}))})
		return
	}
	for _, form := range near {
		s.collect(form, problems)
	}
}

// typeMismatch is the error that the value at this depth has another type than the form wants, if that is so.
func typeMismatch(e *jsonschema.ValidationError, depth int) *kind.Type {
	if len(e.InstanceLocation) != depth {
		return nil
	}
	if t, ok := e.ErrorKind.(*kind.Type); ok {
		return t
	}
	for _, cause := range e.Causes {
		if t := typeMismatch(cause, depth); t != nil {
			return t
		}
	}
	return nil
}

// at is the schema of a place in the config, as far as properties and items lead.
func (s *Schema) at(location []string) *jsonschema.Schema {
	at := s.root
	for _, step := range location {
		next := target(at).Properties[step]
		if next == nil {
			next = target(at).Items2020
		}
		if next == nil {
			return target(at)
		}
		at = next
	}
	return target(at)
}

// target follows references.
func target(s *jsonschema.Schema) *jsonschema.Schema {
	for s != nil && s.Ref != nil {
		s = s.Ref
	}
	return s
}

func fieldNames(s *jsonschema.Schema) []string {
	names := make([]string, 0, len(s.Properties))
	for name := range s.Properties {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Path writes a place in a config as `a.b[0].c`.
func Path(steps ...string) string {
	var b strings.Builder
	for _, s := range steps {
		if _, err := strconv.Atoi(s); err == nil {
			fmt.Fprintf(&b, "[%s]", s)
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(s)
	}
	return b.String()
}

// decimal writes a number as people do, with as many digits as it has, six behind the point at most.
func decimal(r *big.Rat) string {
	if r.IsInt() {
		return r.Num().String()
	}
	return strings.TrimRight(r.FloatString(6), "0")
}

// show quotes a value for a message, cut where it is long.
func show(v any) string {
	const most = 60
	text := []rune(encode(v))
	if len(text) > most {
		return string(text[:most]) + "…"
	}
	return string(text)
}

// encode writes a value as JSON, for people.
func encode(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimRight(b.String(), "\n")
}

func showAll(vs []any) string {
	out := make([]string, len(vs))
	for i, v := range vs {
		out[i] = show(v)
	}
	return strings.Join(out, ", ")
}

func article(types []string) string {
	names := map[string]string{"object": "a map", "array": "a list", "string": "a string", "number": "a number", "integer": "an integer", "boolean": "a boolean", "null": "null"}
	out := make([]string, len(types))
	for i, t := range types {
		out[i] = names[t]
	}
	return strings.Join(out, " or ")
}

// DecodeInto reads a checked config into a struct; a config that passed its schema always fits.
func DecodeInto(v config.Value, into any) {
	d := json.NewDecoder(bytes.NewReader(v.JSON()))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		panic(fmt.Sprintf("schema and Go type disagree: %v", err))
	}
}
