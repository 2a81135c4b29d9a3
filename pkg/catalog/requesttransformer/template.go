package requesttransformer

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Templates in values: `$(headers.name)`, `$(headers["x-name"])`, `$(query_params.name)`, each with an optional
// `or "text"`. Kong evaluates any Lua expression there; a gateway that many tenants share must not.

// reference is what a template takes from the request.
type reference struct {
	// from is headers or query_params.
	from, name string
}

// piece of a template: a text, or a reference with what stands for it where the request has no such thing.
type piece struct {
	text      string
	reference *reference
	absent    string
}

var expression = regexp.MustCompile(`^\$\(\s*(?P<from>headers|query_params)` +
	`(?:\.(?P<name>[A-Za-z_][A-Za-z0-9_]*)|\[\s*(?:"(?P<double>[^"\\]+)"|'(?P<single>[^'\\]+)')\s*\])` +
	`\s*(?:\bor\b\s*(?:"(?P<ordouble>[^"\\]*)"|'(?P<orsingle>[^'\\]*)')\s*)?\)`)

// parseTemplate cuts a value into texts and references.
func parseTemplate(value string) ([]piece, error) {
	var pieces []piece
	for value != "" {
		start := strings.Index(value, "$(")
		if start < 0 {
			return append(pieces, piece{text: value}), nil
		}
		if start > 0 {
			pieces = append(pieces, piece{text: value[:start]})
			value = value[start:]
		}
		m := expression.FindStringSubmatch(value)
		if m == nil {
			return nil, fmt.Errorf(`%s is no template that is understood; there are $(headers.name), $(headers["x-name"]), `+
				`$(query_params.name) and $(query_params["name"]), each with an optional or "text"`, firstExpression(value))
		}
		part := func(names ...string) string {
			for _, n := range names {
				if v := m[expression.SubexpIndex(n)]; v != "" {
					return v
				}
			}
			return ""
		}
		pieces = append(pieces, piece{
			reference: &reference{from: part("from"), name: part("name", "double", "single")},
			absent:    part("ordouble", "orsingle"),
		})
		value = value[len(m[0]):]
	}
	return pieces, nil
}

// firstExpression is the text of a `$(` as far as its `)`, for messages.
func firstExpression(value string) string {
	if end := strings.IndexByte(value, ')'); end >= 0 {
		return value[:end+1]
	}
	return value
}

// hasTemplate says whether a value has something that looks like a template.
func hasTemplate(value string) bool { return strings.Contains(value, "$(") }

// references collects what all templates of a config take from the request, each once, so that it is looked up once
// and before anything is changed.
type references []reference

// use returns the number of r, from 1 as Lua counts.
func (rs *references) use(r reference) int {
	if i := slices.Index(*rs, r); i >= 0 {
		return i + 1
	}
	*rs = append(*rs, r)
	return len(*rs)
}

// list writes the references for handler.lua.
func (rs *references) list() []any {
	list := make([]any, len(*rs))
	for i, r := range *rs {
		list[i] = map[string]any{"from": r.from, "name": r.name}
	}
	return list
}

// lua writes pieces for handler.lua: a text alone as itself, else a list.
func (rs *references) lua(pieces []piece) any {
	if len(pieces) == 1 && pieces[0].reference == nil {
		return pieces[0].text
	}
	list := make([]any, len(pieces))
	for i, p := range pieces {
		if p.reference == nil {
			list[i] = p.text
			continue
		}
		list[i] = map[string]any{"reference": int64(rs.use(*p.reference)), "default": p.absent}
	}
	return list
}
