package mechanism

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
)

// Secrets are what there is to know of the Secrets that parts of a config come from.
type Secrets struct {
	// Sources say which parts come from where.
	Sources []config.Source
	// Wrong is what is wrong with them.
	Wrong []finding.Finding
	// Public is the config without their values.
	Public func() config.Value
}

func (s Secrets) problems() []Problem {
	var out []Problem
	for _, f := range s.Wrong {
		out = append(out, Problem{Reason: f.Reason, Spec: f.Place, Message: f.Problem, Warning: f.Severity() != finding.Error})
	}
	return out
}

// veil leaves out of problems what may tell a value that comes from a Secret. What is also said of the config without such
// values tells none. All else says no more than what was wanted, and stands where the Plugin names the Secret.
func (w *World) veil(u Use, problems []Problem) []Problem {
	if len(u.Secrets.Sources) == 0 || len(problems) == 0 {
		return problems
	}
	quiet, open := *w, u
	quiet.seen, open.Config = nil, u.Secrets.Public()
	_, public := quiet.build(open)
	hidden := paths(open.Config, func(v any) bool { return v == config.Hidden })
	var out []Problem
	for _, p := range problems {
		fromSecret := p.InConfig && slices.ContainsFunc(hidden, func(path string) bool { return within(p.Config, path) })
		if fromSecret || !slices.Contains(public, p) {
			source := sourceOf(u.Secrets.Sources, p)
			veiled := p.Veiled
			if veiled == "" {
				veiled = "the plugin cannot be used with what it holds"
			}
			p = Problem{Reason: p.Reason, Spec: source.Place, Message: fmt.Sprintf("key %q of Secret %s: %s", source.Key, source.Secret, veiled), Warning: p.Warning}
		}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// sourceOf is the Secret that a problem is most likely to come from.
func sourceOf(sources []config.Source, p Problem) config.Source {
	for _, s := range sources {
		if at := builtin.Path(s.Path...); p.InConfig && (within(p.Config, at) || within(at, p.Config)) {
			return s
		}
	}
	return sources[0]
}

// within says whether a path is another one, or leads to a part of what that one leads to.
func within(path, whole string) bool {
	return whole == "" || path == whole || len(path) > len(whole) && path[:len(whole)] == whole && (path[len(whole)] == '.' || path[len(whole)] == '[')
}

// paths are those of the values that are wanted in a config.
func paths(c config.Value, wanted func(any) bool) []string {
	var out []string
	var visit func(v any, steps []string)
	visit = func(v any, steps []string) {
		switch v := v.(type) {
		case map[string]any:
			if wanted(v) {
				out = append(out, builtin.Path(steps...))
			}
			for _, name := range slices.Sorted(maps.Keys(v)) {
				visit(v[name], append(steps, name))
			}
		case []any:
			for i, item := range v {
				visit(item, append(steps, strconv.Itoa(i)))
			}
		default:
			if wanted(v) {
				out = append(out, builtin.Path(steps...))
			}
		}
	}
	visit(map[string]any(c), nil)
	return out
}

// refers says whether a value refers to a Secret.
func refers(v any) bool {
	m, _ := v.(map[string]any)
	_, ok := m["secretKeyRef"]
	return ok
}
