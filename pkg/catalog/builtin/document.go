package builtin

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Field is what a schema says about one field, for documentation.
type Field struct {
	// Path of the field, for example `key_names` or `add.headers[]`.
	Path string
	// Type in words, with limits.
	Type string
	// Default as JSON, or in words; empty where there is none.
	Default        string
	DefaultInWords bool
	// Required fields have no default.
	Required bool
	// Description as it stands in the schema.
	Description string
}

// document is what the text of a schema says to people, in the order in which it was written.
type document struct {
	description string
	fields      []Field
}

// Description of the plugin.
func (s *Schema) Description() string { return s.doc.description }

// Fields in the order in which the schema lists them; the fields of a map follow it.
func (s *Schema) Fields() []Field { return s.doc.fields }

// Ignored are the fields that are accepted with a warning and have no effect, besides those that Kong has for every
// plugin.
func (s *Schema) Ignored() []string { return s.ignored[len(everywhereIgnored):] }

// node is a schema as it is documented.
type node struct {
	Description      string           `yaml:"description"`
	Type             yaml.Node        `yaml:"type"`
	Enum             []any            `yaml:"enum"`
	Const            any              `yaml:"const"`
	Format           string           `yaml:"format"`
	Default          yaml.Node        `yaml:"default"`
	WordsForDefault  string           `yaml:"x-default"`
	Minimum          *string          `yaml:"minimum"`
	Maximum          *string          `yaml:"maximum"`
	ExclusiveMinimum *string          `yaml:"exclusiveMinimum"`
	ExclusiveMaximum *string          `yaml:"exclusiveMaximum"`
	MinItems         *string          `yaml:"minItems"`
	MaxItems         *string          `yaml:"maxItems"`
	MinLength        *string          `yaml:"minLength"`
	MaxLength        *string          `yaml:"maxLength"`
	Required         []string         `yaml:"required"`
	Properties       yaml.Node        `yaml:"properties"`
	Additional       yaml.Node        `yaml:"additionalProperties"`
	Items            *node            `yaml:"items"`
	OneOf            []*node          `yaml:"oneOf"`
	AnyOf            []*node          `yaml:"anyOf"`
	Ref              string           `yaml:"$ref"`
	Defs             map[string]*node `yaml:"$defs"`
}

func mustDocument(text []byte) document {
	var root node
	if err := yaml.Unmarshal(text, &root); err != nil {
		panic(err)
	}
	r := reader{definitions: root.Defs}
	r.read(&root, "")
	return document{description: strings.TrimSpace(root.Description), fields: r.fields}
}

// reader collects fields.
type reader struct {
	definitions map[string]*node
	fields      []Field
}

func (r *reader) read(n *node, path string) {
	if n.Properties.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Properties.Content); i += 2 {
		name := n.Properties.Content[i].Value
		var field node
		if err := n.Properties.Content[i+1].Decode(&field); err != nil {
			panic(err)
		}
		at := name
		if path != "" {
			at = path + "." + name
		}
		r.field(&field, at, slices.Contains(n.Required, name))
	}
}

func (r *reader) field(n *node, path string, required bool) {
	n = r.target(n)
	r.fields = append(r.fields, Field{
		Path:           path,
		Type:           r.typeOf(n, false),
		Default:        defaultOf(n),
		DefaultInWords: n.WordsForDefault != "",
		Required:       required,
		Description:    strings.TrimSpace(n.Description),
	})
	for _, form := range append([]*node{n}, append(n.OneOf, n.AnyOf...)...) {
		form = r.target(form)
		r.read(form, path)
		if form.Items != nil {
			r.read(r.target(form.Items), path+"[]")
		}
		if other := additional(form); other != nil {
			r.read(r.target(other), path+".*")
		}
	}
}

// target follows a reference; what stands beside it, such as a description of the use, comes first.
func (r *reader) target(n *node) *node {
	if n.Ref == "" {
		return n
	}
	definition, ok := r.definitions[strings.TrimPrefix(n.Ref, "#/$defs/")]
	if !ok {
		panic(fmt.Sprintf("schema has no %s", n.Ref))
	}
	merged := *r.target(definition)
	if n.Description != "" {
		merged.Description = n.Description
	}
	if n.Default.Kind != 0 {
		merged.Default = n.Default
	}
	if n.WordsForDefault != "" {
		merged.WordsForDefault = n.WordsForDefault
	}
	return &merged
}

// typeOf says in words what a value looks like, or, with many, what several do.
func (r *reader) typeOf(n *node, many bool) string {
	n = r.target(n)
	var words []string
	switch forms := append(n.OneOf, n.AnyOf...); {
	case len(forms) > 0:
		for _, form := range forms {
			words = append(words, r.typeOf(form, many))
		}
	case len(n.Enum) > 0:
		for _, v := range n.Enum {
			words = append(words, fmt.Sprintf("`%v`", v))
		}
		return strings.Join(words, ", ")
	case n.Const != nil:
		return fmt.Sprintf("`%v`", n.Const)
	default:
		for _, t := range names(n.Type) {
			words = append(words, r.simpleType(n, t, many))
		}
	}
	return strings.Join(words, " or ")
}

// nouns are our words for JSON's types, where they are others.
var nouns = map[string]string{"array": "list", "object": "map"}

func (r *reader) simpleType(n *node, t string, many bool) string {
	noun := cmp.Or(nouns[t], t)
	if t == "string" && n.Format != "" {
		noun = strings.ReplaceAll(strings.TrimPrefix(n.Format, "http-"), "-", " ")
	}
	if many && t != "null" {
		noun += "s"
	}
	switch t {
	case "array":
		if n.Items != nil {
			noun += " of " + r.typeOf(n.Items, true)
		}
		return noun + counts(n.MinItems, n.MaxItems, "")
	case "object":
		if other := additional(n); other != nil {
			noun += " to " + r.typeOf(other, false)
		}
	case "integer", "number":
		return strings.TrimSpace(noun + " " + limits(n))
	case "string":
		if !many {
			return noun + counts(n.MinLength, n.MaxLength, " characters")
		}
	}
	return noun
}

// counts says how many of something there may be.
func counts(least, most *string, what string) string {
	switch {
	case least != nil && most != nil && *least == *most:
		return ", exactly " + *least + what
	case least != nil && most != nil && *least != "0":
		return ", " + *least + " to " + *most + what
	case most != nil:
		return ", at most " + *most + what
	case least != nil && *least != "0":
		return ", at least " + *least + what
	}
	return ""
}

func limits(n *node) string {
	switch {
	case n.Minimum != nil && n.Maximum != nil:
		return *n.Minimum + " to " + *n.Maximum
	case n.Minimum != nil:
		return "from " + *n.Minimum
	case n.ExclusiveMinimum != nil && n.Maximum != nil:
		return "above " + *n.ExclusiveMinimum + ", to " + *n.Maximum
	case n.ExclusiveMinimum != nil:
		return "above " + *n.ExclusiveMinimum
	case n.Maximum != nil:
		return "to " + *n.Maximum
	case n.ExclusiveMaximum != nil:
		return "below " + *n.ExclusiveMaximum
	}
	return ""
}

// names are the words of a type, which is one or a list.
func names(n yaml.Node) []string {
	if n.Kind == yaml.SequenceNode {
		var out []string
		for _, c := range n.Content {
			out = append(out, c.Value)
		}
		return out
	}
	if n.Kind == yaml.ScalarNode {
		return []string{n.Value}
	}
	return nil
}

// additional is the schema of the values of a map with free names, if it is one.
func additional(n *node) *node {
	if n.Additional.Kind != yaml.MappingNode {
		return nil
	}
	var other node
	if err := n.Additional.Decode(&other); err != nil {
		panic(err)
	}
	return &other
}

func defaultOf(n *node) string {
	if n.WordsForDefault != "" {
		return n.WordsForDefault
	}
	if n.Default.Kind == 0 {
		return ""
	}
	var value any
	if err := n.Default.Decode(&value); err != nil {
		panic(err)
	}
	return encode(value)
}
