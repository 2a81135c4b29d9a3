// Package responsetransformer is the built-in response-transformer: it changes headers and the JSON body of a response.
package responsetransformer

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
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

// Builtin is response-transformer.
var Builtin = &builtin.Builtin{
	Name:   "response-transformer",
	Schema: builtin.MustSchema(schema),
	Build:  build,
}

// framing are the headers that say where a message ends.
var framing = []string{"content-length", "transfer-encoding"}

type targets struct {
	Headers []string `json:"headers"`
	JSON    []string `json:"json"`
	Types   []string `json:"json_types"`
}

type settings struct {
	Remove       targets     `json:"remove"`
	Rename       targets     `json:"rename"`
	Replace      targets     `json:"replace"`
	Add          targets     `json:"add"`
	Append       targets     `json:"append"`
	MaxBodyBytes json.Number `json:"max_body_bytes"`
}

func (s settings) targets() map[string]targets {
	return map[string]targets{"remove": s.Remove, "rename": s.Rename, "replace": s.Replace, "add": s.Add, "append": s.Append}
}

func build(use builtin.Use, v config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(v, &s)
	headerLists, jsonLists := edit.Lists{}, edit.Lists{}
	for operation, t := range s.targets() {
		headerLists[operation], jsonLists[operation] = t.Headers, t.JSON
	}
	headers, problems := edit.Parse("headers", headerLists)
	headers, more := edit.Headers(headers, framing)
	problems = append(problems, more...)
	fields, more := edit.Parse("json", jsonLists)
	problems = append(problems, more...)
	values, more := typed(fields, s.targets())
	problems = append(problems, more...)
	for _, p := range problems {
		if !p.Warning {
			return nil, problems
		}
	}
	lua := config.Value{
		"headers":        headers.Lua(func(r edit.Rule, _ string, _ int) any { return r.Value }),
		"json":           values,
		"max_body_bytes": s.MaxBodyBytes,
	}
	return []part.Part{part.Lua{Plugin: use.Plugin, Source: edit.Source(handler), Config: lua, FailOpen: use.FailOpen}}, problems
}

// typed are the rules with each value as the JSON text that its type makes of it. Values that their type cannot be
// made of are left out, as Kong does, with a warning.
func typed(rules edit.Rules, t map[string]targets) (map[string]any, []builtin.Problem) {
	var problems []builtin.Problem
	warn := func(path, format string, args ...any) {
		problems = append(problems, builtin.Problem{Path: path, Message: fmt.Sprintf(format, args...), Warning: true})
	}
	for _, operation := range edit.Operations {
		if entries, types := len(t[operation].JSON), len(t[operation].Types); types > entries {
			warn(operation+".json_types", "has %d types for the %d entries of %s.json", types, entries, operation)
		}
	}
	lua := rules.Lua(func(r edit.Rule, operation string, i int) any {
		types := t[operation].Types
		if i >= len(types) {
			return quoted(r.Value)
		}
		switch types[i] {
		case "boolean":
			return strconv.FormatBool(r.Value == "true")
		case "number":
			number, ok := number(r.Value)
			if !ok {
				warn(r.Path, "%q is no number, the entry is left out", r.Value)
				return nil
			}
			return number
		}
		return quoted(r.Value)
	})
	return lua, problems
}

func quoted(text string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(text); err != nil {
		panic(err) // a string encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}

var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// number is the JSON text of a number. A text that JSON knows stays as it is, so that no digit is lost.
func number(text string) (string, bool) {
	text = strings.TrimSpace(text)
	if jsonNumber.MatchString(text) {
		return text, true
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return "", false
	}
	return strconv.FormatFloat(f, 'g', -1, 64), true
}
