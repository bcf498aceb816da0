package archive

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pileus/internal/pg"
	"pileus/internal/pgtest"
	"pileus/internal/postgres"
	"pileus/internal/store/storetest"
)

// A synchronous commit returns only when it is in the repository, and all that have
// returned are there when the server dies.
func TestSynchronousCommitIsInTheRepository(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		l := newLab(t, v, pgtest.WALSegmentSize(1<<20), pgtest.Durable())
		l.server.Exec("CREATE TABLE acknowledged (n int)")
		l.server.Exec("ALTER SYSTEM SET synchronous_standby_names = 'pileus'")
		l.server.Exec("SELECT pg_reload_conf()")
		o := l.options(l.server)
		o.FlushInterval = time.Hour // only the waiting commits make it store
		r := l.receive(o)
		l.until("the synchronous mode", func(s Status) bool { return s.Synchronous })

		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		conn, err := pgx.Connect(ctx, l.server.DSN())
		l.check(err)
		defer conn.Close(context.WithoutCancel(ctx))
		var last atomic.Int64
		writer := make(chan struct{})
		go func() {
			defer close(writer)
			for n := 1; ; n++ {
				if _, err := conn.Exec(ctx, fmt.Sprintf("INSERT INTO acknowledged VALUES (%d); SELECT pg_logical_emit_message(true, 'mark', 'row-%d;')", n, n)); err != nil {
					return
				}
				last.Store(int64(n))
			}
		}()
		advance := func(n int64) {
			t.Helper()
			from := last.Load()
			pgtest.WaitFor(t, "commits", func() bool { return last.Load() >= from+n })
		}
		advance(100)
		l.server.SwitchWAL()
		advance(50)

		// One put may be under way; then not one more commit returns.
		l.store.Inject(storetest.Fault{Op: storetest.Put, Prefix: "clusters/" + theCluster + "/parts/", Hang: true, Times: 1})
		pgtest.WaitFor(t, "a commit that waits", func() bool {
			return l.server.Query("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") != "0" && l.status().LagBytes > 0
		})
		before := last.Load()
		if n := l.server.Query("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"); n == "0" {
			t.Errorf("no commit waits, although the store hangs; %d have returned", before)
		}
		l.server.Kill()
		cancel()
		<-writer
		acknowledged := last.Load()
		r.stop()
		<-r.done

		mark := fmt.Appendf(nil, "row-%d;", acknowledged)
		found := false
		for _, rg := range mustCoverage(l) {
			for seg := pg.SegmentAt(rg.Timeline, rg.Start, 1<<20); seg.Start() < rg.End; seg = seg.Next() {
				found = found || bytes.Contains(l.stored(seg), mark)
			}
		}
		if !found {
			t.Errorf("commit %d was acknowledged and is not in the repository", acknowledged)
		}
	})
}

func mustCoverage(l *lab) []Range {
	l.t.Helper()
	all, err := Coverage(l.t.Context(), l.repo, l.cluster())
	l.check(err)
	return all
}

// While the repository is away WAL goes to the spool; what is promised to the server
// is not more than the bounds ask for; afterwards all is uploaded in order.
func TestRepositoryAwayAndBack(t *testing.T) {
	l := newLab(t, pgtest.Newest(t), pgtest.WALSegmentSize(1<<20), pgtest.With("wal_keep_size", "1GB"))
	o := l.options(l.server)
	o.PrimaryRetainMax = 64 << 20
	r := l.receive(o)
	from := load(l.server, "100")
	l.durableTo(1, from)
	l.store.SetDown(true)
	to := load(l.server, "6000")
	l.until("the alarm", func(s Status) bool {
		return s.RepositoryFailingSince != nil && s.RepositoryError != "" && s.Received >= to && s.SpoolBytes > 2<<20
	})
	if flushed := l.server.Query("SELECT flush_lsn FROM pg_stat_replication"); flushed == "" || mustLSN(t, flushed) >= to {
		t.Errorf("the server was told that %s is durable, while the repository is away", flushed)
	}
	l.store.SetDown(false)
	l.durableTo(1, to)
	l.until("the all-clear", func(s Status) bool {
		return s.RepositoryFailingSince == nil && s.Durable >= to && s.SpoolBytes <= 1<<20
	})
	r.end()
	l.same(l.server, 1, l.continuous(1).Start, to)
}

// A repository that stays away never fills the primary's disk: first the spool counts as
// safe, then the slot goes. The gap that this makes is shown.
func TestRepositoryAwayTooLong(t *testing.T) {
	l := newLab(t, pgtest.Newest(t), pgtest.WALSegmentSize(1<<20), pgtest.With("max_wal_size", "4MB"), pgtest.With("min_wal_size", "2MB"))
	o := l.options(l.server)
	o.PrimaryRetainMax, o.SpoolMax = 2<<20, 6<<20
	r := l.receive(o)
	l.durableTo(1, load(l.server, "100"))
	l.store.SetDown(true)
	pgtest.WaitFor(t, "the spool to be acknowledged", func() bool {
		load(l.server, "300")
		flushed := l.server.Query("SELECT flush_lsn FROM pg_stat_replication")
		return flushed != "" && mustLSN(t, flushed) > l.status().Durable
	})
	pgtest.WaitFor(t, "the slot to be given up", func() bool {
		load(l.server, "300")
		return l.server.Query("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'pileus'") == "0"
	})
	if s := l.status(); s.SpoolBytes > o.SpoolMax+2<<20 {
		t.Errorf("the spool holds %d bytes, its bound is %d", s.SpoolBytes, o.SpoolMax)
	}
	for range 8 { // the server recycles what nobody wants
		l.server.SwitchWAL()
		load(l.server, "300")
		l.server.Checkpoint()
	}
	l.store.SetDown(false)
	l.until("the gap", func(s Status) bool { return s.Gap != nil && s.RepositoryFailingSince == nil })
	to := load(l.server, "100")
	l.durableTo(1, to)
	r.end()
	all := mustCoverage(l)
	if len(all) != 2 || all[0].End != l.status().Gap.From || all[1].Start != l.status().Gap.To {
		t.Errorf("the archive holds %v, the gap is %+v", all, *l.status().Gap)
	}
	// Another receiver does not forget it.
	r = l.receive(l.options(l.server))
	l.until("the next receiver", func(s Status) bool { return s.Updated.After(time.Now().Add(-time.Second)) && s.Timeline == 1 })
	r.end()
	if l.status().Gap == nil {
		t.Error("the gap is forgotten")
	}
}

// Somebody drops the slot, and the server removes WAL.
func TestSlotDroppedUnderUs(t *testing.T) {
	l := newLab(t, pgtest.Newest(t), pgtest.WALSegmentSize(1<<20), pgtest.With("max_wal_size", "4MB"), pgtest.With("min_wal_size", "2MB"))
	r := l.receive(l.options(l.server))
	l.durableTo(1, load(l.server, "100"))
	r.end()
	pgtest.WaitFor(t, "the slot to be free", func() bool {
		return l.server.Query("SELECT active FROM pg_replication_slots") == "f"
	})
	l.server.Exec("SELECT pg_drop_replication_slot('pileus')")
	for range 8 {
		l.server.SwitchWAL()
		load(l.server, "300")
		l.server.Checkpoint()
	}
	r = l.receive(l.options(l.server))
	to := load(l.server, "100")
	l.durableTo(1, to)
	l.until("the gap", func(s Status) bool { return s.Gap != nil })
	r.end()
	if all := mustCoverage(l); len(all) != 2 {
		t.Errorf("the archive holds %v, want two stretches", all)
	}
}

// A slot that was moved back to WAL that the server has removed is of no use, and heals by itself.
func TestSlotMovedBackIsCreatedAnew(t *testing.T) {
	l := newLab(t, pgtest.Newest(t), pgtest.WALSegmentSize(1<<20), pgtest.With("max_wal_size", "4MB"), pgtest.With("min_wal_size", "2MB"))
	r := l.receive(l.options(l.server))
	old := load(l.server, "100")
	l.durableTo(1, old)
	r.end()
	free := func() {
		pgtest.WaitFor(t, "the slot to be free", func() bool { return l.server.Query("SELECT active FROM pg_replication_slots") == "f" })
	}
	free()
	l.server.Exec("SELECT pg_drop_replication_slot('pileus')")
	for range 8 {
		l.server.SwitchWAL()
		load(l.server, "300")
		l.server.Checkpoint()
	}
	l.server.Exec("SELECT pg_create_physical_replication_slot('pileus', true)")
	conn, err := postgres.ConnectReplication(t.Context(), l.server.DSN(), postgres.Options{})
	l.check(err)
	now := mustLSN(t, l.server.Query("SELECT pg_current_wal_lsn()"))
	stream, err := conn.StartWAL(t.Context(), "pileus", now, 1)
	l.check(err)
	l.check(stream.SendStatus(t.Context(), old, old, old, true))
	pgtest.WaitFor(t, "the slot to move back", func() bool {
		return l.server.Query("SELECT restart_lsn < '"+now.String()+"' FROM pg_replication_slots") == "t"
	})
	conn.Close(t.Context())
	free()
	r = l.receive(l.options(l.server))
	l.durableTo(1, load(l.server, "100"))
	l.until("the gap", func(s Status) bool { return s.Gap != nil })
	r.end()
}

// A receiver that is started while the repository is away begins when it is back.
func TestStartWhileTheRepositoryIsAway(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	l.store.SetDown(true)
	r := l.receive(l.options(l.server))
	l.until("the alarm", func(s Status) bool { return s.RepositoryFailingSince != nil })
	l.store.SetDown(false)
	l.durableTo(1, load(l.server, "100"))
	r.end()
}

// A quiet server's clock is proof that nothing was committed since.
func TestWatermarksOfAQuietServer(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	r := l.receive(l.options(l.server))
	to := load(l.server, "10")
	l.durableTo(1, to)
	quiet := time.Now()
	pgtest.WaitFor(t, "a watermark", func() bool {
		marks, err := l.repo.Watermarks(t.Context(), theCluster)
		n := len(marks)
		return err == nil && n > 0 && marks[n-1].Time.After(quiet)
	})
	r.end()
	marks, err := l.repo.Watermarks(t.Context(), theCluster)
	l.check(err)
	if m := marks[len(marks)-1]; m.Timeline != 1 || m.LSN > l.continuous(1).End {
		t.Errorf("watermark %+v, the archive ends at %s", m, l.continuous(1).End)
	}
}

func mustLSN(t *testing.T, text string) pg.LSN {
	t.Helper()
	lsn, err := pg.ParseLSN(text)
	if err != nil {
		t.Fatal(err)
	}
	return lsn
}
