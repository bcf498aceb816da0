package archive

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pileus/internal/pg"
	"pileus/internal/pgtest"
	"pileus/internal/repo"
)

func TestArchiveIsTheServersWAL(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		for _, size := range []int64{1 << 20, 64 << 20} {
			l := newLab(t, v, pgtest.WALSegmentSize(size), pgtest.With("wal_keep_size", "1GB"), pgtest.With("min_wal_size", "128MB"))
			r := l.receive(l.options(l.server))
			l.until("the stream", func(s Status) bool { return s.Timeline == 1 })
			from := l.server.LSN()
			l.server.Pgbench("-i", "-s", "1", "-q")
			l.server.Pgbench("-t", "200", "-c", "2", "-n")
			l.server.SwitchWAL()
			to := load(l.server, "3000")
			l.durableTo(1, to)
			r.end()
			l.same(l.server, 1, from, to)
			if c := l.continuous(1); c.Start > from || c.End < to {
				t.Fatalf("the archive holds %v, want %s to %s", c, from, to)
			}
			if left, err := filepath.Glob(filepath.Join(l.state, "spool", theCluster, "*")); err != nil || len(left) > 0 {
				t.Fatalf("the spool holds %v after a good end (%v)", left, err)
			}
		}
	})
}

func TestPartsStayFewAndGoWithTheWholeSegment(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	o := l.options(l.server)
	o.FlushInterval = time.Millisecond
	r := l.receive(o)
	l.until("the stream", func(s Status) bool { return s.Timeline == 1 })
	for range 300 {
		l.server.Exec("SELECT pg_logical_emit_message(true, 'a', 'b')")
	}
	to := l.server.LSN()
	l.durableTo(1, to)
	seg := pg.SegmentAt(1, to, l.cluster().SegmentSize)
	parts, err := l.repo.Parts(t.Context(), theCluster, seg)
	l.check(err)
	if len(parts) > 3*partsPerLevel {
		t.Errorf("%d parts of one segment", len(parts))
	}
	l.server.SwitchWAL()
	load(l.server, "10")
	pgtest.WaitFor(t, "the parts to go", func() bool {
		parts, err := l.repo.Parts(t.Context(), theCluster, seg)
		whole, err2 := l.repo.HasSegment(t.Context(), theCluster, seg)
		return err == nil && err2 == nil && len(parts) == 0 && whole
	})
	r.end()
}

func TestAnotherDatabaseIsRefused(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	l.check(l.repo.CreateCluster(t.Context(), repo.Cluster{Name: theCluster, SystemIdentifier: 42, SegmentSize: pg.DefaultSegmentSize}))
	r := l.receive(l.options(l.server))
	<-r.done
	var wrong *repo.IdentityError
	if !errors.As(r.err, &wrong) {
		t.Fatalf("the receiver ended with %v, want an IdentityError", r.err)
	}
}

func TestTwoReceiversAtOnce(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	first := l.receive(l.options(l.server))
	l.until("the stream", func(s Status) bool { return s.Timeline == 1 })
	o := l.options(l.server)
	o.StateDir = t.TempDir()
	second := l.receive(o)
	<-second.done
	var held *repo.HeldError
	if !errors.As(second.err, &held) {
		t.Fatalf("the second receiver ended with %v, want a HeldError", second.err)
	}
	first.end()
}

// A receiver that starts again neither skips nor repeats anything.
func TestStopAndStart(t *testing.T) {
	l := newLab(t, pgtest.Newest(t), pgtest.WALSegmentSize(1<<20), pgtest.With("wal_keep_size", "1GB"))
	for range 4 {
		r := l.receive(l.options(l.server))
		l.durableTo(1, load(l.server, "700"))
		r.end()
		load(l.server, "900")
	}
	r := l.receive(l.options(l.server))
	to := load(l.server, "1")
	l.durableTo(1, to)
	r.end()
	c := l.continuous(1)
	l.same(l.server, 1, c.Start, to)
}

// What was received and not stored is used by the next receiver, once it is checked.
func TestSpoolLeftovers(t *testing.T) {
	l := newLab(t, pgtest.Newest(t), pgtest.WALSegmentSize(1<<20), pgtest.With("wal_keep_size", "1GB"))
	r := l.receive(l.options(l.server))
	l.durableTo(1, load(l.server, "100"))
	r.end()
	c := l.continuous(1)
	to := load(l.server, "4000")
	spool := filepath.Join(l.state, "spool", theCluster)
	for seg := pg.SegmentAt(1, c.End, 1<<20); seg.Start() < to; seg = seg.Next() {
		text, err := os.ReadFile(filepath.Join(l.server.Instance.DataDir, "pg_wal", seg.Name()))
		l.check(err)
		if seg.End() > to { // torn by a crash: only what decodes is taken
			text = append(text[:to-seg.Start()], make([]byte, 5000)...)
			for i := range text[to-seg.Start():] {
				text[int(to-seg.Start())+i] = 0xA5
			}
		}
		l.check(os.WriteFile(filepath.Join(spool, seg.Name()), text, 0o600))
	}
	l.check(os.WriteFile(filepath.Join(spool, "000000010000000000000000"), []byte("old"), 0o600))
	sp, err := newSpool(spool, 1<<30)
	l.check(err)
	l.check(sp.adopt(t.Context(), l.repo, l.cluster(), pg.SegmentAt(1, c.End, 1<<20)))
	if _, received, _ := sp.position(); received < to-8 || received > to+8 {
		t.Fatalf("the spool goes to %s, the sound WAL in it to %s", received, to)
	}
	l.check(sp.close())
	r = l.receive(l.options(l.server))
	to = load(l.server, "1")
	l.durableTo(1, to)
	r.end()
	l.same(l.server, 1, c.Start, to)
}
