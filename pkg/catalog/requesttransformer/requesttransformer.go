// Package requesttransformer is the built-in request-transformer: it changes method, path, headers, query and body of
// a request before it goes upstream.
package requesttransformer

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/requesttransformer/edit"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed schema.yaml
var schema []byte

//go:embed handler.lua
var handler string

// Builtin is request-transformer.
var Builtin = &builtin.Builtin{
	Name:    "request-transformer",
	Schema:  builtin.MustSchema(schema),
	Answers: true,
	Build:   build,
}

// framing are the headers that say where a message ends and how long its connection lasts.
var framing = []string{"content-length", "transfer-encoding", "connection"}

type targets struct {
	Headers     []string `json:"headers"`
	Querystring []string `json:"querystring"`
	Body        []string `json:"body"`
	URI         *string  `json:"uri"`
}

type settings struct {
	Method       string      `json:"http_method"`
	Remove       targets     `json:"remove"`
	Rename       targets     `json:"rename"`
	Replace      targets     `json:"replace"`
	Add          targets     `json:"add"`
	Append       targets     `json:"append"`
	MaxBodyBytes json.Number `json:"max_body_bytes"`
}

// lists are the entries of one target.
func (s settings) lists(of func(targets) []string) edit.Lists {
	return edit.Lists{"remove": of(s.Remove), "rename": of(s.Rename), "replace": of(s.Replace), "add": of(s.Add), "append": of(s.Append)}
}

func build(use builtin.Use, v config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(v, &s)
	var c compiler
	lua := config.Value{
		"headers":        c.headers(s.lists(func(t targets) []string { return t.Headers })),
		"querystring":    c.fields("querystring", s.lists(func(t targets) []string { return t.Querystring })),
		"body":           c.fields("body", s.lists(func(t targets) []string { return t.Body })),
		"max_body_bytes": s.MaxBodyBytes,
	}
	if s.Method != "" {
		lua["http_method"] = c.method(s.Method)
	}
	if s.Replace.URI != nil {
		lua["uri"] = c.uri(*s.Replace.URI)
	}
	lua["references"] = c.references.list()
	for _, p := range c.problems {
		if !p.Warning {
			return nil, c.problems
		}
	}
	return []part.Part{part.Lua{Plugin: use.Plugin, Source: edit.Source(handler), Config: lua, FailOpen: use.FailOpen}}, c.problems
}

// compiler turns the settings into what handler.lua gets, and collects what is wrong with them on the way.
type compiler struct {
	problems   []builtin.Problem
	references references
}

func (c *compiler) refuse(path, format string, args ...any) {
	c.problems = append(c.problems, builtin.Problem{Path: path, Message: fmt.Sprintf(format, args...)})
}

func (c *compiler) headers(lists edit.Lists) any {
	rules, problems := edit.Parse("headers", lists)
	c.problems = append(c.problems, problems...)
	rules, problems = edit.Headers(rules, framing)
	c.problems = append(c.problems, problems...)
	return c.authority(rules).Lua(c.value)
}

func (c *compiler) fields(target string, lists edit.Lists) any {
	rules, problems := edit.Parse(target, lists)
	c.problems = append(c.problems, problems...)
	for _, operation := range edit.Operations {
		for _, r := range rules[operation] {
			if hasTemplate(r.Name) || operation == "rename" && hasTemplate(r.Value) {
				c.refuse(r.Path, "a name cannot be a template")
			}
		}
	}
	return rules.Lua(c.value)
}

// isHost is what edit.lua takes for one.
var isHost = regexp.MustCompile(`^[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]]+$`)

// authority holds the rules for Host, which is a header of its own kind: every request has exactly one.
func (c *compiler) authority(rules edit.Rules) edit.Rules {
	const host, authority = "host", ":authority"
	out := make(edit.Rules, len(rules))
	for operation, list := range rules {
		for _, r := range list {
			switch {
			case r.Name == host && operation == "append":
				c.refuse(r.Path, "a request has one Host, use replace")
				continue
			case r.Name == host && operation != "replace":
				c.problems = append(c.problems, builtin.Problem{Path: r.Path, Warning: true, Message: "Host is always there and is left as it is, use replace"})
				continue
			case r.Name == host:
				r.Name = authority
				if !hasTemplate(r.Value) && !isHost.MatchString(r.Value) {
					c.refuse(r.Path, "%q is no host such as example.com or example.com:8080", r.Value)
				}
			case operation == "rename" && r.Value == host:
				r.Value = authority
			}
			out[operation] = append(out[operation], r)
		}
	}
	return out
}

func (c *compiler) value(r edit.Rule, _ string, _ int) any {
	return c.references.lua(c.template(r.Path, r.Value))
}

func (c *compiler) template(path, text string) []piece {
	pieces, err := parseTemplate(text)
	if err != nil {
		c.refuse(path, "%v", err)
	}
	for _, p := range pieces {
		if r := p.reference; r != nil && r.from == "headers" && !edit.Token(r.name) {
			c.refuse(path, "%q is no header name", r.name)
		}
	}
	return pieces
}

func (c *compiler) method(name string) string {
	method := strings.ToUpper(name)
	if method == "CONNECT" {
		c.refuse("http_method", "CONNECT opens a tunnel, which no other request can become")
	}
	return method
}

// uri writes the new path with all that a path cannot hold percent-encoded, `?` and `#` included. A `%` stays where
// two hex digits follow. Values of references are encoded when they are known.
func (c *compiler) uri(text string) any {
	pieces := c.template("replace.uri", text)
	if len(pieces) > 0 && pieces[0].reference == nil && !strings.HasPrefix(pieces[0].text, "/") {
		c.refuse("replace.uri", "%q does not begin with /", text)
	}
	for i := range pieces {
		pieces[i].text = escapePath(pieces[i].text)
	}
	return c.references.lua(pieces)
}

func escapePath(text string) string {
	const plain = "-._~/!$&'()*+,;=:@"
	var b strings.Builder
	for i := range len(text) {
		ch := text[i]
		switch {
		case 'a' <= ch && ch <= 'z' || 'A' <= ch && ch <= 'Z' || '0' <= ch && ch <= '9' || strings.IndexByte(plain, ch) >= 0:
			b.WriteByte(ch)
		case ch == '%' && i+2 < len(text) && isHex(text[i+1]) && isHex(text[i+2]):
			b.WriteByte(ch)
		default:
			fmt.Fprintf(&b, "%%%02X", ch)
		}
	}
	return b.String()
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}
