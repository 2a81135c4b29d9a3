package lint

import (
	"iter"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
)

// chains are the chains of all routes that run something, each as often as it is reached.
func chains(r *compile.Result) iter.Seq[compile.RouteChain] {
	return func(yield func(compile.RouteChain) bool) {
		for _, s := range r.Services {
			for _, g := range s.Groups {
				for _, route := range s.VirtualService.Routes {
					if c := g.Route(route.Name); len(c.Chain.Steps) > 0 && !yield(c) {
						return
					}
				}
			}
		}
	}
}
