package wal_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pileus/internal/pg"
	"pileus/internal/wal"
)

var record = flag.Bool("record", false, "write testdata/wal-MAJOR.gz anew from the servers of this run")

// TestServers decodes what a server of each version writes: to the end, each
// record verified, and with each transaction's commit at the time that the server itself remembers.
func TestServers(t *testing.T) {
	for _, major := range majors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			s := newServer(t, major)
			s.start(t)
			c := s.connect(t)
			var from uint32
			if err := c.QueryRow(t.Context(), "select txid_current()::text::int").Scan(&from); err != nil {
				t.Fatal(err)
			}
			elsewhere := filepath.Join(filepath.Dir(s.dir), "elsewhere")
			s.mkdir(t, elsewhere)
			workload(t, c, major, elsewhere)
			truth := storageTruth(t, c)
			commits := map[uint32]time.Time{}
			rows, err := c.Query(t.Context(), `select x, pg_xact_commit_timestamp(x::text::xid) from generate_series($1::int, txid_current()::text::int - 1) x
				where pg_xact_commit_timestamp(x::text::xid) is not null`, from)
			if err != nil {
				t.Fatal(err)
			}
			for rows.Next() {
				var xid uint32
				var at time.Time
				if err := rows.Scan(&xid, &at); err != nil {
					t.Fatal(err)
				}
				commits[xid] = at.UTC()
			}
			if err := rows.Err(); err != nil || len(commits) < 400 {
				t.Fatalf("%d commits, %v", len(commits), err)
			}
			var last uint32
			if err := c.QueryRow(t.Context(), "select txid_current()::text::int - 1").Scan(&last); err != nil {
				t.Fatal(err)
			}
			c.Close(t.Context())
			s.stop(t, "fast")

			control := s.control(t)
			if m, ok := control.Major(); !ok || m != major || !control.TrackCommitTimestamp || control.MaxPreparedXacts != 10 || control.WALLevel != pg.WALLevelLogical {
				t.Errorf("control file: %+v", control)
			}
			seen := readAll(t, s, control)
			if d := cmp.Diff(commits, seen.commits(from, last)); d != "" {
				t.Errorf("commits (-server +decoded):\n%s", d)
			}
			seen.check(t, control)
			seen.storage.check(t, truth, major, elsewhere)
			checkEachSegment(t, s, control, seen)
			if *record {
				recordSegment(t, s, control, major)
			}
			if major == 15 {
				compareWithWaldump(t, s, control, seen)
			}
			checkAllPages(t, s)
		})
	}
}

// observed is what a whole run through a server's WAL found.
type observed struct {
	records       []string // each in one line
	ends          []pg.LSN
	ended         []wal.Commit
	restorePoints []string
	backupStarts  []pg.LSN
	checkpoints   []wal.Checkpoint
	switches      int
	images        int
	storage       storage
	err           error
	decoder       *wal.Decoder
}

func (o *observed) commits(from, to uint32) map[uint32]time.Time {
	m := map[uint32]time.Time{}
	for _, c := range o.ended {
		for _, xid := range append(c.SubXids, c.Xid) {
			if c.Kind.Committed() && xid >= from && xid < to {
				m[xid] = c.Time
			}
		}
	}
	return m
}

func (o *observed) take(t *testing.T, r *wal.Record) {
	t.Helper()
	o.records = append(o.records, line(r))
	o.ends = append(o.ends, r.End)
	for _, b := range r.Blocks {
		if b.HasImage {
			o.images++
		}
	}
	o.storage.take(t, r)
	if r.IsSwitch() {
		o.switches++
	}
	if c, ok, err := wal.ParseCommit(r); err != nil {
		t.Fatal(err)
	} else if ok {
		o.ended = append(o.ended, c)
	}
	if p, ok, err := wal.ParseRestorePoint(r); err != nil {
		t.Fatal(err)
	} else if ok {
		o.restorePoints = append(o.restorePoints, p.Name)
	}
	if start, ok, err := wal.ParseBackupEnd(r); err != nil {
		t.Fatal(err)
	} else if ok {
		o.backupStarts = append(o.backupStarts, start)
	}
	if c, ok, err := wal.ParseCheckpoint(r); err != nil {
		t.Fatal(err)
	} else if ok {
		o.checkpoints = append(o.checkpoints, c)
	}
}

// line is a record as pg_waldump prints it, but for the description.
func line(r *wal.Record) string {
	var b strings.Builder
	images := 0
	for _, blk := range r.Blocks {
		images += len(blk.Image)
	}
	fmt.Fprintf(&b, "rmgr: %s len (rec/tot): %d/%d, tx: %d, lsn: %s, prev %s", r.Rmgr, int(r.TotalLen)-images, r.TotalLen, r.Xid, padLSN(r.LSN), padLSN(r.Prev))
	for _, blk := range r.Blocks {
		fmt.Fprintf(&b, ", blkref #%d: rel %s", blk.ID, blk.File)
		if blk.Fork != pg.ForkMain {
			fmt.Fprintf(&b, " fork %s", blk.Fork)
		}
		fmt.Fprintf(&b, " blk %d", blk.Block)
		if blk.HasImage {
			b.WriteString(" FPW")
		}
	}
	return b.String()
}

func padLSN(l pg.LSN) string { return fmt.Sprintf("%X/%08X", uint32(l>>32), uint32(l)) }

// readAll decodes all WAL in the server's directory.
func readAll(t *testing.T, s *server, control pg.Control) *observed {
	t.Helper()
	o := &observed{}
	o.decoder, o.err = decodeAll(t, s, control, func(r *wal.Record) { o.take(t, r) })
	return o
}

// decodeAll hands out the records of all WAL in the server's directory, which is fed in uneven pieces, and says why it ended.
func decodeAll(t *testing.T, s *server, control pg.Control, do func(*wal.Record)) (*wal.Decoder, error) {
	t.Helper()
	d, err := wal.NewDecoder(wal.Config{SystemID: control.SystemID, SegmentSize: control.WALSegmentSize, Timeline: control.CheckpointTimeline})
	if err != nil {
		t.Fatal(err)
	}
	piece := 1
	for _, seg := range s.segments(t, control.CheckpointTimeline, control.WALSegmentSize) {
		pos := seg.Start()
		for b := s.read(t, seg); len(b) > 0; {
			n := min(piece, len(b))
			piece = piece*3%100003 + 1
			if err := d.Feed(pos, b[:n]); err != nil {
				t.Fatal(err)
			}
			for {
				r, ok, err := d.Next()
				if err != nil {
					return d, err
				}
				if !ok {
					break
				}
				do(r)
			}
			pos, b = pos+pg.LSN(n), b[n:]
		}
	}
	return d, nil
}

// check compares with what the workload is known to have done.
func (o *observed) check(t *testing.T, control pg.Control) {
	t.Helper()
	var end *wal.EndOfWALError
	if o.err != nil && !errors.As(o.err, &end) {
		t.Fatal(o.err)
	}
	if end != nil && end.LSN != o.decoder.End() {
		t.Errorf("%v, but the last record ends at %s", end, o.decoder.End())
	}
	if o.decoder.LastRecord() != control.Checkpoint {
		t.Errorf("last record is at %s, the control file says that the shutdown checkpoint is at %s", o.decoder.LastRecord(), control.Checkpoint)
	}
	last := o.checkpoints[len(o.checkpoints)-1]
	if !last.Shutdown || last.Redo != control.CheckpointRedo || last.Timeline != 1 || last.PreviousTimeline != 1 || !last.Time.Equal(control.CheckpointTime) || last.NextXid == 0 {
		t.Errorf("last checkpoint %+v, control file %+v", last, control)
	}
	if d := cmp.Diff([]string{"before the change"}, o.restorePoints); d != "" {
		t.Error(d)
	}
	if len(o.backupStarts) != 1 || o.switches < 1 || o.images < 100 {
		t.Errorf("%d ends of a backup, %d switches, %d images", len(o.backupStarts), o.switches, o.images)
	}
	kinds := map[wal.CommitKind]int{}
	dropped := 0
	for _, c := range o.ended {
		kinds[c.Kind]++
		dropped += len(c.Dropped)
		switch c.Kind {
		case wal.KindPrepare, wal.KindCommitPrepared, wal.KindAbortPrepared:
			if !strings.HasPrefix(c.GID, "two phase ") || len(c.SubXids) != 1 || c.Xid == 0 || c.Database == 0 {
				t.Errorf("prepared transaction: %+v", c)
			}
			if c.Kind == wal.KindAbortPrepared && len(c.Dropped) != 1 {
				t.Errorf("rolled back: %+v", c)
			}
		}
	}
	if kinds[wal.KindPrepare] != 2 || kinds[wal.KindCommitPrepared] != 1 || kinds[wal.KindAbortPrepared] != 1 || kinds[wal.KindAbort] != 40+67 || dropped < 3 {
		t.Errorf("%v, %d dropped", kinds, dropped)
	}
}

// checkEachSegment gives each segment alone to CheckSegment, whole and torn.
func checkEachSegment(t *testing.T, s *server, control pg.Control, seen *observed) {
	t.Helper()
	var records, commits, switches int
	want := 0
	for _, c := range seen.ended {
		if c.Kind.Committed() {
			want++
		}
	}
	all := s.segments(t, 1, control.WALSegmentSize)
	for i, seg := range all {
		b := s.read(t, seg)
		info, err := wal.CheckSegment(bytes.NewReader(b), seg, control.SystemID)
		if seg.End() > control.Checkpoint { // unfinished, or recycled and not used yet
			if err == nil {
				t.Errorf("%s: passed although WAL ends at %s", seg, seen.decoder.End())
			}
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		records, commits = records+info.Records, commits+info.Commits
		if info.Switched {
			switches++
		}
		if info.Records > 0 && (info.FirstRecord < seg.Start() || info.LastRecord >= seg.End() || info.End > seg.End()) || info.SystemID != control.SystemID {
			t.Errorf("%s: %+v", seg, info)
		}
		if info.Commits > 0 && info.LastCommit.Before(info.FirstCommit) {
			t.Errorf("%s: %+v", seg, info)
		}
		if i%3 == 0 && !info.Switched && info.Records > 0 {
			checkTorn(t, b, seg, info)
		}
		if _, err := wal.CheckSegment(bytes.NewReader(b), seg, control.SystemID+1); err == nil {
			t.Errorf("%s: passed as another cluster's", seg)
		}
		if _, err := wal.CheckSegment(bytes.NewReader(b), seg.Next(), control.SystemID); err == nil {
			t.Errorf("%s: passed as %s", seg, seg.Next())
		}
	}
	if records == 0 || records > len(seen.records) || commits > want || switches != seen.switches {
		t.Errorf("segments hold %d records, %d commits, %d switches; the whole WAL %d, %d, %d", records, commits, switches, len(seen.records), want, seen.switches)
	}
}

func checkTorn(t *testing.T, b []byte, seg pg.Segment, info wal.SegmentInfo) {
	t.Helper()
	last := int(info.LastRecord - seg.Start())
	for name, tear := range map[string]func(b []byte) []byte{
		"truncated":        func(b []byte) []byte { return b[:len(b)-1] },
		"half":             func(b []byte) []byte { return b[:len(b)/2] },
		"empty":            func([]byte) []byte { return nil },
		"too long":         func(b []byte) []byte { return append(b, 0) },
		"last page zero":   func(b []byte) []byte { clear(b[len(b)-8192:]); return b },
		"second half zero": func(b []byte) []byte { clear(b[len(b)/2:]); return b },
		"first page zero":  func(b []byte) []byte { clear(b[:8192]); return b },
		"a sector zero":    func(b []byte) []byte { clear(b[last&^511 : last|511]); return b },
		"page header":      func(b []byte) []byte { b[8192*7+3] ^= 0x80; return b },
		"pages exchanged":  func(b []byte) []byte { copy(b[8192:], bytes.Clone(b[16384:24576])); return b },
		"one bit of a CRC": func(b []byte) []byte { b[last+20] ^= 4; return b },
	} {
		if _, err := wal.CheckSegment(bytes.NewReader(tear(bytes.Clone(b))), seg, 0); err == nil {
			t.Errorf("%s passed although torn: %s", seg, name)
		}
	}
}

var waldumpLine = regexp.MustCompile(`^(rmgr: \S+) +(len \(rec/tot\):) +(\d+)/ *(\d+), tx: +(\d+), (lsn: \S+, prev \S+), desc: .*?((?:, blkref #\d+: rel \S+(?: fork \S+)? blk \d+(?: FPW)?)*)$`)

// compareWithWaldump compares record by record with what pg_waldump reads.
func compareWithWaldump(t *testing.T, s *server, control pg.Control, seen *observed) {
	t.Helper()
	dump := filepath.Join(s.bin, "pg_waldump")
	first := s.segments(t, 1, control.WALSegmentSize)[0]
	out, _ := exec.Command(dump, "-p", filepath.Join(s.dir, "pg_wal"), "-s", first.Start().String()).Output() // fails at the end of WAL
	var want []string
	for _, l := range lines(string(out)) {
		m := waldumpLine.FindStringSubmatch(l)
		if m == nil {
			t.Fatalf("pg_waldump prints %q", l)
		}
		want = append(want, fmt.Sprintf("%s %s %s/%s, tx: %s, %s%s", m[1], m[2], m[3], m[4], m[5], m[6], m[7]))
	}
	if len(want) < 1000 {
		t.Fatalf("pg_waldump prints %d records", len(want))
	}
	if len(want) != len(seen.records) {
		t.Errorf("pg_waldump prints %d records, decoded %d", len(want), len(seen.records))
	}
	for i := range min(len(want), len(seen.records)) {
		if want[i] != seen.records[i] {
			t.Fatalf("record %d:\npg_waldump %s\ndecoded    %s", i, want[i], seen.records[i])
		}
	}
}
