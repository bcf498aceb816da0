package archive

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"pileus/internal/pg"
	"pileus/internal/repo"
	"pileus/internal/store"
	"pileus/internal/store/storetest"
)

// fetch fetches into an empty folder. What is in it afterwards must be the whole file or nothing.
func (l *lab) fetch(c repo.Cluster, name string) ([]byte, error) {
	l.t.Helper()
	dir := l.t.TempDir()
	dest := filepath.Join(dir, "RECOVERYXLOG")
	err := Fetch(l.t.Context(), l.repo, c, name, dest)
	got, rerr := os.ReadFile(dest)
	if (err == nil) != (rerr == nil) {
		l.t.Fatalf("%s: fetched: %v, and the file: %v", name, err, rerr)
	}
	if left, gerr := os.ReadDir(dir); gerr != nil || len(left) > 1 || err != nil && len(left) > 0 {
		l.t.Fatalf("%s: left behind: %v (%v)", name, left, gerr)
	}
	return got, err
}

func named(tli pg.TimelineID, number uint64) string {
	return pg.Segment{Timeline: tli, Number: number, Size: kitSize}.Name()
}

// branched is a cluster whose timeline 2 left timeline 1 within segment 6.
type branched struct {
	*lab
	c        repo.Cluster
	one, two *kitWAL
	left     pg.LSN
	dir      string
}

func newBranched(t *testing.T) *branched {
	t.Helper()
	return branch(newRepository(t))
}

func branch(l *lab) *branched {
	l.t.Helper()
	b := &branched{lab: l, one: newKitWAL(4 << 20), dir: l.t.TempDir()}
	b.c = b.register(theCluster)
	b.one.fill(6<<20+400_000, 30_000)
	b.left = b.one.last
	b.two = b.one.branch(2)
	b.two.fill(9<<20, 25_000)
	b.check(b.push(b.c, b.dir, "00000002.history", []byte("1\t"+b.left.String()+"\tx\n")))
	return b
}

func (b *branched) put(w *kitWAL, tli pg.TimelineID, numbers ...uint64) {
	b.t.Helper()
	for _, n := range numbers {
		b.check(b.push(b.c, b.dir, named(tli, n), w.segment(n)))
	}
}

func TestFetch(t *testing.T) {
	b := newBranched(t)
	b.put(b.one, 1, 4, 5)
	b.put(b.two, 2, 6, 7)
	part := b.two.segment(8)[:300_000]
	b.check(b.repo.PutPart(t.Context(), b.c.Name, repo.Part{Segment: pg.Segment{Timeline: 2, Number: 8, Size: kitSize}, To: 200_000}, part[:200_000]))
	b.check(b.repo.PutPart(t.Context(), b.c.Name, repo.Part{Segment: pg.Segment{Timeline: 2, Number: 8, Size: kitSize}, From: 200_000, To: 300_000}, part[200_000:]))
	for name, want := range map[string][]byte{
		named(1, 4): b.one.segment(4),
		named(1, 5): b.one.segment(5),
		named(1, 6): b.one.segment(6), // only timeline 2's copy is there
		named(2, 6): b.two.segment(6),
		named(2, 7): b.two.segment(7),
		named(2, 8): append(bytes.Clone(part), make([]byte, kitSize-300_000)...),
	} {
		if got, err := b.fetch(b.c, name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, not the right ones (%v)", name, len(got), err)
		}
	}
	if got, err := b.fetch(b.c, "00000002.history"); err != nil || !bytes.HasPrefix(got, []byte("1\t")) {
		t.Errorf("history: %q, %v", got, err)
	}
	for what, name := range map[string]string{
		"the end of the archive":               named(2, 9),
		"behind the end of the old timeline":   named(1, 7),
		"before the timeline began":            named(2, 5),
		"a timeline that is not there":         named(3, 9),
		"the history of one that is not there": "00000003.history",
		"a backup history file":                kitFirst + ".00000028.backup",
		"a partial segment":                    named(1, 6) + ".partial",
		"nonsense":                             "x",
	} {
		if _, err := b.fetch(b.c, name); !errors.Is(err, ErrNoSuchFile) {
			t.Errorf("%s: %v, want ErrNoSuchFile", what, err)
		}
	}
}

// A hole must never look like the end: the server would open without what follows.
func TestFetchTellsAHoleFromTheEnd(t *testing.T) {
	b := newBranched(t)
	b.put(b.one, 1, 4)
	want := func(what, name string, from, to pg.LSN) {
		t.Helper()
		var gap *GapError
		_, err := b.fetch(b.c, name)
		if !errors.As(err, &gap) || errors.Is(err, ErrNoSuchFile) || gap.From != from || gap.To != to {
			t.Errorf("%s: %v, want a gap from %s to %s", what, err, from, to)
		}
	}
	want("a timeline's last WAL, before the next", named(1, 5), 5<<20, b.left)
	want("the segment of the switch", named(1, 6), 6<<20, b.left)
	b.put(b.two, 2, 7)
	want("the first segment of the new timeline", named(2, 6), 6<<20, 7<<20)
	b.check(b.repo.PutPart(t.Context(), b.c.Name, repo.Part{Segment: pg.Segment{Timeline: 2, Number: 9, Size: kitSize}, To: 100}, make([]byte, 100)))
	want("before parts", named(2, 8), 8<<20, 9<<20)
	b.check(b.repo.PutSegment(t.Context(), b.c.Name, pg.Segment{Timeline: 1, Number: 6, Size: kitSize}, bytes.NewReader(b.one.segment(6))))
	if _, err := b.fetch(b.c, named(1, 5)); !errors.As(err, new(*GapError)) {
		t.Errorf("between segments: %v", err)
	}
	// A timeline whose history is lost would be passed over in silence.
	w := b.two.branch(3)
	w.fill(10<<20, 50_000)
	b.put(w, 3, 9)
	if _, err := b.fetch(b.c, "00000003.history"); err == nil || errors.Is(err, ErrNoSuchFile) {
		t.Errorf("a lost history: %v", err)
	}
}

func TestFetchOfWhatIsDamagedOrAway(t *testing.T) {
	b := newBranched(t)
	b.put(b.one, 1, 4, 5)
	names := []string{named(1, 4), named(1, 5), named(1, 6), named(1, 7), "00000002.history", "00000003.history"}
	b.store.SetDown(true)
	for _, name := range names {
		if _, err := b.fetch(b.c, name); !errors.Is(err, store.ErrUnavailable) || errors.Is(err, ErrNoSuchFile) {
			t.Errorf("%s while the store is away: %v", name, err)
		}
	}
	b.store.SetDown(false)
	for _, f := range []storetest.Fault{
		{Op: storetest.Get, CutAt: 1000, CutErr: io.ErrUnexpectedEOF},
		{Op: storetest.Get, EndAt: 1000, EndEarly: true},
		{Op: storetest.Get, FlipBit: 2000, Flip: true},
	} {
		b.store.Inject(f)
		if _, err := b.fetch(b.c, named(1, 4)); err == nil || errors.Is(err, ErrNoSuchFile) {
			t.Errorf("with %+v: %v", f, err)
		}
	}
	err := filepath.WalkDir(b.lab.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == named(1, 5) {
			text, rerr := os.ReadFile(path)
			b.check(rerr)
			text[len(text)-1] ^= 1 // in what only the end of the object shows
			b.check(os.Chmod(path, 0o600))
			err = os.WriteFile(path, text, 0o600)
		}
		return err
	})
	b.check(err)
	if _, err := b.fetch(b.c, named(1, 5)); !errors.Is(err, repo.ErrDamaged) {
		t.Errorf("a damaged object: %v", err)
	}
	const timeline1 = "clusters/" + theCluster + "/wal/00000001/"
	b.store.Inject(storetest.Fault{Op: storetest.List, Prefix: timeline1, CutAt: 1, CutErr: errors.New("the listing broke off")})
	if _, err := b.fetch(b.c, named(1, 7)); err == nil || errors.Is(err, ErrNoSuchFile) {
		t.Errorf("with half a listing: %v", err)
	}
	if err := Fetch(t.Context(), b.repo, b.c, named(1, 4), filepath.Join(t.TempDir(), "no", "folder")); err == nil || errors.Is(err, ErrNoSuchFile) {
		t.Errorf("into a folder that is not there: %v", err)
	}
}
