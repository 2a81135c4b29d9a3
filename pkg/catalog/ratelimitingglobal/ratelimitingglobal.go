// Package ratelimitingglobal is the built-in rate-limiting-global: a limit of requests per identity and window of time, which
// a rate limit service counts for all gateways together. schema.yaml documents it.
//
// The service's own configuration is the same whatever plugins there are: it counts, up to a limit that nobody reaches, and
// Lua compares. With Envoy's ratelimit filter each Plugin's limits would have to be configured there, too, and where one is
// missing nobody would be limited. (Envoy 1.40 could send them with the question, as overrides, but envoyproxy/ratelimit
// never forgets the statistics that it makes for each identity of those: envoyproxy/ratelimit#275.)
package ratelimitingglobal

import (
	_ "embed"
	"slices"
	"time"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/callout"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/ratelimiting"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed schema.yaml
var schema []byte

//go:embed handler.lua
var handler string

// Builtin is the plugin.
var Builtin = &builtin.Builtin{
	Name:    "rate-limiting-global",
	Schema:  builtin.MustSchema(schema),
	Answers: true,
	Failing: "what fault_tolerant says if its service fails",
	Build:   build,
}

type settings struct {
	ratelimiting.Settings
	Service       callout.Service `json:"service"`
	Domain        string          `json:"domain"`
	FaultTolerant bool            `json:"fault_tolerant"`
	Timeout       string          `json:"timeout"`
}

func build(use builtin.Use, v config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(v, &s)
	windows := s.Windows()
	service, unknown := callout.Find(use, s.Service, true)
	timeout, wrong := callout.Timeout("timeout", s.Timeout)
	if len(wrong) == 0 && timeout%time.Millisecond != 0 {
		wrong = []builtin.Problem{{Path: "timeout", Message: s.Timeout + " has a fraction of a millisecond"}}
	}
	problems := slices.Concat(ratelimiting.Check(s.Settings, windows), unknown, wrong)
	if slices.ContainsFunc(problems, func(p builtin.Problem) bool { return !p.Warning }) {
		return nil, problems
	}
	c := ratelimiting.LuaConfig(s.Settings, windows, use.Key())
	limits := make([]any, len(windows))
	for i, w := range windows {
		limits[i] = int64(w.Limit)
	}
	c["limits"] = limits
	c["common"] = s.Scope == "plugin"
	c["domain"] = s.Domain
	c["timeout"] = timeout.Milliseconds()
	c["fault_tolerant"] = s.FaultTolerant
	asks := use.Lua(ratelimiting.Source(handler), c)
	asks.Services = map[string]part.Service{"limits": service}
	asks.State = ratelimiting.StateOf(s.Scope)
	return []part.Part{asks}, problems
}
