package difference

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/explain"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

// routeChanges compares every route on every path on which it is or was reached.
func routeChanges(before, after Side) []RouteChange {
	was, is := newView(before), newView(after)
	c := newComparer(before.Snapshot, after.Snapshot)
	groups := map[string]int{}
	out := []RouteChange{}
	for _, name := range sortedNames(was, is) {
		v := serviceChanges(c, was.of(name), is.of(name))
		for _, key := range v.order {
			change, routes := v.changes[key], v.routes[key]
			at, known := groups[key]
			if !known {
				at = len(out)
				groups[key] = at
				out = append(out, change)
			}
			ref := explain.Object{Kind: "VirtualService", Namespace: name.Namespace, Name: name.Name}
			for _, r := range routes {
				out[at].Routes = append(out[at].Routes, Route{ref, r})
			}
			out[at].names = append(out[at].names, labels(ref, routes, v.total)...)
		}
	}
	return out
}

// labels name routes of one VirtualService for people.
func labels(ref explain.Object, routes []string, total int) []string {
	if len(routes) == total {
		return []string{ref.String()}
	}
	out := make([]string, len(routes))
	for i, r := range routes {
		out[i] = ref.String() + ":" + r
		if r == "" {
			out[i] = ref.String() + " (routes without a name)"
		}
	}
	return out
}

// view finds the chains of one side.
type view struct {
	side     Side
	services map[types.NamespacedName][]compile.Service
}

func newView(s Side) view {
	v := view{s, map[types.NamespacedName][]compile.Service{}}
	for _, service := range s.Result.Services {
		name := service.VirtualService.NamespacedName
		v.services[name] = append(v.services[name], service)
	}
	return v
}

func sortedNames(was, is view) []types.NamespacedName {
	names := maps.Clone(was.services)
	maps.Copy(names, is.services)
	return slices.SortedFunc(maps.Keys(names), func(a, b types.NamespacedName) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

// service is one VirtualService on one side.
type service struct {
	side   Side
	object *topology.VirtualService
	groups map[path]reached
}

// path is a Gateway and a port of it, or "" for those that no other path names.
type path struct {
	gateway finding.Object
	port    string
}

// reached is what serves a path.
type reached struct {
	group   compile.Group
	gateway *topology.Gateway
}

func (v view) of(name types.NamespacedName) service {
	out := service{side: v.side, groups: map[path]reached{}}
	for _, s := range v.services[name] {
		out.object = s.VirtualService
		for _, g := range s.Groups {
			for _, gateway := range g.Gateways {
				for _, port := range portsOf(g) {
					at := path{gateway.Ref(), port}
					// Workloads that may share pods have their groups in common.
					if _, known := out.groups[at]; !known {
						out.groups[at] = reached{g, gateway}
					}
				}
			}
		}
	}
	return out
}

func portsOf(g compile.Group) []string {
	if g.Ports == nil {
		return []string{""}
	}
	return g.Ports
}

func (s service) routeNames() map[string]bool {
	out := map[string]bool{}
	if s.object != nil {
		for _, r := range s.object.Routes {
			out[r.Name] = true
		}
	}
	return out
}

// chain is what a route runs on a path; false if it is not reached there.
func (s service) chain(at path, name string) (compile.RouteChain, bool) {
	r, ok := s.groups[at]
	if !ok {
		if r, ok = s.groups[path{gateway: at.gateway}]; !ok {
			return compile.RouteChain{}, false
		}
	}
	served := slices.ContainsFunc(s.object.Routes, func(o topology.Route) bool { return o.Name == name && o.ServedBy(r.gateway) })
	return r.group.Route(name), served
}

// state says what becomes of a request, and which plugins it meets.
func (s service) state(at path, name string) (State, compile.RouteChain) {
	chain, ok := s.chain(at, name)
	switch {
	case !ok:
		return State{Serves: Absent}, compile.RouteChain{}
	case chain.Refused != nil:
		return State{Serves: Refuses, Refused: explain.Refusals(s.side.Snapshot, chain)}, compile.RouteChain{}
	}
	return State{Serves: Runs}, chain
}

// serviceChange are the changes of one VirtualService's routes, by what changes.
type serviceChange struct {
	changes map[string]RouteChange
	routes  map[string][]string
	order   []string
	// total is how many names its routes have.
	total int
}

func serviceChanges(c *comparer, was, is service) serviceChange {
	names := was.routeNames()
	maps.Copy(names, is.routeNames())
	out := serviceChange{changes: map[string]RouteChange{}, routes: map[string][]string{}, total: len(names)}
	paths := maps.Clone(was.groups)
	maps.Copy(paths, is.groups)
	sorted := slices.SortedFunc(maps.Keys(paths), func(a, b path) int {
		return cmp.Or(cmp.Compare(a.gateway.String(), b.gateway.String()), cmp.Compare(rank(a), rank(b)), cmp.Compare(a.port, b.port))
	})
	ported := map[finding.Object]bool{}
	for _, at := range sorted {
		ported[at.gateway] = ported[at.gateway] || at.port != ""
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		// What changes alike on several paths is one change.
		changes, order := map[string]RouteChange{}, []string(nil)
		for _, at := range sorted {
			change, ok := c.route(was, is, at, name)
			if !ok {
				continue
			}
			key := keyOf(change)
			if _, known := changes[key]; known {
				change = changes[key]
			} else {
				order = append(order, key)
			}
			shown := Path{explain.Object(at.gateway), at.port}
			if at.port == "" && ported[at.gateway] {
				shown.Port = OtherPorts
			}
			change.Paths = append(change.Paths, shown)
			changes[key] = change
		}
		for _, key := range order {
			change := changes[key]
			key = keyOf(change)
			if _, known := out.changes[key]; !known {
				out.changes[key] = change
				out.order = append(out.order, key)
			}
			out.routes[key] = append(out.routes[key], name)
		}
	}
	return out
}

// rank puts the ports that no other path names behind the others.
func rank(p path) int {
	if p.port == "" {
		return 1
	}
	return 0
}

// keyOf is the same for equal changes.
func keyOf(c RouteChange) string {
	raw, err := json.Marshal(c)
	if err != nil {
		panic(err) // configs came from JSON
	}
	return string(raw)
}

// route compares a route on a path; false if nothing changes there.
func (c *comparer) route(was, is service, at path, name string) (RouteChange, bool) {
	before, chainBefore := was.state(at, name)
	after, chainAfter := is.state(at, name)
	steps, changed := c.steps(chainBefore, chainAfter)
	switch {
	case before.Serves == Refuses && after.Serves == Refuses:
		changed = !sameReasons(before.Refused, after.Refused)
	case before.Serves == Refuses || after.Serves == Refuses:
		changed = true
	}
	return RouteChange{Before: before, After: after, Steps: steps}, changed
}

func sameReasons(a, b []explain.Reason) bool {
	return slices.EqualFunc(a, b, func(a, b explain.Reason) bool {
		a.Source, b.Source = "", ""
		return a == b
	})
}

// steps compares two chains, which are those of a route that runs them.
func (c *comparer) steps(before, after compile.RouteChain) (out []Step, changed bool) {
	was, is := before.Chain.Steps, after.Chain.Steps
	from := c.match(was, is)
	stay := longestRise(from)
	out = []Step{}
	next := 0
	removed := func(until int) {
		for ; next < until; next++ {
			if !slices.Contains(from, next) {
				out = append(out, c.one(Removed, was[next], setting(was[next], before, nil), nil))
				changed = true
			}
		}
	}
	for i, step := range is {
		// What is gone comes before what takes its place.
		until := len(was)
		for k := i; k < len(is); k++ {
			if stay[k] {
				until = from[k]
				break
			}
		}
		removed(until)
		j := from[i]
		if j < 0 {
			out = append(out, c.one(Added, step, nil, setting(step, after, nil)))
			changed = true
			continue
		}
		kind, differs := Unchanged, c.differs(was[j], step, skips(before, was[j]) != skips(after, step))
		switch {
		case !stay[i]:
			kind = Moved
		case len(differs) > 0:
			kind = Changed
		}
		changed = changed || kind != Unchanged
		s := c.one(kind, step, nil, nil)
		if len(differs) > 0 {
			s.Differs = differs
			s.Before, s.After = setting(was[j], before, nil), setting(step, after, &was[j])
		}
		out = append(out, s)
	}
	removed(len(was))
	return out, changed
}

func (c *comparer) one(kind Kind, step resolve.Step, before, after *Setting) Step {
	s := Step{Change: kind, Plugin: step.Plugin.Name, Type: typeOf(step), Before: before, After: after}
	if step.Plugin.Object != (finding.Object{}) {
		object := explain.Object(step.Plugin.Object)
		s.Object = &object
	}
	return s
}

// match says of each step which one it was before; -1 for a new one. Of several of one Plugin those are the same that
// have the same config, and then those in the same order.
func (c *comparer) match(was, is []resolve.Step) []int {
	from := make([]int, len(is))
	taken := make([]bool, len(was))
	for i := range is {
		from[i] = -1
	}
	pair := func(alike func(before, after resolve.Step) bool) {
		for i, step := range is {
			for j := range was {
				if from[i] < 0 && !taken[j] && was[j].Plugin.ID == step.Plugin.ID && alike(was[j], step) {
					from[i], taken[j] = j, true
				}
			}
		}
	}
	if several(was) || several(is) {
		pair(explain.SameConfig)
	}
	pair(func(_, _ resolve.Step) bool { return true })
	return from
}

// several says whether two steps are of one Plugin.
func several(steps []resolve.Step) bool {
	return slices.ContainsFunc(steps, func(s resolve.Step) bool {
		return slices.IndexFunc(steps, func(o resolve.Step) bool { return o.Plugin.ID == s.Plugin.ID && o.Entry != s.Entry }) >= 0
	})
}

// longestRise says which steps need not move: the longest series of them that stand in the order in which they stood.
func longestRise(from []int) []bool {
	length, previous := make([]int, len(from)), make([]int, len(from))
	last := -1
	for i, j := range from {
		previous[i] = -1
		if j < 0 {
			continue
		}
		length[i] = 1
		for k := range i {
			if from[k] >= 0 && from[k] < j && length[k]+1 > length[i] {
				length[i], previous[i] = length[k]+1, k
			}
		}
		if last < 0 || length[i] > length[last] {
			last = i
		}
	}
	stay := make([]bool, len(from))
	for ; last >= 0; last = previous[last] {
		stay[last] = true
	}
	return stay
}

// skips says whether a step is unavailable and FailOpen.
func skips(c compile.RouteChain, step resolve.Step) bool {
	return slices.ContainsFunc(c.Skipped, func(s resolve.Step) bool {
		return s.Entry == step.Entry && slices.Equal(s.Merged, step.Merged)
	})
}

// setting is how a step is set up. With the step as it was, hidden values that have changed say so.
func setting(step resolve.Step, c compile.RouteChain, was *resolve.Step) *Setting {
	s := &Setting{FailurePolicy: policyOf(step), Skipped: skips(c, step)}
	if was == nil {
		s.Config = explain.Config(step)
	} else {
		s.Config = explain.ChangedConfig(*was, step)
	}
	return s
}
