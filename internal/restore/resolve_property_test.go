package restore

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"pileus/internal/pg"
	"pileus/internal/progress"
	"pileus/internal/repo"
)

// naive replays the whole log for one backup as PostgreSQL would, and tells which
// transactions are committed in the end. ok is false if the target is not reached.
func naive(log []Record, t Target) (committed map[uint32]bool, bound pg.LSN, ok bool) {
	committed = map[uint32]bool{}
	for _, r := range log {
		isCommit := r.Kind == RecordCommit
		switch {
		case t.Kind == ToTime && isCommit && (r.Time.After(t.Time) || t.Exclusive && r.Time.Equal(t.Time)):
			return committed, r.LSN, true
		case t.Kind == ToXID && t.Exclusive && isCommit && uint64(r.XID) == t.XID:
			return committed, r.LSN, true
		case t.Kind == ToLSN && t.Exclusive && r.LSN >= t.LSN:
			return committed, r.LSN, true
		}
		if isCommit {
			committed[r.XID] = true
		}
		if t.Kind == ToLSN && r.LSN >= t.LSN || t.Kind == ToXID && isCommit && uint64(r.XID) == t.XID {
			return committed, r.End, true
		}
	}
	return committed, log[len(log)-1].End, t.Kind == ToLatest
}

// replayed is what recovery with the resolution's settings commits.
func replayed(log []Record, res Resolution) map[uint32]bool {
	committed := map[uint32]bool{}
	for _, r := range log {
		if res.Immediate && r.LSN >= res.StopLSN {
			break
		}
		if r.Kind == RecordCommit {
			committed[r.XID] = true
		}
		if !res.Immediate && r.LSN >= res.StopLSN { // recovery_target_lsn, inclusive
			break
		}
	}
	return committed
}

func TestResolveAgreesWithReplay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(3, 40).Draw(t, "records")
		lsn, clock := pg.LSN(1000), epoch
		var log []Record
		for i := range n {
			// Commits may be out of order by a little: the time is taken before the record is written.
			clock = clock.Add(time.Duration(rapid.IntRange(-1, 4).Draw(t, "tick")) * time.Second)
			r := Record{LSN: lsn, End: lsn + pg.LSN(rapid.IntRange(3, 20).Draw(t, "size"))*8, XID: uint32(100 + i)}
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0, 1:
				r.Kind, r.Time = RecordCommit, clock
			case 2:
				r.Kind, r.Time = RecordAbort, clock
			}
			lsn = r.End
			log = append(log, r)
		}
		cat := catalog{cluster: "db", path: pg.History{Timeline: 1}}
		for i := range rapid.IntRange(1, 3).Draw(t, "backups") {
			start := rapid.IntRange(0, n-2).Draw(t, "start")
			stop := rapid.IntRange(start, n-1).Draw(t, "stop")
			b := repo.Backup{ID: string(rune('a' + i)), Timeline: 1, StartLSN: log[start].LSN, StopLSN: log[stop].End, SegmentSize: 16 << 20}
			b.Stopped = epoch
			for _, r := range log[:stop+1] {
				if r.Kind == RecordCommit && r.Time.After(b.Stopped) {
					b.Stopped = r.Time
				}
			}
			if rapid.Bool().Draw(t, "damaged") {
				b.DamagedPages = 1
			}
			cat.backups = append(cat.backups, b)
		}
		target := Target{Kind: rapid.SampledFrom([]TargetKind{ToTime, ToLSN, ToXID, ToLatest}).Draw(t, "target")}
		switch target.Kind {
		case ToTime:
			target.Time = epoch.Add(time.Duration(rapid.IntRange(0, 120).Draw(t, "time")) * time.Second)
		case ToLSN:
			target.LSN = pg.LSN(rapid.IntRange(1000, int(lsn)+200).Draw(t, "lsn"))
		case ToXID:
			target.XID = uint64(100 + rapid.IntRange(0, n+2).Draw(t, "xid"))
		}
		target.Exclusive = target.Kind != ToLatest && rapid.Bool().Draw(t, "exclusive")

		res, err := resolve(t.Context(), cat, &fakeWAL{records: log}, target, progress.Silent{})
		want, bound, reached := naive(log, target)
		if err != nil {
			if !reached {
				return
			}
			for _, b := range cat.backups {
				usable := b.StopLSN <= bound && !(target.Kind == ToTime && (b.Stopped.After(target.Time) || target.Exclusive && b.Stopped.Equal(target.Time))) && !(target.Kind == ToLSN && b.StopLSN > target.LSN)
				if usable {
					t.Fatalf("%s: refused (%v), although backup %s reaches it", target, err, b.ID)
				}
			}
			return
		}
		if res.Backup.StopLSN > bound {
			t.Fatalf("%s: backup %s is consistent only at %d, behind the target at %d", target, res.Backup.ID, res.Backup.StopLSN, bound)
		}
		got := replayed(log, res)
		for xid := range want {
			if !got[xid] {
				t.Fatalf("%s: transaction %d is lost", target, xid)
			}
		}
		for xid := range got {
			if !want[xid] {
				t.Fatalf("%s: transaction %d is there and should not be", target, xid)
			}
		}
		if c := res.LastCommit; c != nil && !want[c.XID] {
			t.Fatalf("%s: the plan names transaction %d as the last", target, c.XID)
		}
		if c := res.FirstExcluded; c != nil && want[c.XID] {
			t.Fatalf("%s: the plan names transaction %d as excluded", target, c.XID)
		}
	})
}
