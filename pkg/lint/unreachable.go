package lint

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

// unreachableRoutes finds http routes that run plugins of their VirtualService and get no request, because others take
// all of theirs. istiod (pilot/pkg/networking/core/gateway.go and route/route.go) keeps the order of a VirtualService's
// rules and drops those behind one that takes everything; where several VirtualServices have one host, it puts the rules
// of the older one first, and then moves the rules that take everything to the end.
func unreachableRoutes(_ *snapshot.Snapshot, r *compile.Result) []finding.Finding {
	runs := pluginRoutes(r)
	var out []finding.Finding
	for _, v := range r.Topology.VirtualServices {
		out = append(out, shadowedInside(v, runs[v])...)
	}
	for _, host := range sharedHosts(r.Topology) {
		out = append(out, shadowedBetween(host, runs)...)
	}
	return out
}

// pluginRoutes are the places of the http routes that run what their own VirtualService, or a delegate, attaches.
func pluginRoutes(r *compile.Result) map[*topology.VirtualService]map[int]bool {
	out := map[*topology.VirtualService]map[int]bool{}
	for _, s := range r.Services {
		v := s.VirtualService
		for _, route := range v.Routes {
			if out[v][route.Index] || !slices.ContainsFunc(s.Groups, func(g compile.Group) bool {
				return slices.ContainsFunc(g.Route(route.Name).Chain.Steps, attachedByVirtualService)
			}) {
				continue
			}
			if out[v] == nil {
				out[v] = map[int]bool{}
			}
			out[v][route.Index] = true
		}
	}
	return out
}

func attachedByVirtualService(s resolve.Step) bool {
	return slices.ContainsFunc(s.Layers(), func(e *resolve.Entry) bool { return e.Level.Object.Kind == "VirtualService" })
}

// shadowedInside finds routes of a VirtualService that its earlier ones leave nothing for. What a route with a delegate
// takes depends on the delegate, so it takes nothing for sure.
func shadowedInside(v *topology.VirtualService, runs map[int]bool) []finding.Finding {
	var out []finding.Finding
	taken := map[paths]int{}
	for i, route := range v.Object.Spec.Http {
		wanted := requestsOf(route)
		if by, all := takenBy(wanted, taken); all && runs[i] {
			out = append(out, finding.Finding{
				Reason: finding.UnreachableRoute, Object: v.Ref(), Place: fmt.Sprintf("spec.http[%d]", i),
				Problem: fmt.Sprintf("%s takes all requests of %s", routeLabel(v.Object, by), routeLabel(v.Object, i)),
				Traffic: "its plugins never run", Remedy: "list it before the other one, or remove it",
			})
		}
		if route.GetDelegate() != nil {
			continue
		}
		for _, w := range wanted {
			if _, known := taken[w.paths]; w.all && !known {
				taken[w.paths] = i
			}
		}
	}
	return out
}

// takenBy says whether all requests are taken, and names one route that takes some.
func takenBy(wanted []requests, taken map[paths]int) (by int, all bool) {
	for _, w := range wanted {
		free := w.wider(func(p paths) bool {
			i, ok := taken[p]
			if ok {
				by = i
			}
			return !ok
		})
		if free {
			return 0, false
		}
	}
	return by, true
}

// routeLabel names an http route for people.
func routeLabel(vs *networkingv1.VirtualService, i int) string {
	if name := vs.Spec.Http[i].GetName(); name != "" {
		return fmt.Sprintf("route %q", name)
	}
	return fmt.Sprintf("spec.http[%d]", i)
}

// sharedHost is a host that several VirtualServices have on one server of a gateway.
type sharedHost struct {
	gateway *topology.Gateway
	host    string
	// services, oldest first as far as ages are known.
	services []*topology.VirtualService
}

// sharedHosts lists them in a stable order.
func sharedHosts(t *topology.Topology) []sharedHost {
	var out []sharedHost
	for _, g := range t.Gateways {
		byHost := map[string][]*topology.VirtualService{}
		for _, v := range g.Bound {
			if !v.ExportedTo(g.Namespace) {
				continue
			}
			for _, h := range hostsOn(g, v) {
				byHost[h] = append(byHost[h], v)
			}
		}
		for _, h := range slices.Sorted(maps.Keys(byHost)) {
			services := byHost[h]
			if len(services) < 2 {
				continue
			}
			slices.SortStableFunc(services, func(a, b *topology.VirtualService) int {
				return cmp.Or(a.Object.CreationTimestamp.Compare(b.Object.CreationTimestamp.Time), cmp.Compare(a.Name+"."+a.Namespace, b.Name+"."+b.Namespace))
			})
			out = append(out, sharedHost{g, h, services})
		}
	}
	return out
}

// hostsOn are the hosts of a VirtualService that a Gateway serves under that very name.
func hostsOn(g *topology.Gateway, v *topology.VirtualService) []string {
	var out []string
	for _, host := range v.Object.Spec.Hosts {
		host = strings.ToLower(host)
		if !slices.Contains(out, host) && slices.ContainsFunc(g.Servers, func(s topology.Server) bool { return serves(s, v.Namespace, host) }) {
			out = append(out, host)
		}
	}
	return out
}

func serves(s topology.Server, namespace, host string) bool {
	return slices.ContainsFunc(s.Hosts, func(h topology.Host) bool {
		if h.Namespace != "*" && h.Namespace != namespace {
			return false
		}
		return covers(h.Name, host)
	})
}

// covers says whether a host, which may begin with `*`, is or has another one. Both are in lower case.
func covers(pattern, host string) bool {
	suffix, wild := strings.CutPrefix(pattern, "*")
	return pattern == host || wild && strings.HasSuffix(host, suffix)
}

// taker is a route that takes some paths for sure.
type taker struct {
	service *topology.VirtualService
	route   int
}

// shadowedBetween finds routes that another VirtualService on the host leaves nothing for. Without ages, which files do
// not have, only this is sure: of two routes that take the same, one is dead.
func shadowedBetween(h sharedHost, runs map[*topology.VirtualService]map[int]bool) []finding.Finding {
	taken := takers(h.services)
	var out []finding.Finding
	for _, v := range h.services {
		for i, route := range v.Object.Spec.Http {
			if !runs[v][i] {
				continue
			}
			by, older, ok := rival(v, requestsOf(route), taken)
			if !ok {
				continue
			}
			f := finding.Finding{
				Reason: finding.UnreachableRoute, Object: v.Ref(), Place: fmt.Sprintf("spec.http[%d]", i),
				Problem: fmt.Sprintf("on host %s of %s, %s of %s takes the same requests", h.host, h.gateway.Ref(), routeLabel(by.service.Object, by.route), by.service.Ref()),
				Traffic: "the VirtualService that was created first gets them all, the plugins of the other never run",
				Remedy:  "give the two different hosts or matches, or make them one VirtualService",
				Related: []finding.Object{by.service.Ref(), h.gateway.Ref()},
			}
			if older {
				f.Traffic = "that VirtualService is older and gets them all, so the plugins never run there"
			}
			out = append(out, f)
		}
	}
	return out
}

// takers are the first two VirtualServices that take some paths for sure: enough to find one that is not the asker.
func takers(services []*topology.VirtualService) map[paths][]taker {
	out := map[paths][]taker{}
	for _, v := range services {
		mine := map[paths]bool{}
		for i, route := range v.Object.Spec.Http {
			if route.GetDelegate() != nil {
				continue
			}
			for _, w := range requestsOf(route) {
				if w.all && !mine[w.paths] && len(out[w.paths]) < 2 {
					mine[w.paths] = true
					out[w.paths] = append(out[w.paths], taker{v, i})
				}
			}
			if mine[paths{}] {
				break // istiod drops what comes behind
			}
		}
	}
	return out
}

// rival finds another VirtualService that takes all requests of a route; older says that it surely comes first.
func rival(v *topology.VirtualService, wanted []requests, taken map[paths][]taker) (by taker, older, ok bool) {
	older = true
	for _, w := range wanted {
		found := false
		w.wider(func(p paths) bool {
			if p.kind == anyPath && !(w.kind == anyPath && w.all) {
				return true // it is moved behind the others
			}
			for _, t := range taken[p] {
				if t.service == v {
					continue
				}
				first := comesFirst(t.service, v)
				if first || p == w.paths && w.all && !comesFirst(v, t.service) {
					by, found = t, true
					older = older && first
					return false
				}
			}
			return true
		})
		if !found {
			return taker{}, false, false
		}
	}
	return by, older, true
}

// comesFirst says whether istiod surely puts the rules of a before those of b: by age, among VirtualServices that are
// exported alike.
func comesFirst(a, b *topology.VirtualService) bool {
	x, y := a.Object.CreationTimestamp, b.Object.CreationTimestamp
	return !x.IsZero() && !y.IsZero() && x.Time.Before(y.Time) && slices.Equal(a.Object.Spec.ExportTo, b.Object.Spec.ExportTo)
}
