package lint

import (
	"fmt"

	"github.com/istio-plugins/istio-plugins/pkg/annotation"
	"github.com/istio-plugins/istio-plugins/pkg/catalog"
	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

// unusedPlugins finds Plugins that no annotation attaches. One that is attached where nothing runs it is not reported
// here: the finding about that place says more.
func unusedPlugins(s *snapshot.Snapshot, _ *compile.Result) []finding.Finding {
	library := resolve.NewLibrary(s, catalog.Names())
	attached := map[string]bool{}
	for object, text := range annotations(s) {
		for _, e := range resolve.NewLevel(library, object, text, nil).Entries {
			if e.Plugin != nil && !e.OptOut {
				attached[e.Plugin.ID] = true
			}
		}
	}
	var out []finding.Finding
	for _, p := range library.All() {
		switch {
		case attached[p.ID]:
		case p.Malformed != nil:
			f := p.Malformed.Finding
			f.Traffic = "no annotation attaches it"
			out = append(out, f)
		default:
			out = append(out, finding.Finding{
				Reason: finding.UnusedPlugin, Object: p.Object, Problem: "no annotation attaches it", Traffic: "it runs nowhere",
				Remedy: fmt.Sprintf("attach it with the annotation %s: %s, or delete it", annotation.Key, p.Name),
			})
		}
	}
	return out
}

// annotations are the texts of all istio.io/plugins annotations, also of objects that could not be read otherwise.
func annotations(s *snapshot.Snapshot) map[finding.Object]string {
	out := map[finding.Object]string{}
	for _, vs := range s.VirtualServices {
		if text, ok := vs.Annotations[annotation.Key]; ok {
			out[topology.ObjectOf(vs)] = text
		}
	}
	for _, g := range s.Gateways {
		if text, ok := g.Annotations[annotation.Key]; ok {
			out[finding.Object{Kind: "Gateway", Namespace: g.Namespace, Name: g.Name}] = text
		}
	}
	for _, r := range s.HTTPRoutes {
		if text, ok := r.Annotations[annotation.Key]; ok {
			out[finding.Object{Kind: "HTTPRoute", Namespace: r.Namespace, Name: r.Name}] = text
		}
	}
	for _, m := range s.Malformed {
		if m.Annotation != "" {
			out[m.Object] = m.Annotation
		}
	}
	return out
}
