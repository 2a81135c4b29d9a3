package compile

import (
	"maps"
	"slices"

	"github.com/istio-plugins/istio-plugins/pkg/dispatch"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// calls are the hosts of the services that bindings call, sorted.
func calls(bindings []*dispatch.Binding) []string {
	hosts := map[string]bool{}
	of := func(r dispatch.Run) {
		for _, p := range r.Parts {
			switch p := p.Part.(type) {
			case part.Native:
				for _, host := range p.Services {
					hosts[host] = true
				}
			case part.Lua:
				for _, s := range p.Services {
					hosts[s.Host] = true
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
