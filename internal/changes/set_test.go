package changes

import (
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"pileus/internal/pg"
)

// TestSetIsWhatItWasTold compares with a set that is simple and wasteful.
func TestSetIsWhatItWasTold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type block struct {
			rel pg.OID
			no  uint32
		}
		blocks, limits := map[block]bool{}, map[pg.OID]uint32{}
		sets := []*Set{NewSet(), NewSet(), NewSet()}
		number := rapid.OneOf(rapid.Uint32Range(0, 300), rapid.Uint32Range(65000, 140000), rapid.Uint32())
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			set := rapid.SampledFrom(sets).Draw(t, "set")
			f := pg.RelFile{Tablespace: 1663, Database: 5, Relation: pg.OID(rapid.IntRange(1, 3).Draw(t, "relation"))}
			no, n := number.Draw(t, "block"), uint32(1)
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				set.cut(f, no)
				if old, ok := limits[f.Relation]; !ok || no < old {
					limits[f.Relation] = no
				}
				continue
			case 1:
				n = 6000 // more than a sorted list holds
			}
			for k := range n {
				if no < math.MaxUint32-2*n {
					set.relation(f).pages.add(no + 2*k)
					blocks[block{f.Relation, no + 2*k}] = true
				}
			}
		}
		for _, s := range sets[1:] {
			sets[0].Join(s)
		}
		for rel := pg.OID(1); rel <= 3; rel++ {
			p := pg.RelationPath{RelFile: pg.RelFile{Tablespace: 1663, Database: 5, Relation: rel}, Segment: rapid.Uint32Range(0, 2).Draw(t, "segment")}
			length, before := rapid.Uint32Range(0, pg.PagesPerSegment).Draw(t, "length"), rapid.Uint32Range(0, pg.PagesPerSegment).Draw(t, "before")
			limit, cut := limits[rel]
			if whole := cut && limit <= p.FirstBlock(); sets[0].Whole(p) != whole {
				t.Fatalf("relation %d, segment %d, limit %d: whole is %v", rel, p.Segment, limit, !whole)
			} else if whole {
				continue
			}
			var want []uint32
			for page := range length {
				no := p.FirstBlock() + page
				if page >= before || cut && no >= limit || blocks[block{rel, no}] {
					want = append(want, page)
				}
			}
			if d := cmp.Diff(want, sets[0].Pages(p, length, before)); d != "" {
				t.Fatal(d)
			}
		}
	})
}

func TestOtherForksAreAlwaysWhole(t *testing.T) {
	s := NewSet()
	for path, whole := range map[string]bool{
		"base/5/16384": false, "base/5/16384.2": false, "global/1262": false, "pg_tblspc/16400/PG_15_202209061/5/16384": false,
		"base/5/16384_fsm": true, "base/5/16384_vm": true, "base/5/16384_init": true, "base/5/t3_16384": true,
	} {
		p, ok := pg.ParseRelationPath(path)
		if !ok || s.Whole(p) != whole {
			t.Errorf("%s: whole is %v", path, !whole)
		}
	}
}

func TestBagOfMany(t *testing.T) {
	var p pages
	var want []uint32
	for i := range uint32(mostFew + 100) {
		no := 1<<17 - 50 + 3*i
		p.add(no)
		p.add(no)
		want = append(want, no)
	}
	if got := p.between(nil, 0, math.MaxUint32); !slices.Equal(got, want) {
		t.Errorf("%d numbers, want %d", len(got), len(want))
	}
	if p.bags[1].many == nil || p.bags[0].many != nil {
		t.Error("many numbers are not kept as bits, or few are")
	}
}
