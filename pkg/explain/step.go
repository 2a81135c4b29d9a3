package explain

import (
	"fmt"
	"strings"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/catalog"
	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/mechanism"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
)

func (x explainer) step(s resolve.Step, chain resolve.Chain, skipped bool) Step {
	out := Step{
		Plugin: s.Plugin.Name, Type: mechanism.Type(s.Plugin.Spec), Priority: s.Plugin.Spec.Priority,
		FailurePolicy: string(pluginsv1alpha1.FailClosed), AttachedBy: x.entry(s.Entry), Skipped: skipped,
		Config: Config(s),
	}
	if s.Plugin.FailOpen() {
		out.FailurePolicy = string(pluginsv1alpha1.FailOpen)
	}
	if s.Plugin.Object != (finding.Object{}) {
		object := Object(s.Plugin.Object)
		out.Object, out.Source = &object, x.snapshot.Where(s.Plugin.Object, "")
	}
	for _, from := range s.Plugin.Secrets {
		out.Secrets = append(out.Secrets, Secret{Field: builtin.Path(from.Path...), Secret: from.Secret, Key: from.Key})
	}
	for _, e := range s.Merged {
		out.MergedFrom = append(out.MergedFrom, x.entry(e))
	}
	out.Place = placeOf(s, chain)
	out.OnFailure = onFailure(s.Plugin)
	return out
}

// configOf is the merged config; for an Envoy filter, what it is merged into.
func configOf(s resolve.Step, c config.Value) config.Value {
	if e := s.Plugin.Spec.Envoy; e != nil && e.TypedConfig != nil {
		if typed, err := config.Decode(e.TypedConfig.Raw); err == nil {
			c = config.Merge(typed, c)
		}
	}
	return c
}

// placeOf says why a step is where it is.
func placeOf(s resolve.Step, chain resolve.Chain) string {
	var why []string
	level := s.Entry.Level.Object
	prioritised, gateways, services, own := false, false, false, true
	for _, o := range chain.Steps {
		prioritised = prioritised || o.Plugin.Spec.Priority != 0
		if other := o.Entry.Level.Object; other != level {
			own = false
			gateways = gateways || other.Kind == "Gateway"
			services = services || other.Kind == "VirtualService"
		}
	}
	if prioritised {
		why = append(why, fmt.Sprintf("priority %d (high runs first)", s.Plugin.Spec.Priority))
	}
	switch {
	case own:
		why = append(why, "the order of the list")
	case level.Kind == "Gateway" && services:
		why = append(why, "a Gateway's plugins run before a VirtualService's")
	case level.Kind == "Gateway":
		why = append(why, "Gateways run by namespace and name")
	case gateways:
		why = append(why, "a VirtualService's plugins run after its Gateway's")
	default:
		why = append(why, "a delegate's plugins run after its root's")
	}
	for _, e := range s.Merged {
		why = append(why, fmt.Sprintf("entry %d of %s is the same plugin and is merged into it", ordinal(e), e.Level.Object))
	}
	if s.Entry.Override && len(s.Merged) > 0 {
		why = append(why, "it says override, so its own config wins")
	}
	return strings.Join(why, "; ")
}

func ordinal(e *resolve.Entry) int {
	for i, o := range e.Level.Entries {
		if o == e {
			return i + 1
		}
	}
	return 0
}

// onFailure says what requests get when a plugin cannot do its work.
func onFailure(p *resolve.Plugin) string {
	open := p.FailOpen()
	if b, ok := catalog.Find(mechanism.Builtin(p.Spec)); ok && b.Failing != "" {
		if open {
			return "skipped if it is invalid, " + b.Failing
		}
		return "503 if it is invalid, " + b.Failing
	}
	switch w := p.Spec.Wasm; {
	case w != nil:
		opens := w.FailStrategy == "FAIL_OPEN" || w.FailStrategy == "" && open
		unusable, failing := "503 if it is invalid", "requests are refused if its module cannot be fetched or fails"
		if open {
			unusable = "skipped if it is invalid"
		}
		if opens {
			failing = "skipped if its module cannot be fetched or fails"
		}
		return unusable + ", " + failing
	case p.Spec.Envoy != nil && open:
		return "skipped if it is invalid, at run time as its own configuration says"
	case p.Spec.Envoy != nil:
		return "503 if it is invalid, at run time as its own configuration says"
	case open:
		return "skipped if it is invalid or fails"
	}
	return "503 if it is invalid, 500 if it fails"
}
