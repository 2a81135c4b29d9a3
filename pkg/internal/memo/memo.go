// Package memo keeps results from one pass to the next, for as long as passes ask for them.
package memo

// Map holds results by key. What a pass neither asks for nor puts is forgotten when it ends, so a Map never grows beyond
// what one pass needs. It does not know whether a result is still right: who gets one compares what it was made from. The
// zero Map is empty.
type Map[K comparable, V any] struct{ now, before map[K]V }

// Next ends a pass.
func (m *Map[K, V]) Next() { m.now, m.before = nil, m.now }

// Get returns what this pass, or else the one before it, has for a key.
func (m *Map[K, V]) Get(key K) (V, bool) {
	if v, ok := m.now[key]; ok {
		return v, true
	}
	v, ok := m.before[key]
	if ok {
		m.Put(key, v)
	}
	return v, ok
}

// Put keeps a result.
func (m *Map[K, V]) Put(key K, v V) {
	if m.now == nil {
		m.now = make(map[K]V, len(m.before))
	}
	m.now[key] = v
}
