package backup

import (
	"math/bits"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"pileus/internal/repo"
)

// TestLayers changes one chunk in round after round, and keeps beside it in which round each page was
// stored last.
func TestLayers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		valid := rapid.IntRange(1, pagesPerChunk).Draw(t, "pages")
		var over []repo.Patch
		var born []int                // of the patches
		base, content := 0, [32]int{} // rounds
		for round := 1; round < 40; round++ {
			before := valid
			valid = rapid.SampledFrom([]int{valid, valid, valid, rapid.IntRange(1, pagesPerChunk).Draw(t, "new length")}).Draw(t, "length")
			full := mask(1<<valid - 1)
			changed := mask(rapid.SampledFrom([]uint32{0, 1 << 3, rapid.Uint32().Draw(t, "a") & rapid.Uint32().Draw(t, "b") & rapid.Uint32().Draw(t, "c")}).Draw(t, "changed")) & full
			changed |= full &^ (1<<before - 1) // what a file grows by counts as changed
			for page := range content {
				if changed&(1<<page) != 0 {
					content[page] = round
				}
			}
			wanted, under := layers(over, changed, valid)
			if wanted&changed != changed || wanted&^full != 0 {
				t.Fatalf("round %d: %032b changed, %032b read", round, changed, wanted)
			}
			if 2*bits.OnesCount32(uint32(wanted)) > valid {
				base, over, born = round, nil, nil
				continue
			}
			var stay []int
			for i, p := range over {
				if slices.ContainsFunc(under, func(u repo.Patch) bool { return u.Offset == p.Offset }) {
					stay = append(stay, born[i])
				}
			}
			over, born = under, stay
			if wanted != 0 {
				p := repo.Patch{Ref: repo.Ref{Offset: uint32(round)}}
				for page := range valid {
					if wanted&(1<<page) != 0 {
						p.Pages = append(p.Pages, uint32(3*pagesPerChunk+page))
					}
				}
				over, born = append(slices.Clone(over), p), append(born, round)
			}
			pages := 0
			seen := [32]int{}
			for i, p := range over {
				pages += len(p.Pages)
				for _, page := range p.Pages {
					if at := page % pagesPerChunk; int(at) >= valid {
						t.Fatalf("round %d: page %d lies behind the end", round, at)
					} else {
						seen[at] = born[i]
					}
				}
			}
			if len(over) > mostPatches || pages > valid {
				t.Fatalf("round %d: %d patches of %d pages over %d", round, len(over), pages, valid)
			}
			for page := range valid {
				if got := max(base, seen[page]); got < content[page] {
					t.Fatalf("round %d: page %d is as of round %d, but was changed in round %d", round, page, got, content[page])
				}
			}
		}
	})
}
