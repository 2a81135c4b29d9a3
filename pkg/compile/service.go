package compile

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-plugins/istio-plugins/pkg/dispatch"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/part"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

// service is one VirtualService on one workload, in one pass.
type service struct {
	Service
	*composed
	// binding is what was composed, or what is left of it where the gateway cannot hold all.
	binding *dispatch.Binding
}

// composed is what is made of a VirtualService on a workload. It is kept, and never modified.
type composed struct {
	from    inputs
	uses    []*use
	binding dispatch.Binding
	// plain says that no route runs anything, so that nothing need be emitted.
	plain bool
	// names of the routes in Envoy, sorted, and what they are called in messages.
	names, labels []string
	// placed is what runs on the gateway, wasm the Wasm plugins of it.
	placed []placed
	wasm   []dispatch.Placed
	said   remarks
	// stranger is the binding of a VirtualService of which no more than the name is known; nil until it is needed.
	stranger *dispatch.Binding
}

// inputs are all that a service is composed of, besides its name and its uses.
type inputs struct {
	routes []topology.Route
	level  *resolve.Level
	// delegates are the levels of the routes that are a delegate's, in their order.
	delegates []*resolve.Level
	gateways  []*attaching
	// once says that several workloads serve it which may share pods.
	once bool
}

// attaching is what the services of a Gateway depend on.
type attaching struct {
	level   *resolve.Level
	ports   []string
	anyPort bool
}

// kept is a service as it is kept. Its groups are those of the last pass, since they lead to that one's topology.
type kept struct {
	*composed
	groups []Group
}

// placed says which step something is part of, by the name that it has on the gateway.
type placed struct {
	name string
	step *resolve.Step
}

type serviceName struct {
	types.NamespacedName
	workload string
}

// service composes the chains of every route of a VirtualService on a workload, and lays them out.
func (c *compilation) service(v *topology.VirtualService, w *topology.Workload) *service {
	gateways, once := c.meeting(v, w)
	name := serviceName{v.NamespacedName, w.ID}
	s := c.services.At(name)
	if s.composed != nil && c.current(s.composed, v, gateways, once) {
		s.groups = through(gateways, s.groups)
	} else {
		*s = c.compose(v, gateways, once)
	}
	c.say(&s.said)
	return &service{
		Service:  Service{VirtualService: v, Workload: w, Groups: s.groups, made: s.composed},
		composed: s.composed, binding: &s.composed.binding,
	}
}

// current says whether compose would come to the same.
func (c *compilation) current(m *composed, v *topology.VirtualService, gateways []*topology.Gateway, once bool) bool {
	if m.from.once != once || m.from.level != c.level(v.Ref()) || !sameRoutes(m.from.routes, v.Routes) || len(m.from.gateways) != len(gateways) {
		return false
	}
	for i, g := range gateways {
		if m.from.gateways[i] != c.attached[g] {
			return false
		}
	}
	delegates := m.from.delegates
	for _, r := range v.Routes {
		if r.Delegate != nil {
			if delegates[0] != c.level(topology.ObjectOf(r.Delegate)) {
				return false
			}
			delegates = delegates[1:]
		}
	}
	for _, u := range m.uses {
		if !c.holds(u) {
			return false
		}
	}
	return true
}

// sameRoutes says whether routes are the same, their delegates aside.
func sameRoutes(a, b []topology.Route) bool {
	if len(a) > 0 && len(a) == len(b) && &a[0] == &b[0] {
		return true
	}
	return slices.EqualFunc(a, b, func(r, q topology.Route) bool {
		return r.Name == q.Name && r.Root == q.Root && (r.Delegate == nil) == (q.Delegate == nil) && r.DelegateRoute == q.DelegateRoute &&
			(r.Gateways == nil) == (q.Gateways == nil) && slices.Equal(r.Gateways, q.Gateways)
	})
}

// through are groups with these Gateways in the place of an earlier pass's. The first group has all of them.
func through(gateways []*topology.Gateway, groups []Group) []Group {
	out := slices.Clone(groups)
	for i := range out {
		if len(out[i].Gateways) == len(gateways) {
			out[i].Gateways = gateways
			continue
		}
		out[i].Gateways = make([]*topology.Gateway, len(groups[i].Gateways))
		for j, g := range groups[i].Gateways {
			out[i].Gateways[j] = gateways[slices.Index(groups[0].Gateways, g)]
		}
	}
	return out
}

// attaching is what services depend on of a Gateway, the same as long as that is.
func (c *compilation) attaching(g *topology.Gateway) *attaching {
	is := &attaching{c.level(g.Ref()), g.Ports, g.AnyPort}
	at := c.gateways.At(g.NamespacedName)
	if was := *at; was == nil || was.level != is.level || was.anyPort != is.anyPort || !slices.Equal(was.ports, is.ports) {
		*at = is
	}
	return *at
}

// composer makes what is kept of one service.
type composer struct {
	*compilation
	v    *topology.VirtualService
	made *composed
	// issues keeps one for each thing to say.
	issues map[issueKey]*resolve.Issue
}

func (c *compilation) compose(v *topology.VirtualService, gateways []*topology.Gateway, once bool) kept {
	m := &composed{from: inputs{routes: v.Routes, level: c.level(v.Ref()), once: once}}
	for _, g := range gateways {
		m.from.gateways = append(m.from.gateways, c.attached[g])
	}
	for _, r := range v.Routes {
		if r.Delegate != nil {
			m.from.delegates = append(m.from.delegates, c.level(topology.ObjectOf(r.Delegate)))
		}
		m.names = append(m.names, r.Name)
	}
	slices.Sort(m.names)
	m.names = slices.Compact(m.names)
	label := v.Ref().String()
	for _, name := range m.names {
		if name == "" {
			m.labels = append(m.labels, label)
		} else {
			m.labels = append(m.labels, label+":"+name)
		}
	}
	k := composer{compilation: c, v: v, made: m}
	return kept{m, k.groups(gateways)}
}

// once returns the issue for a finding, the same for equal findings.
func (c *composer) once(f finding.Finding, skips bool) *resolve.Issue {
	i := &resolve.Issue{Finding: f, Skips: skips}
	if known := c.issues[keyOf(i)]; known != nil {
		return known
	}
	if c.issues == nil {
		c.issues = map[issueKey]*resolve.Issue{}
	}
	c.issues[keyOf(i)] = i
	return i
}

func (c *composer) add(f finding.Finding) { c.made.said.findings = append(c.made.said.findings, f) }

func (c *composer) hit(i *resolve.Issue, route string) {
	c.made.said.hits = append(c.made.said.hits, hit{i, route})
}

func (c *composer) groups(gateways []*topology.Gateway) []Group {
	b := &c.made.binding
	b.Key = c.v.Key
	c.made.plain = true
	if !c.anyLevel() {
		return []Group{{Gateways: gateways}}
	}
	b.Once = c.made.from.once
	groups := c.byPort(gateways, c.group(gateways))
	for i := range groups {
		g := &groups[i]
		routes, plain := c.routes(g)
		c.made.plain = c.made.plain && plain
		if g.Ports == nil {
			b.Routes = routes
			continue
		}
		if b.ByPort == nil {
			b.ByPort = map[string]dispatch.Routes{}
		}
		for _, p := range g.Ports {
			b.ByPort[p] = routes
		}
	}
	return groups
}

// meeting returns the Gateways through which a VirtualService is served on pods of a workload, and whether it is also
// served there by the filters of another workload that may select the same pods. A Gateway that has none of its hosts
// does not serve it.
func (c *compilation) meeting(v *topology.VirtualService, w *topology.Workload) (gateways []*topology.Gateway, once bool) {
	serving := func(g *topology.Gateway) bool {
		other := g.Workload != w && slices.Contains(w.Overlapping, g.Workload)
		once = once || other
		return (g.Workload == w || other) && g.Serves(v)
	}
	for i, g := range v.Gateways {
		switch served := serving(g); {
		case served && len(gateways) == i:
			gateways = v.Gateways[: i+1 : i+1] // most often they are all
		case served:
			gateways = append(gateways, g)
		}
	}
	return gateways, once
}

// anyLevel says whether anything is attached.
func (c *composer) anyLevel() bool {
	from := &c.made.from
	return from.level != nil ||
		slices.ContainsFunc(from.gateways, func(a *attaching) bool { return a.level != nil }) ||
		slices.ContainsFunc(from.delegates, func(l *resolve.Level) bool { return l != nil })
}

// byPort tells listener ports apart where Gateways with different plugins serve the VirtualService. The group without
// ports is for ports that are not foreseen; it runs what any of the Gateways attaches.
func (c *composer) byPort(gateways []*topology.Gateway, all Group) []Group {
	alike := true
	for _, g := range gateways {
		alike = alike && c.alike(g, gateways[0])
	}
	if alike && !restricted(c.v) {
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
			c.warnSamePort(onPort[port], port)
			g := c.group(onPort[port])
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
func (c *composer) alike(g, h *topology.Gateway) bool {
	a, b := c.gatewayChain(g), c.gatewayChain(h)
	return a.Equal(b)
}

// gatewayChain is what a Gateway attaches to every route.
type gatewayChain struct {
	resolve.Chain
	notes resolve.Notes
}

func (c *composer) gatewayChain(g *topology.Gateway) resolve.Chain {
	known := c.chains[g]
	if known == nil {
		known = &gatewayChain{}
		if level := c.level(g.Ref()); level != nil {
			known.Chain = resolve.Compose(resolve.Chain{}, []resolve.Covered{{Level: level}}, &known.notes)
		}
		c.chains[g] = known
	}
	c.made.said.notes.Add(&known.notes)
	return known.Chain
}

func (c *composer) warnSamePort(gateways []*topology.Gateway, port string) {
	for _, g := range gateways[1:] {
		if !c.alike(g, gateways[0]) {
			c.add(finding.Finding{
				Reason: finding.AmbiguousGateways, Object: c.v.Ref(), Place: "spec.gateways",
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
func (c *composer) group(gateways []*topology.Gateway) Group {
	g := Group{Gateways: gateways}
	named := map[string]*RouteChain{}
	var unnamed *RouteChain
	for _, r := range c.v.Routes {
		var through []*topology.Gateway
		for _, gw := range gateways {
			if r.ServedBy(gw) {
				through = append(through, gw)
			}
		}
		if len(through) == 0 && r.Gateways != nil {
			continue
		}
		chain := c.chain(r, through)
		if r.Name == "" {
			unnamed = c.put(unnamed, "", chain)
		} else {
			named[r.Name] = c.put(named[r.Name], r.Name, chain)
		}
	}
	if unnamed == nil {
		// A route that is not known yet runs what the whole VirtualService runs.
		chain := c.chain(topology.Route{Root: unknownRouteName}, gateways)
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
func (c *composer) put(known *RouteChain, name string, chain resolve.Chain) *RouteChain {
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
	c.add(finding.Finding{
		Reason: finding.AmbiguousRoutes, Object: c.v.Ref(), Place: "spec.http", Problem: problem,
		Traffic: "they run the plugins of all of them", Remedy: "give each http route, and each of a delegate's, a name of its own",
	})
	return &RouteChain{Name: name, Chain: known.Chain.Union(chain)}
}

// chain composes what one route runs: the Gateways' plugins, then the VirtualService's, then the delegate's.
func (c *composer) chain(r topology.Route, gateways []*topology.Gateway) resolve.Chain {
	var parents resolve.Chain
	for _, g := range gateways {
		parents = parents.Union(c.gatewayChain(g))
	}
	var levels []resolve.Covered
	if level := c.made.from.level; level != nil {
		levels = append(levels, resolve.Covered{Level: level, Route: r.Root})
	}
	if r.Delegate != nil {
		if level := c.level(topology.ObjectOf(r.Delegate)); level != nil {
			levels = append(levels, resolve.Covered{Level: level, Route: r.DelegateRoute})
		}
	}
	return resolve.Compose(parents, levels, &c.made.said.notes)
}

// routes lays the chains of a group out, and completes the group with what became of them.
func (c *composer) routes(g *Group) (out dispatch.Routes, plain bool) {
	label := c.v.Ref().String()
	unnamed := label
	if !slices.Contains(c.made.names, "") {
		unnamed = "" // nothing is reached by the default, so it does not count as a route
	}
	out.Default = c.run(&g.Default, unnamed)
	plain = out.Default.Empty()
	for i := range g.Named {
		r := &g.Named[i]
		run := c.run(r, label+":"+r.Name)
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
func (c *composer) run(r *RouteChain, label string) dispatch.Run {
	if refused := r.Chain.Refused(); refused != nil {
		for _, x := range r.Chain.Refusals {
			c.hit(x.Issue, label)
		}
		// What else is wrong should not come to light one by one.
		for i := range r.Chain.Steps {
			u := c.use(&r.Chain.Steps[i])
			for _, w := range u.warnings {
				c.hit(w, label)
			}
			switch {
			case u.broken == nil:
			case r.Chain.Steps[i].Plugin.FailOpen():
				c.hit(u.broken, "") // the route is not served without it, but refused
			default:
				c.hit(u.broken, label)
			}
		}
		r.Refused = refused.Issue
		return dispatch.Run{Refused: true, Plugin: refused.Plugin}
	}
	var out dispatch.Run
	var unavailable *resolve.Step
	authenticated := false
	for i := range r.Chain.Steps {
		step := &r.Chain.Steps[i]
		u := c.use(step)
		if u.broken == nil && u.needsConsumer && !authenticated {
			u.broken = c.notAuthenticated(step)
		}
		authenticated = authenticated || u.authenticates
		for _, i := range u.warnings {
			c.hit(i, label)
		}
		if u.broken == nil {
			out.Parts = append(out.Parts, c.place(step, u.use)...)
			continue
		}
		c.hit(u.broken, label)
		if step.Plugin.FailOpen() {
			r.Skipped = append(r.Skipped, *step)
			continue
		}
		if unavailable == nil {
			unavailable, r.Refused = step, u.broken
		}
	}
	if unavailable != nil {
		return dispatch.Run{Refused: true, Plugin: unavailable.Plugin.Name}
	}
	if n := out.SlotsNeeded(); n > dispatch.MaxSlots {
		i := c.once(finding.Finding{
			Reason: finding.ChainTooLong, Object: c.v.Ref(), Place: annotationPlace,
			Problem: fmt.Sprintf("the chain of a route needs %d filters, a gateway has %d for one route", n, dispatch.MaxSlots),
			Remedy:  "attach fewer plugins, or put Lua plugins next to each other: adjacent ones share a filter",
		}, false)
		c.hit(i, label)
		r.Refused = i
		return dispatch.Run{Refused: true}
	}
	return out
}

// owner is whose state a filter keeps: an entry on one VirtualService. Where an entry stands among others does not
// matter, so that an edit beside it does not refill its buckets.
func owner(v *topology.VirtualService, step *resolve.Step) string {
	e := step.Entry
	return strings.Join([]string{v.Key, e.Level.Object.String(), step.Plugin.ID, fmt.Sprint(e.Ordinal)}, "|")
}

// counter is a name for what a step counts outside of the gateway. It outlives the gateway, so it changes as seldom as can be:
// not with configs and, since entries are told by their routes rather than by their places, not with other entries.
func counter(v *topology.VirtualService, step *resolve.Step, shared part.State) string {
	if shared == part.PerPlugin {
		return entriesName(step.Plugin, changing(step), finding.Object{})
	}
	// The one that attaches the Plugin, and those merged into it that change its config. Of entries on the VirtualService itself
	// that is not named, since it is a part of what is counted: so most VirtualServices that use a Plugin can share its Lua.
	entries := []*resolve.Entry{step.Entry}
	for _, e := range step.Merged {
		if len(e.Config) > 0 {
			entries = append(entries, e)
		}
	}
	return entriesName(step.Plugin, entries, v.Ref())
}

// entriesName is a name for a Plugin and entries for it. Entries on the object own are named without it.
func entriesName(p *resolve.Plugin, entries []*resolve.Entry, own finding.Object) string {
	name := p.ID
	for _, e := range entries {
		object := ""
		if e.Level.Object != own {
			object = e.Level.Object.String()
		}
		name += fmt.Sprintf(" + %s%q#%d", object, sortedRoutes(e), place(e))
	}
	sum := sha256.Sum256([]byte(name)) // nobody should find a name by which to spend what others have
	return hex.EncodeToString(sum[:8])
}

// place is that of an entry among those of its level for the same Plugin and the same routes.
func place(e *resolve.Entry) int {
	n := 0
	for _, o := range e.Level.Entries {
		if o == e {
			break
		}
		if !o.OptOut && o.Plugin == e.Plugin && slices.Equal(sortedRoutes(o), sortedRoutes(e)) {
			n++
		}
	}
	return n
}

func sortedRoutes(e *resolve.Entry) []string {
	return slices.Compact(slices.Sorted(slices.Values(e.Routes)))
}
