package archive

import (
	"errors"
	"testing"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// A receiver that lost WAL in the middle of a segment leaves it unfinished and goes on
// behind it. Filled up with zeros, that segment would look like the end.
func TestFetchOfAnUnfinishedSegmentBeforeLaterWAL(t *testing.T) {
	b := newBranched(t)
	b.put(b.one, 1, 4)
	part := func(number uint64) {
		t.Helper()
		seg := pg.Segment{Timeline: 1, Number: number, Size: kitSize}
		b.check(b.repo.PutPart(t.Context(), b.c.Name, repo.Part{Segment: seg, To: 8192}, b.one.segment(number)[:8192]))
	}
	part(5)
	if got, err := b.fetch(b.c, named(1, 5)); err != nil || int64(len(got)) != kitSize {
		t.Fatalf("the last segment came as %d bytes, %v", len(got), err)
	}
	part(6)
	_, err := b.fetch(b.c, named(1, 5))
	var gap *GapError
	if !errors.As(err, &gap) || gap.From != 5<<20+8192 || gap.To != 6<<20 {
		t.Errorf("an unfinished segment before later WAL: %v, want a gap", err)
	}
	b.put(b.one, 1, 5)
	if _, err := b.fetch(b.c, named(1, 5)); err != nil {
		t.Errorf("it is whole, and yet: %v", err)
	}
}
