package archive

import (
	"context"
	"testing"
	"time"

	"pileus/internal/pg"
	"pileus/internal/pgtest"
)

// promote makes the standby a primary, once it has all of the primary's WAL.
func promote(t *testing.T, primary, standby *pgtest.Server) {
	t.Helper()
	end := primary.LSN()
	pgtest.WaitFor(t, "the standby to follow", func() bool { return standby.LSN() >= end })
	primary.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := standby.Instance.Promote(ctx); err != nil {
		t.Fatal(err)
	}
	pgtest.WaitFor(t, "the promotion", func() bool { return standby.Query("SELECT pg_is_in_recovery()") == "f" })
	standby.Checkpoint() // the control file names the new timeline from here on
}

// followed checks that both timelines are in the archive: the old to where it was
// left, the new from the segment of that point.
func (l *lab) followed(standby *pgtest.Server, from, to pg.LSN) {
	l.t.Helper()
	h, err := History(l.t.Context(), l.repo, theCluster, 2)
	l.check(err)
	left, ok := h.End(1)
	if !ok {
		l.t.Fatalf("the history of timeline 2 is %v", h)
	}
	all, err := Coverage(l.t.Context(), l.repo, l.cluster())
	l.check(err)
	if end := covered(all, h, from, l.cluster().SegmentSize); end < to {
		l.t.Fatalf("along %v the archive reaches from %s to %s, want %s; it holds %v", h, from, end, to, all)
	}
	if c := l.continuous(1); c.Start > from || c.End < left {
		l.t.Fatalf("of timeline 1 the archive holds %v, it was left at %s", c, left)
	}
	l.same(standby, 2, left, to)
}

// The stream of a standby goes on over its promotion.
func TestPromotionUnderTheStream(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		l := newLab(t, v, pgtest.WALSegmentSize(1<<20), pgtest.With("wal_keep_size", "1GB"))
		standby := pgtest.Standby(t, l.server, pgtest.With("wal_keep_size", "1GB"))
		r := l.receive(l.options(standby))
		l.until("the stream", func(s Status) bool { return s.Timeline == 1 })
		from := load(l.server, "2500")
		promote(t, l.server, standby)
		to := load(standby, "2500")
		l.durableTo(2, to)
		r.end()
		l.followed(standby, from, to)
	})
}

// The receiver was not there when the primary died, and is pointed to its
// successor. The tail of the old timeline must not be skipped.
func TestTailOfTheOldTimelineIsNotSkipped(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		l := newLab(t, v, pgtest.WALSegmentSize(1<<20), pgtest.With("wal_keep_size", "1GB"))
		standby := pgtest.Standby(t, l.server, pgtest.With("wal_keep_size", "1GB"))
		r := l.receive(l.options(l.server))
		from := load(l.server, "500")
		l.durableTo(1, from)
		r.end()
		load(l.server, "6000") // nobody receives
		promote(t, l.server, standby)
		r = l.receive(l.options(standby))
		to := load(standby, "2500")
		l.durableTo(2, to)
		r.end()
		l.followed(standby, from, to)
		if s := l.status(); s.Gap != nil {
			t.Errorf("a gap was reported: %+v", *s.Gap)
		}
	})
}

// The former primary had sent WAL that its successor never got. It stays on the old
// timeline and is promised to nobody on the new one.
func TestFormerPrimaryWasAhead(t *testing.T) {
	l := newLab(t, pgtest.Newest(t), pgtest.WALSegmentSize(1<<20), pgtest.With("wal_keep_size", "1GB"))
	standby := pgtest.Standby(t, l.server, pgtest.With("wal_keep_size", "1GB"))
	r := l.receive(l.options(l.server))
	from := load(l.server, "500")
	pgtest.WaitFor(t, "the standby to follow", func() bool { return standby.LSN() >= from })
	standby.Stop()
	ahead := load(l.server, "3000")
	l.durableTo(1, ahead)
	r.end()
	l.server.Kill()
	standby.Restart()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l.check(standby.Instance.Promote(ctx))
	standby.Checkpoint()
	r = l.receive(l.options(standby))
	to := load(standby, "100")
	if to >= ahead {
		t.Fatalf("the new primary is at %s already", to)
	}
	l.durableTo(2, to)
	l.until("the new timeline", func(s Status) bool { return s.Timeline == 2 && s.Durable >= to })
	if s := l.status(); s.Durable >= ahead {
		t.Errorf("%s is called durable on the new timeline, which reaches to %s", s.Durable, to)
	}
	r.end()
	l.followed(standby, from, to)
	if c := l.continuous(1); c.End < ahead {
		t.Errorf("the former primary's WAL went: %v, want it to %s", c, ahead)
	}
}
