package dispatch

import (
	"crypto/sha256"
	"maps"
	"slices"

	xdsmatcher "github.com/cncf/xds/go/xds/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	"github.com/istio-plugins/istio-plugins/pkg/envoy"
	"github.com/istio-plugins/istio-plugins/pkg/internal/memo"
	"github.com/istio-plugins/istio-plugins/pkg/lua"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

// Memory keeps what was laid out for a workload's units from one pass to the next, so that a message is the same one for as
// long as it says the same. What stands in a message depends on bindings, which are never modified, on the numbers in the
// pool, and on the fields of the unit that are part of the keys here.
type Memory struct {
	// pool has the numbers of the pools before it, as long as they are the same.
	pool     *Pool
	bindings memo.Map[string, *laid]               // by the VirtualService's key
	runs     memo.Map[[sha256.Size]byte, *laidRun] // by what their slots hold
	natives  memo.Map[proto.Message, match]        // native filters where they are used; owners share one
	tables   memo.Map[string, laidTable]           // by name
	runtimes memo.Map[string, laidRuntime]         // by name
	fixed    memo.Map[fixed, []*Filter]
	// chains are the values of Lua parts by their keys.
	chains map[string][]value
}

type match = *xdsmatcher.Matcher_OnMatch

// table is what a table holds.
type table map[string]match

// Next ends a pass. What it did not use is forgotten.
func (m *Memory) Next() {
	m.bindings.Next()
	m.runs.Next()
	m.natives.Next()
	m.tables.Next()
	m.runtimes.Next()
	m.fixed.Next()
	m.chains = nil
}

func (m *Memory) know(p *Pool) {
	if m.pool == nil || !m.pool.numbersAs(p) {
		m.pool = p
	}
}

// laid is how a binding was laid out.
type laid struct {
	from *Binding
	// pool whose numbers it has; nil for none.
	pool   *Pool
	routes laidRoutes
	byPort map[string]laidRoutes
	match  match
	// runs are all of them.
	runs []*laidRun
}

type laidRoutes struct {
	byDefault *laidRun
	named     map[string]*laidRun
}

func (r laidRoutes) same(q laidRoutes) bool {
	return r.byDefault == q.byDefault && maps.Equal(r.named, q.named)
}

// laidRun is how a run was laid out. Equal ones are one.
type laidRun struct {
	key     [sha256.Size]byte
	match   match
	natives []placedNative
	lua     []placedLua
	// runtimes are the slots that need their Lua runtime, if only to refuse.
	runtimes []int
}

type placedNative struct {
	slot     int
	text     string
	filter   proto.Message
	stateful bool
}

type placedLua struct {
	slot int
	// id is the source's with the names of its shared tables, which is all that a runtime needs to know of a part.
	id   string
	part Placed
}

// lay lays a binding out.
func (m *Memory) lay(u Unit, b *Binding) *laid {
	was, known := m.bindings.Get(b.Key)
	if known && was.from == b && (was.pool == nil || was.pool == m.pool) {
		return was
	}
	l := &laid{from: b}
	l.routes = m.routes(u, l, b.Routes)
	if len(b.ByPort) > 0 {
		l.byPort = make(map[string]laidRoutes, len(b.ByPort))
		for port, routes := range b.ByPort {
			l.byPort[port] = m.routes(u, l, routes)
		}
	}
	if known && was.from.Once == b.Once && was.routes.same(l.routes) && maps.EqualFunc(was.byPort, l.byPort, laidRoutes.same) {
		l.match = was.match
	} else {
		l.match = l.matches()
	}
	m.bindings.Put(b.Key, l)
	return l
}

func (m *Memory) routes(u Unit, l *laid, r Routes) laidRoutes {
	out := laidRoutes{byDefault: m.run(u, l, r.Default)}
	if len(r.Named) > 0 {
		out.named = make(map[string]*laidRun, len(r.Named))
		for name, run := range r.Named {
			out.named[name] = m.run(u, l, run)
		}
	}
	return out
}

// matches sets the slots of one VirtualService's routes.
func (l *laid) matches() match {
	out := l.routes.matches()
	if len(l.byPort) > 0 {
		ports := make(table, len(l.byPort))
		for port, routes := range l.byPort {
			ports[port] = routes.matches()
		}
		out = further(exact(portInput(), ports, out))
	}
	if l.from.Once {
		out = further(exact(stateInput(stateBound), table{"1": skipping}, out))
	}
	return out
}

func (r laidRoutes) matches() match {
	if len(r.named) == 0 {
		return r.byDefault.match
	}
	named := make(table, len(r.named))
	for name, run := range r.named {
		named[name] = run.match
	}
	return further(exact(stateInput(stateRoute), named, r.byDefault.match))
}

// run is the one change of a request's state that makes it run a chain. Equal runs share a message.
func (m *Memory) run(u Unit, l *laid, r Run) *laidRun {
	if slices.ContainsFunc(r.Parts, func(p Placed) bool { _, wasm := p.Part.(part.Wasm); return wasm }) {
		l.pool = m.pool
	}
	if m.chains == nil {
		m.chains = map[string][]value{}
	}
	once := l.from.Once
	slots, err := place(r.values(u.Pool, m.chains))
	if err != nil {
		panic(err) // SlotsNeeded was not asked
	}
	out := &laidRun{key: keyOf(slots, once)}
	if known, ok := m.runs.Get(out.key); ok {
		l.runs = append(l.runs, known)
		return known
	}
	var states []state
	for i, v := range slots {
		switch {
		case v.text == "":
			continue
		case v.native != nil:
			out.natives = append(out.natives, placedNative{i, v.text, v.native, v.stateful})
		case v.text[0] == 'l':
			out.runtimes = append(out.runtimes, i)
			for _, p := range v.lua {
				out.lua = append(out.lua, placedLua{i, runtimeID(p.Part.(part.Lua)), p})
			}
		}
		states = append(states, state{key: slotState(u.Workload, i), format: literal(v.text)})
	}
	if once {
		states = append(states, state{key: stateBound, format: "1"})
	}
	out.match = skipping
	if len(states) > 0 {
		out.match = inline("envoy.filters.http.set_filter_state", setState(states))
	}
	m.runs.Put(out.key, out)
	l.runs = append(l.runs, out)
	return out
}

// keyOf is equal for runs that set the same state. It is no shorter a hash, because texts are users' own.
func keyOf(slots []value, once bool) [sha256.Size]byte {
	text := make([]byte, 1, 512)
	if once {
		text[0] = 1
	}
	for _, v := range slots {
		text = append(text, v.text...)
		text = append(text, 0)
	}
	return sha256.Sum256(text)
}

func runtimeID(l part.Lua) string {
	id := l.SourceID
	for _, s := range lua.NewProgram(l).Shared {
		id += " " + s.Name
	}
	return id
}

// content is what all runs of a unit add up to, by slot.
type content struct {
	runs    map[*laidRun]bool // those that were added
	natives [MaxSlots + 2]map[string]placedNative
	lua     [MaxSlots + 2]map[string]Placed // by what a runtime knows of them
	inUse   [MaxSlots + 2]bool
}

func newContent() *content {
	c := &content{runs: map[*laidRun]bool{}}
	for slot := range c.natives {
		c.natives[slot], c.lua[slot] = map[string]placedNative{}, map[string]Placed{}
	}
	return c
}

func (m *Memory) add(c *content, r *laidRun) {
	if c.runs[r] {
		return
	}
	c.runs[r] = true
	m.runs.Put(r.key, r)
	for _, n := range r.natives {
		c.natives[n.slot][n.text] = n
	}
	for _, slot := range r.runtimes {
		c.inUse[slot] = true
	}
	for _, l := range r.lua {
		c.lua[l.slot][l.id] = l.part
	}
}

// laidTable is a table that was laid out, with what it was laid out of.
type laidTable struct {
	Resource
	entries   table
	otherwise bool
}

// table is the table of a name; what is in none of its entries is denied, or else runs nothing.
func (m *Memory) table(name string, state string, entries table, deny bool) Resource {
	keys := len(entries)
	if keys == 0 {
		entries[NoEntry] = skipping // a map must have an entry
	}
	if was, ok := m.tables.Get(name); ok && was.otherwise == deny && maps.Equal(was.entries, entries) {
		return was.Resource
	}
	var otherwise match
	if deny {
		otherwise = denying
	}
	r := Resource{Name: name, Config: withMatcher(exact(stateInput(state), entries, otherwise))}
	if keys > 0 {
		r.Keys = slices.Sorted(maps.Keys(entries))
	}
	m.tables.Put(name, laidTable{r, entries, deny})
	return r
}

func (m *Memory) bindingsTable(u Unit, n int, entries table) Resource {
	name := u.bindingsName(n)
	if u.closed[name] {
		clear(entries)
	}
	return m.table(name, stateVirtualService, entries, u.DenyUnknown || u.closed[name])
}

// slotTables are the native filters of one slot: those without state, then those with.
func (m *Memory) slotTables(u Unit, slot int, c *content) []Resource {
	n := u.slotTableCount(slot)
	tables := make([]table, 2*n)
	for i := range tables {
		tables[i] = table{}
	}
	for text, native := range c.natives[slot] {
		i := u.slotTable(slot, text)
		if native.stateful {
			i += n
		}
		tables[i][text] = m.native(native.filter)
	}
	out := make([]Resource, len(tables))
	for i, entries := range tables {
		kind := "n"
		if i >= n {
			kind = "s"
		}
		out[i] = m.table(u.slotTableName(kind, slot, i%n), slotState(u.Workload, slot), entries, true)
	}
	return out
}

func (m *Memory) native(filter proto.Message) match {
	known, ok := m.natives.Get(filter)
	if !ok {
		known = inline(envoy.FilterName(filter), filter)
		m.natives.Put(filter, known)
	}
	return known
}

// laidRuntime is the Lua runtime of a slot, with what it was laid out of: the keys of the parts that it knows.
type laidRuntime struct {
	Resource
	parts map[string]string
}

// runtime is the runtime of a slot, or a refusal without VMs where no run uses it.
func (m *Memory) runtime(u Unit, slot int, c *content) Resource {
	r := Resource{Name: u.luaName(slot), Config: nobody}
	if !c.inUse[slot] {
		return r
	}
	parts := make(map[string]string, len(c.lua[slot]))
	for id, p := range c.lua[slot] {
		parts[id] = p.Key
	}
	if was, ok := m.runtimes.Get(r.Name); ok && maps.Equal(was.parts, parts) {
		return was.Resource
	}
	program := lua.NewProgram(luaParts(slices.Collect(maps.Values(c.lua[slot])))...)
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
	m.runtimes.Put(r.Name, laidRuntime{r, parts})
	return r
}

// fixed is what the fixed filters of a unit depend on.
type fixed struct {
	unit         string
	deny, closed bool
	open, secret int
}

func (m *Memory) filters(u Unit) []*Filter {
	key := fixed{u.Name, u.DenyUnknown, len(u.closed) > 0, u.Pool.open.size, u.Pool.secret.size}
	known, ok := m.fixed.Get(key)
	if !ok {
		known = u.filters()
		m.fixed.Put(key, known)
	}
	return known
}

// Messages without content of their own, shared by all.
var (
	skipping = nothing()
	denying  = deny()
	nobody   = DenyAll()
)
