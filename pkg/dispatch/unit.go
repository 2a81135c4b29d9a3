package dispatch

import (
	"fmt"
	"iter"
	"maps"

	"github.com/cespare/xxhash/v2"
	xdsmatcher "github.com/cncf/xds/go/xds/type/matcher/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacconfig "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	matching "github.com/envoyproxy/go-control-plane/envoy/extensions/common/matching/v3"
	composite "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/composite/v3"
	filterlua "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	rbac "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	filterwasm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	"google.golang.org/protobuf/proto"

	"github.com/istio-plugins/istio-plugins/pkg/lua"
)

// Binding is what the routes of one VirtualService run. It is not modified once it was compiled.
type Binding struct {
	// Key is the VirtualService's, as in the metadata of its routes.
	Key string
	// Routes on every port that ByPort does not name.
	Routes Routes
	// ByPort has the routes on listener ports where they differ.
	ByPort map[string]Routes
	// Once marks a VirtualService that several workloads serve which may share pods: only the first set of filters
	// that a request meets runs it.
	Once bool
}

// With is the binding with its runs replaced.
func (b *Binding) With(replace func(Run) Run) *Binding {
	out := *b
	out.Routes = b.Routes.with(replace)
	out.ByPort = maps.Clone(b.ByPort)
	for port, routes := range out.ByPort {
		out.ByPort[port] = routes.with(replace)
	}
	return &out
}

func (r Routes) with(replace func(Run) Run) Routes {
	out := Routes{Default: replace(r.Default), Named: maps.Clone(r.Named)}
	for name, run := range out.Named {
		out.Named[name] = replace(run)
	}
	return out
}

// Routes are the runs of a VirtualService's routes.
type Routes struct {
	// Default is for unnamed routes, and for names that are not in Named.
	Default Run
	Named   map[string]Run
}

// Tables is how many tables a unit spreads its content over. Their number is in the listener, so it never depends on
// the content.
type Tables struct{ Bindings, Slots int }

var (
	// wide is for a whole gateway: 16 tables of at most 1 MiB hold some 20,000 VirtualServices.
	wide = Tables{Bindings: 16, Slots: 16}
	// narrow is for one TLS server among many: what costs there is the number of tables times the number of servers.
	narrow = Tables{Bindings: 1, Slots: 1}
)

// Unit is one set of tables with the fixed filters that use them. A gateway has one, and one more for each TLS server
// where there are many: Envoy builds every table anew for every HTTP connection manager, and istiod makes one for each
// TLS server.
type Unit struct {
	// Workload names the gateway, Name the unit in it; empty for the gateway's own.
	Workload, Name string
	Bindings       []*Binding
	// DenyUnknown answers 503 for VirtualServices that are not in Bindings.
	DenyUnknown bool
	Pool        *Pool
	// closed bindings tables refuse everything that belongs into them.
	closed map[string]bool
}

// Close makes a bindings table refuse everything that belongs into it.
func (u *Unit) Close(resource string) {
	if u.closed == nil {
		u.closed = map[string]bool{}
	}
	u.closed[resource] = true
}

// Names of what is generated. Others match on them, so a change is a breaking one.
func workloadPrefix(workload string) string { return "istio-plugins." + workload }

func (u Unit) prefix() string {
	if u.Name == "" {
		return workloadPrefix(u.Workload)
	}
	return workloadPrefix(u.Workload) + "." + u.Name
}

func (u Unit) tables() Tables {
	if u.Name == "" {
		return wide
	}
	return narrow
}

// Filter state. The keys of a request's VirtualService and route are common to all sets of filters on a pod.
const (
	stateVirtualService = lua.VirtualServiceKey
	stateRoute          = "istio-plugins.route"
	stateBound          = "istio-plugins.bound"
)

// slotState is what a slot runs. It is not the name of the slot's filter: Envoy's ext_proc keeps its own state under the name
// of the filter that it runs in, and crashes where something else is there (1.37.0 and 1.40.0).
func slotState(workload string, slot int) string {
	return fmt.Sprintf("%s.runs.%d", workloadPrefix(workload), slot)
}

// BindingsTable is the number of the table that holds a key.
func (u Unit) BindingsTable(key string) int {
	return int(xxhash.Sum64String(key) % uint64(u.tables().Bindings))
}

// Resource is one ECDS resource.
type Resource struct {
	Name   string
	Config proto.Message
	// Keys are the entries of a table, or the sources of a Lua runtime, sorted.
	Keys []string
	// Sizes are the bytes of a Lua runtime's sources and shared tables, by name; nil for a table.
	Sizes map[string]int
}

// Compiled is a unit as Envoy sees it.
type Compiled struct {
	// Filters are the fixed HTTP filters, in order.
	Filters []*Filter
	// Bindings, Slots (by slot, from 1), Lua (by slot) are the tables.
	Bindings []Resource
	Slots    [][]Resource
	Lua      []Resource
}

// Resources are all tables and runtimes of a unit.
func (c Compiled) Resources() iter.Seq[Resource] {
	return func(yield func(Resource) bool) {
		for _, r := range c.Bindings {
			if !yield(r) {
				return
			}
		}
		for slot := range c.Slots {
			for _, r := range c.Slots[slot] {
				if !yield(r) {
					return
				}
			}
			if len(c.Slots[slot]) > 0 && !yield(c.Lua[slot]) {
				return
			}
		}
	}
}

// Filter is one fixed HTTP filter.
type Filter struct {
	Name   string
	Config proto.Message
}

// Compile lays a unit out. Every run must fit (SlotsNeeded), and every Wasm plugin must have a number.
func (u Unit) Compile() Compiled { return new(Memory).Compile(u) }

// Compile lays a unit of the memory's workload out.
func (m *Memory) Compile(u Unit) Compiled {
	m.know(u.Pool)
	m.units++
	c := &content{}
	tables := make([]entries, u.tables().Bindings)
	for _, b := range u.Bindings {
		l := m.lay(u, b)
		i := u.BindingsTable(b.Key)
		tables[i] = tables[i].and(entry{b.Key, l.match})
		for _, r := range l.runs {
			m.add(c, r)
		}
	}
	out := Compiled{Filters: m.filters(u)}
	for i, list := range tables {
		out.Bindings = append(out.Bindings, m.bindingsTable(u, i, list))
	}
	out.Slots = make([][]Resource, MaxSlots+2)
	out.Lua = make([]Resource, MaxSlots+2)
	for _, slot := range allSlots() {
		if u.shares(slot) {
			continue
		}
		out.Slots[slot] = m.slotTables(u, slot, c)
		out.Lua[slot] = m.runtime(u, slot, c)
	}
	return out
}

// shares says whether a slot's tables are the gateway's own. Those of the long slots are, also for a TLS server: what is
// in them is rare, and a name that only one connection manager uses costs Envoy four times as much as a shared one.
func (u Unit) shares(slot int) bool { return u.Name != "" && isLong(slot) }

// slotPrefix begins the names of a slot's tables.
func (u Unit) slotPrefix(slot int) string {
	if u.shares(slot) {
		return workloadPrefix(u.Workload)
	}
	return u.prefix()
}

// allSlots are the numbers of all slots: the direct ones and, behind them, the long ones.
func allSlots() []int {
	out := make([]int, 0, directSlots+longSlots)
	for i := 1; i <= directSlots+longSlots; i++ {
		out = append(out, i)
	}
	return out
}

func isLong(slot int) bool { return slot > directSlots }

// NoEntry stands in tables without entries. It is no VirtualService's key and no instance's name.
const NoEntry = "-"

// slotTableCount is 1 for long slots: they are many, and rarely used.
func (u Unit) slotTableCount(slot int) int {
	if isLong(slot) {
		return 1
	}
	return u.tables().Slots
}

func (u Unit) bindingsName(n int) string { return fmt.Sprintf("%s.bindings.%d", u.prefix(), n) }

const hexDigits = "0123456789abcdef"

// slotTable is the table of an instance: its hash's first digit.
func (u Unit) slotTable(slot int, text string) int {
	if u.slotTableCount(slot) == 1 {
		return 0
	}
	for i := range hexDigits {
		if hexDigits[i] == text[1] {
			return i
		}
	}
	panic("no hash: " + text)
}

func (u Unit) slotTableName(kind string, slot, i int) string {
	if kind == "s" {
		return fmt.Sprintf("%s.state.%d.%c", u.slotPrefix(slot), slot, hexDigits[i])
	}
	return fmt.Sprintf("%s.slot.%d.%c", u.slotPrefix(slot), slot, hexDigits[i])
}

func (u Unit) luaName(slot int) string { return fmt.Sprintf("%s.lua.%d", u.slotPrefix(slot), slot) }

// DenyAll is what stands at a name that nothing uses: 403, as the agent does for a module that it cannot fetch. A name
// without content would keep a starting gateway waiting.
func DenyAll() *rbac.RBAC {
	return &rbac.RBAC{Rules: &rbacconfig.RBAC{Action: rbacconfig.RBAC_ALLOW}}
}

// filters are the fixed HTTP filters of a unit.
func (u Unit) filters() []*Filter {
	prefix := workloadPrefix(u.Workload)
	out := []*Filter{
		{Name: prefix + ".key", Config: setState([]state{
			{key: stateVirtualService, format: "%METADATA(ROUTE:istio:config)%", omitEmpty: true},
			{key: stateRoute, format: "%ROUTE_NAME%", omitEmpty: true},
		})},
		{Name: prefix + ".bindings", Config: u.bindingsFilter()},
	}
	for slot := 1; slot <= directSlots; slot++ {
		out = append(out, &Filter{Name: fmt.Sprintf("%s.slot.%d", prefix, slot), Config: u.slotFilter(slot)})
	}
	return out
}

// bindingsFilter finds the table by the VirtualService's hash. A request without one matches no threshold and ends in
// the first table, which does not have it; where unknown ones are denied it must not get that far.
func (u Unit) bindingsFilter() proto.Message {
	input := stateInput(stateVirtualService)
	match := byHash(input, u.tables().Bindings, func(i int) *xdsmatcher.Matcher_OnMatch {
		return fetched(u.bindingsName(i), &matching.ExtensionWithMatcher{})
	})
	if m := match.GetMatcher(); m != nil && !u.DenyUnknown && len(u.closed) == 0 {
		return withMatcher(m)
	}
	return withMatcher(prefix(input, map[string]*xdsmatcher.Matcher_OnMatch{"/": match}))
}

// slotFilter finds out by the first letters of a slot's value where to look further.
func (u Unit) slotFilter(slot int) proto.Message {
	kinds := map[string]*xdsmatcher.Matcher_OnMatch{
		"l": fetched(u.luaName(slot), &filterlua.Lua{}, &rbac.RBAC{}),
		"n": deny(), "s": deny(), "w": deny(), "p": deny(),
	}
	for _, kind := range []string{"n", "s"} {
		n := u.slotTableCount(slot)
		for i := range n {
			at := kind
			if n > 1 {
				at += hexDigits[i : i+1]
			}
			kinds[at] = fetched(u.slotTableName(kind, slot, i), &matching.ExtensionWithMatcher{})
		}
	}
	for _, pool := range []numbered{u.Pool.open, u.Pool.secret} {
		for i := range pool.size {
			kinds[pool.prefix(i)] = fetched(u.Pool.resourceName(u.Workload, pool, i), &filterwasm.Wasm{}, &rbac.RBAC{})
		}
	}
	if slot == directSlots {
		kinds["m"] = u.more()
	}
	return withMatcher(prefix(stateInput(slotState(u.Workload, slot)), kinds))
}

// more runs the long slots, one after the other.
func (u Unit) more() *xdsmatcher.Matcher_OnMatch {
	chain := &composite.FilterChainConfiguration{}
	for slot := directSlots + 1; slot <= directSlots+longSlots; slot++ {
		chain.TypedConfig = append(chain.TypedConfig, &core.TypedExtensionConfig{
			Name:        fmt.Sprintf("%s.slot.%d", workloadPrefix(u.Workload), slot),
			TypedConfig: toAny(u.slotFilter(slot)),
		})
	}
	return act(&composite.ExecuteFilterAction{FilterChain: chain})
}
