// Package compile is the whole way from a snapshot to generated objects: Compile. It does no I/O, has no clock and no
// randomness; the same snapshot gives the same bytes.
package compile

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-plugins/istio-plugins/pkg/emit"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

// Result is what a snapshot compiles to. There is always one; what went wrong is in Findings.
type Result struct {
	// Objects to apply, sorted by name.
	Objects []emit.Object
	// Findings in a total order.
	Findings []finding.Finding
	// Services are the chains of every VirtualService on every gateway that it is bound to.
	Services []Service
	// Plugins that exist, and what became of them.
	Plugins []PluginUse
	// Topology that the result was made for.
	Topology *topology.Topology
	// emitted is what the objects were made of, by workload.
	emitted []emit.Workload
}

// Service is one VirtualService on one workload.
type Service struct {
	VirtualService *topology.VirtualService
	Workload       *topology.Workload
	// Groups are the routes as they are reached: one for all ports, or one for each port where ports differ.
	Groups []Group
	made   *composed
}

// Group is the routes of a VirtualService on some ports of a workload.
type Group struct {
	// Ports of the listeners; nil for all that no other group names.
	Ports []string
	// Gateways whose plugins run here.
	Gateways []*topology.Gateway
	// Default is for unnamed routes and names that are not in Named.
	Default RouteChain
	// Named by the route's name in Envoy, sorted.
	Named []RouteChain
}

// RouteChain is what one route runs.
type RouteChain struct {
	// Name in Envoy; empty for the default.
	Name  string
	Chain resolve.Chain
	// Skipped are steps that are unavailable and FailOpen.
	Skipped []resolve.Step
	// Refused says why the route answers 503; nil if it does not.
	Refused *resolve.Issue
}

// Origin is the cause of one entry of a generated resource.
type Origin struct {
	// Object that carries the resource, by name in the root namespace.
	Object string
	// Resource is the ECDS name, or the HTTP filter's; Entry the key in it, empty for the whole.
	Resource, Entry string
	// Causes are the objects, and places in them, that the entry comes from.
	Causes []Cause
}

// Cause is a place in an input object.
type Cause struct {
	Object finding.Object
	Place  string
}

// PluginUse is what became of one Plugin or ClusterPlugin.
type PluginUse struct {
	Object finding.Object
	// Secrets says that values of its config come from Secrets.
	Secrets bool
	// Routes that run it, as kind/namespace/name[:route]. Unavailable counts those that name it and answer 503, or skip it.
	Routes      []string
	Unavailable int
	// Workloads are the IDs of the gateways that run it, sorted.
	Workloads []string
	// Findings about the Plugin itself.
	Findings []finding.Finding
}

// Route returns the chain of a named route.
func (g Group) Route(name string) RouteChain {
	i, ok := slices.BinarySearchFunc(g.Named, name, func(r RouteChain, name string) int {
		switch {
		case r.Name < name:
			return -1
		case r.Name > name:
			return 1
		}
		return 0
	})
	if ok {
		return g.Named[i]
	}
	return g.Default
}

// Of returns the chains of a VirtualService, one for each workload.
func (r *Result) Of(name types.NamespacedName) []Service {
	var out []Service
	for _, s := range r.Services {
		if s.VirtualService.NamespacedName == name {
			out = append(out, s)
		}
	}
	return out
}

// AttachedRoutes counts the routes that run at least one plugin, or answer 503 because of one.
func (r *Result) AttachedRoutes() int {
	n := 0
	for _, s := range r.Services {
		for _, g := range s.Groups {
			for _, name := range s.made.names {
				if route := g.Route(name); len(route.Chain.Steps) > 0 || route.Refused != nil {
					n++
				}
			}
		}
	}
	return n
}
