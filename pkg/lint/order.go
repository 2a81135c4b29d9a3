package lint

import (
	"fmt"

	"github.com/istio-plugins/istio-plugins/pkg/catalog"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// pluginOrder finds plugins that authenticate behind one that answers or changes requests: that one does not know the
// consumer yet.
func pluginOrder(_ *snapshot.Snapshot, r *compile.Result) []finding.Finding {
	var out []finding.Finding
	said := map[[2]*resolve.Entry]bool{}
	for chain := range chains(r) {
		var first *resolve.Step
		for i, step := range chain.Chain.Steps {
			b := builtinOf(step)
			switch {
			case b == nil:
			case b.Auth && first != nil:
				if pair := [2]*resolve.Entry{first.Entry, step.Entry}; !said[pair] {
					said[pair] = true
					out = append(out, lateAuth(*first, step))
				}
			case b.Answers && first == nil:
				first = &chain.Chain.Steps[i]
			}
		}
	}
	return out
}

func lateAuth(first, auth resolve.Step) finding.Finding {
	f := finding.Finding{
		Reason: finding.PluginOrder, Object: auth.Entry.Level.Object, Place: auth.Entry.Place,
		Problem: fmt.Sprintf("%q authenticates after %q, which may answer or change requests", auth.Entry.Name, first.Entry.Name),
		Traffic: fmt.Sprintf("%q also works on requests that are not authenticated, and knows no consumer", first.Entry.Name),
		Remedy:  fmt.Sprintf("list %q first, or give its Plugin a higher priority", auth.Entry.Name),
	}
	if other := first.Entry.Level.Object; other != f.Object {
		f.Related = []finding.Object{other}
	}
	return f
}

// builtinOf is the built-in that a step is; nil for another kind of plugin.
func builtinOf(step resolve.Step) *builtin.Builtin {
	b, ok := catalog.Find(step.Plugin.Spec.Builtin)
	if !ok {
		return nil
	}
	return b
}
