package archive

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/repo"
	"pileus/internal/wal"
)

// WAL that is not sound is refused as it comes, and nothing of the piece is kept.
func TestUnsoundWALIsNotTaken(t *testing.T) {
	const piece = 32 << 10
	w := newKitWAL(4 << 20)
	w.fill(7<<20, 3000)
	for what, harm := range map[string]func([]byte){
		"a flipped bit":    func(b []byte) { b[5000] ^= 1 },
		"a lost page":      func(b []byte) { clear(b[8192:16384]) },
		"another database": func(b []byte) { b[24] ^= 1 },
	} {
		sp := testSpool(t)
		seg := pg.Segment{Timeline: 1, Number: 5, Size: kitSize}
		n := mustBegin(t, sp, seg, nil)
		d, err := wal.NewDecoder(wal.Config{SystemID: kitSystem, SegmentSize: kitSize, Timeline: 1})
		if err != nil {
			t.Fatal(err)
		}
		s := &session{receiver: &receiver{spool: sp}}
		bad := w.segment(5)[:piece]
		harm(bad)
		if _, err := s.take(n, d, postgres.XLogData{Start: seg.Start(), Data: bad}); err == nil {
			t.Errorf("%s: it was taken", what)
		}
		if _, received, _ := sp.position(); received != seg.Start() {
			t.Errorf("%s: the spool has WAL to %s", what, received)
		}
	}
}

// One message may hold the end of one segment and the beginning of the next.
func TestMessageAcrossSegments(t *testing.T) {
	w := newKitWAL(4 << 20)
	w.fill(7<<20, 3000)
	both := append(w.segment(5), w.segment(6)...)
	sp := testSpool(t)
	seg := pg.Segment{Timeline: 1, Number: 5, Size: kitSize}
	n := mustBegin(t, sp, seg, nil)
	d, err := wal.NewDecoder(wal.Config{SystemID: kitSystem, SegmentSize: kitSize, Timeline: 1})
	if err != nil {
		t.Fatal(err)
	}
	s := &session{receiver: &receiver{spool: sp}}
	for at := 0; at < len(both); at += 100_000 {
		data := bytes.Clone(both[at:min(at+100_000, len(both))])
		if n, err = s.take(n, d, postgres.XLogData{Start: seg.Start() + pg.LSN(at), Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	for _, number := range []uint64{5, 6} {
		h, ok := sp.head()
		if !ok || h.seg.Number != number || h.have != kitSize {
			t.Fatalf("the spool's head is %s with %d bytes", h.seg, h.have)
		}
		got, err := io.ReadAll(h.section(0, kitSize))
		if err != nil || !bytes.Equal(got, w.segment(number)) {
			t.Errorf("segment %d differs (%v)", number, err)
		}
		if err := sp.stored(h.seg, kitSize, true); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRecordEnd(t *testing.T) {
	for insert, want := range map[pg.LSN]pg.LSN{
		0x500000 + 40:             0x500000,             // behind the header of a segment
		0x500000 + 8192 + 24:      0x500000 + 8192,      // and of a page
		0x500000 + 8192 + 64:      0x500000 + 8192 + 64, // a record lies before it
		0x500000 + 24:             0x500000 + 24,        // no record can end there
		0x500000 + 3*8192 + 40:    0x500000 + 3*8192 + 40,
		0x500000 + (1 << 20) + 40: 0x600000,
	} {
		if got := recordEnd(insert, 1<<20); got != want {
			t.Errorf("insert position %s: the last record ends at %s, want %s", insert, got, want)
		}
	}
}

// A watermark is written once all WAL before it is durable, also under a load that never rests.
func TestWatermarksWait(t *testing.T) {
	var w watermarks
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	mark := func(lsn pg.LSN, tli pg.TimelineID) repo.Watermark {
		at = at.Add(time.Second)
		return repo.Watermark{Timeline: tli, LSN: lsn, Time: at}
	}
	first := mark(100, 1)
	w.see(first)
	w.see(mark(200, 1)) // would never be reached if it took the first one's place
	if m, ok := w.due(1, 99, 0); ok {
		t.Fatalf("%+v was due at 99", m)
	}
	if m, ok := w.due(1, 150, 0); !ok || m != first {
		t.Fatalf("due at 150: %+v, %v", m, ok)
	}
	w.see(mark(200, 1))
	newer := mark(200, 1) // nothing was written since: the later time is as true
	w.see(newer)
	if _, ok := w.due(1, 200, time.Hour); ok {
		t.Error("two watermarks within the interval")
	}
	if m, ok := w.due(1, 200, 0); !ok || m != newer {
		t.Errorf("due at 200: %+v, %v", m, ok)
	}
	w.see(mark(300, 1))
	if m, ok := w.due(2, 1000, 0); ok {
		t.Errorf("%+v of an old timeline was due on the new one", m)
	}
}

// Parts are merged so that they stay few, none grows beyond its bound, and what the
// repository holds of the segment is always without a hole.
func TestPartsAreMerged(t *testing.T) {
	l := newRepository(t)
	const size = 64 << 20
	seg := pg.Segment{Timeline: 1, Number: 1, Size: size}
	sp := testSpool(t)
	n := mustBegin(t, sp, seg, nil)
	u := newUploader(l.repo, theCluster, sp, time.Second)
	data := bytes.Repeat([]byte("wal!"), 20_000)
	for at := int64(0); at < 32<<20; at += int64(len(data)) {
		mustWrite(t, sp, n, at, data)
		_, err := u.step(t.Context(), true)
		l.check(err)
		parts := mustParts(l, seg)
		if end := repo.PartsEnd(parts); end != n.have {
			t.Fatalf("the parts reach to %d, %d are there", end, n.have)
		}
		for _, p := range parts {
			if p.To-p.From > maxPart {
				t.Fatalf("a part of %d bytes", p.To-p.From)
			}
		}
	}
	if parts := mustParts(l, seg); len(parts) > 3*partsPerLevel {
		t.Errorf("%d parts", len(parts))
	}
	got, err := l.repo.ReadParts(t.Context(), theCluster, seg)
	if l.check(err); int64(len(got)) != n.have || !bytes.Equal(got[:len(data)], data) {
		t.Errorf("%d bytes came back", len(got))
	}
	// Another uploader, after a kill, takes over from there.
	mustWrite(t, sp, n, n.have, data)
	v := newUploader(l.repo, theCluster, sp, time.Second)
	_, err = v.step(t.Context(), true)
	l.check(err)
	if end := repo.PartsEnd(mustParts(l, seg)); end != n.have {
		t.Errorf("the parts reach to %d, %d are there", end, n.have)
	}
}

// A backlog that reaches over a promotion is taken up whole: the tail of the old
// timeline and the segment of the new one in which it was left.
func TestLeftoversAcrossASwitch(t *testing.T) {
	b := newBranched(t)
	b.put(b.one, 1, 4)
	state := t.TempDir()
	dir := filepath.Join(state, "spool", theCluster)
	b.check(os.MkdirAll(dir, 0o700))
	leave := func(w *kitWAL, tli pg.TimelineID, number uint64, n int64) {
		t.Helper()
		b.check(os.WriteFile(filepath.Join(dir, named(tli, number)), w.segment(number)[:n], 0o600))
	}
	leave(b.one, 1, 5, kitSize)
	leave(b.one, 1, 6, int64(b.left-6<<20))
	leave(b.two, 2, 6, kitSize)
	leave(b.two, 2, 7, 500_000)
	sp, err := newSpool(dir, 1<<30)
	b.check(err)
	r := &receiver{ReceiverOptions: ReceiverOptions{Repo: b.repo, Cluster: theCluster, Log: slog.New(slog.DiscardHandler)}, spool: sp,
		up: newUploader(b.repo, theCluster, sp, time.Second)}
	b.check(r.adoptSpool(t.Context(), b.c))
	tli, received, durable := sp.position()
	if tli != 2 || received < 7<<20+400_000 || durable > 5<<20 {
		t.Fatalf("timeline %d, received %s, durable %s", tli, received, durable)
	}
	for more := true; more; {
		more, err = r.up.step(t.Context(), true)
		b.check(err)
	}
	if _, received, durable := sp.position(); durable != received {
		t.Errorf("received %s, durable %s", received, durable)
	}
	b.check(sp.close())
	path, err := History(t.Context(), b.repo, theCluster, 2)
	b.check(err)
	if end := covered(mustCoverage(b.lab), path, 4<<20, kitSize); end != received {
		t.Errorf("the archive reaches to %s, %s was left", end, received)
	}
}
