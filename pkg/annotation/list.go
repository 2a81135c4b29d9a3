package annotation

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
)

// parseYAML reads the YAML and JSON form.
func parseYAML(text string) ([]Entry, *Problem) {
	root, err := readTree(text)
	if err != nil {
		return nil, &Problem{Message: fmt.Sprintf("this is not valid YAML, as which it is read because it starts with %q: %v",
			strings.TrimLeft(text, blanks)[:1], err)}
	}
	items := root.Content
	if root.Kind == yaml.MappingNode {
		items = []*yaml.Node{root}
	} else if message := refused(root); message != "" {
		return nil, &Problem{Message: message}
	}
	entries := make([]Entry, len(items))
	for i, item := range items {
		entries[i] = parseEntry(fmt.Sprintf("[%d]", i), item)
	}
	return entries, nil
}

func parseEntry(place string, n *yaml.Node) Entry {
	e := Entry{Place: place}
	if message := unsupported(n, 1+MaxDepth); message != "" { // one level for the entry's own map
		e.problem("", "%s", message)
		return e
	}
	switch n.Kind {
	case yaml.MappingNode:
		e.setFields(n)
	case yaml.SequenceNode:
		e.problem("", "a list is no entry: write the plugin's name, or a map with a name")
	default:
		name, message := text(n, "a name")
		if message == "" {
			message = e.setName(name)
		}
		if message != "" {
			e.problem("", "%s", message)
		}
	}
	return e
}

// fields are the fields of an entry's map. Each reads its value into the entry and says what is wrong with it.
var fields = []struct {
	name string
	read func(*Entry, *yaml.Node)
}{
	{"name", (*Entry).readName},
	{"routes", (*Entry).readRoutes},
	{"config", (*Entry).readConfig},
	{"disabled", (*Entry).readDisabled},
	{"override", (*Entry).readOverride},
}

// setFields reads an entry's map, field by field in the order above, so that what is said does not depend on theirs.
func (e *Entry) setFields(n *yaml.Node) {
	given := e.given(n)
	if _, ok := given["name"]; !ok {
		e.problem(".name", "is required")
	}
	for _, f := range fields {
		if value := given[f.name]; value != nil {
			f.read(e, value)
		}
	}
	if e.OptOut {
		for _, field := range []string{"config", "override"} {
			if _, ok := given[field]; ok {
				e.problem("."+field, "an opt-out takes no %s: leave it out", field)
			}
		}
	}
	for i := range e.Problems {
		e.Problems[i].Routes = e.Routes
	}
}

// given are the fields that a map has. Unknown and repeated ones are problems; a repeated one is nil, since nobody can
// tell which of its values is meant.
func (e *Entry) given(n *yaml.Node) map[string]*yaml.Node {
	known := make([]string, len(fields))
	for i, f := range fields {
		known[i] = f.name
	}
	given := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i < len(n.Content); i += 2 {
		name, message := mapKey(n.Content[i])
		earlier, twice := given[name]
		near, likely := finding.Nearest(name, known)
		switch {
		case message != "":
			e.problem("", "%s", message)
		case twice && earlier != nil:
			e.problem("."+name, "is given more than once")
			given[name] = nil
		case twice:
		case slices.Contains(known, name):
			given[name] = n.Content[i+1]
		case likely:
			e.problem("", "unknown field %s, did you mean %q?", quote(name), near)
		default:
			e.problem("", "unknown field %s, known ones are %s", quote(name), strings.Join(known, ", "))
		}
	}
	return given
}

func (e *Entry) readName(n *yaml.Node) {
	name, message := text(n, "a name")
	if message == "" {
		message = e.setName(name)
	}
	if message != "" {
		e.problem(".name", "%s", message)
	}
}

// readRoutes sets Routes only if all of them are known, since a problem then covers no more than these.
func (e *Entry) readRoutes(n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		e.problem(".routes", "must be a list of route names, not %s", kind(n))
		return
	}
	if len(n.Content) == 0 {
		e.problem(".routes", "is empty: name at least one route, or leave routes out for all")
		return
	}
	routes := make([]string, 0, len(n.Content))
	for i, item := range n.Content {
		route, message := text(item, "a route's name")
		if message == "" && route == "" {
			message = "the name is empty"
		}
		if message != "" {
			e.problem(fmt.Sprintf(".routes[%d]", i), "%s", message)
			continue
		}
		routes = append(routes, route)
	}
	if len(routes) == len(n.Content) {
		e.Routes = routes
	}
}

func (e *Entry) readConfig(n *yaml.Node) {
	if kind(n) == config.Kind(nil) {
		return
	}
	if n.Kind != yaml.MappingNode {
		e.problem(".config", "must be a map, not %s", kind(n))
		return
	}
	v, ok := e.value(".config", n).(map[string]any)
	if ok {
		e.Config = v
	}
}

func (e *Entry) readDisabled(n *yaml.Node) {
	disabled, ok := e.boolean(".disabled", n)
	if ok && !disabled && e.OptOut {
		e.problem(".disabled", "is false, but the \"-\" of the name opts out: leave one of them out")
	}
	e.OptOut = e.OptOut || disabled
}

func (e *Entry) readOverride(n *yaml.Node) {
	e.Override, _ = e.boolean(".override", n)
}

func (e *Entry) boolean(path string, n *yaml.Node) (value, ok bool) {
	if n.Kind == yaml.ScalarNode {
		if v, err := scalar(n); err == nil {
			value, ok = v.(bool)
		}
	}
	if !ok {
		e.problem(path, "must be true or false, not %s", kind(n))
	}
	return value, ok
}

// value is the JSON value of a config's tree. What cannot be JSON is a problem, and nil.
func (e *Entry) value(path string, n *yaml.Node) any {
	switch n.Kind {
	case yaml.MappingNode:
		out := make(map[string]any, len(n.Content)/2)
		for i := 0; i < len(n.Content); i += 2 {
			name, message := mapKey(n.Content[i])
			if _, twice := out[name]; twice && message == "" {
				message = fmt.Sprintf("%s is given more than once", quote(name))
			}
			if message != "" {
				e.problem(path, "%s", message)
				continue
			}
			out[name] = e.value(path+"."+name, n.Content[i+1])
		}
		return out
	case yaml.SequenceNode:
		out := make([]any, len(n.Content))
		for i, item := range n.Content {
			out[i] = e.value(fmt.Sprintf("%s[%d]", path, i), item)
		}
		return out
	}
	v, err := scalar(n)
	if err != nil {
		e.problem(path, "%v", err)
	}
	return v
}

// mapKey is the text of a map's key. A number that is written as JSON writes integers is as good as a string; other
// scalars would be rewritten on their way to a key (1.0 to 1, on to true), which nobody means.
func mapKey(n *yaml.Node) (name, message string) {
	if n.Kind != yaml.ScalarNode {
		return "", fmt.Sprintf("%s is no field name: write a string", kind(n))
	}
	v, err := scalar(n)
	if number, ok := v.(json.Number); ok && !strings.ContainsAny(number.String(), ".eE") {
		return number.String(), ""
	}
	if err == nil && n.ShortTag() == "!!merge" {
		return "", "YAML's merge key << is not supported here: write the fields out"
	}
	return text(n, "a field name")
}

// text is the text of a string. For other scalars the message explains how YAML read them, because people who write on
// or 1.0 for a name rarely know that it is none.
func text(n *yaml.Node, what string) (value, message string) {
	if n.Kind != yaml.ScalarNode {
		return "", fmt.Sprintf("must be a string, not %s", kind(n))
	}
	v, err := scalar(n)
	switch s, ok := v.(string); {
	case ok:
		return s, ""
	case err == nil && v == nil && n.Value == "":
		return "", fmt.Sprintf("is empty, which is null in YAML, not %s", what)
	}
	return "", fmt.Sprintf("%s is %s in YAML, not %s: write %s in quotes", cut(n.Value), kind(n), what, quote(n.Value))
}

// kind names the type of a tree for messages.
func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return config.Kind(map[string]any{})
	case yaml.SequenceNode:
		return config.Kind([]any{})
	}
	v, err := scalar(n)
	if err != nil {
		return config.Kind(json.Number(""))
	}
	return config.Kind(v)
}
