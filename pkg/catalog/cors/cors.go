// Package cors is the built-in plugin cors: it answers preflights and adds CORS headers. schema.yaml documents it.
//
// Envoy's own CORS filter takes its policy from routes, which plugins do not change, so this is Lua. Lua has no
// regular expressions; where there are some, the plugin is three parts:
//
//	Lua     writes the request's origin, normalised, to dynamic metadata
//	rbac    matches it by RE2, in shadow mode: it decides nothing and only writes down whether a policy matched
//	Lua     reads that, and acts
package cors

import (
	_ "embed"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed schema.yaml
var schema []byte

//go:embed handler.lua
var handler string

// Builtin is the plugin.
var Builtin = &builtin.Builtin{
	Name:   "cors",
	Schema: builtin.MustSchema(schema),
	Build:  build,
}

type settings struct {
	Origins           []string    `json:"origins"`
	Methods           []string    `json:"methods"`
	Headers           []string    `json:"headers"`
	ExposedHeaders    []string    `json:"exposed_headers"`
	MaxAge            json.Number `json:"max_age"`
	Credentials       bool        `json:"credentials"`
	PrivateNetwork    bool        `json:"private_network"`
	PreflightContinue bool        `json:"preflight_continue"`
	AllowOriginAbsent bool        `json:"allow_origin_absent"`
}

func build(use builtin.Use, c config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(c, &s)
	rules, problems := parseOrigins(s.Origins)
	chunk := config.Value{
		"methods":             strings.Join(s.Methods, ","),
		"credentials":         s.Credentials,
		"private_network":     s.PrivateNetwork,
		"preflight_continue":  s.PreflightContinue,
		"allow_origin_absent": s.AllowOriginAbsent,
	}
	if len(s.Headers) > 0 {
		chunk["headers"] = strings.Join(s.Headers, ",")
	}
	if len(s.ExposedHeaders) > 0 {
		chunk["exposed_headers"] = strings.Join(s.ExposedHeaders, ",")
	}
	if s.MaxAge != "" {
		chunk["max_age"] = plainNumber(s.MaxAge)
	}
	lua := func(c config.Value) part.Part {
		return part.Lua{Plugin: use.Plugin, Source: handler, Config: c, FailOpen: use.FailOpen}
	}
	switch {
	case rules.all:
		chunk["all"] = true
	case rules.single != "":
		chunk["single"] = rules.single
	default:
		chunk["plain"] = rules.plain
	}
	if len(rules.expressions) == 0 {
		return []part.Part{lua(chunk)}, problems
	}
	chunk["result"] = shadowPrefix(use.Instance) + "shadow_engine_result"
	return []part.Part{
		lua(config.Value{"publish": use.Instance}),
		part.Native{Config: shadow(use.Instance, rules.expressions)},
		lua(chunk),
	}, problems
}

// plainNumber writes a number without exponent, as a header wants it.
func plainNumber(n json.Number) string {
	f, err := n.Float64()
	if err != nil {
		panic(err) // the schema has limits that a float64 holds
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}
