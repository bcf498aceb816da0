package archive

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"pileus/internal/pg"
	"pileus/internal/pgtest"
	"pileus/internal/postgres"
	"pileus/internal/repo"
)

// The server is killed in the middle of its work again and again, records that it
// could not finish included. The stream goes on where it was.
func TestServerCrashes(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		l := newLab(t, v, pgtest.WALSegmentSize(1<<20), pgtest.With("wal_keep_size", "1GB"))
		r := l.receive(l.options(l.server))
		from := load(l.server, "10")
		l.durableTo(1, from) // the archive begins where the receiver began
		for range 4 {
			goal := l.server.LSN() + 6<<20 // before it begins: it may be quick
			cmd := l.server.PgbenchCommand(t.Context(), "-i", "-s", "3", "-q")
			l.check(cmd.Start())
			pgtest.WaitFor(t, "some load", func() bool { return l.server.LSN() >= goal })
			l.server.Kill()
			_ = cmd.Wait() // its server was killed
			l.server.Restart()
		}
		to := load(l.server, "10")
		l.durableTo(1, to)
		r.end()
		l.same(l.server, 1, from, to)
		l.continuous(1)
		if s := l.status(); s.Gap != nil {
			t.Errorf("a gap was reported: %+v", *s.Gap)
		}
	})
}

// Other WAL than the server's, under the same name, ends the receiver: two databases
// are never mixed, and nothing is replaced.
func TestContradictionEndsTheReceiver(t *testing.T) {
	t.Run("part", func(t *testing.T) {
		l := newLab(t, pgtest.Newest(t), pgtest.WALSegmentSize(1<<20))
		r := l.receive(l.options(l.server))
		end := load(l.server, "10")
		l.durableTo(1, end)
		r.end()
		seg := pg.SegmentAt(1, end, 1<<20)
		n := repo.PartsEnd(mustParts(l, seg))
		l.check(l.repo.PutPart(t.Context(), theCluster, repo.Part{Segment: seg, From: n, To: n + 64}, bytes.Repeat([]byte{7}, 64)))
		load(l.server, "100")
		r = l.receive(l.options(l.server))
		<-r.done
		if !errors.Is(r.err, errDiverged) {
			t.Errorf("the receiver ended with %v, want %v", r.err, errDiverged)
		}
	})
	t.Run("segment", func(t *testing.T) {
		l := newLab(t, pgtest.Newest(t), pgtest.WALSegmentSize(1<<20))
		r := l.receive(l.options(l.server))
		end := load(l.server, "10")
		l.durableTo(1, end)
		next := pg.SegmentAt(1, end, 1<<20).Next()
		l.check(l.repo.PutSegment(t.Context(), theCluster, next, bytes.NewReader(make([]byte, next.Size))))
		load(l.server, "9000")
		<-r.done
		if !errors.Is(r.err, repo.ErrConflict) {
			t.Errorf("the receiver ended with %v, want %v", r.err, repo.ErrConflict)
		}
	})
}

func mustParts(l *lab, seg pg.Segment) []repo.Part {
	l.t.Helper()
	parts, err := l.repo.Parts(l.t.Context(), theCluster, seg)
	l.check(err)
	return parts
}

func TestSlotTrouble(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	o := l.options(l.server)
	o.CreateSlot = false
	r := l.receive(o)
	l.until("the complaint", func(s Status) bool {
		return strings.Contains(s.ConnectionError, "pg_create_physical_replication_slot") && s.ConnectionFailingSince != nil
	})
	l.server.Exec("SELECT pg_create_physical_replication_slot('pileus', true)")
	l.durableTo(1, load(l.server, "1"))
	r.end()

	conn, err := postgres.ConnectReplication(t.Context(), l.server.DSN(), postgres.Options{})
	l.check(err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	pgtest.WaitFor(t, "the slot to be free", func() bool { return l.server.Query("SELECT active FROM pg_replication_slots") == "f" })
	sys, err := conn.IdentifySystem(t.Context())
	l.check(err)
	if _, err := conn.StartWAL(t.Context(), "pileus", pg.SegmentAt(1, sys.LSN, pg.DefaultSegmentSize).Start(), 1); err != nil {
		t.Fatal(err)
	}
	r = l.receive(l.options(l.server))
	l.until("the complaint", func(s Status) bool { return strings.Contains(s.ConnectionError, "in use by another connection") })
	l.check(conn.Close(t.Context()))
	l.durableTo(1, load(l.server, "1"))
	l.until("the all-clear", func(s Status) bool { return s.ConnectionError == "" && s.ConnectionFailingSince == nil })
	r.end()
}

// Whatever the order in which WAL arrives and is stored, the promise never runs ahead
// of what is stored, and is kept up when all is.
func TestPromiseProperty(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		const size = pg.MinSegmentSize
		s, err := newSpool(dir, 1<<40)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		type key struct {
			tli    pg.TimelineID
			number uint64
		}
		stored, received := map[key]int64{}, map[key]int64{}
		seg := pg.Segment{Timeline: 1, Number: 3, Size: size}
		n, err := s.begin(seg, nil)
		if err != nil {
			t.Fatal(err)
		}
		start := map[pg.TimelineID]uint64{1: 3}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"write", "write", "write", "store", "store", "promote"}).Draw(t, "step") {
			case "write":
				k := min(rapid.Int64Range(1, size/2).Draw(t, "bytes"), size-n.have)
				if err := s.write(n, n.have, make([]byte, k)); err != nil {
					t.Fatal(err)
				}
				received[key{seg.Timeline, seg.Number}] = n.have
				if n.have == size {
					seg = seg.Next()
					if n, err = s.begin(seg, nil); err != nil {
						t.Fatal(err)
					}
				}
			case "store":
				h, ok := s.head()
				if !ok {
					continue
				}
				to := rapid.Int64Range(h.durable, h.have).Draw(t, "to")
				done := to == h.have && (h.final || h.have == size)
				if err := s.stored(h.seg, to, done); err != nil {
					t.Fatal(err)
				}
				stored[key{h.seg.Timeline, h.seg.Number}] = to
				if done && h.seg == seg {
					t.Fatal("the segment that is written left the spool")
				}
			case "promote":
				s.left()
				seg.Timeline++
				if n.have == 0 && rapid.Bool().Draw(t, "back") && seg.Number > start[seg.Timeline-1] {
					seg.Number--
				}
				start[seg.Timeline] = seg.Number
				if n, err = s.begin(seg, nil); err != nil {
					t.Fatal(err)
				}
			}
			tli, end, durable := s.position()
			if tli != seg.Timeline || end != seg.Start()+pg.LSN(n.have) || durable > end {
				t.Fatalf("timeline %d, received %s, durable %s", tli, end, durable)
			}
			all := true
			for k, have := range received {
				all = all && stored[k] == have
				if base := pg.LSN(k.number * uint64(size)); durable > base+pg.LSN(stored[k]) && stored[k] < have {
					t.Fatalf("%s is promised, of segment %d only %d of %d bytes are stored", durable, k.number, stored[k], have)
				}
			}
			if all && durable != end {
				t.Fatalf("all is stored to %s, and only %s is promised", end, durable)
			}
		}
	})
}
