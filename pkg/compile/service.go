package compile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/dispatch"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

// service is one VirtualService on one workload, with what is emitted for it.
type service struct {
	Service
	binding dispatch.Binding
	// plain says that no route runs anything, so that nothing need be emitted.
	plain bool
}

// service composes the chains of every route of a VirtualService on a workload, and lays them out.
func (c *compiler) service(v *topology.VirtualService, w *topology.Workload) *service {
	gateways, once := c.meeting(v, w)
	s := &service{Service: Service{VirtualService: v, Workload: w}}
	s.binding.Key = v.Key
	if !c.anyLevel(v, gateways) {
		s.plain = true
		s.Groups = []Group{{Gateways: gateways, Default: RouteChain{}}}
		return s
	}
	s.binding.Once = once
	all := c.group(v, gateways)
	s.Groups = c.byPort(v, gateways, all)
	s.plain = true
	for i := range s.Groups {
		g := &s.Groups[i]
		routes, plain := c.routes(v, g)
		s.plain = s.plain && plain
		if g.Ports == nil {
			s.binding.Routes = routes
			continue
		}
		if s.binding.ByPort == nil {
			s.binding.ByPort = map[string]dispatch.Routes{}
		}
		for _, p := range g.Ports {
			s.binding.ByPort[p] = routes
		}
	}
	return s
}

// meeting returns the Gateways through which a VirtualService is served on pods of a workload, and whether it is also
// served there by the filters of another workload that may select the same pods. A Gateway that has none of its hosts
// does not serve it.
func (c *compiler) meeting(v *topology.VirtualService, w *topology.Workload) (gateways []*topology.Gateway, once bool) {
	for _, g := range v.Gateways {
		other := slices.Contains(w.Overlapping, g.Workload)
		if g.Workload != w && !other {
			continue
		}
		once = once || other
		if g.Serves(v) {
			gateways = append(gateways, g)
		}
	}
	return gateways, once
}

func (c *compiler) anyLevel(v *topology.VirtualService, gateways []*topology.Gateway) bool {
	if c.levels[v.Ref()] != nil {
		return true
	}
	for _, g := range gateways {
		if c.levels[g.Ref()] != nil {
			return true
		}
	}
	for _, r := range v.Routes {
		if r.Delegate != nil && c.levels[topology.ObjectOf(r.Delegate)] != nil {
			return true
		}
	}
	return false
}

// byPort tells listener ports apart where Gateways with different plugins serve the VirtualService. The group without
// ports is for ports that are not foreseen; it runs what any of the Gateways attaches.
func (c *compiler) byPort(v *topology.VirtualService, gateways []*topology.Gateway, all Group) []Group {
	alike := true
	for _, g := range gateways {
		alike = alike && c.alike(g, gateways[0])
	}
	if alike && !restricted(v) {
		return []Group{all}
	}
	onPort := map[string][]*topology.Gateway{}
	for _, g := range gateways {
		for _, p := range g.Ports {
			onPort[p] = nil
		}
	}
	for p := range onPort {
		for _, g := range gateways {
			if g.AnyPort || slices.Contains(g.Ports, p) {
				onPort[p] = append(onPort[p], g)
			}
		}
	}
	groups := map[string]*Group{}
	for _, port := range slices.Sorted(maps.Keys(onPort)) {
		key := ""
		for _, g := range onPort[port] {
			key += g.NamespacedName.String() + " "
		}
		if groups[key] == nil {
			c.warnSamePort(v, onPort[port], port)
			g := c.group(v, onPort[port])
			groups[key] = &g
		}
		groups[key].Ports = append(groups[key].Ports, port)
	}
	if len(groups) == 1 {
		return []Group{all}
	}
	out := []Group{all}
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		out = append(out, *groups[key])
	}
	return out
}

// restricted says whether a match limits some route to certain gateways.
func restricted(v *topology.VirtualService) bool {
	return slices.ContainsFunc(v.Routes, func(r topology.Route) bool { return r.Gateways != nil })
}

// alike says whether two Gateways attach the same.
func (c *compiler) alike(g, h *topology.Gateway) bool {
	a, b := c.gatewayChain(g), c.gatewayChain(h)
	return a.Equal(b)
}

// gatewayChain is what a Gateway attaches to every route.
func (c *compiler) gatewayChain(g *topology.Gateway) resolve.Chain {
	if known, ok := c.gatewayChains[g]; ok {
		return known
	}
	var chain resolve.Chain
	if level := c.levels[g.Ref()]; level != nil {
		chain = resolve.Compose(resolve.Chain{}, []resolve.Covered{{Level: level}}, c.notes)
	}
	c.gatewayChains[g] = chain
	return chain
}

func (c *compiler) warnSamePort(v *topology.VirtualService, gateways []*topology.Gateway, port string) {
	for _, g := range gateways[1:] {
		if !c.alike(g, gateways[0]) {
			c.report.add(finding.Finding{
				Reason: finding.AmbiguousGateways, Object: v.Ref(), Place: "spec.gateways",
				Problem: fmt.Sprintf("%s and %s attach different plugins and %s port %s", gateways[0].Ref(), g.Ref(), share(gateways[0], g), port),
				Traffic: "the routes run the plugins of both", Remedy: "give the Gateways the same plugins or different ports",
				Related: []finding.Object{gateways[0].Ref(), g.Ref()},
			})
		}
	}
}

// share says how sure it is that two Gateways have a port in common.
func share(g, h *topology.Gateway) string {
	if g.AnyPort || h.AnyPort {
		return "may share, since a Service maps to a port by name,"
	}
	return "share"
}

// group composes the chains of all routes that are reached through these Gateways.
func (c *compiler) group(v *topology.VirtualService, gateways []*topology.Gateway) Group {
	g := Group{Gateways: gateways}
	named := map[string]*RouteChain{}
	var unnamed *RouteChain
	for _, r := range v.Routes {
		var through []*topology.Gateway
		for _, gw := range gateways {
			if r.ServedBy(gw) {
				through = append(through, gw)
			}
		}
		if len(through) == 0 && r.Gateways != nil {
			continue
		}
		chain := c.chain(v, r, through)
		if r.Name == "" {
			unnamed = c.put(v, unnamed, "", chain)
		} else {
			named[r.Name] = c.put(v, named[r.Name], r.Name, chain)
		}
	}
	if unnamed == nil {
		// A route that is not known yet runs what the whole VirtualService runs.
		chain := c.chain(v, topology.Route{Root: unknownRouteName}, gateways)
		unnamed = &RouteChain{Chain: chain}
	}
	g.Default = *unnamed
	for _, name := range slices.Sorted(maps.Keys(named)) {
		g.Named = append(g.Named, *named[name])
	}
	return g
}

// unknownRouteName is no name that a route can have, so no entry that is limited to routes covers it.
const unknownRouteName = "\x00"

// put adds a route's chain to those of the same name, which Envoy cannot tell apart.
func (c *compiler) put(v *topology.VirtualService, known *RouteChain, name string, chain resolve.Chain) *RouteChain {
	if known == nil {
		return &RouteChain{Name: name, Chain: chain}
	}
	if known.Chain.Equal(chain) {
		return known
	}
	problem := "unnamed routes should run different plugins"
	if name != "" {
		problem = fmt.Sprintf("several routes are called %q in Envoy and should run different plugins", name)
	}
	c.report.add(finding.Finding{
		Reason: finding.AmbiguousRoutes, Object: v.Ref(), Place: "spec.http", Problem: problem,
		Traffic: "they run the plugins of all of them", Remedy: "give each http route, and each of a delegate's, a name of its own",
	})
	return &RouteChain{Name: name, Chain: known.Chain.Union(chain)}
}

// chain composes what one route runs: the Gateways' plugins, then the VirtualService's, then the delegate's.
func (c *compiler) chain(v *topology.VirtualService, r topology.Route, gateways []*topology.Gateway) resolve.Chain {
	var parents resolve.Chain
	for _, g := range gateways {
		parents = parents.Union(c.gatewayChain(g))
	}
	var levels []resolve.Covered
	if level := c.levels[v.Ref()]; level != nil {
		levels = append(levels, resolve.Covered{Level: level, Route: r.Root})
	}
	if r.Delegate != nil {
		if level := c.levels[topology.ObjectOf(r.Delegate)]; level != nil {
			levels = append(levels, resolve.Covered{Level: level, Route: r.DelegateRoute})
		}
	}
	return resolve.Compose(parents, levels, c.notes)
}

// routes lays the chains of a group out, and completes the group with what became of them.
func (c *compiler) routes(v *topology.VirtualService, g *Group) (out dispatch.Routes, plain bool) {
	label := v.Ref().String()
	unnamed := label
	if !slices.ContainsFunc(v.Routes, func(r topology.Route) bool { return r.Name == "" }) {
		unnamed = "" // nothing is reached by the default, so it does not count as a route
	}
	out.Default = c.run(v, &g.Default, unnamed)
	plain = out.Default.Empty()
	for i := range g.Named {
		r := &g.Named[i]
		run := c.run(v, r, label+":"+r.Name)
		plain = plain && run.Empty()
		if r.Chain.Equal(g.Default.Chain) {
			continue
		}
		if out.Named == nil {
			out.Named = map[string]dispatch.Run{}
		}
		out.Named[r.Name] = run
	}
	return out, plain
}

// run turns a chain into parts. A step that is unavailable makes the route answer 503, or is skipped under FailOpen.
func (c *compiler) run(v *topology.VirtualService, r *RouteChain, label string) dispatch.Run {
	if refused := r.Chain.Refused(); refused != nil {
		for _, x := range r.Chain.Refusals {
			c.report.hit(x.Issue, label)
		}
		r.Refused = refused.Issue
		return dispatch.Run{Refused: true, Plugin: refused.Plugin}
	}
	var out dispatch.Run
	var unavailable *resolve.Step
	authenticated := false
	for _, step := range r.Chain.Steps {
		u := c.use(step)
		if u.broken == nil && u.needsConsumer && !authenticated {
			u.broken = c.notAuthenticated(step)
		}
		authenticated = authenticated || u.authenticates
		for _, i := range u.warnings {
			c.report.hit(i, label)
		}
		if u.broken == nil {
			out.Parts = append(out.Parts, c.place(v, step, u)...)
			continue
		}
		c.report.hit(u.broken, label)
		if step.Plugin.FailOpen() {
			r.Skipped = append(r.Skipped, step)
			continue
		}
		if unavailable == nil {
			unavailable, r.Refused = &step, u.broken
		}
	}
	if unavailable != nil {
		return dispatch.Run{Refused: true, Plugin: unavailable.Plugin.Name}
	}
	if n := out.SlotsNeeded(); n > dispatch.MaxSlots {
		i := c.report.once(finding.Finding{
			Reason: finding.ChainTooLong, Object: v.Ref(), Place: annotationPlace,
			Problem: fmt.Sprintf("the chain of a route needs %d filters, a gateway has %d for one route", n, dispatch.MaxSlots),
			Remedy:  "attach fewer plugins, or put Lua plugins next to each other: adjacent ones share a filter",
		}, false)
		c.report.hit(i, label)
		r.Refused = i
		return dispatch.Run{Refused: true}
	}
	return out
}

// owner is whose state a filter keeps: an entry on one VirtualService. Where an entry stands among others does not
// matter, so that an edit beside it does not refill its buckets.
func owner(v *topology.VirtualService, step resolve.Step) string {
	e := step.Entry
	return strings.Join([]string{v.Key, e.Level.Object.String(), step.Plugin.ID, fmt.Sprint(e.Ordinal)}, "|")
}
