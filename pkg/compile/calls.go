package compile

import (
	"maps"
	"slices"

	"github.com/istio-plugins/istio-plugins/pkg/dispatch"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// calls are the hosts of the services that filters of bindings call, sorted.
func calls(bindings []*dispatch.Binding) []string {
	hosts := map[string]bool{}
	of := func(r dispatch.Run) {
		for _, p := range r.Parts {
			if n, ok := p.Part.(part.Native); ok {
				for _, host := range n.Services {
					hosts[host] = true
				}
			}
		}
	}
	all := func(r dispatch.Routes) {
		of(r.Default)
		for _, run := range r.Named {
			of(run)
		}
	}
	for _, b := range bindings {
		all(b.Routes)
		for _, routes := range b.ByPort {
			all(routes)
		}
	}
	return slices.Sorted(maps.Keys(hosts))
}
