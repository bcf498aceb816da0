package archive

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"pileus/internal/pg"
	"pileus/internal/pgtest"
)

// ahead runs an Ahead on the path to timeline 2, until the test ends it.
func (b *branched) ahead(dir string, from, to pg.LSN) (end func()) {
	b.t.Helper()
	path, err := History(b.t.Context(), b.repo, b.c.Name, 2)
	b.check(err)
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a := Ahead{Repo: b.repo, Cluster: b.c, Path: path, Dir: dir, Own: func(string) error { return nil }}
		a.Run(ctx, from, to)
	}()
	return func() { cancel(); <-done }
}

func ready(dir, name string) func() bool {
	return func() bool {
		_, err := os.Stat(filepath.Join(dir, aheadFolder, name))
		return err == nil
	}
}

func TestSegmentsLieReadyBeforeTheyAreAskedFor(t *testing.T) {
	b := newBranched(t)
	b.put(b.one, 1, 4, 5)
	b.put(b.two, 2, 6, 7)
	dir := t.TempDir()
	end := b.ahead(dir, 4<<20+500, 9<<20) // of segment 8 there is nothing
	defer end()
	for i, name := range []string{named(1, 4), named(2, 7)} {
		pgtest.WaitFor(t, name, ready(dir, name))
		dest := filepath.Join(dir, "RECOVERYXLOG")
		if !takeAhead(pg.Segment{Timeline: pg.TimelineID(i + 1), Number: uint64(4 + 3*i), Size: kitSize}, dest) {
			t.Fatalf("%s is not ready", name)
		}
		got, err := os.ReadFile(dest)
		b.check(err)
		if want := [][]byte{b.one.segment(4), b.two.segment(7)}[i]; !bytes.Equal(got, want) {
			t.Errorf("%s is not what it should be", name)
		}
	}
	if ready(dir, named(2, 6))() || !ready(dir, named(1, 5))() {
		t.Error("of a timeline, what lies before a segment that was taken is of no use any more; of another one it may be")
	}
	dest := filepath.Join(dir, "fetched")
	b.check(Fetch(t.Context(), b.repo, b.c, named(1, 5), dest))
	if got, err := os.ReadFile(dest); err != nil || !bytes.Equal(got, b.one.segment(5)) || ready(dir, named(1, 5))() {
		t.Errorf("fetched from what lies ready: %v", err)
	}
	end()
	if _, err := os.Stat(filepath.Join(dir, aheadFolder)); err == nil {
		t.Error("the folder is left behind")
	}
}

func TestNoMoreLiesReadyThanMay(t *testing.T) {
	b := newBranched(t)
	b.two.fill(30<<20, 100_000)
	for n := uint64(7); n < 30; n++ {
		b.put(b.two, 2, n)
	}
	dir := t.TempDir()
	end := b.ahead(dir, 7<<20, 30<<20)
	defer end()
	for n := uint64(7); n < 30; n++ {
		pgtest.WaitFor(t, named(2, n), ready(dir, named(2, n)))
		list, err := os.ReadDir(filepath.Join(dir, aheadFolder))
		b.check(err)
		if len(list) > aheadSegments+aheadReaders {
			t.Fatalf("%d segments lie ready", len(list))
		}
		b.check(Fetch(t.Context(), b.repo, b.c, named(2, n), filepath.Join(dir, "RECOVERYXLOG")))
	}
}
