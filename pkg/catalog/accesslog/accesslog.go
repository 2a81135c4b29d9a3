// Package accesslog is the built-in access-log: it puts what plugins know into the gateway's access log. schema.yaml
// documents it.
package accesslog

import (
	_ "embed"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed schema.yaml
var schema []byte

//go:embed handler.lua
var handler string

// Builtin is access-log.
var Builtin = &builtin.Builtin{
	Name:   "access-log",
	Schema: builtin.MustSchema(schema),
	Build:  build,
}

// sampled is the field that marks a share of the requests.
const sampled = "sampled"

// fieldName is what a log format can name: `:` and `)` end a name there.
var fieldName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,63}$`)

// headerName is that of a header, or of what HTTP/2 has in the place of a request line.
var headerName = regexp.MustCompile("^:?[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

type settings struct {
	Fields map[string]string `json:"fields"`
}

func build(use builtin.Use, v config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(v, &s)
	var problems []builtin.Problem
	fields := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(s.Fields)) {
		add := func(message string, warning bool) {
			problems = append(problems, builtin.Problem{Path: builtin.Path("fields", name), Message: message, Warning: warning})
		}
		switch {
		case name == sampled:
			add("is set by sample", false)
		case !fieldName.MatchString(name):
			add("is no name of a field: up to 64 letters, digits, `_`, `-` and `.`, the first a letter or `_`", false)
		}
		pieces, err := parse(s.Fields[name])
		if err != nil {
			add(err.Error(), false)
			continue
		}
		var list []any
		for _, p := range pieces {
			if p.holdsCredentials() {
				add(fmt.Sprintf("puts credentials, those of header %s, into the log", p.name), true)
			}
			if strings.HasSuffix(p.from, "headers") && !headerName.MatchString(p.name) {
				add(fmt.Sprintf("%q is no name of a header", p.name), false)
			}
			list = append(list, p.lua())
		}
		fields[name] = list
	}
	if slices.ContainsFunc(problems, func(p builtin.Problem) bool { return !p.Warning }) {
		return nil, problems
	}
	return []part.Part{use.Lua(handler, config.Value{"fields": fields, "sample": v["sample"]})}, problems
}

// piece of a value: a text, or a reference.
type piece struct {
	text string
	// from is headers, response_headers, consumer or rejected_by; empty for a text.
	from string
	// name of the header, or field of the consumer.
	name string
}

var reference = regexp.MustCompile(`^\$\(\s*(?:(?P<headers>headers|response_headers)` +
	`(?:\.(?P<name>[A-Za-z_][A-Za-z0-9_]*)|\[\s*(?:"(?P<double>[^"\\]+)"|'(?P<single>[^'\\]+)')\s*\])` +
	`|consumer\.(?P<consumer>id|username|custom_id|name|groups|credential_id)|(?P<rejected>rejected_by))\s*\)`)

// parse cuts a value into texts and references.
func parse(value string) ([]piece, error) {
	var pieces []piece
	for value != "" {
		start := strings.Index(value, "$(")
		if start != 0 {
			if start < 0 {
				start = len(value)
			}
			pieces = append(pieces, piece{text: value[:start]})
			value = value[start:]
			continue
		}
		m := reference.FindStringSubmatch(value)
		if m == nil {
			whole, _, _ := strings.Cut(value, ")")
			return nil, fmt.Errorf(`%s) is not understood; there are $(headers.name), $(headers["x-name"]), $(response_headers.name), `+
				`$(consumer.username) (or id, custom_id, name, groups, credential_id) and $(rejected_by)`, whole)
		}
		group := func(name string) string { return m[reference.SubexpIndex(name)] }
		p := piece{from: group("headers")}
		switch {
		case group("rejected") != "":
			p.from = "rejected_by"
		case group("consumer") != "":
			p.from, p.name = "consumer", group("consumer")
		case group("name") != "":
			p.name = strings.ReplaceAll(group("name"), "_", "-")
		default:
			p.name = group("double") + group("single")
		}
		pieces = append(pieces, p)
		value = value[len(m[0]):]
	}
	return pieces, nil
}

func (p piece) holdsCredentials() bool {
	credentials := []string{"authorization", "proxy-authorization", "cookie", "set-cookie"}
	return strings.HasSuffix(p.from, "headers") && slices.Contains(credentials, strings.ToLower(p.name))
}

// lua writes a piece for handler.lua: a text as itself.
func (p piece) lua() any {
	if p.from == "" {
		return p.text
	}
	return map[string]any{"from": p.from, "name": p.name}
}
