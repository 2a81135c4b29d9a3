// Package memo keeps results from one pass to the next, for as long as passes ask for them.
package memo

import "maps"

// Map holds results by key. What a pass does not ask for is forgotten when it ends, so a Map never grows beyond what one
// pass needs. It does not know whether a result is still right: who asks for one compares what it was made from. The zero
// Map is empty.
type Map[K comparable, V any] struct {
	entries map[K]*entry[V]
	pass    int
}

type entry[V any] struct {
	value V
	// pass that last asked for it.
	pass int
}

// At is the place of a key, with the zero value where nothing is kept. It is to be used before the pass ends.
func (m *Map[K, V]) At(key K) *V {
	e := m.entries[key]
	if e == nil {
		e = &entry[V]{}
		if m.entries == nil {
			m.entries = map[K]*entry[V]{}
		}
		m.entries[key] = e
	}
	e.pass = m.pass
	return &e.value
}

// Now is what this pass has asked for under a key, or the zero value.
func (m *Map[K, V]) Now(key K) V {
	if e := m.entries[key]; e != nil && e.pass == m.pass {
		return e.value
	}
	var none V
	return none
}

// Next ends a pass.
func (m *Map[K, V]) Next() {
	maps.DeleteFunc(m.entries, func(_ K, e *entry[V]) bool { return e.pass != m.pass })
	m.pass++
}
