package dispatch

import (
	"crypto/sha256"
	"maps"
	"slices"
	"strings"

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
	runs     memo.Map[[sha256.Size]byte, *laidRun] // by the state that they set
	natives  memo.Map[proto.Message, *nativeFilter]
	tables   memo.Map[string, laidTable]   // by name
	runtimes memo.Map[string, laidRuntime] // by name
	fixed    memo.Map[fixed, []*Filter]
	// chains are the values of Lua parts by their keys.
	chains map[string][]value
	// units counts the units that were compiled.
	units int
}

type match = *xdsmatcher.Matcher_OnMatch

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

// same says whether routes set the same state.
func (r laidRoutes) same(q laidRoutes) bool {
	sets := func(r, q *laidRun) bool { return r.match == q.match }
	return sets(r.byDefault, q.byDefault) && maps.EqualFunc(r.named, q.named, sets)
}

// laidRun is how a run was laid out: the state that it sets, and what that refers to, which may change without it.
type laidRun struct {
	key     [sha256.Size]byte
	match   match
	natives []placedNative
	lua     []placedLua
	// runtimes are the slots that need their Lua runtime, if only to refuse.
	runtimes []int
	// unit is the last one that it was added to.
	unit int
}

type placedNative struct {
	slot     int
	text     string
	filter   *nativeFilter
	stateful bool
}

// nativeFilter is a native filter where it is used. Uses that differ in their owner only share one.
type nativeFilter struct {
	config proto.Message
	match  match
	// unit is the last one that it was added to.
	unit int
}

type placedLua struct {
	slot int
	// id is the source's with the names of its shared tables, which is all that a runtime needs to know of a part.
	id   string
	part Placed
}

// lay lays a binding out.
func (m *Memory) lay(u Unit, b *Binding) *laid {
	at := m.bindings.At(b.Key)
	was := *at
	if was != nil && was.from == b && (was.pool == nil || was.pool == m.pool) {
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
	if was != nil && was.from.Once == b.Once && was.routes.same(l.routes) && maps.EqualFunc(was.byPort, l.byPort, laidRoutes.same) {
		l.match = was.match
	} else {
		l.match = l.matches()
	}
	*at = l
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
		ports := make(map[string]match, len(l.byPort))
		for port, routes := range l.byPort {
			ports[port] = routes.matches()
		}
		out = further(exact(portInput(), ports, out))
	}
	if l.from.Once {
		out = further(exact(stateInput(stateBound), map[string]match{"1": skipping}, out))
	}
	return out
}

func (r laidRoutes) matches() match {
	if len(r.named) == 0 {
		return r.byDefault.match
	}
	named := make(map[string]match, len(r.named))
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
	key := keyOf(slots, once)
	at := m.runs.At(key)
	switch was := *at; {
	case was == nil:
		*at = m.refer(key, set(u, slots, once), slots)
	case !was.refersTo(slots):
		*at = m.refer(key, was.match, slots)
	}
	l.runs = append(l.runs, *at)
	return *at
}

// refer is the run that sets a state, with what its slots refer to.
func (m *Memory) refer(key [sha256.Size]byte, sets match, slots []value) *laidRun {
	out := &laidRun{key: key, match: sets}
	for i, v := range slots {
		switch {
		case v.native != nil:
			out.natives = append(out.natives, placedNative{i, v.text, m.native(v.native), v.stateful})
		case strings.HasPrefix(v.text, "l"):
			out.runtimes = append(out.runtimes, i)
			for _, p := range v.lua {
				out.lua = append(out.lua, placedLua{i, runtimeID(p.Part.(part.Lua)), p})
			}
		}
	}
	return out
}

// refersTo says whether the run refers to the same as slots that set the same state.
func (r *laidRun) refersTo(slots []value) bool {
	natives, parts := r.natives, r.lua
	for _, v := range slots {
		if v.native != nil {
			if len(natives) == 0 || natives[0].filter.config != v.native {
				return false
			}
			natives = natives[1:]
		}
		for _, p := range v.lua {
			if len(parts) == 0 || parts[0].part.Key != p.Key {
				return false
			}
			parts = parts[1:]
		}
	}
	return len(natives)+len(parts) == 0
}

// set is the message that sets the state of slots.
func set(u Unit, slots []value, once bool) match {
	var states []state
	for i, v := range slots {
		if v.text != "" {
			states = append(states, state{key: slotState(u.Workload, i), format: literal(v.text)})
		}
	}
	if once {
		states = append(states, state{key: stateBound, format: "1"})
	}
	if len(states) == 0 {
		return skipping
	}
	return inline("envoy.filters.http.set_filter_state", setState(states))
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
	natives [MaxSlots + 2][]*placedNative
	lua     [MaxSlots + 2]map[string]Placed // by what a runtime knows of them
	inUse   [MaxSlots + 2]bool
}

func (m *Memory) add(c *content, r *laidRun) {
	if r.unit == m.units {
		return
	}
	r.unit = m.units
	*m.runs.At(r.key) = r
	for i := range r.natives {
		n := &r.natives[i]
		c.natives[n.slot] = append(c.natives[n.slot], n)
		if n.filter.unit != m.units {
			n.filter.unit = m.units
			*m.natives.At(n.filter.config) = n.filter
		}
	}
	for _, slot := range r.runtimes {
		c.inUse[slot] = true
	}
	for _, l := range r.lua {
		if c.lua[l.slot] == nil {
			c.lua[l.slot] = map[string]Placed{}
		}
		c.lua[l.slot][l.id] = l.part
	}
}

// entries are what a table holds, in the order in which it was found. Of several under one key the last counts.
type entries []entry

type entry struct {
	key   string
	match match
}

func (e entries) and(next entry) entries {
	if len(e) > 0 && e[len(e)-1] == next {
		return e
	}
	return append(e, next)
}

// laidTable is a table that was laid out, with what it was laid out of.
type laidTable struct {
	Resource
	entries entries
	matches map[string]match
	deny    bool
}

// table is the table of a name, which looks a state up; what is not in it is denied, or else runs nothing.
func (m *Memory) table(name, state string, list entries, deny bool) Resource {
	was := m.tables.At(name)
	if was.Config != nil && was.deny == deny && slices.Equal(was.entries, list) {
		return was.Resource
	}
	matches := make(map[string]match, len(list))
	for _, e := range list {
		matches[e.key] = e.match
	}
	keys := slices.Sorted(maps.Keys(matches))
	if len(matches) == 0 {
		matches[NoEntry] = skipping // a map must have an entry
	}
	is := laidTable{entries: list, matches: matches, deny: deny}
	if was.deny == deny && maps.Equal(was.matches, matches) {
		is.Resource = was.Resource
	} else {
		var otherwise match
		if deny {
			otherwise = denying
		}
		is.Resource = Resource{Name: name, Config: withMatcher(exact(stateInput(state), matches, otherwise)), Keys: keys}
	}
	*was = is
	return is.Resource
}

func (m *Memory) bindingsTable(u Unit, n int, list entries) Resource {
	name := u.bindingsName(n)
	if u.closed[name] {
		list = nil
	}
	return m.table(name, stateVirtualService, list, u.DenyUnknown || u.closed[name])
}

// slotTables are the native filters of one slot: those without state, then those with.
func (m *Memory) slotTables(u Unit, slot int, c *content) []Resource {
	n := u.slotTableCount(slot)
	tables := make([]entries, 2*n)
	for _, p := range c.natives[slot] {
		i := u.slotTable(slot, p.text)
		if p.stateful {
			i += n
		}
		tables[i] = tables[i].and(entry{p.text, p.filter.match})
	}
	out := make([]Resource, len(tables))
	for i, list := range tables {
		kind := "n"
		if i >= n {
			kind = "s"
		}
		out[i] = m.table(u.slotTableName(kind, slot, i%n), slotState(u.Workload, slot), list, true)
	}
	return out
}

func (m *Memory) native(config proto.Message) *nativeFilter {
	at := m.natives.At(config)
	if *at == nil {
		*at = &nativeFilter{config: config, match: inline(envoy.FilterName(config), config)}
	}
	return *at
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
	was := m.runtimes.At(r.Name)
	if was.Config != nil && maps.Equal(was.parts, parts) {
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
	*was = laidRuntime{r, parts}
	return r
}

// fixed is what the fixed filters of a unit depend on.
type fixed struct {
	unit         string
	deny, closed bool
	open, secret int
}

func (m *Memory) filters(u Unit) []*Filter {
	at := m.fixed.At(fixed{u.Name, u.DenyUnknown, len(u.closed) > 0, u.Pool.open.size, u.Pool.secret.size})
	if *at == nil {
		*at = u.filters()
	}
	return *at
}

// Messages without content of their own, shared by all.
var (
	skipping = nothing()
	denying  = deny()
	nobody   = DenyAll()
)
