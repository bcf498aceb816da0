package backup

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pileus/internal/pg"
	"pileus/internal/pgtest"
	"pileus/internal/repo"
)

// summarizing makes the server note which blocks change.
var summarizing = pgtest.With("summarize_wal", "on")

// eachSummarizing runs f for each version that can.
func eachSummarizing(t *testing.T, f func(t *testing.T, v pgtest.Version)) {
	t.Helper()
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		if v.Major >= 17 {
			f(t, v)
		}
	})
}

// sent takes what the server says that changed since parent.
func (l *lab) sent(parent repo.Backup, trusting bool) repo.Backup {
	l.t.Helper()
	o := l.options(ModeStream)
	o.Parent = &parent
	b, err := start(l.t.Context(), &run{Options: o, trusting: trusting})
	l.check(err)
	if !b.Incremental || b.WhyFull != "" || b.Parent != parent.ID || strings.Contains(b.Label, "INCREMENTAL") {
		l.t.Fatalf("the backup is not incremental: %s", b.WhyFull)
	}
	return b
}

// cutAndGrown is a table of which a part is cut off, whose end is then made of empty pages that no record tells of, and
// in which pages are changed that the visibility map calls visible to all.
const cutAndGrown = `;
	\c postgres
	DELETE FROM cut WHERE i > 60000;
	VACUUM cut;
	COPY cut FROM PROGRAM 'seq -f "%g x" 12000' (DELIMITER ' ');
	UPDATE cut SET i = 0 WHERE i = 300`

func TestTheServerSendsOnlyWhatChanged(t *testing.T) {
	eachSummarizing(t, func(t *testing.T, v pgtest.Version) {
		l := newLab(t, v, kept, summarizing)
		l.server.CreateTablespace("elsewhere")
		l.script(setUp + `;
	\c postgres
	CREATE TABLE cut AS SELECT i, 'x' AS t FROM generate_series(1, 120000) i;
	VACUUM (FREEZE) cut`)
		first := l.run(l.options(ModeStream))
		l.same(first, l.full())
		idle := l.sent(first, false)
		l.same(idle, l.full())
		if idle.Read > first.Read/5 || idle.Read == 0 {
			t.Errorf("nothing changed, but %d of %d bytes were sent", idle.Read, first.Read)
		}
		l.script(everything + cutAndGrown)
		changed := l.sent(idle, false)
		full := l.full()
		l.same(changed, full)
		if changed.Read > full.Read*6/10 || changed.Stored > full.Stored*6/10 {
			t.Errorf("%d bytes were sent and %d stored, %d and %d for a full backup", changed.Read, changed.Stored, full.Read, full.Stored)
		}
		// What the server leaves out is too much.
		rotten, stale, resurrected := l.differences(l.sent(idle, true), full), 0, 0
		for _, d := range rotten {
			if strings.Contains(d, "_vm") {
				stale++
			} else {
				resurrected++
			}
		}
		if stale == 0 || resurrected == 0 {
			t.Errorf("with what the server tells alone the backup differs only by %v, so the test is too weak", rotten)
		}
	})
}

func TestRandomWorkloadsAsTheServerTellsThem(t *testing.T) {
	eachSummarizing(t, func(t *testing.T, v pgtest.Version) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		w := newWorkload(t, v, rand.NewPCG(seed, 3), summarizing)
		l := w.l
		last := l.run(l.options(ModeStream))
		for i := range rounds(t, 3) {
			for range 12 {
				w.step()
			}
			b := l.sent(last, false)
			l.same(b, l.full())
			if last = b; i == 1 { // what reads files and what does not go on from one another
				last = l.since(b, nil)
			}
		}
		l.server.Exec("CREATE EXTENSION amcheck")
		last = l.sent(last, false)
		l.server.Stop()
		l.passes(last, append(w.dbs, "postgres"))
	})
}

func TestWithoutItsSummariesTheServerSendsEverything(t *testing.T) {
	eachSummarizing(t, func(t *testing.T, v pgtest.Version) {
		l := newLab(t, v, summarizing)
		l.server.Exec("CREATE TABLE public.a AS SELECT i, repeat('x', 50) FROM generate_series(1, 20000) i")
		o := l.options(ModeStream)
		first := l.fallsBack(o, "no earlier backup")
		o.Parent = &first
		o.Full = true
		l.fallsBack(o, "asked for")
		o.Full = false
		gone := first
		gone.ID = "20200101T000000Z-000000"
		o.Parent = &gone
		l.fallsBack(o, "cannot be read")
		for reason, change := range map[string]func(*repo.Backup){
			"another server": func(b *repo.Backup) { b.SystemIdentifier++ },
			"switched on":    func(b *repo.Backup) { b.Checksums = !b.Checksums },
			"starts at":      func(b *repo.Backup) { b.StopLSN = 1 << 60 },
			"not what":       func(b *repo.Backup) { b.Timeline = 9 },
			"summaries":      func(b *repo.Backup) { b.StartLSN = 0x28 }, // before there was any WAL
		} {
			p := first
			change(&p)
			o.Parent = &p
			l.fallsBack(o, reason)
		}
		o.Parent = &first
		l.server.Exec("UPDATE public.a SET i = 0 WHERE i = 7")
		l.same(l.sent(first, false), l.full())

		// A role that may do no more than replicate.
		l.server.Exec("CREATE ROLE courier LOGIN REPLICATION")
		humble := l.optionsAs(ModeStream, "courier")
		humble.Parent = &first
		if b := l.run(humble); !b.Incremental {
			t.Errorf("not incremental: %s", b.WhyFull)
		}
		l.server.Exec("REVOKE EXECUTE ON FUNCTION pg_available_wal_summaries() FROM public")
		l.fallsBack(humble, "pg_available_wal_summaries")

		l.server.Exec("ALTER SYSTEM SET summarize_wal = off")
		l.server.Exec("SELECT pg_reload_conf()")
		pgtest.WaitFor(t, "the setting", func() bool { return l.server.Query("SHOW summarize_wal") == "off" })
		l.fallsBack(o, "summarize_wal is off")
		// What changed meanwhile is in no summary, so the server does not know.
		l.server.Exec("UPDATE public.a SET i = 0 WHERE i = 8")
		for range 2 { // WAL is gone with the checkpoint after it
			l.server.SwitchWAL()
			l.server.Checkpoint()
		}
		l.server.Exec("ALTER SYSTEM SET summarize_wal = on")
		l.server.Exec("SELECT pg_reload_conf()")
		pgtest.WaitFor(t, "the setting", func() bool { return l.server.Query("SHOW summarize_wal") == "on" })
		l.fallsBack(o, "does not tell what changed")
	})
	t.Run("major", func(t *testing.T) {
		l := newLab(t, pgtest.Versions(t)[0], kept)
		if l.server.Version.Major >= 17 {
			return // a run that was narrowed down to those
		}
		o := l.options(ModeStream)
		first := l.run(o)
		o.Parent = &first
		l.fallsBack(o, "from 17 on")
	})
}

// The server has left out what the parent should have, and the repository has lost it.
func TestALostParentIsNotMissedInTheEnd(t *testing.T) {
	l := newLab(t, pgtest.Newest(t), kept, summarizing)
	l.server.Exec("CREATE TABLE public.a AS SELECT i, repeat('x', 50) FROM generate_series(1, 50000) i; CREATE INDEX ON public.a (i)")
	first := l.run(l.options(ModeStream))
	for key, err := range l.store.List(t.Context(), "packs/") {
		l.check(err)
		l.check(l.store.Delete(t.Context(), key.Key))
	}
	l.server.Exec("UPDATE public.a SET i = 0 WHERE i = 7")
	o := l.options(ModeStream)
	o.Parent = &first
	b := l.fallsBack(o, "cannot be read")
	if b.Parent != "" {
		t.Errorf("it has a parent, %s", b.Parent)
	}
	materialise(t, l.repo, b)
}

func TestDamageInWhatTheServerSendsIsReported(t *testing.T) {
	l := newLab(t, pgtest.Newest(t), kept, summarizing)
	l.script("CREATE TABLE hurt AS SELECT i, repeat('x', 100) AS t FROM generate_series(1, 20000) i; VACUUM (FREEZE) hurt")
	path := l.server.Query("SELECT pg_relation_filepath('hurt')")
	first := l.run(l.options(ModeStream))
	l.server.Exec("UPDATE public.hurt SET t = 'y' WHERE ctid = '(40,1)'")
	l.server.Checkpoint()
	l.server.Stop()
	full := filepath.Join(l.server.Instance.DataDir, path)
	sound, err := os.ReadFile(full)
	l.check(err)
	rotten := slices.Clone(sound)
	rotten[40*pg.PageSize+5000] ^= 0xFF
	l.check(os.WriteFile(full, rotten, 0o600))
	l.server.Restart()
	b := l.sent(first, false)
	if b.DamagedPages != 1 || len(b.Damage) != 1 || b.Damage[0].Path != path || b.Damage[0].Block != 40 {
		t.Fatalf("%d damaged pages: %+v", b.DamagedPages, b.Damage)
	}
	l.same(b, l.full())
	// A page may be mended without a trace in WAL, so it is asked for again.
	l.server.Stop()
	l.check(os.WriteFile(full, sound, 0o600))
	l.server.Restart()
	mended := l.sent(b, false)
	if mended.DamagedPages != 0 {
		t.Errorf("%+v", mended.Damage)
	}
	l.same(mended, l.full())
}

// As files mode does: see TestAPromotedStandbyGoesOnFromThePrimarysBackup.
func TestAPromotedStandbySendsWhatChangedSinceThePrimarysBackup(t *testing.T) {
	eachSummarizing(t, func(t *testing.T, v pgtest.Version) {
		l := newLab(t, v, kept, summarizing)
		l.server.Exec("CREATE TABLE public.a AS SELECT i, repeat('x', 50) AS t FROM generate_series(1, 30000) i; CREATE INDEX ON public.a (i)")
		primary, standby := l.server, pgtest.Standby(t, l.server, kept, summarizing)
		first := l.run(l.options(ModeStream))
		primary.Exec("UPDATE public.a SET t = 'before' WHERE i % 500 = 0")
		end := primary.LSN()
		pgtest.WaitFor(t, "the standby", func() bool { return standby.LSN() >= end })
		l.check(standby.Instance.Promote(t.Context()))
		standby.Exec("UPDATE public.a SET t = 'after' WHERE i % 700 = 0")
		standby.Exec("VACUUM FULL pg_class")
		primary.Exec("UPDATE public.a SET t = 'another world' WHERE i % 3 = 0")
		astray := l.sent(first, false)

		l.server = standby
		b := l.sent(first, false)
		if b.Timeline != 2 || first.Timeline != 1 {
			t.Errorf("the backups are of timelines %d and %d", first.Timeline, b.Timeline)
		}
		l.same(b, l.full())
		// What the old primary wrote after the timelines parted is none of this one's past, which the server does not look at.
		o := l.options(ModeStream)
		o.Parent = &astray
		l.fallsBack(o, "is not what timeline 2 came from")
	})
}
