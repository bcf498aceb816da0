package damage

import (
	"maps"
	"testing"

	"pgregory.net/rapid"

	"pileus/internal/pg"
)

// TestSmallMapIsAMap compares with a map of Go, below and above the number of keys from which on it is one.
func TestSmallMapIsAMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var m smallMap[int, int64]
		for range rapid.IntRange(1, 3).Draw(rt, "uses") {
			want := map[int]int64{}
			keys := rapid.SliceOfN(rapid.IntRange(0, rapid.SampledFrom([]int{3, 200}).Draw(rt, "keys")), 0, 300).Draw(rt, "asked")
			for i, k := range keys {
				v, there := m.at(k)
				if _, had := want[k]; there != had {
					rt.Fatalf("key %d: there %v, expected %v", k, there, had)
				}
				*v += int64(i)
				want[k] += int64(i)
			}
			got := map[int]int64{}
			for _, e := range m.entries {
				got[e.key] = e.value
			}
			if !maps.Equal(got, want) || len(m.entries) != len(want) {
				rt.Fatalf("%v, expected %v", got, want)
			}
			m.reset()
		}
	})
}

// TestPartsOfTransactions gives each transaction what is its own, also where numbers share a slot and while others end.
func TestPartsOfTransactions(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s, want := newParts(), map[uint32]int64{}
		xid := rapid.Custom(func(rt *rapid.T) uint32 {
			return rapid.SampledFrom([]uint32{0, slots, 7 * slots, 1<<32 - slots}).Draw(rt, "far") + rapid.Uint32Range(1, 4).Draw(rt, "near")
		})
		for range rapid.IntRange(1, 200).Draw(rt, "steps") {
			x := xid.Draw(rt, "xid")
			if rapid.IntRange(0, 3).Draw(rt, "end") > 0 {
				p := s.of(x)
				p.bytes++
				c, _ := p.files.at(pg.RelFile{Relation: pg.OID(x)})
				c.deleted++
				want[x]++
				continue
			}
			p := s.take(x)
			if (p == nil) != (want[x] == 0) || p != nil && (p.bytes != want[x] || len(p.files.entries) != 1 || p.files.entries[0].value.deleted != want[x]) {
				rt.Fatalf("transaction %d: %+v, expected %d", x, p, want[x])
			}
			s.again(p)
			delete(want, x)
		}
		got := map[uint32]int64{}
		s.all(func(x uint32, p *part) { got[x] = p.bytes })
		if !maps.Equal(got, want) {
			rt.Fatalf("%v are open, expected %v", got, want)
		}
		s.all(func(x uint32, _ *part) { rt.Fatalf("transaction %d was not forgotten", x) })
	})
}
