package istiod

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// memory is what the client remembers of refusals, by workload: step 5 of the argument in the package's comment.
type memory struct {
	mu sync.Mutex
	// expected are the workloads, with the parts that are, or are about to be, written.
	expected map[string]Workload
	// accepted are the parts that all gateways have taken without a refusal.
	accepted map[string]map[string]string
	refused  map[string]refusal
}

// refusal is one that may still be in effect.
type refusal struct {
	// state is Rejected, or Unknown where nobody said which gateway refused what.
	state   State
	message string
	// blamed are the parts that were new: what had been accepted before was not refused.
	blamed map[string]string
	// gateways that were connected. Others have looked at everything anew. Nil: those that the first verdict is about.
	gateways []string
}

// stands says whether any of these parts is blamed.
func (r refusal) stands(parts map[string]string) bool {
	for name, version := range r.blamed {
		if now, ok := parts[name]; ok && now == version {
			return true
		}
	}
	return false
}

func newMemory() *memory {
	return &memory{expected: map[string]Workload{}, accepted: map[string]map[string]string{}, refused: map[string]refusal{}}
}

// key of a workload.
func (w Workload) key() string {
	var pairs []string
	for k, v := range w.Selector {
		pairs = append(pairs, k+"="+v)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

func (m *memory) expect(workloads []Workload) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range workloads {
		w.Parts = maps.Clone(w.Parts)
		m.expected[w.key()] = w
	}
}

// recall makes a refusal known that was before the client.
func (m *memory) recall(w Workload, state State, message string, blamed []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := refusal{state: state, message: message, blamed: map[string]string{}}
	for _, name := range blamed {
		r.blamed[name] = m.expected[w.key()].Parts[name]
	}
	m.refused[w.key()] = r
}

// written are the workloads as a new mark covers them.
func (m *memory) written() map[string]Workload {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.expected)
}

// note remembers what was refused between the last look and this one.
func (m *memory) note(instances []instance) {
	if !slices.ContainsFunc(instances, func(i instance) bool { return i.refused }) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.expected {
		for _, i := range instances {
			if i.refused {
				m.blame(w, i)
			}
		}
	}
}

// blame remembers a refusal by gateways of one istiod. What was refused may be somebody else's, but whether it is nobody
// can tell: what is sent has no name in the answer.
func (m *memory) blame(w Workload, i instance) {
	key := w.key()
	fresh := maps.Clone(w.Parts)
	maps.DeleteFunc(fresh, func(name, version string) bool { return m.accepted[key][name] == version })
	gateways := slices.DeleteFunc(slices.Clone(i.proxies), func(p proxy) bool { return !selects(w.Selector, p.labels) })
	if len(fresh) == 0 || len(gateways) == 0 {
		return
	}
	r := refusal{Unknown, fmt.Sprintf("a gateway of istiod %s refused something and then acknowledged something else, so that istiod does not tell which and why; it is in Envoy's log", i.address), fresh, nil}
	for _, p := range gateways {
		r.gateways = append(r.gateways, p.name())
	}
	if n := slices.IndexFunc(gateways, proxy.refuses); n >= 0 {
		r.state, r.message = Rejected, fmt.Sprintf("%s answered to ECDS: %s", gateways[n].name(), oneLine(gateways[n].responses[extensionType].refusal))
	} else if slices.ContainsFunc(i.proxies, proxy.refuses) {
		return // It is of another workload.
	} else if old := m.refused[key]; old.state == Rejected {
		r.state, r.message = old.state, old.message
	}
	m.refused[key] = r
}

// refuses says whether the last that istiod heard of the proxy about extension configurations is a refusal.
func (p proxy) refuses() bool { return p.responses[extensionType].refusal != "" }

// revise corrects a verdict that is about these parts by what was refused before.
func (m *memory) revise(w Workload, v Verdict, written map[string]string) Verdict {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := w.key()
	r := m.refused[key]
	v.Rest = v.State
	if r.blamed != nil && r.gateways == nil {
		for _, g := range v.Gateways {
			r.gateways = append(r.gateways, g.Name)
		}
		m.refused[key] = r
	}
	if v.State == Accepted && !slices.ContainsFunc(v.Gateways, func(g Gateway) bool { return slices.Contains(r.gateways, g.Name) }) {
		r = refusal{}
	}
	for _, name := range slices.Sorted(maps.Keys(r.blamed)) {
		if version, ok := written[name]; ok && version == r.blamed[name] {
			v.Blamed = append(v.Blamed, name)
		}
	}
	if v.State != Accepted {
		return v
	}
	// Envoy has seen all that was written, and what is not blamed by now was not refused.
	accepted := maps.Clone(written)
	for _, name := range v.Blamed {
		delete(accepted, name)
		if version, ok := m.accepted[key][name]; ok {
			accepted[name] = version
		}
	}
	m.accepted[key] = accepted
	switch len(v.Blamed) {
	case 0:
		// An old mark may know nothing of what is blamed.
		if !r.stands(m.expected[key].Parts) {
			delete(m.refused, key)
		}
	case len(r.blamed):
		v.State, v.Message = r.state, r.message
	default:
		v.State = Unknown
		v.Message = fmt.Sprintf("%s; whether it was among what has changed since will be known when the rest has changed, too, or all gateways were replaced", r.message)
	}
	return v
}
