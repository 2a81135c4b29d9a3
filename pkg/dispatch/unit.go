package dispatch

import (
	"fmt"
	"iter"
	"maps"
	"slices"

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

	"github.com/istio-plugins/istio-plugins/pkg/envoy"
	"github.com/istio-plugins/istio-plugins/pkg/lua"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// Binding is what the routes of one VirtualService run.
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
	Bindings       []Binding
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

func slotState(workload string, slot int) string {
	return fmt.Sprintf("%s.slot.%d", workloadPrefix(workload), slot)
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

// content is what the values of all runs add up to, by slot.
type content struct {
	native [MaxSlots + 2]map[string]value
	lua    [MaxSlots + 2]map[string]part.Lua // by source and shared tables
	inUse  [MaxSlots + 2]bool                // the Lua runtime is needed, if only to refuse
	// runs and chains remember what is equal for many routes: how a run's slots are set, and Lua values by the parts' keys.
	runs   map[string]*xdsmatcher.Matcher_OnMatch
	chains map[string][]value
	// filters are the native filters where they are used; those that differ in their owner only share one.
	filters map[proto.Message]*xdsmatcher.Matcher_OnMatch
}

// addLua keeps one part for each source with each set of shared tables, which is all that a runtime needs to know.
func (c *content) addLua(slot int, parts []part.Lua) {
	if c.lua[slot] == nil {
		c.lua[slot] = map[string]part.Lua{}
	}
	for _, p := range parts {
		key := p.SourceID
		for _, s := range lua.NewProgram(p).Shared {
			key += " " + s.Name
		}
		c.lua[slot][key] = p
	}
}

// Compile lays a unit out. Every run must fit (SlotsNeeded), and every Wasm plugin must have a number.
func (u Unit) Compile() Compiled {
	c := &content{
		runs:    map[string]*xdsmatcher.Matcher_OnMatch{},
		chains:  map[string][]value{},
		filters: map[proto.Message]*xdsmatcher.Matcher_OnMatch{},
	}
	entries := make([]map[string]*xdsmatcher.Matcher_OnMatch, u.tables().Bindings)
	for i := range entries {
		entries[i] = map[string]*xdsmatcher.Matcher_OnMatch{}
	}
	for _, b := range u.Bindings {
		entries[u.BindingsTable(b.Key)][b.Key] = u.binding(b, c)
	}
	out := Compiled{Filters: u.filters()}
	for i, e := range entries {
		out.Bindings = append(out.Bindings, u.bindingsTable(i, e))
	}
	out.Slots = make([][]Resource, MaxSlots+2)
	out.Lua = make([]Resource, MaxSlots+2)
	for _, slot := range allSlots() {
		if u.shares(slot) {
			continue
		}
		out.Slots[slot] = u.slotTables(slot, c)
		out.Lua[slot] = u.luaResource(slot, c)
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

// binding sets the slots of one VirtualService's routes.
func (u Unit) binding(b Binding, c *content) *xdsmatcher.Matcher_OnMatch {
	match := u.routes(b.Routes, b.Once, c)
	if len(b.ByPort) > 0 {
		ports := make(map[string]*xdsmatcher.Matcher_OnMatch, len(b.ByPort))
		for port, routes := range b.ByPort {
			ports[port] = u.routes(routes, b.Once, c)
		}
		match = further(exact(portInput(), ports, match))
	}
	if b.Once {
		bound := map[string]*xdsmatcher.Matcher_OnMatch{"1": nothing()}
		match = further(exact(stateInput(stateBound), bound, match))
	}
	return match
}

func (u Unit) routes(r Routes, once bool, c *content) *xdsmatcher.Matcher_OnMatch {
	match := u.run(r.Default, once, c)
	if len(r.Named) == 0 {
		return match
	}
	named := make(map[string]*xdsmatcher.Matcher_OnMatch, len(r.Named))
	for name, run := range r.Named {
		named[name] = u.run(run, once, c)
	}
	return further(exact(stateInput(stateRoute), named, match))
}

// run is the one change of a request's state that makes it run a chain. Equal runs share a message.
func (u Unit) run(r Run, once bool, c *content) *xdsmatcher.Matcher_OnMatch {
	values := r.values(u.Pool, c.chains)
	if len(values) == 0 && !once {
		return nothing()
	}
	slots, err := place(values)
	if err != nil {
		panic(err) // SlotsNeeded was not asked
	}
	var states []state
	memoKey := fmt.Sprint(once)
	for i, v := range slots {
		if v.text == "" {
			continue
		}
		states = append(states, state{key: slotState(u.Workload, i), format: literal(v.text)})
		memoKey += "\x00" + v.text
	}
	if m, ok := c.runs[memoKey]; ok {
		return m
	}
	for i, v := range slots {
		switch {
		case v.native != nil:
			if c.native[i] == nil {
				c.native[i] = map[string]value{}
			}
			c.native[i][v.text] = v
		case len(v.text) > 0 && v.text[0] == 'l':
			c.inUse[i] = true
			c.addLua(i, v.luaParts)
		}
	}
	if once {
		states = append(states, state{key: stateBound, format: "1"})
	}
	m := inline("envoy.filters.http.set_filter_state", setState(states))
	c.runs[memoKey] = m
	return m
}

func (u Unit) bindingsTable(n int, entries map[string]*xdsmatcher.Matcher_OnMatch) Resource {
	name := fmt.Sprintf("%s.bindings.%d", u.prefix(), n)
	if u.closed[name] {
		clear(entries)
	}
	keys := slices.Sorted(maps.Keys(entries))
	if len(entries) == 0 {
		entries[NoEntry] = nothing() // a map must have an entry
	}
	var otherwise *xdsmatcher.Matcher_OnMatch
	if u.DenyUnknown || u.closed[name] {
		otherwise = deny()
	}
	return Resource{
		Name:   name,
		Config: table(exact(stateInput(stateVirtualService), entries, otherwise)),
		Keys:   keys,
	}
}

// NoEntry stands in tables without entries. It is no VirtualService's key and no instance's name.
const NoEntry = "-"

// slotTables are the native filters of one slot: those without state, then those with.
func (u Unit) slotTables(slot int, c *content) []Resource {
	natives := c.native[slot]
	var out []Resource
	for _, kind := range []string{"n", "s"} {
		n := u.slotTableCount(slot)
		tables := make([]map[string]*xdsmatcher.Matcher_OnMatch, n)
		for i := range tables {
			tables[i] = map[string]*xdsmatcher.Matcher_OnMatch{}
		}
		for _, text := range slices.Sorted(maps.Keys(natives)) {
			v := natives[text]
			if v.stateful != (kind == "s") {
				continue
			}
			tables[u.slotTable(slot, text)][text] = c.filter(v.native)
		}
		for i, entries := range tables {
			keys := slices.Sorted(maps.Keys(entries))
			if len(entries) == 0 {
				entries[NoEntry] = nothing()
			}
			out = append(out, Resource{
				Name:   u.slotTableName(kind, slot, i),
				Config: table(exact(stateInput(slotState(u.Workload, slot)), entries, deny())),
				Keys:   keys,
			})
		}
	}
	return out
}

func (c *content) filter(m proto.Message) *xdsmatcher.Matcher_OnMatch {
	if c.filters[m] == nil {
		c.filters[m] = inline(envoy.FilterName(m), m)
	}
	return c.filters[m]
}

// slotTableCount is 1 for long slots: they are many, and rarely used.
func (u Unit) slotTableCount(slot int) int {
	if isLong(slot) {
		return 1
	}
	return u.tables().Slots
}

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

// luaResource is the runtime of a slot, or a refusal without VMs where no run uses it.
func (u Unit) luaResource(slot int, c *content) Resource {
	r := Resource{Name: u.luaName(slot), Config: DenyAll()}
	if c.inUse[slot] {
		program := lua.NewProgram(slices.Collect(maps.Values(c.lua[slot]))...)
		r.Config = luaFilter(program.FilterSource(slotState(u.Workload, slot)))
		r.Sizes = map[string]int{}
		for _, s := range program.Sources {
			r.Keys = append(r.Keys, s.ID)
			r.Sizes[s.ID] = len(s.Text)
		}
		for _, s := range program.Shared {
			r.Sizes[s.Name] = len(s.Table.JSON())
		}
		slices.Sort(r.Keys)
		r.Keys = slices.Compact(r.Keys)
	}
	return r
}

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
		return fetched(fmt.Sprintf("%s.bindings.%d", u.prefix(), i), &matching.ExtensionWithMatcher{})
	})
	if m := match.GetMatcher(); m != nil && !u.DenyUnknown && len(u.closed) == 0 {
		return table(m)
	}
	return table(prefix(input, map[string]*xdsmatcher.Matcher_OnMatch{"/": match}))
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
	return table(prefix(stateInput(slotState(u.Workload, slot)), kinds))
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
