package postgres_test

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"pileus/internal/pg"
	"pileus/internal/pgtest"
	"pileus/internal/postgres"
)

func TestSlotLifecycle(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		s := pgtest.Start(t, v, pgtest.With("max_replication_slots", "2"))
		ctx := timeout(t)
		r, c := connectReplication(t, s.DSN()), connect(t, s.DSN(), postgres.Options{})
		if _, err := c.ReadSlot(ctx, "mine"); !errors.Is(err, postgres.ErrSlotMissing) {
			t.Errorf("reading a missing slot gave %v", err)
		}
		if err := r.CreateSlot(ctx, "mine", false); err != nil {
			t.Fatal(err)
		}
		slot, err := c.ReadSlot(ctx, "mine")
		if err != nil || !slot.Physical || slot.Temporary || slot.Active || slot.RestartLSN == 0 || slot.WALStatus != "reserved" || slot.Lost() {
			t.Errorf("slot %+v: %v", slot, err)
		}
		if err := r.CreateSlot(ctx, "mine", false); !errors.Is(err, postgres.ErrSlotExists) {
			t.Errorf("creating it twice gave %v", err)
		}
		if err := r.CreateSlot(ctx, "passing", true); err != nil {
			t.Fatal(err)
		}
		if slot, err = c.ReadSlot(ctx, "passing"); err != nil || !slot.Temporary || !slot.Active || slot.ActivePID == 0 {
			t.Errorf("temporary slot %+v: %v", slot, err)
		}
		if err := connectReplication(t, s.DSN()).DropSlot(ctx, "passing"); !errors.Is(err, postgres.ErrSlotActive) {
			t.Errorf("dropping a slot in use gave %v", err)
		}
		if err := r.CreateSlot(ctx, "third", false); !errors.Is(err, postgres.ErrSlotLimit) {
			t.Errorf("a third of two slots gave %v", err)
		}
		if err := r.DropSlot(ctx, "mine"); err != nil {
			t.Fatal(err)
		}
		if err := r.DropSlot(ctx, "mine"); !errors.Is(err, postgres.ErrSlotMissing) {
			t.Errorf("dropping it twice gave %v", err)
		}
		if err := r.CreateSlot(ctx, `x" y`, false); err == nil {
			t.Error("a bad slot name was taken")
		}
	})
}

func TestIdentifySystemAgreesWithSQL(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		s := pgtest.Start(t, v, pgtest.WALSegmentSize(4<<20))
		r := connectReplication(t, s.DSN())
		sys, err := r.IdentifySystem(timeout(t))
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Query("SELECT system_identifier FROM pg_control_system()"); fmt.Sprint(sys.Identifier) != got || sys.Timeline != 1 || sys.LSN == 0 {
			t.Errorf("%+v, by SQL %s", sys, got)
		}
		if n, err := r.WALSegmentSize(timeout(t)); err != nil || n != 4<<20 {
			t.Errorf("segment size %d: %v", n, err)
		}
	})
}

// receiver reads a stream, checks that it has no gap, and answers keepalives.
type receiver struct {
	t    *testing.T
	s    *postgres.WALStream
	next pg.LSN
	data []byte
}

func (r *receiver) until(what string, done func() bool) *postgres.EndOfTimeline {
	r.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !done() {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited in vain for %s; at %s", what, r.next)
		}
		ctx, cancel := context.WithTimeout(r.t.Context(), 100*time.Millisecond)
		msg, err := r.s.Receive(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			if err := r.s.SendStatus(r.t.Context(), r.next, r.next, 0, true); err != nil {
				r.t.Fatal(err)
			}
			continue
		}
		if err != nil {
			r.t.Fatal(err)
		}
		switch m := msg.(type) {
		case postgres.XLogData:
			if m.Start != r.next {
				r.t.Fatalf("WAL at %s came where %s was due", m.Start, r.next)
			}
			if skew := time.Since(m.ServerTime).Abs(); skew > time.Minute || m.ServerEnd < m.Start {
				r.t.Fatalf("server time is off by %v, or its end %s is before %s", skew, m.ServerEnd, m.Start)
			}
			r.next += pg.LSN(len(m.Data))
			r.data = append(r.data, m.Data...)
		case postgres.Keepalive:
			if m.ReplyRequested {
				if err := r.s.SendStatus(r.t.Context(), r.next, r.next, 0, false); err != nil {
					r.t.Fatal(err)
				}
			}
		case postgres.EndOfTimeline:
			return &m
		}
	}
	return nil
}

func TestStreamWALAndReportFlush(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		s := pgtest.Start(t, v)
		ctx := timeout(t)
		r, c := connectReplication(t, s.DSN()), connect(t, s.DSN(), postgres.Options{})
		if err := r.CreateSlot(ctx, "stream", false); err != nil {
			t.Fatal(err)
		}
		slot, err := c.ReadSlot(ctx, "stream")
		if err != nil {
			t.Fatal(err)
		}
		seg := pg.SegmentAt(1, slot.RestartLSN, 16<<20)
		st, err := r.StartWAL(ctx, "stream", seg.Start(), 1)
		if err != nil {
			t.Fatal(err)
		}
		const marker = "a text that only this transaction holds"
		s.Exec("SELECT pg_logical_emit_message(true, 'test', '" + marker + "'); CREATE TABLE a AS SELECT generate_series(1, 50000) n")
		want := s.LSN()
		rec := &receiver{t: t, s: st, next: seg.Start()}
		rec.until("the table", func() bool { return rec.next >= want })
		if !strings.Contains(string(rec.data), marker) {
			t.Error("the WAL does not hold what was written")
		}
		pgtest.WaitFor(t, "the slot to advance", func() bool {
			rec.until("a keepalive", func() bool {
				return s.Query("SELECT flush_lsn >= '"+want.String()+"' FROM pg_stat_replication WHERE application_name = 'pileus'") == "t"
			})
			slot, err := c.ReadSlot(ctx, "stream")
			return err == nil && slot.RestartLSN >= want && slot.Active
		})
		if err := st.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := r.IdentifySystem(ctx); err != nil {
			t.Errorf("the connection is of no use after Stop: %v", err)
		}
	})
}

// With synchronous_standby_names = 'pileus' a commit waits for our flush report.
func TestSynchronousCommitWaitsForFlush(t *testing.T) {
	s := pgtest.Start(t, pgtest.Newest(t))
	s.Exec("CREATE TABLE sync (n int)")
	r := connectReplication(t, s.DSN())
	start := pg.SegmentAt(1, s.LSN(), 16<<20).Start()
	st, err := r.StartWAL(timeout(t), "", start, 1)
	if err != nil {
		t.Fatal(err)
	}
	rec := &receiver{t: t, s: st, next: start}
	now := s.LSN()
	rec.until("the present", func() bool { return rec.next >= now })
	s.Exec("ALTER SYSTEM SET synchronous_standby_names = 'pileus'")
	s.Exec("SELECT pg_reload_conf()")
	rec.until("synchronous mode", func() bool { return s.Query("SELECT sync_state FROM pg_stat_replication") == "sync" })
	committed := make(chan error, 1)
	c := connect(t, s.DSN(), postgres.Options{})
	go func() {
		_, err := c.SQL().Exec(t.Context(), "INSERT INTO public.sync VALUES (1)")
		committed <- err
	}()
	const waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
	pgtest.WaitFor(t, "the commit to wait", func() bool { return s.Query(waiting) == "1" })
	rec.until("the commit to return", func() bool {
		select {
		case err := <-committed:
			if err != nil {
				t.Error(err)
			}
			return true
		default:
			return false
		}
	})
}

func TestStreamEndsWithThePromotedTimeline(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		primary := pgtest.Start(t, v)
		primary.Exec("CREATE TABLE before AS SELECT 1")
		standby := pgtest.Standby(t, primary)
		want := primary.LSN()
		pgtest.WaitFor(t, "the standby to catch up", func() bool { return standby.LSN() >= want })
		in, err := connect(t, standby.DSN(), postgres.Options{}).Info(timeout(t))
		if err != nil || !in.InRecovery || in.Timeline != 1 || in.LSN < want {
			t.Fatalf("standby: %+v: %v", in, err)
		}
		r := connectReplication(t, standby.DSN())
		start := pg.SegmentAt(1, want, 16<<20).Start()
		st, err := r.StartWAL(timeout(t), "", start, 1)
		if err != nil {
			t.Fatal(err)
		}
		rec := &receiver{t: t, s: st, next: start}
		rec.until("the standby's WAL", func() bool { return rec.next >= want })
		if err := standby.Instance.Promote(timeout(t)); err != nil {
			t.Fatal(err)
		}
		end := rec.until("the end of the timeline", func() bool { return false })
		if end.NextTimeline != 2 || end.NextStart != rec.next {
			t.Fatalf("the stream ended at %s with %+v", rec.next, end)
		}
		name, content, err := r.TimelineHistory(timeout(t), 2)
		if err != nil || name != "00000002.history" {
			t.Fatalf("history %q: %v", name, err)
		}
		h, err := pg.ParseHistory(2, content)
		if err != nil {
			t.Fatal(err)
		}
		if switched, ok := h.End(1); !ok || switched != end.NextStart {
			t.Errorf("the history says %s (%v), the stream %s", switched, ok, end.NextStart)
		}
		standby.Exec("CREATE TABLE after AS SELECT 1")
		want = standby.LSN()
		start = pg.SegmentAt(2, end.NextStart, 16<<20).Start()
		if st, err = r.StartWAL(timeout(t), "", start, 2); err != nil {
			t.Fatal(err)
		}
		rec = &receiver{t: t, s: st, next: start}
		rec.until("WAL of the new timeline", func() bool { return rec.next >= want })
		atEndOfTimeline(t, standby, end)
	})
}

// Asking for a timeline from where it ended gives no WAL, only the way on; asking beyond is refused.
func atEndOfTimeline(t *testing.T, s *pgtest.Server, end *postgres.EndOfTimeline) {
	t.Helper()
	r := connectReplication(t, s.DSN())
	st, err := r.StartWAL(timeout(t), "", end.NextStart, 1)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := st.Receive(timeout(t))
	if got, ok := msg.(postgres.EndOfTimeline); err != nil || !ok || got != *end {
		t.Errorf("at the end of the timeline: %+v: %v", msg, err)
	}
	if _, err := st.Receive(timeout(t)); !errors.Is(err, postgres.ErrStreamEnded) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := r.StartWAL(timeout(t), "", end.NextStart+(16<<20), 1); !errors.Is(err, postgres.ErrNotInHistory) {
		t.Errorf("beyond the end: %v", err)
	}
	if _, err := r.IdentifySystem(timeout(t)); err != nil {
		t.Errorf("the connection is of no use after a refusal: %v", err)
	}
}

func TestLostWALIsToldApart(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		s := pgtest.Start(t, v, pgtest.WALSegmentSize(1<<20), pgtest.With("max_slot_wal_keep_size", "1MB"), pgtest.With("max_wal_size", "2MB"),
			pgtest.With("min_wal_size", "2MB"))
		r, c := connectReplication(t, s.DSN()), connect(t, s.DSN(), postgres.Options{})
		start := pg.SegmentAt(1, s.LSN(), 1<<20).Start()
		if err := r.CreateSlot(timeout(t), "slow", false); err != nil {
			t.Fatal(err)
		}
		pgtest.WaitFor(t, "the slot to lose its WAL", func() bool {
			for range 4 {
				s.SwitchWAL()
			}
			s.Checkpoint()
			slot, err := c.ReadSlot(timeout(t), "slow")
			return err == nil && slot.Lost()
		})
		if err := streamUntilError(t, r, "", start); !errors.Is(err, postgres.ErrWALRemoved) {
			t.Errorf("WAL that is gone gave %v", err)
		}
		err := streamUntilError(t, connectReplication(t, s.DSN()), "slow", start)
		if !errors.Is(err, postgres.ErrSlotLost) && !errors.Is(err, postgres.ErrWALRemoved) {
			t.Errorf("a lost slot gave %v", err)
		}
		if _, err := connectReplication(t, s.DSN()).StartWAL(timeout(t), "absent", start, 1); !errors.Is(err, postgres.ErrSlotMissing) {
			t.Errorf("a missing slot gave %v", err)
		}
	})
}

// streamUntilError opens a stream that must fail: at once, or when the server comes to open the segment.
func streamUntilError(t *testing.T, r *postgres.ReplConn, slot string, start pg.LSN) error {
	t.Helper()
	ctx := timeout(t)
	st, err := r.StartWAL(ctx, slot, start, 1)
	for err == nil {
		_, err = st.Receive(ctx)
	}
	return err
}

func TestStreamFromAKilledServerFails(t *testing.T) {
	s := pgtest.Start(t, pgtest.Newest(t))
	r := connectReplication(t, s.DSN())
	start := pg.SegmentAt(1, s.LSN(), 16<<20).Start()
	st, err := r.StartWAL(timeout(t), "", start, 1)
	if err != nil {
		t.Fatal(err)
	}
	rec := &receiver{t: t, s: st, next: start}
	now := s.LSN()
	rec.until("the present", func() bool { return rec.next >= now })
	s.Kill()
	for {
		if _, err = st.Receive(timeout(t)); err != nil {
			break
		}
	}
	if errors.Is(err, context.DeadlineExceeded) || !r.Closed() {
		t.Errorf("a killed server gave %v, closed %v", err, r.Closed())
	}
	if err := st.SendStatus(timeout(t), 1, 1, 1, false); err == nil {
		t.Error("a status was sent to a killed server")
	}
	s.Restart()
}

func TestBaseBackupStream(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		s := pgtest.Start(t, v)
		dir := s.CreateTablespace("elsewhere")
		s.Exec("CREATE TABLE here AS SELECT generate_series(1, 20000) n; CREATE TABLE there TABLESPACE elsewhere AS SELECT generate_series(1, 20000) n")
		path := s.Query("SELECT pg_relation_filepath('there')")
		r := connectReplication(t, s.DSN())
		b, err := r.StartBaseBackup(timeout(t), postgres.BaseBackupOptions{Label: "it's one", Fast: true, EstimateSize: true})
		if err != nil {
			t.Fatal(err)
		}
		if b.StartLSN == 0 || b.StartTimeline != 1 || b.Size < 1<<20 || len(b.Tablespaces) != 1 || b.Location(b.Tablespaces[0].OID) != dir || b.Tablespaces[0].Size <= 0 {
			t.Errorf("header: %+v", b)
		}
		files := readArchives(t, b)
		if b.EndLSN <= b.StartLSN || b.EndTimeline != 1 {
			t.Errorf("end %s on %d, start %s", b.EndLSN, b.EndTimeline, b.StartLSN)
		}
		if label := files[0]["backup_label"]; !strings.Contains(label, "LABEL: it's one") {
			t.Errorf("label %q", label)
		}
		if tsmap := files[0]["tablespace_map"]; !strings.Contains(tsmap, dir) {
			t.Errorf("tablespace map %q", tsmap)
		}
		if _, ok := files[0]["backup_manifest"]; ok {
			t.Error("a manifest was sent")
		}
		oid := b.Tablespaces[0].OID
		inside := strings.TrimPrefix(path, fmt.Sprintf("pg_tblspc/%d/", oid))
		if n := len(files[oid][inside]); n < 20000*28 {
			t.Errorf("%s has %d bytes in the tablespace's archive", inside, n)
		}
		if _, err := r.IdentifySystem(timeout(t)); err != nil {
			t.Errorf("the connection is of no use after a backup: %v", err)
		}
	})
}

// readArchives reads all archives: member contents by tablespace.
func readArchives(t *testing.T, b *postgres.BaseBackup) map[uint32]map[string]string {
	t.Helper()
	all := map[uint32]map[string]string{}
	for {
		a, err := b.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all[a.OID] = map[string]string{}
		tr := tar.NewReader(a)
		for {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(tr)
			if err != nil || int64(len(content)) != h.Size {
				t.Fatalf("%s: %d of %d bytes: %v", h.Name, len(content), h.Size, err)
			}
			all[a.OID][strings.TrimPrefix(h.Name, "./")] = string(content)
		}
	}
}

func TestBaseBackupCanBeSkippedThrough(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		s := pgtest.Start(t, v)
		s.CreateTablespace("empty")
		b, err := connectReplication(t, s.DSN()).StartBaseBackup(timeout(t), postgres.BaseBackupOptions{Label: "skip", Fast: true})
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for ; err == nil; seen++ {
			_, err = b.Next()
		}
		if err != io.EOF || seen != 3 || b.EndLSN == 0 || b.Size != -1 {
			t.Errorf("after %d calls: %v, end %s", seen, err, b.EndLSN)
		}
	})
}

func TestBaseBackupOfAKilledServerIsNoBackup(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		s := pgtest.Start(t, v)
		// More than the socket buffers hold, so that the stream cannot have ended.
		s.Exec("CREATE TABLE big AS SELECT repeat('x', 1000) FROM generate_series(1, 30000)")
		b, err := connectReplication(t, s.DSN()).StartBaseBackup(timeout(t), postgres.BaseBackupOptions{Label: "cut", Fast: true})
		if err != nil {
			t.Fatal(err)
		}
		a, err := b.Next()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(a, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		s.Kill()
		if _, err := io.Copy(io.Discard, a); err == nil {
			t.Error("the archive of a killed server ended well")
		}
		if _, err := b.Next(); err == nil || err == io.EOF || b.EndLSN != 0 {
			t.Errorf("Next gave %v, end %s", err, b.EndLSN)
		}
	})
}
