package annotation

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// readTree parses YAML or JSON. JSON is read by a JSON parser, since YAML parsers refuse some of it (the surrogate
// pairs that many JSON writers make of an emoji, keys of more than 1,024 bytes).
func readTree(text string) (*yaml.Node, error) {
	if json.Valid([]byte(text)) {
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		return jsonTree(d)
	}
	d := yaml.NewDecoder(strings.NewReader(text))
	var doc, more yaml.Node
	if err := d.Decode(&doc); err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	switch err := d.Decode(&more); {
	case err == nil:
		return nil, fmt.Errorf("line %d: a second YAML document starts, there may be one only", more.Line)
	case !errors.Is(err, io.EOF):
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	return doc.Content[0], nil
}

// jsonTree reads the next value of a valid JSON text.
func jsonTree(d *json.Decoder) (*yaml.Node, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token := token.(type) {
	case json.Delim:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		if token == '{' {
			n.Kind = yaml.MappingNode
		}
		for d.More() {
			child, err := jsonTree(d)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		_, err := d.Token()
		return n, err
	case string:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: token}, nil
	case json.Number:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: token.String()}, nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(token)}, nil
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
}

// unsupported says what in a tree is refused, or nothing. Maps and lists may be nested up to so many levels.
func unsupported(n *yaml.Node, levels int) string {
	if message := refused(n); message != "" {
		return message
	}
	if levels == 0 && n.Kind != yaml.ScalarNode {
		return fmt.Sprintf("the config is nested more than %d levels deep", MaxDepth)
	}
	for _, child := range n.Content {
		if message := unsupported(child, levels-1); message != "" {
			return message
		}
	}
	return ""
}

// refused says why a node is refused, or nothing: anchors and aliases, because with them a short text can mean a huge
// value, and tags, because with them a value can mean something else than kubectl reads.
func refused(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.AliasNode:
		return fmt.Sprintf("the YAML alias *%s is not supported here: write the value out", cut(n.Value))
	case n.Anchor != "":
		return fmt.Sprintf("the YAML anchor &%s is not supported here: leave it out", cut(n.Anchor))
	case n.Style&yaml.TaggedStyle != 0:
		return fmt.Sprintf("the YAML tag %s is not supported here: leave it out", cut(n.Tag))
	}
	return ""
}

// booleans are the plain scalars that YAML 1.1, and with it kubectl, reads as booleans.
var booleans = func() map[string]bool {
	all := map[string]bool{"y": true, "Y": true, "n": false, "N": false}
	for word, value := range map[string]bool{"yes": true, "no": false, "true": true, "false": false, "on": true, "off": false} {
		all[word], all[strings.ToUpper(word[:1])+word[1:]], all[strings.ToUpper(word)] = value, value, value
	}
	return all
}()

var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)

// scalar is the JSON value of a scalar: a string, a boolean, a json.Number or nil.
func scalar(n *yaml.Node) (any, error) {
	const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	if n.Style&quoted != 0 {
		return n.Value, nil
	}
	if value, ok := booleans[n.Value]; ok {
		return value, nil
	}
	if jsonNumber.MatchString(n.Value) {
		return json.Number(n.Value), nil
	}
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!int", "!!float":
		return yamlNumber(n)
	}
	return n.Value, nil
}

// yamlNumber turns what only YAML takes for a number, such as 0x1F, 1_000 or .5, into JSON's notation.
func yamlNumber(n *yaml.Node) (any, error) {
	var v any
	if err := n.Decode(&v); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%s is no number that JSON can hold", cut(n.Value))
	}
	return json.Number(raw), nil
}
