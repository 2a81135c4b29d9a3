package topology

import (
	"slices"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// readRoutes lists what Envoy sees of a VirtualService's http routes, delegates resolved. Where istiod would leave a route
// out (a delegate's match that contradicts the root's, rules behind a catch-all), it is listed all the same: a name too
// many is never asked for.
func (v *VirtualService) readRoutes(delegates map[types.NamespacedName]*networkingv1.VirtualService) {
	for i, r := range v.Object.Spec.Http {
		if r.GetDelegate() == nil {
			for _, m := range matches(r.Match, nil) {
				v.Routes = append(v.Routes, Route{Name: routeName(r.Name, m.name), Root: r.Name, Index: i, Gateways: resolveAll(m.gateways, v.Namespace)})
			}
			continue
		}
		name := types.NamespacedName{Namespace: r.Delegate.Namespace, Name: r.Delegate.Name}
		if name.Namespace == "" {
			name.Namespace = v.Namespace
		}
		d := usable(delegates[name], v.Namespace)
		v.delegates = append(v.delegates, delegate{name, d})
		if d == nil {
			continue
		}
		for j, dr := range d.Spec.Http {
			for _, m := range matches(r.Match, dr.Match) {
				v.Routes = append(v.Routes, Route{
					Name: routeName(join(r.Name, dr.Name), m.name), Root: r.Name, Index: i,
					Delegate: d, DelegateRoute: dr.Name, DelegateIndex: j, Gateways: resolveAll(m.gateways, v.Namespace),
				})
			}
		}
	}
}

// current says whether readRoutes would come to the same for vs.
func (v *VirtualService) current(vs *networkingv1.VirtualService, delegates map[types.NamespacedName]*networkingv1.VirtualService) bool {
	return snapshot.Same(v.Object, vs) && !slices.ContainsFunc(v.delegates, func(d delegate) bool {
		return !snapshot.Same(d.object, usable(delegates[d.NamespacedName], vs.Namespace))
	})
}

// usable is a delegate that VirtualServices of a namespace may use, or nil.
func usable(d *networkingv1.VirtualService, namespace string) *networkingv1.VirtualService {
	if d == nil || !exportedTo(d, namespace) {
		return nil
	}
	return d
}

// match is what a match says about names and gateways.
type match struct {
	name     string
	gateways []string
}

// matches combines the matches of a root route with those of its delegate's, as istiod does.
func matches(root, delegate []*networking.HTTPMatchRequest) []match {
	switch {
	case len(root) == 0 && len(delegate) == 0:
		return []match{{}}
	case len(root) == 0:
		root = []*networking.HTTPMatchRequest{{}}
	case len(delegate) == 0:
		delegate = []*networking.HTTPMatchRequest{{}}
	}
	var out []match
	for _, d := range delegate {
		for _, r := range root {
			m := match{name: join(r.GetName(), d.GetName()), gateways: d.GetGateways()}
			if len(m.gateways) == 0 {
				m.gateways = r.GetGateways()
			}
			if !slices.ContainsFunc(out, func(o match) bool { return o.name == m.name && slices.Equal(o.gateways, m.gateways) }) {
				out = append(out, m)
			}
		}
	}
	return out
}

// join is istiod's name for what a root and its delegate both name.
func join(root, delegate string) string {
	if root == "" || delegate == "" {
		return root + delegate
	}
	return root + "-" + delegate
}

// routeName is istiod's name for a route of a named match; an unnamed route with a named match is `.<match>`.
func routeName(route, match string) string {
	if match == "" {
		return route
	}
	return route + "." + match
}

func resolveAll(names []string, namespace string) []string {
	if len(names) == 0 {
		return nil
	}
	out := make([]string, 0, len(names))
	for _, n := range names {
		if n != "mesh" {
			out = append(out, gatewayName(n, namespace).String())
		}
	}
	return out
}

// exportedTo says whether an object with exportTo may be used from a namespace. Nothing, and `*`, is everywhere.
func exportedTo(vs *networkingv1.VirtualService, namespace string) bool {
	if len(vs.Spec.ExportTo) == 0 {
		return true
	}
	for _, e := range vs.Spec.ExportTo {
		if e == "*" || e == namespace || e == "." && vs.Namespace == namespace {
			return true
		}
	}
	return false
}

// ExportedTo says whether the VirtualService is visible to gateways in a namespace.
func (v *VirtualService) ExportedTo(namespace string) bool { return exportedTo(v.Object, namespace) }

// ServedBy says whether the route can be reached through a gateway.
func (r Route) ServedBy(g *Gateway) bool {
	return r.Gateways == nil || slices.Contains(r.Gateways, g.NamespacedName.String())
}
