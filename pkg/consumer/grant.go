package consumer

import (
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
)

// grantKey is the namespace that owns Consumers and the one whose plugins use them.
type grantKey struct{ owner, user string }

// granted is what of the owner's Consumers may be used: all, or those named.
type granted struct {
	all   bool
	names map[string]bool
}

func (g granted) nothing() bool { return !g.all && len(g.names) == 0 }

func (g granted) has(name string) bool { return g.all || g.names[name] }

// grantsOf reads the ReferenceGrants from Plugins to Consumers. The namespace of from is that of the object which
// names the plugin, also for a ClusterPlugin.
func grantsOf(grants []*gatewayv1.ReferenceGrant) map[grantKey]granted {
	out := map[grantKey]granted{}
	for _, grant := range grants {
		to := consumersGranted(grant.Spec.To)
		if to.nothing() {
			continue
		}
		for _, from := range grant.Spec.From {
			if from.Group != gatewayv1.Group(pluginsv1alpha1.GroupVersion.Group) || from.Kind != "Plugin" {
				continue
			}
			key := grantKey{owner: grant.Namespace, user: string(from.Namespace)}
			out[key] = out[key].and(to)
		}
	}
	return out
}

func consumersGranted(targets []gatewayv1.ReferenceGrantTo) granted {
	g := granted{names: map[string]bool{}}
	for _, to := range targets {
		if to.Group != gatewayv1.Group(pluginsv1alpha1.GroupVersion.Group) || to.Kind != "Consumer" {
			continue
		}
		// An empty name means all, as an absent one does.
		if to.Name == nil || *to.Name == "" {
			g.all = true
			continue
		}
		g.names[string(*to.Name)] = true
	}
	return g
}

func (g granted) and(other granted) granted {
	sum := granted{all: g.all || other.all, names: map[string]bool{}}
	for _, names := range []map[string]bool{g.names, other.names} {
		for name := range names {
			sum.names[name] = true
		}
	}
	return sum
}
