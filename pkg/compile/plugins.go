package compile

import (
	"maps"
	"slices"
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
)

// tally counts what became of a Plugin.
type tally struct {
	runs      []string
	skips     int
	workloads map[string]bool
}

// plugins says of every Plugin which routes run it and what is wrong with it. One that no route names is judged as if a
// route named it alone.
func (c *compilation) plugins(r *Result, services []*service) []PluginUse {
	tallies := map[*resolve.Plugin]*tally{}
	for _, s := range services {
		for _, g := range s.Groups {
			for i, name := range s.composed.names {
				tallyRoute(tallies, g.Route(name), s.labels[i], s.Workload.ID)
			}
		}
	}
	about := map[finding.Object][]finding.Finding{}
	for _, f := range r.Findings {
		about[f.Object] = append(about[f.Object], f)
	}
	var out []PluginUse
	for _, p := range c.library.All() {
		u := PluginUse{Object: p.Object, Secrets: len(p.Secrets) > 0, Findings: about[p.Object]}
		if t := tallies[p]; t != nil {
			u.Routes, u.Unavailable, u.Workloads = t.runs, t.skips, slices.Sorted(maps.Keys(t.workloads))
		} else {
			u.Findings = append(u.Findings, c.alone(p)...)
		}
		out = append(out, u)
	}
	return out
}

func tallyRoute(tallies map[*resolve.Plugin]*tally, route RouteChain, label, workload string) {
	for _, step := range route.Chain.Steps {
		if step.Plugin.Object == (finding.Object{}) {
			continue // a bare built-in
		}
		t := tallies[step.Plugin]
		if t == nil {
			t = &tally{workloads: map[string]bool{}}
			tallies[step.Plugin] = t
		}
		if route.Refused != nil || slices.ContainsFunc(route.Skipped, func(s resolve.Step) bool { return s.Plugin == step.Plugin }) {
			t.skips++
			continue
		}
		t.workloads[workload] = true
		// The same route of another workload or port comes next to it.
		if n := len(t.runs); n == 0 || t.runs[n-1] != label {
			t.runs = append(t.runs, label)
		}
	}
}

// alone is what is wrong with a plugin that no route names.
func (c *compilation) alone(p *resolve.Plugin) []finding.Finding {
	const traffic = "no route runs it"
	if p.Malformed != nil {
		f := p.Malformed.Finding
		f.Traffic = traffic
		return []finding.Finding{f}
	}
	own := func(own config.Value) config.Value { return own }
	var out []finding.Finding
	for _, problem := range c.build(p, nil, p.Namespace, own).problems {
		f := finding.Finding{Reason: problem.Reason, Object: p.Object, Place: problem.Spec, Problem: problem.Message}
		if problem.InConfig {
			f.Place = strings.TrimSuffix("spec.config."+problem.Config, ".")
		}
		if f.Severity() == finding.Error {
			f.Traffic = traffic
		}
		out = append(out, f)
	}
	return finding.Sort(out)
}
