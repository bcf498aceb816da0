package archive

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pileus/internal/pg"
	"pileus/internal/repo"
	"pileus/internal/store"
	"pileus/internal/store/storetest"
)

// push writes a file as pg_wal would hold it, and pushes it.
func (l *lab) push(c repo.Cluster, dir, name string, content []byte) error {
	l.t.Helper()
	path := filepath.Join(dir, name)
	l.check(os.WriteFile(path, content, 0o600))
	return Push(l.t.Context(), l.repo, c, path, PushOptions{StateDir: l.state})
}

// backup stores a backup without files.
func (l *lab) backup(c repo.Cluster, id string, tli pg.TimelineID, start, stop pg.LSN) error {
	return l.repo.WriteManifest(l.t.Context(), repo.Backup{ID: id, Cluster: c.Name, Timeline: tli, StartLSN: start, StopLSN: stop,
		SegmentSize: c.SegmentSize, Started: kitTime.Add(-time.Minute), Stopped: kitTime, CompleteTo: kitTime.Add(-time.Second)}, nil, nil)
}

const kitFirst = "000000010000000000000004"

// written is a synthetic segment with the name kitFirst.
func written() []byte {
	w := newKitWAL(4 << 20)
	w.fill(5<<20, 30_000)
	return w.segment(4)
}

func TestPushRefusesWhatIsNotASegment(t *testing.T) {
	l := newRepository(t)
	c := l.register(theCluster)
	sound := written()
	for what, content := range map[string][]byte{
		"truncated":                   sound[:len(sound)-1],
		"empty":                       {},
		"torn in the middle":          append(bytes.Clone(sound[:500_000]), make([]byte, len(sound)-500_000)...),
		"a flipped bit":               flipped(sound, 700_000),
		"a page of an older use":      append(bytes.Clone(sound[:80*kitPage]), sound[:len(sound)-80*kitPage]...),
		"longer than a segment":       append(bytes.Clone(sound), 0),
		"of another place in the log": func() []byte { w := newKitWAL(5 << 20); w.fill(6<<20, 30_000); return w.segment(5) }(),
		"of another cluster":          flipped(sound, 24),
	} {
		err := l.push(c, t.TempDir(), kitFirst, content)
		var file *FileError
		if !errors.As(err, &file) {
			t.Errorf("%s: %v, want a FileError", what, err)
		}
	}
	for _, name := range []string{"pg_control", "00000001000000000000000", "00000000.history"} {
		if err := l.push(c, t.TempDir(), name, sound); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if all, err := Coverage(t.Context(), l.repo, c); err != nil || len(all) != 0 {
		t.Fatalf("%v was stored (%v)", all, err)
	}
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

func TestPushAgainAndConflict(t *testing.T) {
	l := newRepository(t)
	c := l.register(theCluster)
	for range 2 {
		l.check(l.push(c, t.TempDir(), kitFirst, written()))
	}
	w := newKitWAL(4 << 20)
	w.fill(5<<20, 20_000)
	if err := l.push(c, t.TempDir(), kitFirst, w.segment(4)); !errors.Is(err, repo.ErrConflict) {
		t.Fatalf("other content of the same name: %v", err)
	}
	if got := l.stored(pg.Segment{Timeline: 1, Number: 4, Size: kitSize}); !bytes.Equal(got, written()) {
		t.Fatal("the first content is not what is stored")
	}
}

func TestPushHistoryAndBackupFiles(t *testing.T) {
	l := newRepository(t)
	c := l.register(theCluster)
	history := []byte("1\t0/480000\tno recovery target specified\n")
	for range 2 {
		l.check(l.push(c, t.TempDir(), "0000000A.history", history))
	}
	if got, err := l.repo.History(t.Context(), c.Name, 10); err != nil || !bytes.Equal(got, history) {
		t.Fatalf("timeline 10 has the history %q (%v)", got, err)
	}
	for _, bad := range []string{"", "one\t0/480000\n", "1\n"} {
		if err := l.push(c, t.TempDir(), "0000000B.history", []byte(bad)); err == nil {
			t.Errorf("the history %q was accepted", bad)
		}
	}
	if err := l.push(c, t.TempDir(), "0000000A.history", []byte("1\t0/490000\tother\n")); !errors.Is(err, repo.ErrConflict) {
		t.Errorf("another history of the same timeline: %v", err)
	}
	l.check(l.push(c, t.TempDir(), kitFirst+".00000028.backup", []byte("START WAL LOCATION")))
}

// A history that was not pushed in its time comes with the next segment.
func TestPushCatchesUpHistory(t *testing.T) {
	l := newRepository(t)
	c := l.register(theCluster)
	w := newKitWAL(4 << 20)
	w.fill(4<<20+500_000, 30_000)
	two := w.branch(2)
	two.fill(5<<20, 30_000)
	dir := t.TempDir()
	l.check(os.WriteFile(filepath.Join(dir, "00000002.history"), []byte("1\t"+w.last.String()+"\tx\n"), 0o600))
	l.check(l.push(c, dir, "000000020000000000000004", two.segment(4)))
	h, err := History(t.Context(), l.repo, c.Name, 2)
	if err != nil || len(h.Entries) != 1 || h.Entries[0].End != w.last {
		t.Fatalf("%+v, %v", h, err)
	}
}

// The tail of an old timeline is kept as far as it is sound, also where all that it
// holds is the end of a record that began before.
func TestPushPartial(t *testing.T) {
	l := newRepository(t)
	c := l.register(theCluster)
	w := newKitWAL(4 << 20)
	w.fill(5<<20-20_000, 30_000)
	if w.last < 5<<20 {
		w.noop(int(5<<20-w.last) + 10_000)
	}
	if w.last <= 5<<20 || w.last > 6<<20 {
		t.Fatalf("the record ends at %s", w.last)
	}
	over := w.last
	old := written() // left in the recycled file
	partial := append(bytes.Clone(w.bytes[kitSize:]), old[len(w.bytes)-int(kitSize):]...)
	l.check(l.push(c, t.TempDir(), kitFirst, w.segment(4)))
	l.check(l.push(c, t.TempDir(), "000000010000000000000005.partial", partial))
	if end, err := DurableEnd(t.Context(), l.repo, c, 1); err != nil || end != over {
		t.Fatalf("the WAL ends at %s (%v), the last record at %s", end, err, over)
	}
	w.fill(5<<20+600_000, 9_000)
	l.check(l.push(c, t.TempDir(), "000000010000000000000005.partial", append(bytes.Clone(w.bytes[kitSize:]), old[len(w.bytes)-int(kitSize):]...)))
	if end, err := DurableEnd(t.Context(), l.repo, c, 1); err != nil || end != w.last {
		t.Fatalf("the WAL ends at %s (%v), the last record at %s", end, err, w.last)
	}
	if err := l.push(c, t.TempDir(), "000000010000000000000005.partial", flipped(partial, 24)); err == nil {
		t.Error("a partial segment of another cluster was accepted")
	}
}

func TestPushWhileTheRepositoryIsAway(t *testing.T) {
	l := newRepository(t)
	c := l.register(theCluster)
	dir := t.TempDir()
	path := filepath.Join(dir, kitFirst)
	l.check(os.WriteFile(path, written(), 0o600))
	l.check(os.Mkdir(filepath.Join(dir, "archive_status"), 0o700))
	l.check(os.WriteFile(filepath.Join(dir, "archive_status", kitFirst+".ready"), nil, 0o600))
	l.check(os.WriteFile(filepath.Join(dir, "archive_status", "00000002.history.ready"), nil, 0o600))
	o := PushOptions{StateDir: l.state, QueueMax: kitSize}
	push := func() error { return Push(t.Context(), l.repo, c, path, o) }
	lost := func() *Lost {
		lost, err := ReadLost(l.state, c.Name)
		l.check(err)
		return lost
	}

	l.store.SetDown(true)
	if err := push(); !errors.Is(err, store.ErrUnavailable) || lost() != nil {
		t.Fatalf("within the bound: %v", err)
	}
	o.QueueMax = 0
	if err := push(); !errors.Is(err, store.ErrUnavailable) || lost() != nil {
		t.Fatalf("without a bound: %v", err)
	}
	o.QueueMax = kitSize - 1
	for range 2 {
		l.check(push())
	}
	if got := lost(); got == nil || got.First != kitFirst || got.Count != 2 || got.Since.IsZero() || got.Reason == "" {
		t.Fatalf("beyond the bound, recorded as %+v", got)
	}
	l.check(GiveUp(c.Name, path, errors.New("the repository cannot be opened"), o))

	// What is wrong by itself stays, and so does what was interrupted.
	l.check(os.WriteFile(path, written()[:1000], 0o600))
	if err := push(); err == nil {
		t.Error("a truncated segment was given up")
	}
	l.check(os.WriteFile(path, written(), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Push(ctx, l.repo, c, path, o); err == nil {
		t.Error("an interrupted push was taken for a loss")
	}
	// A loss that cannot be recorded is not taken.
	broken := o
	broken.StateDir = filepath.Join(path, "no folder")
	if err := Push(t.Context(), l.repo, c, path, broken); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("without a record: %v", err)
	}

	l.store.SetDown(false)
	l.check(push())
	for range 2 {
		l.check(ClearLost(l.state, c.Name))
	}
	if lost() != nil {
		t.Error("the loss is still recorded")
	}
}

// Success is never reported for a write whose failure was reported late.
func TestPushOfAFailedWrite(t *testing.T) {
	l := newRepository(t)
	c := l.register(theCluster)
	away := errors.New("no space left on device")
	l.store.Inject(storetest.Fault{Op: storetest.Put, Before: away})
	if err := l.push(c, t.TempDir(), kitFirst, written()); !errors.Is(err, away) {
		t.Fatalf("the push ended with %v", err)
	}
	l.check(l.push(c, t.TempDir(), kitFirst, written()))
}

func TestIdentifySegment(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"00000002.history", kitFirst} {
		if _, _, err := IdentifySegment(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s was identified in an empty folder", name)
		}
	}
	for name, content := range map[string][]byte{kitFirst: written(), "000000010000000000000009": make([]byte, 100), "00000002.history": []byte("1 0/1 x")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{kitFirst, "00000002.history", kitFirst + ".00000028.backup"} {
		if id, size, err := IdentifySegment(filepath.Join(dir, name)); err != nil || id != kitSystem || size != kitSize {
			t.Errorf("%s: %d, %d, %v", name, id, size, err)
		}
	}
	if _, _, err := IdentifySegment(filepath.Join(dir, "000000010000000000000009")); err == nil {
		t.Error("zeros were identified")
	}
}
