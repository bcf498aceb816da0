package backup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pileus/internal/pg"
	"pileus/internal/pgtest"
	"pileus/internal/repo"
)

// fallsBack takes a backup that has to read everything, for a reason, and that is right all the same.
func (l *lab) fallsBack(o Options, reason string) repo.Backup {
	l.t.Helper()
	b := l.run(o)
	if b.Incremental || !strings.Contains(b.WhyFull, reason) {
		l.t.Errorf("incremental %v, because %q; want %q", b.Incremental, b.WhyFull, reason)
	}
	l.same(b, l.full())
	return b
}

func TestWithoutItsWALABackupReadsEverything(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		l := newLab(t, v, kept)
		table := func(name string) {
			l.server.Exec("CREATE TABLE public." + name + " AS SELECT i, repeat('x', 50) FROM generate_series(1, 20000) i")
		}
		table("a")
		o := l.options(ModeFiles)
		first := l.fallsBack(o, "no earlier backup")
		o.Full = true
		l.fallsBack(o, "asked for")
		o.Full, o.Parent = false, &first

		gone := first
		gone.ID = "20200101T000000Z-000000"
		o.Parent = &gone
		l.fallsBack(o, "cannot be read")
		for reason, change := range map[string]func(*repo.Backup){
			"another server":   func(b *repo.Backup) { b.SystemIdentifier++ },
			"switched on":      func(b *repo.Backup) { b.Checksums = !b.Checksums },
			"after this one":   func(b *repo.Backup) { b.StopLSN = 1 << 60 },
			"more than":        func(b *repo.Backup) { b.DamagedPages = 2000 },
			"not what":         func(b *repo.Backup) { b.Timeline = 9 },
			"does not tell":    func(b *repo.Backup) { b.StartLSN -= 3 << 24 }, // before there was any WAL
			"is not what time": func(b *repo.Backup) { b.Timeline = 2 },
		} {
			p := first
			change(&p)
			o.Parent = &p
			l.fallsBack(o, reason)
		}

		// A hole: the segment after the parent is neither in the repository nor in pg_wal.
		l.server.SwitchWAL()
		lost := filepath.Join(l.server.Instance.DataDir, "pg_wal", pg.SegmentAt(1, l.server.LSN(), first.SegmentSize).Name())
		table("b")
		l.server.SwitchWAL()
		l.check(os.Rename(lost, lost+".away"))
		o.Parent = &first
		b := l.fallsBack(o, "neither in the repository nor in pg_wal")
		if b.Parent != first.ID || b.Stored > b.Size/2 {
			t.Errorf("%d of %d bytes were stored although most are the same as in %q", b.Stored, b.Size, b.Parent)
		}
		// And such as a crash or a full disk leaves: the file is there, but not what it held.
		l.check(os.Rename(lost+".away", lost))
		content, err := os.ReadFile(lost)
		l.check(err)
		torn := append([]byte(nil), content...)
		clear(torn[1<<20 : 1<<20+8192])
		l.check(os.WriteFile(lost, torn, 0o600))
		l.fallsBack(o, "does not tell what changed")
		l.check(os.WriteFile(lost, content, 0o600))
		l.same(l.since(first, nil), l.full())

		// Minimal WAL leaves out what is written into new files.
		l.server.Exec("ALTER SYSTEM SET wal_level = minimal")
		l.server.Exec("ALTER SYSTEM SET max_wal_senders = 0")
		l.server.Restart()
		l.server.Exec("BEGIN; CREATE TABLE public.c AS SELECT generate_series(1, 5000) i; COMMIT")
		l.server.Exec("ALTER SYSTEM RESET ALL")
		l.server.Restart()
		l.fallsBack(o, "wal_level was set to minimal")
	})
}

func TestOverTheReplicationProtocolEverythingIsSent(t *testing.T) {
	l := newLab(t, pgtest.Newest(t), kept)
	o := l.options(ModeStream)
	first := l.run(o)
	o.Parent = &first
	if b := l.run(o); b.Incremental || !strings.Contains(b.WhyFull, "summarize_wal is off") || b.Stored > b.Size/20 {
		t.Errorf("%+v", b)
	}
	// But a backup that reads files can start from one that did not.
	l.same(l.since(first, nil), l.full())
}

func TestAPromotedStandbyGoesOnFromThePrimarysBackup(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		l := newLab(t, v, kept)
		l.server.Exec("CREATE TABLE public.a AS SELECT i, repeat('x', 50) AS t FROM generate_series(1, 30000) i; CREATE INDEX ON public.a (i)")
		primary, standby := l.server, pgtest.Standby(t, l.server, kept)
		first := l.full()
		primary.Exec("UPDATE public.a SET t = 'before' WHERE i % 500 = 0")
		end := primary.LSN()
		pgtest.WaitFor(t, "the standby", func() bool { return standby.LSN() >= end })
		l.check(standby.Instance.Promote(t.Context()))
		standby.Exec("UPDATE public.a SET t = 'after' WHERE i % 700 = 0")
		standby.Exec("VACUUM FULL pg_class")
		primary.Exec("UPDATE public.a SET t = 'another world' WHERE i % 3 = 0")
		astray := l.since(first, nil)

		l.server = standby
		b := l.since(first, nil)
		if b.Timeline != 2 || first.Timeline != 1 {
			t.Errorf("the backups are of timelines %d and %d", first.Timeline, b.Timeline)
		}
		l.same(b, l.full())
		// What the old primary wrote after the timelines parted is none of this one's past.
		o := l.options(ModeFiles)
		o.Parent = &astray
		l.fallsBack(o, "is not what timeline 2 came from")
	})
}
