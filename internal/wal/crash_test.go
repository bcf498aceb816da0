package wal_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pileus/internal/pg"
	"pileus/internal/wal"
)

// TestCrashAndPromotion loses the rest of a record in a crash, so that the
// server overwrites it, and then lets a recovery begin a new timeline.
func TestCrashAndPromotion(t *testing.T) {
	for _, major := range majors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			s := newServer(t, major)
			s.start(t)
			c := s.connect(t)
			exec := func(sql string) {
				t.Helper()
				if _, err := c.Exec(t.Context(), sql); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
			exec("create table a as select generate_series(1, 1000) i")
			exec("checkpoint")
			exec("select pg_switch_wal()")
			exec("create table b as select generate_series(1, 1000) i") // the message starts in the middle of a segment
			var lost string
			if err := c.QueryRow(t.Context(), "select pg_logical_emit_message(false, 'test', repeat('pileus', 500000))::text").Scan(&lost); err != nil {
				t.Fatal(err)
			}
			exec("create table c as select generate_series(1, 1000) i")
			_ = c.Close(t.Context())
			s.stop(t, "immediate")

			end, err := pg.ParseLSN(lost)
			if err != nil {
				t.Fatal(err)
			}
			cut := pg.SegmentAt(1, end-1, pg.MinSegmentSize)
			loseTail(t, s, cut)
			s.start(t)
			c = s.connect(t)
			exec("create table d as select generate_series(1, 1000) i")
			exec("select pg_create_restore_point('survived')")
			_ = c.Close(t.Context())
			s.stop(t, "fast")
			one := timeline(t, s, 1)
			if len(one.overwrites) != 1 || !one.points["survived"] {
				t.Fatalf("overwrites %+v, restore points %v", one.overwrites, one.points)
			}
			if o := one.overwrites[0]; o.Overwritten >= cut.Start() || o.Overwritten < one.first || one.lsns[o.Overwritten] || o.Time.IsZero() {
				t.Errorf("overwritten: %+v", o)
			}

			if err := os.WriteFile(filepath.Join(s.dir, "recovery.signal"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			conf, err := os.OpenFile(filepath.Join(s.dir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(conf, "restore_command='false'")
			if err := conf.Close(); err != nil {
				t.Fatal(err)
			}
			s.start(t)
			c = s.connect(t)
			promoted(t, c)
			exec("select pg_create_restore_point('on the second timeline')")
			exec("create table e as select generate_series(1, 100000) i")
			_ = c.Close(t.Context())
			s.stop(t, "fast")
			two := timeline(t, s, 2)
			if !two.points["on the second timeline"] || !two.switched || two.timelines[1] == 0 || two.timelines[2] == 0 {
				t.Errorf("restore points %v, switched %v, records on timelines %v", two.points, two.switched, two.timelines)
			}
			if control := s.control(t); two.last != control.Checkpoint || control.CheckpointTimeline != 2 {
				t.Errorf("last record at %s, checkpoint at %s", two.last, control.Checkpoint)
			}
		})
	}
}

// loseTail makes it as if seg had been written by half and nothing after it.
func loseTail(t *testing.T, s *server, seg pg.Segment) {
	t.Helper()
	b := s.read(t, seg)
	clear(b[len(b)/2:])
	for _, later := range s.segments(t, seg.Timeline, seg.Size) {
		if later.Number > seg.Number {
			b := s.read(t, later)
			clear(b)
			if err := os.WriteFile(filepath.Join(s.dir, "pg_wal", later.Name()), b, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(s.dir, "pg_wal", seg.Name()), b, 0); err != nil {
		t.Fatal(err)
	}
}

type timelineSeen struct {
	overwrites  []wal.Overwrite
	points      map[string]bool
	lsns        map[pg.LSN]bool
	timelines   map[pg.TimelineID]int
	switched    bool // a record says that the timeline begins
	first, last pg.LSN
}

// timeline decodes the segments of one timeline up to the end of WAL.
func timeline(t *testing.T, s *server, tli pg.TimelineID) timelineSeen {
	t.Helper()
	seen := timelineSeen{points: map[string]bool{}, lsns: map[pg.LSN]bool{}, timelines: map[pg.TimelineID]int{}}
	d, err := wal.NewDecoder(wal.Config{SegmentSize: pg.MinSegmentSize, Timeline: tli, SystemID: s.control(t).SystemID})
	if err != nil {
		t.Fatal(err)
	}
	for _, seg := range s.segments(t, tli, pg.MinSegmentSize) {
		if err := d.Feed(seg.Start(), s.read(t, seg)); err != nil {
			t.Fatal(err)
		}
		for {
			r, ok, err := d.Next()
			var end *wal.EndOfWALError
			if errors.As(err, &end) {
				seen.first, _ = d.FirstRecord()
				seen.last = d.LastRecord()
				return seen
			}
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			seen.take(t, r)
		}
	}
	seen.first, _ = d.FirstRecord()
	seen.last = d.LastRecord()
	return seen
}

func (seen *timelineSeen) take(t *testing.T, r *wal.Record) {
	t.Helper()
	seen.lsns[r.LSN] = true
	seen.timelines[r.Timeline]++
	if o, ok, err := wal.ParseOverwrite(r); err != nil {
		t.Fatal(err)
	} else if ok {
		seen.overwrites = append(seen.overwrites, o)
	}
	if p, ok, err := wal.ParseRestorePoint(r); err != nil {
		t.Fatal(err)
	} else if ok {
		seen.points[p.Name] = true
	}
	if e, ok, err := wal.ParseEndOfRecovery(r); err != nil {
		t.Fatal(err)
	} else if ok && e.Timeline == 2 && e.PreviousTimeline == 1 && !e.Time.IsZero() {
		seen.switched = true
	}
	if c, ok, err := wal.ParseCheckpoint(r); err != nil {
		t.Fatal(err)
	} else if ok && c.Timeline == 2 && c.PreviousTimeline == 1 {
		seen.switched = true
	}
	if p, ok, err := wal.ParseParameterChange(r); err != nil {
		t.Fatal(err)
	} else if ok && (p.MaxConnections != 100 || p.MaxWorkerProcesses != 8 || p.MaxWALSenders != 10 || p.MaxPreparedXacts != 10 || p.MaxLocksPerXact != 64 || p.WALLevel != pg.WALLevelLogical) {
		t.Errorf("parameters %+v", p)
	}
}

// promoted waits until the server has ended its recovery.
func promoted(t *testing.T, c *pgx.Conn) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for recovering := true; recovering; {
		if err := c.QueryRow(t.Context(), "select pg_is_in_recovery()").Scan(&recovering); err != nil {
			t.Fatal(err)
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the server did not end its recovery within a minute")
		}
	}
}
