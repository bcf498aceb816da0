package damage

// manyKeys is from how many keys on a smallMap looks them up by hash.
const manyKeys = 24

// smallMap is a map that mostly has a handful of keys: it keeps them in a row, in the order in which they came, and needs no
// memory of its own for each. What at returns is good until at is called for another key. The zero value is empty.
type smallMap[K comparable, V any] struct {
	entries []entry[K, V]
	index   map[K]int // into entries; nil as long as there are few
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

// at is k's value, and whether it is there already; otherwise it is added as zero.
func (m *smallMap[K, V]) at(k K) (v *V, there bool) {
	if m.index != nil {
		if i, ok := m.index[k]; ok {
			return &m.entries[i].value, true
		}
	} else {
		for i := len(m.entries) - 1; i >= 0; i-- {
			if m.entries[i].key == k {
				return &m.entries[i].value, true
			}
		}
	}
	m.entries = append(m.entries, entry[K, V]{key: k})
	last := len(m.entries) - 1
	switch {
	case m.index != nil:
		m.index[k] = last
	case len(m.entries) > manyKeys:
		m.index = make(map[K]int, 2*manyKeys)
		for i := range m.entries {
			m.index[m.entries[i].key] = i
		}
	}
	return &m.entries[last].value, false
}

// reset empties the map, and keeps memory for a few keys.
func (m *smallMap[K, V]) reset() {
	if m.index != nil {
		*m = smallMap[K, V]{}
		return
	}
	clear(m.entries)
	m.entries = m.entries[:0]
}
