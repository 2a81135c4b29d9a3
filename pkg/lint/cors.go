package lint

import (
	"fmt"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

// corsPolicies finds http routes with a corsPolicy of their own that run the cors plugin, too. Istio's filter is the
// first of the two on a gateway (istio/istio, pilot/pkg/networking/core/listener_builder.go: cors comes before the
// patches in front of the router).
func corsPolicies(_ *snapshot.Snapshot, r *compile.Result) []finding.Finding {
	var out []finding.Finding
	for _, s := range r.Services {
		for _, route := range s.VirtualService.Routes {
			object, place := policyOf(s.VirtualService, route)
			if place == "" {
				continue
			}
			for _, g := range s.Groups {
				if step := corsStep(g.Route(route.Name)); step != nil {
					out = append(out, finding.Finding{
						Reason: finding.ConflictingPolicy, Object: object, Place: place,
						Problem: fmt.Sprintf("the route has a corsPolicy and runs the plugin %q, attached to %s", step.Entry.Name, step.Entry.Level.Object),
						Traffic: "Istio answers the preflights that its policy allows, the plugin the others, and both add headers to responses",
						Remedy:  "remove one of the two",
						Related: []finding.Object{step.Entry.Level.Object},
					})
				}
			}
		}
	}
	return out
}

// policyOf is where the route's corsPolicy stands; the delegate's wins, as in istiod.
func policyOf(v *topology.VirtualService, route topology.Route) (finding.Object, string) {
	if d := route.Delegate; d != nil && d.Spec.Http[route.DelegateIndex].GetCorsPolicy() != nil {
		return topology.ObjectOf(d), fmt.Sprintf("spec.http[%d].corsPolicy", route.DelegateIndex)
	}
	if v.Object.Spec.Http[route.Index].GetCorsPolicy() != nil {
		return v.Ref(), fmt.Sprintf("spec.http[%d].corsPolicy", route.Index)
	}
	return finding.Object{}, ""
}

func corsStep(c compile.RouteChain) *resolve.Step {
	for i, step := range c.Chain.Steps {
		if step.Plugin.Spec.Builtin == "cors" {
			return &c.Chain.Steps[i]
		}
	}
	return nil
}
