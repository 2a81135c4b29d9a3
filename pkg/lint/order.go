package lint

import (
	"fmt"

	"github.com/istio-plugins/istio-plugins/pkg/catalog"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/mechanism"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// pluginOrder finds plugins that keep callers away behind one that answers or changes requests: that one also works for
// those that are not welcome.
func pluginOrder(_ *snapshot.Snapshot, r *compile.Result) []finding.Finding {
	var out []finding.Finding
	said := map[[2]*resolve.Entry]bool{}
	for chain := range chains(r) {
		var first *resolve.Step
		for i, step := range chain.Chain.Steps {
			b := builtinOf(step)
			switch {
			case b == nil:
			case (b.Auth || b.Guards) && first != nil:
				if pair := [2]*resolve.Entry{first.Entry, step.Entry}; !said[pair] {
					said[pair] = true
					out = append(out, late(*first, step, b))
				}
			case b.Answers && first == nil:
				first = &chain.Chain.Steps[i]
			}
		}
	}
	return out
}

func late(first, guard resolve.Step, b *builtin.Builtin) finding.Finding {
	does, works := "refuses requests", "that %q refuses"
	if b.Auth {
		does, works = "authenticates requests", "that %q has not authenticated, and knows no consumer"
	}
	f := finding.Finding{
		Reason: finding.PluginOrder, Object: guard.Entry.Level.Object, Place: guard.Entry.Place,
		Problem: fmt.Sprintf("%q %s after %q, which may answer or change them", guard.Entry.Name, does, first.Entry.Name),
		Traffic: fmt.Sprintf("%q also works on requests "+works, first.Entry.Name, guard.Entry.Name),
		Remedy:  fmt.Sprintf("list %q first, or give its Plugin a higher priority", guard.Entry.Name),
	}
	if other := first.Entry.Level.Object; other != f.Object {
		f.Related = []finding.Object{other}
	}
	return f
}

// builtinOf is the built-in that a step is; nil for another kind of plugin.
func builtinOf(step resolve.Step) *builtin.Builtin {
	b, ok := catalog.Find(mechanism.Builtin(step.Plugin.Spec))
	if !ok {
		return nil
	}
	return b
}
