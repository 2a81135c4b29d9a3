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
			const message = "has no meaning here and is ignored"
			problems = append(problems, Problem{Path: name, Message: message, Veiled: name + " " + message, Warning: true})
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
	// wrong adds what is wrong with the value, and refused does so for messages that begin with it.
	wrong := func(format string, args ...any) {
		*problems = append(*problems, s.problem(e.InstanceLocation, "", fmt.Sprintf(format, args...)))
	}
	refused := func(value, format string, args ...any) {
		*problems = append(*problems, s.problem(e.InstanceLocation, value+" ", fmt.Sprintf(format, args...)))
	}
	switch k := e.ErrorKind.(type) {
	case *kind.AnyOf:
		s.collectForms(e, problems)
	case *kind.OneOf:
		if len(k.Subschemas) > 0 {
			wrong("fits more than one of the allowed forms")
			return
		}
		s.collectForms(e, problems)
	case *kind.AdditionalProperties:
		known := fieldNames(s.at(e.InstanceLocation))
		all := "unknown field, known ones are " + strings.Join(known, ", ")
		for _, name := range k.Properties {
			p := s.problem(step(e.InstanceLocation, name), "", all)
			if near, ok := finding.Nearest(name, known); ok {
				p.Message = fmt.Sprintf("unknown field, did you mean %q?", near)
			}
			*problems = append(*problems, p)
		}
	case *kind.Required:
		for _, name := range k.Missing {
			*problems = append(*problems, s.problem(step(e.InstanceLocation, name), "", "is required"))
		}
	case *kind.Enum:
		refused(show(k.Got), "is not allowed, allowed are %s", showAll(k.Want))
	case *kind.Const:
		refused(show(k.Got), "is not allowed, allowed is %s", show(k.Want))
	case *kind.Type:
		wrong("must be %s, not %s", article(k.Want), article([]string{k.Got}))
	case *kind.Minimum:
		refused(decimal(k.Got), "is too small, at least %s", decimal(k.Want))
	case *kind.Maximum:
		refused(decimal(k.Got), "is too large, at most %s", decimal(k.Want))
	case *kind.ExclusiveMinimum:
		refused(decimal(k.Got), "is too small, more than %s", decimal(k.Want))
	case *kind.ExclusiveMaximum:
		refused(decimal(k.Got), "is too large, less than %s", decimal(k.Want))
	case *kind.MultipleOf:
		refused(decimal(k.Got), "is not a multiple of %s", decimal(k.Want))
	case *kind.MinItems:
		wrong("has %d items, at least %d", k.Got, k.Want)
	case *kind.MaxItems:
		wrong("has %d items, at most %d", k.Got, k.Want)
	case *kind.UniqueItems:
		wrong("items %d and %d are equal", k.Duplicates[0], k.Duplicates[1])
	case *kind.MinLength:
		wrong("must not be shorter than %d characters", k.Want)
	case *kind.MaxLength:
		wrong("must not be longer than %d characters", k.Want)
	case *kind.MinProperties:
		if known := fieldNames(s.at(e.InstanceLocation)); len(known) > 0 {
			wrong("needs at least %d of %s", k.Want, strings.Join(known, ", "))
		} else {
			wrong("has %d entries, at least %d", k.Got, k.Want)
		}
	case *kind.MaxProperties:
		wrong("has %d entries, at most %d", k.Got, k.Want)
	case *kind.DependentRequired:
		wrong("%s needs %s, too", k.Prop, strings.Join(k.Missing, " and "))
	case *kind.FalseSchema:
		wrong("is not allowed here")
	case *kind.Pattern:
		refused(show(k.Got), "does not match %s", k.Want)
	case *kind.Format:
		refused(show(k.Got), "is no valid %s", strings.ReplaceAll(k.Want, "-", " "))
	default:
		if len(e.Causes) == 0 {
			wrong("is not valid (%T)", k)
		}
		for _, cause := range e.Causes {
			s.collect(cause, problems)
		}
	}
}

// problem is one with the value at a place. The message begins with what shows the value, if anything does.
func (s *Schema) problem(location []string, value, message string) Problem {
	return Problem{Path: Path(location...), Message: value + message, Veiled: strings.TrimSpace(Path(s.known(location)...) + " " + message)}
}

// Known is as much of a path in a config as is made of fields that the schema names, and of numbers of items.
func (s *Schema) Known(path string) string {
	steps := strings.FieldsFunc(path, func(r rune) bool { return strings.ContainsRune(".[]", r) })
	return Path(s.known(steps)...)
}

func (s *Schema) known(location []string) []string {
	at := []*jsonschema.Schema{s.root}
	for i, name := range location {
		var next []*jsonschema.Schema
		for len(at) > 0 {
			form := target(at[0])
			at = slices.Concat(at[1:], form.OneOf, form.AnyOf, form.AllOf)
			if _, err := strconv.Atoi(name); err == nil && form.Items2020 != nil {
				next = append(next, form.Items2020)
			} else if field, ok := form.Properties[name]; ok {
				next = append(next, field)
			}
		}
		if len(next) == 0 {
			return location[:i]
		}
		at = next
	}
	return location
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
		*problems = append(*problems, s.problem(e.InstanceLocation, "", fmt.Sprintf("must be %s, not %s", article(slices.Compact(types)), article([]string{got}))))
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
