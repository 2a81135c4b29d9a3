package dispatch

import (
	"fmt"
	"maps"
	"slices"

	"github.com/istio-plugins/istio-plugins/pkg/part"
)

const (
	// poolStep is by how much a pool grows; growing changes the listener, which drains its connections.
	poolStep = 4
	// MaxWasm is the most Wasm plugins of one gateway: each is a filter of every HTTP connection manager.
	MaxWasm = 64
)

// Pool numbers the Wasm plugins of a workload. A number that an earlier emission gave is kept, so that it does not
// change its meaning while a route may still name it; others are given in sorted order.
type Pool struct {
	// SecretName is the ECDS name under which istiod serves a WasmPlugin of the root namespace.
	SecretName func(object string) string
	// open are plugins without pull secret, by number; secret those with one.
	open, secret numbered
}

type numbered struct {
	letter string
	size   int
	number map[string]int
	wasm   map[int]part.Wasm
}

// Numbers are those that an earlier emission gave: identity to number.
type Numbers struct {
	Open   map[string]int `json:"open,omitempty"`
	Secret map[string]int `json:"secret,omitempty"`
	// OpenPlaces and SecretPlaces are how many places there were. A pool does not become smaller: that would change the
	// listener on some later edit that has nothing to do with it.
	OpenPlaces   int `json:"openPlaces,omitempty"`
	SecretPlaces int `json:"secretPlaces,omitempty"`
}

// NewPool numbers these plugins, by identity. It returns the identities for which there was no number left.
func NewPool(plugins map[string]part.Wasm, earlier Numbers, secretName func(object string) string) (*Pool, []string) {
	p := &Pool{SecretName: secretName}
	byKind := [2]map[string]part.Wasm{{}, {}}
	for id, w := range plugins {
		if w.ImagePullSecret == "" {
			byKind[0][id] = w
		} else {
			byKind[1][id] = w
		}
	}
	var left, more []string
	p.open, left = number("w", max(poolStep, earlier.OpenPlaces), byKind[0], earlier.Open)
	// Images with a pull secret are rare, and each place costs every HTTP connection manager a filter in every slot.
	p.secret, more = number("p", earlier.SecretPlaces, byKind[1], earlier.Secret)
	return p, append(left, more...)
}

func number(letter string, least int, plugins map[string]part.Wasm, earlier map[string]int) (numbered, []string) {
	n := numbered{letter: letter, number: map[string]int{}, wasm: map[int]part.Wasm{}}
	highest := -1
	taken := map[int]bool{}
	for _, i := range earlier {
		if i >= 0 && i < MaxWasm {
			taken[i] = true // also those that nobody needs any more: a gateway may still name them
			highest = max(highest, i)
		}
	}
	give := func(id string, i int) {
		n.number[id], n.wasm[i] = i, plugins[id]
		taken[i] = true
		highest = max(highest, i)
	}
	for _, id := range slices.Sorted(maps.Keys(earlier)) {
		i := earlier[id]
		_, wanted := plugins[id]
		// Two plugins with one number were written by hand.
		if _, occupied := n.wasm[i]; wanted && !occupied && i >= 0 && i < MaxWasm {
			give(id, i)
		}
	}
	var left []string
	next := 0
	for _, id := range slices.Sorted(maps.Keys(plugins)) {
		if _, has := n.number[id]; has {
			continue
		}
		for next < MaxWasm && taken[next] {
			next++
		}
		if next == MaxWasm {
			left = append(left, id)
			continue
		}
		give(id, next)
	}
	n.size = max(min(least, MaxWasm), (highest+poolStep)/poolStep*poolStep)
	return n, left
}

// value is the slot value of a plugin. The dot keeps w1 apart from w12.
func (p *Pool) value(identity string) string {
	for _, n := range []numbered{p.open, p.secret} {
		if i, ok := n.number[identity]; ok {
			return n.prefix(i)
		}
	}
	panic("a Wasm plugin without a number: " + identity)
}

func (n numbered) prefix(i int) string { return fmt.Sprintf("%s%d.", n.letter, i) }

// numbersAs says whether both pools give the same numbers.
func (p *Pool) numbersAs(q *Pool) bool {
	return maps.Equal(p.open.number, q.open.number) && maps.Equal(p.secret.number, q.secret.number)
}

// Numbers are what a later emission must know; nothing for a pool as small as any.
func (p *Pool) Numbers() Numbers {
	n := Numbers{Open: p.open.number, Secret: p.secret.number, SecretPlaces: p.secret.size}
	if p.open.size > poolStep {
		n.OpenPlaces = p.open.size
	}
	return n
}

// identities are the plugins by number.
func (n numbered) identities() map[int]string {
	out := make(map[int]string, len(n.number))
	for id, i := range n.number {
		out[i] = id
	}
	return out
}

// WasmResource is one place of the pool: the ECDS name that gateways know it by, and the plugin there, if any.
type WasmResource struct {
	Number int
	// Secret says that the place is for plugins with a pull secret.
	Secret bool
	// Name is the ECDS name.
	Name string
	// Identity and Wasm of the plugin; nil for a free place.
	Identity string
	Wasm     *part.Wasm
}

// Resources are all places of the pool, those without pull secret first.
func (p *Pool) Resources(workload string) []WasmResource {
	var out []WasmResource
	for _, n := range []numbered{p.open, p.secret} {
		identities := n.identities()
		for i := range n.size {
			r := WasmResource{Number: i, Secret: n.letter == p.secret.letter, Name: p.resourceName(workload, n, i), Identity: identities[i]}
			if w, ok := n.wasm[i]; ok {
				r.Wasm = &w
			}
			out = append(out, r)
		}
	}
	return out
}

// resourceName is our own for plugins without pull secret. istiod serves those with one, as WasmPlugins, under names
// that depend on its version.
func (p *Pool) resourceName(workload string, n numbered, i int) string {
	if n.letter == p.secret.letter {
		return p.SecretName(SecretObject(workload, i))
	}
	return fmt.Sprintf("%s.wasm.%d", workloadPrefix(workload), i)
}

// SecretObject is the name of the WasmPlugin at a place of the pool for plugins with a pull secret.
func SecretObject(workload string, i int) string {
	return fmt.Sprintf("istio-plugins-%s-pull-%d", workload, i)
}
