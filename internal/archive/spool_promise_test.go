package archive

import (
	"testing"

	"pileus/internal/pg"
)

func testSpool(t *testing.T) *spool {
	t.Helper()
	s, err := newSpool(t.TempDir(), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func mustBegin(t *testing.T, s *spool, seg pg.Segment, prefix []byte) *spooled {
	t.Helper()
	n, err := s.begin(seg, prefix)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func mustWrite(t *testing.T, s *spool, n *spooled, offset int64, data []byte) {
	t.Helper()
	if err := s.write(n, offset, data); err != nil {
		t.Fatal(err)
	}
}

// What is durable is what the server is told and a synchronous commit waits for:
// that the next segment begins says nothing of the one before.
func TestDurableWaitsForTheSegmentBefore(t *testing.T) {
	s := testSpool(t)
	first := pg.Segment{Timeline: 1, Number: 5, Size: pg.MinSegmentSize}
	n := mustBegin(t, s, first, nil)
	mustWrite(t, s, n, 0, make([]byte, first.Size))
	n = mustBegin(t, s, first.Next(), nil)
	mustWrite(t, s, n, 0, make([]byte, 8192))
	if _, received, durable := s.position(); durable != first.Start() || received != first.End()+8192 {
		t.Fatalf("received %s, durable %s: nothing was stored, so %s is all that may be promised", received, durable, first.Start())
	}
	if err := s.stored(first, first.Size, true); err != nil {
		t.Fatal(err)
	}
	if _, _, durable := s.position(); durable != first.End() {
		t.Fatalf("durable %s after the first segment was stored, want %s", durable, first.End())
	}
}

// The former primary's last WAL may lie beyond the point where it was left. On the
// new timeline nothing at those positions is durable yet.
func TestDurableIsOfTheTimelineThatIsStreamed(t *testing.T) {
	s := testSpool(t)
	old := pg.Segment{Timeline: 1, Number: 5, Size: pg.MinSegmentSize}
	n := mustBegin(t, s, old, nil)
	mustWrite(t, s, n, 0, make([]byte, 64<<10))
	if err := s.stored(old, 64<<10, false); err != nil {
		t.Fatal(err)
	}
	s.left()
	next := old
	next.Timeline = 2
	n = mustBegin(t, s, next, nil)
	if _, _, durable := s.position(); durable > next.Start() {
		t.Fatalf("durable %s on the new timeline, of which nothing is stored", durable)
	}
	mustWrite(t, s, n, 0, make([]byte, 16<<10))
	if err := s.stored(old, 64<<10, true); err != nil {
		t.Fatal(err)
	}
	if _, _, durable := s.position(); durable > next.Start() {
		t.Fatalf("durable %s when the old timeline was stored, nothing of the new one is", durable)
	}
	if err := s.stored(next, 16<<10, false); err != nil {
		t.Fatal(err)
	}
	if _, _, durable := s.position(); durable != next.Start()+16<<10 {
		t.Fatalf("durable %s, want %s", durable, next.Start()+16<<10)
	}
}
