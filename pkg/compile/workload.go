package compile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/istio-plugins/istio-plugins/pkg/dispatch"
	"github.com/istio-plugins/istio-plugins/pkg/emit"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/lua"
	"github.com/istio-plugins/istio-plugins/pkg/part"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

// workload lays out everything that is emitted for one workload.
func (c *compilation) workload(w *topology.Workload, services []*service, bound map[*topology.Workload][]*service, s *snapshot.Snapshot) emit.Workload {
	layout := c.layouts.At(w.ID)
	defer layout.Next()
	deny := c.options.UnknownRoutes == snapshot.DenyUnknown
	pool := c.pool(w, services, s)
	unit := dispatch.Unit{Workload: w.ID, DenyUnknown: deny, Pool: pool}
	for _, sv := range services {
		if deny || !sv.plain {
			unit.Bindings = append(unit.Bindings, sv.binding)
		}
	}
	known := len(unit.Bindings)
	if deny {
		unit.Bindings = append(unit.Bindings, strangers(w, services, bound)...)
	}
	out := emit.Workload{Workload: w, Pool: pool}
	out.Services = calls(unit.Bindings)
	out.Unit = c.fit(w, &unit, services, layout)
	groups := serverGroups(w)
	place := map[string]int{}
	if len(groups) > 0 {
		for i, b := range unit.Bindings[:known] {
			place[b.Key] = i
		}
	}
	for _, g := range groups {
		narrow := dispatch.Unit{Workload: w.ID, Name: g.name, DenyUnknown: deny, Pool: pool}
		var places []int
		for _, key := range g.serves {
			if i, ok := place[key]; ok {
				places = append(places, i)
			}
		}
		slices.Sort(places)
		for _, i := range slices.Compact(places) {
			narrow.Bindings = append(narrow.Bindings, unit.Bindings[i])
		}
		// A stranger's Gateway may have a server of the same SNI host, whose filter chains get these tables, too.
		narrow.Bindings = append(narrow.Bindings, unit.Bindings[known:]...)
		server := emit.Server{Name: g.name, Hosts: g.hosts, Unit: layout.Compile(narrow)}
		// What does not fit into one object stays with the gateway's own tables, which hold everything.
		if c.emitter.ServerSize(server, out.Unit) < emit.MaxObject {
			out.Servers = append(out.Servers, server)
		}
	}
	return out
}

// strangers are VirtualServices that only another workload's filters know, on pods that may have both. Where unknown
// ones are denied, these must be known here, too.
func strangers(w *topology.Workload, services []*service, bound map[*topology.Workload][]*service) []*dispatch.Binding {
	known := map[string]bool{}
	for _, sv := range services {
		known[sv.binding.Key] = true
	}
	var out []*dispatch.Binding
	for _, other := range w.Overlapping {
		for _, sv := range bound[other] {
			if !known[sv.binding.Key] {
				known[sv.binding.Key] = true
				out = append(out, sv.asStranger())
			}
		}
	}
	return out
}

func (m *composed) asStranger() *dispatch.Binding {
	if m.stranger == nil {
		m.stranger = &dispatch.Binding{Key: m.binding.Key}
	}
	return m.stranger
}

// pool numbers the Wasm plugins of a workload. Routes whose plugin gets no number are refused.
func (c *compilation) pool(w *topology.Workload, services []*service, s *snapshot.Snapshot) *dispatch.Pool {
	plugins := map[string]part.Wasm{}
	for _, sv := range services {
		for _, p := range sv.wasm {
			plugins[p.Name] = p.Part.(part.Wasm)
		}
	}
	pool, left := dispatch.NewPool(plugins, emit.ReadNumbers(s.EnvoyFilters, w.ID), emit.SecretName(c.options))
	if len(left) > 0 {
		c.refuseRuns(services, finding.Finding{
			Reason:  finding.TooManyWasm,
			Problem: fmt.Sprintf("%d Wasm plugins, each with a config of its own, run on one gateway, which has places for %d", len(plugins), dispatch.MaxWasm),
			Remedy:  "let routes share a Wasm plugin with one config, or use several gateways",
		}, func(_ string, r dispatch.Run) bool {
			return slices.ContainsFunc(r.Parts, func(p dispatch.Placed) bool { return slices.Contains(left, p.Name) })
		})
	}
	return pool
}

// refuseRuns makes runs answer 503 that a gateway cannot hold.
func (c *compilation) refuseRuns(services []*service, f finding.Finding, concerned func(key string, r dispatch.Run) bool) int {
	refused := 0
	for _, sv := range services {
		n := 0
		left := sv.binding.With(func(r dispatch.Run) dispatch.Run {
			if r.Refused || !concerned(sv.binding.Key, r) {
				return r
			}
			n++
			return dispatch.Run{Refused: true}
		})
		if n == 0 {
			continue
		}
		refused += n
		own := f
		own.Object, own.Place = sv.VirtualService.Ref(), annotationPlace
		issue := &resolve.Issue{Finding: own}
		c.report.hit(issue, sv.VirtualService.Ref().String())
		sv.binding = left
		sv.refuse(issue)
	}
	return refused
}

// refuse notes on every route of the service that it answers 503. Which of them it is was lost with their runs; that a
// gateway cannot hold one of them is rare enough to say it of all.
func (s *service) refuse(i *resolve.Issue) {
	s.Groups = slices.Clone(s.Groups)
	for g := range s.Groups {
		group := &s.Groups[g]
		group.Default.Refused = i
		group.Named = slices.Clone(group.Named)
		for n := range group.Named {
			group.Named[n].Refused = i
		}
	}
}

// fit compiles a unit and, where resources are larger than an object may be, refuses the runs that make them so, the
// largest entries first, until all fit. A table that even refusals fill is closed: everything in it answers 503.
func (c *compilation) fit(w *topology.Workload, unit *dispatch.Unit, services []*service, layout *dispatch.Memory) dispatch.Compiled {
	for {
		compiled := layout.Compile(*unit)
		tooLarge, entries := oversized(compiled, c.emitter)
		if len(tooLarge) == 0 {
			return compiled
		}
		f := finding.Finding{
			Reason:  finding.DoesNotFit,
			Problem: fmt.Sprintf("what the gateway runs does not fit into objects of %d bytes: %s", emit.MaxObject, finding.Routes(tooLarge)),
			Remedy:  "move some VirtualServices to another gateway, or make configs smaller",
		}
		refused := c.refuseRuns(services, f, func(key string, r dispatch.Run) bool {
			return entries[key] || uses(r, entries)
		})
		if refused == 0 {
			for _, name := range tooLarge {
				unit.Close(name)
			}
			f.Object = finding.Object{Kind: "EnvoyFilter", Namespace: c.options.RootNamespace, Name: emit.SkeletonName(w)}
			f.Traffic = "every VirtualService in these tables answers 503, also those without plugins"
			c.report.add(f)
		}
		c.rebind(unit, services)
	}
}

// uses says whether a run needs an entry of a slot's table or of a Lua runtime.
func uses(r dispatch.Run, entries map[string]bool) bool {
	return slices.ContainsFunc(r.Parts, func(p dispatch.Placed) bool {
		if l, ok := p.Part.(part.Lua); ok && slices.ContainsFunc(lua.NewProgram(l).Shared, func(s part.Shared) bool { return entries[s.Name] }) {
			return true
		}
		return entries[p.Name]
	})
}

// rebind takes the bindings anew after runs were refused.
func (c *compilation) rebind(unit *dispatch.Unit, services []*service) {
	now := make(map[string]*dispatch.Binding, len(services))
	for _, sv := range services {
		now[sv.binding.Key] = sv.binding
	}
	for i, b := range unit.Bindings {
		if n, ok := now[b.Key]; ok {
			unit.Bindings[i] = n
		}
	}
}

// serverGroup is a TLS server with filter chains of its own, or several that share an SNI host.
type serverGroup struct {
	name   string
	hosts  []string // one for each server
	serves []string // keys of VirtualServices
}

// manyServers is from how many TLS servers on each gets tables of its own. Below, a table for everything is cheaper
// than more patches: istiod's cost grows with patches times servers.
const manyServers = 8

// serverGroups are the TLS servers of a workload that can be told by SNI, if there are many.
func serverGroups(w *topology.Workload) []serverGroup {
	type server struct {
		topology.Server
		serves []string
	}
	all := map[*topology.Gateway][]server{}
	many := 0
	for _, g := range w.Gateways {
		for _, s := range g.Servers {
			all[g] = append(all[g], server{Server: s})
			if s.TLS {
				many++
			}
		}
	}
	if many <= manyServers {
		return nil
	}
	var servers []server
	for _, g := range w.Gateways {
		for _, v := range g.Bound {
			for i := range g.ServersOf(v) {
				all[g][i].serves = append(all[g][i].serves, v.Key)
			}
		}
		servers = append(servers, slices.DeleteFunc(all[g], func(s server) bool { return !s.TLS })...)
	}
	byHost := map[string]int{} // SNI host to group
	var groups []*serverGroup
	members := map[int][]server{}
	for _, s := range servers {
		if slices.ContainsFunc(s.Hosts, func(h topology.Host) bool { return h.Name == "*" }) {
			continue // its filter chain has no SNI
		}
		at := -1
		for _, h := range s.Hosts {
			if i, ok := byHost[h.Name]; ok {
				at = i
			}
		}
		if at < 0 {
			at = len(groups)
			groups = append(groups, &serverGroup{})
		}
		for _, h := range s.Hosts {
			if i, ok := byHost[h.Name]; ok && i != at {
				members[at] = append(members[at], members[i]...)
				groups[at].hosts = append(groups[at].hosts, groups[i].hosts...)
				for host, j := range byHost {
					if j == i {
						byHost[host] = at
					}
				}
				members[i], groups[i].hosts = nil, nil
			}
			byHost[h.Name] = at
		}
		members[at] = append(members[at], s)
		groups[at].hosts = append(groups[at].hosts, s.Hosts[0].Name)
	}
	var out []serverGroup
	for i, g := range groups {
		if len(g.hosts) == 0 {
			continue
		}
		slices.Sort(g.hosts)
		g.hosts = slices.Compact(g.hosts)
		h := xxhash.New()
		for _, host := range g.hosts {
			_, _ = h.WriteString(host + "\x00")
		}
		g.name = fmt.Sprintf("tls-%08x", uint32(h.Sum64()))
		for _, s := range members[i] {
			g.serves = append(g.serves, s.serves...)
		}
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b serverGroup) int { return cmp.Compare(a.name, b.name) })
	return out
}

// oversized finds the resources that do not fit, and the entries to refuse: the largest, until the rest fits.
func oversized(u dispatch.Compiled, emitter *emit.Emitter) (names []string, entries map[string]bool) {
	entries = map[string]bool{}
	for r := range u.Resources() {
		total := emitter.ResourceSize(r)
		if total <= emit.MaxObject {
			continue
		}
		names = append(names, r.Name)
		sizes := emitter.EntrySizes(r)
		keys := slices.SortedFunc(maps.Keys(sizes), func(a, b string) int {
			return cmp.Or(cmp.Compare(sizes[b], sizes[a]), cmp.Compare(a, b))
		})
		for _, k := range keys {
			if total <= emit.MaxObject*9/10 {
				break
			}
			entries[k] = true
			total -= sizes[k]
		}
	}
	return names, entries
}
