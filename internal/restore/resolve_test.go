package restore

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"
	"time"

	"pileus/internal/pg"
	"pileus/internal/progress"
	"pileus/internal/repo"
)

// fakeWAL is a WAL of given records. It insists on being read from where a record starts.
type fakeWAL struct {
	records []Record
	gapAt   pg.LSN // reading a record at or behind it fails; 0: no gap
	fail    error  // instead of a GapError
	readTo  pg.LSN // how far it was read
}

func (f *fakeWAL) Records(ctx context.Context, path pg.History, from pg.LSN) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		started := false
		for _, r := range f.records {
			if r.LSN < from {
				continue
			}
			if !started && r.LSN != from {
				yield(Record{}, errors.New("no record starts at "+from.String()))
				return
			}
			started = true
			if f.gapAt != 0 && r.LSN >= f.gapAt {
				err := f.fail
				if err == nil {
					err = &GapError{Timeline: path.Timeline, From: f.gapAt, To: f.gapAt + 100}
				}
				yield(Record{}, err)
				return
			}
			f.readTo = max(f.readTo, r.End)
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (f *fakeWAL) Holds(context.Context, pg.TimelineID, pg.LSN) (bool, error) { return true, nil }

// epoch is when the tests' WAL begins.
var epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return epoch.Add(time.Duration(seconds) * time.Second) }

// log makes records of 100 bytes, the first at LSN 1000.
func makeLog(records ...Record) []Record {
	lsn := pg.LSN(1000)
	for i := range records {
		records[i].LSN, records[i].End = lsn, lsn+100
		lsn += 100
	}
	return records
}

func commit(xid uint32, sec int, subs ...uint32) Record {
	return Record{Kind: RecordCommit, XID: xid, Time: at(sec), Subs: subs}
}
func other() Record                    { return Record{} }
func abort(xid uint32, sec int) Record { return Record{Kind: RecordAbort, XID: xid, Time: at(sec)} }
func point(name string, sec int) Record {
	return Record{Kind: RecordRestorePoint, Name: name, Time: at(sec)}
}

func backup(id string, start, stop pg.LSN, stopped int) repo.Backup {
	return repo.Backup{ID: id, Cluster: "db", Timeline: 1, StartLSN: start, StopLSN: stop, Stopped: at(stopped), CompleteTo: at(stopped), SegmentSize: 16 << 20}
}

func damaged(b repo.Backup) repo.Backup { b.DamagedPages = 3; return b }

func TestResolve(t *testing.T) {
	// LSN   1000   1100        1200   1300         1400         1500   1600         1700     1800         1900
	std := makeLog(other(), commit(10, 1), other(), commit(11, 5), commit(12, 9, 13), abort(14, 10), commit(15, 20), point("a", 21), commit(16, 30), other())
	b1 := backup("b1", 1000, 1300, 3)
	b2 := backup("b2", 1400, 1700, 20)
	mark := repo.Watermark{Timeline: 1, LSN: 2000, Time: at(60)}
	tests := []struct {
		name      string
		target    Target
		backups   []repo.Backup
		marks     []repo.Watermark
		gap       pg.LSN // WAL is missing from here
		gapTo     pg.LSN // to here; 0: to the end
		backup    string
		stop      pg.LSN
		immediate bool
		last      uint32 // last commit
		next      uint32 // first excluded
		err       string
	}{
		{name: "time between commits", target: Target{Kind: ToTime, Time: at(7)}, backups: []repo.Backup{b1}, backup: "b1", stop: 1300, last: 11, next: 12},
		{name: "time of a commit is inclusive", target: Target{Kind: ToTime, Time: at(9)}, backups: []repo.Backup{b1}, backup: "b1", stop: 1400, last: 12, next: 15},
		{name: "exclusive excludes it", target: Target{Kind: ToTime, Time: at(9), Exclusive: true}, backups: []repo.Backup{b1}, backup: "b1", stop: 1300, last: 11, next: 12},
		{name: "an abort does not stop", target: Target{Kind: ToTime, Time: at(9)}, backups: []repo.Backup{b1}, backup: "b1", stop: 1400, last: 12, next: 15},
		{name: "newest backup before the time", target: Target{Kind: ToTime, Time: at(25)}, backups: []repo.Backup{b1, b2}, backup: "b2", stop: 1700 - 100, immediate: true, last: 15, next: 16},
		{name: "never a backup past the target", target: Target{Kind: ToTime, Time: at(19)}, backups: []repo.Backup{b1, b2}, backup: "b1", stop: 1400, last: 12, next: 15},
		{name: "time of the last commit", target: Target{Kind: ToTime, Time: at(30)}, backups: []repo.Backup{b1, b2}, backup: "b2", stop: 1800, last: 16},
		{name: "idle with a watermark", target: Target{Kind: ToTime, Time: at(59)}, backups: []repo.Backup{b1, b2}, marks: []repo.Watermark{mark}, backup: "b2", stop: 1800, last: 16},
		{name: "idle without evidence", target: Target{Kind: ToTime, Time: at(59)}, backups: []repo.Backup{b1, b2}, err: "known to be complete only up to 2026-03-01T10:00:30Z"},
		{name: "beyond the watermark", target: Target{Kind: ToTime, Time: at(61)}, backups: []repo.Backup{b1, b2}, marks: []repo.Watermark{mark}, err: "2026-03-01T10:00:03Z to 2026-03-01T10:01:00Z"},
		{name: "watermark beyond the WAL is no evidence", target: Target{Kind: ToTime, Time: at(59)}, backups: []repo.Backup{b2}, marks: []repo.Watermark{{Timeline: 1, LSN: 9000, Time: at(60)}}, err: "complete only up to"},
		{name: "watermark of another branch is no evidence", target: Target{Kind: ToTime, Time: at(59)}, backups: []repo.Backup{b2}, marks: []repo.Watermark{{Timeline: 7, LSN: 2000, Time: at(60)}}, err: "complete only up to"},
		{name: "time before the first backup's end", target: Target{Kind: ToTime, Time: at(2)}, backups: []repo.Backup{b1, b2}, err: "earlier than the end of the first backup"},
		{name: "damaged backup is avoided", target: Target{Kind: ToTime, Time: at(25)}, backups: []repo.Backup{b1, damaged(b2)}, backup: "b1", stop: 1600, last: 15, next: 16},
		{name: "damaged backup is used when alone", target: Target{Kind: ToTime, Time: at(30)}, backups: []repo.Backup{damaged(b2)}, backup: "b2", stop: 1800, last: 16},
		{name: "damaged backup when the sound one meets a gap", target: Target{Kind: ToLatest}, backups: []repo.Backup{b1, damaged(b2)}, gap: 1200, gapTo: 1400, backup: "b2", stop: 1900, last: 16},
		{name: "gap before the target", target: Target{Kind: ToTime, Time: at(19)}, backups: []repo.Backup{b1}, gap: 1400, err: "WAL of timeline 1 is missing from LSN 0/578"},
		{name: "gap behind the target", target: Target{Kind: ToTime, Time: at(7)}, backups: []repo.Backup{b1}, gap: 1500, backup: "b1", stop: 1300, last: 11, next: 12},
		{name: "latest behind a gap is refused", target: Target{Kind: ToLatest}, backups: []repo.Backup{b1}, gap: 1500, err: "with the LSN 0/578 as the target"},

		{name: "lsn at a record", target: Target{Kind: ToLSN, LSN: 1800}, backups: []repo.Backup{b1, b2}, backup: "b2", stop: 1800, last: 16},
		{name: "lsn within a record", target: Target{Kind: ToLSN, LSN: 1750}, backups: []repo.Backup{b1, b2}, backup: "b2", stop: 1800, last: 16},
		{name: "lsn exclusive", target: Target{Kind: ToLSN, LSN: 1800, Exclusive: true}, backups: []repo.Backup{b1, b2}, backup: "b2", stop: 1700, last: 15, next: 16},
		{name: "lsn where WAL ends", target: Target{Kind: ToLSN, LSN: 2000}, backups: []repo.Backup{b1, b2}, backup: "b2", stop: 1900, last: 16},
		{name: "lsn beyond the WAL", target: Target{Kind: ToLSN, LSN: 2001}, backups: []repo.Backup{b1, b2}, err: "the WAL in the repository ends at LSN 0/7D0"},
		{name: "lsn before the end of the newest backup", target: Target{Kind: ToLSN, LSN: 1650}, backups: []repo.Backup{b1, b2}, backup: "b1", stop: 1700, last: 15, next: 16},
		{name: "lsn at the end of the backup", target: Target{Kind: ToLSN, LSN: 1300, Exclusive: true}, backups: []repo.Backup{b1}, backup: "b1", stop: 1300, immediate: true, last: 10, next: 11},

		{name: "xid", target: Target{Kind: ToXID, XID: 12}, backups: []repo.Backup{b1, b2}, backup: "b1", stop: 1400, last: 12, next: 15},
		{name: "xid exclusive", target: Target{Kind: ToXID, XID: 12, Exclusive: true}, backups: []repo.Backup{b1}, backup: "b1", stop: 1300, last: 11, next: 12},
		{name: "xid with an epoch", target: Target{Kind: ToXID, XID: 1<<32 | 16}, backups: []repo.Backup{b1, b2}, backup: "b2", stop: 1800, last: 16},
		{name: "xid during the newest backup", target: Target{Kind: ToXID, XID: 15}, backups: []repo.Backup{b1, b2}, backup: "b2", immediate: true, last: 15, next: 16},
		{name: "xid of a subtransaction", target: Target{Kind: ToXID, XID: 13}, backups: []repo.Backup{b1}, err: "give 12 as the target"},
		{name: "xid rolled back", target: Target{Kind: ToXID, XID: 14}, backups: []repo.Backup{b1}, err: "was rolled back"},
		{name: "xid unknown", target: Target{Kind: ToXID, XID: 99}, backups: []repo.Backup{b1, b2}, err: "not in the WAL that the repository holds"},
		{name: "xid before the backup's end", target: Target{Kind: ToXID, XID: 10}, backups: []repo.Backup{b1}, err: "earlier than the end of the first backup"},

		{name: "name", target: Target{Kind: ToName, Name: "a"}, backups: []repo.Backup{b1, b2}, backup: "b2", stop: 1700, last: 15, next: 16},
		{name: "name unknown", target: Target{Kind: ToName, Name: "z"}, backups: []repo.Backup{b1, b2}, err: "not in the WAL"},

		{name: "latest", target: Target{Kind: ToLatest}, backups: []repo.Backup{b1, b2}, backup: "b2", stop: 1900, last: 16},
		{name: "latest, newest backup incomplete", target: Target{Kind: ToLatest}, backups: []repo.Backup{b1, backup("b3", 1800, 5000, 90)}, backup: "b1", stop: 1900, last: 16},
		{name: "no WAL for the only backup", target: Target{Kind: ToLatest}, backups: []repo.Backup{backup("b3", 1800, 5000, 90)}, err: "has arrived only up to 0/7D0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cat := catalog{cluster: "db", path: pg.History{Timeline: 1}, backups: tt.backups, watermarks: tt.marks}
			wal := &holeWAL{fakeWAL: fakeWAL{records: std}, from: tt.gap, to: tt.gapTo}
			res, err := resolve(t.Context(), cat, wal, tt.target, progress.Silent{})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one that says %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if res.Backup.ID != tt.backup || res.Immediate != tt.immediate {
				t.Errorf("backup %s, immediate %v; want %s, %v", res.Backup.ID, res.Immediate, tt.backup, tt.immediate)
			}
			if !tt.immediate && res.StopLSN != tt.stop {
				t.Errorf("stops at %d, want %d", res.StopLSN, tt.stop)
			}
			if got := xidOf(res.LastCommit); got != tt.last {
				t.Errorf("last commit %d, want %d", got, tt.last)
			}
			if got := xidOf(res.FirstExcluded); got != tt.next {
				t.Errorf("first excluded %d, want %d", got, tt.next)
			}
		})
	}
}

func xidOf(c *Commit) uint32 {
	if c == nil {
		return 0
	}
	return c.XID
}

// holeWAL lacks what lies in [from, to); behind the hole it can be read.
type holeWAL struct {
	fakeWAL
	from, to pg.LSN
}

func (h *holeWAL) Records(ctx context.Context, path pg.History, from pg.LSN) iter.Seq2[Record, error] {
	h.gapAt = 0
	if from < h.to || h.to == 0 {
		h.gapAt = h.from
	}
	return h.fakeWAL.Records(ctx, path, from)
}

func TestResolveAmbiguousName(t *testing.T) {
	records := makeLog(other(), commit(10, 1), point("a", 2), commit(11, 5), point("a", 7))
	cat := catalog{cluster: "db", path: pg.History{Timeline: 1}, backups: []repo.Backup{backup("b1", 1000, 1100, 1)}}
	_, err := resolve(t.Context(), cat, &fakeWAL{records: records}, Target{Kind: ToName, Name: "a"}, progress.Silent{})
	var many *AmbiguousError
	if !errors.As(err, &many) || len(many.Found) != 2 || many.Found[1].LSN != 1400 {
		t.Fatalf("error %v, want both restore points named", err)
	}
}

func TestResolveGapIsTyped(t *testing.T) {
	records := makeLog(other(), commit(10, 1), commit(11, 5))
	cat := catalog{cluster: "db", path: pg.History{Timeline: 1}, backups: []repo.Backup{backup("b1", 1000, 1100, 1)}}
	_, err := resolve(t.Context(), cat, &fakeWAL{records: records, gapAt: 1200}, Target{Kind: ToLatest}, progress.Silent{})
	var gap *GapError
	var window *WindowError
	if !errors.As(err, &gap) || !errors.As(err, &window) || window.Window.LatestLSN != 1200 {
		t.Fatalf("error %v, want a window error that ends at the gap", err)
	}
}

func TestResolveStoreFailureIsNotAGap(t *testing.T) {
	away := errors.New("store is away")
	records := makeLog(other(), commit(10, 1), commit(11, 5))
	cat := catalog{cluster: "db", path: pg.History{Timeline: 1}, backups: []repo.Backup{backup("b1", 1000, 1100, 1)}}
	_, err := resolve(t.Context(), cat, &fakeWAL{records: records, gapAt: 1200, fail: away}, Target{Kind: ToLatest}, progress.Silent{})
	var window *WindowError
	if !errors.Is(err, away) || errors.As(err, &window) {
		t.Fatalf("error %v, want the store's own", err)
	}
}

func TestPreparedTransactionsAreBoundaries(t *testing.T) {
	records := makeLog(other(), commit(10, 1), Record{Kind: RecordPrepare, XID: 11, Time: at(3)}, other(),
		Record{Kind: RecordPrepare, XID: 12, Time: at(8)}, commit(11, 9))
	cat := catalog{cluster: "db", path: pg.History{Timeline: 1}, backups: []repo.Backup{backup("b1", 1000, 1100, 1)}}
	res, err := resolve(t.Context(), cat, &fakeWAL{records: records}, Target{Kind: ToTime, Time: at(5)}, progress.Silent{})
	if err != nil {
		t.Fatal(err)
	}
	if res.StopLSN != 1200 || xidOf(res.LastCommit) != 10 || xidOf(res.FirstExcluded) != 11 {
		t.Fatalf("stops at %d, last %d, next %d; want 1200, 10, 11", res.StopLSN, xidOf(res.LastCommit), xidOf(res.FirstExcluded))
	}
}
