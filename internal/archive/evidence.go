package archive

import (
	"context"
	"errors"
	"time"

	"pileus/internal/pg"
	"pileus/internal/repo"
	"pileus/internal/wal"
)

// lookBack is how many segments are read at the most to find the last commit.
const lookBack = 64

// measure finds where the interval ends: the last whole record, the last commit,
// and the time up to which it is proven to be complete. ok is false if damage
// leaves nothing of it.
func (v *survey) measure(ctx context.Context, iv *Interval) (ok bool, err error) {
	end, err := v.lastCommit(ctx, iv)
	if err != nil {
		return false, err
	}
	if iv.end < iv.FromLSN {
		v.window.problem("backup %s cannot be restored: it needs WAL to %s, which is damaged from %s on", iv.Backup, iv.FromLSN, iv.end)
		return false, nil
	}
	iv.ToLSN = max(end, iv.FromLSN)
	iv.To = iv.From // the backup itself is consistent then
	proof := func(t time.Time, tli pg.TimelineID, lsn pg.LSN) {
		if left, old := iv.path.End(tli); iv.path.Contains(tli) && lsn <= iv.end && (!old || lsn <= left) && t.After(iv.To) {
			iv.To = t
		}
	}
	proof(iv.LastCommit, iv.Timeline, iv.FromLSN)
	for _, m := range v.marks {
		proof(m.Time, m.Timeline, m.LSN)
	}
	for _, b := range v.backups {
		proof(b.CompleteTo, b.Timeline, b.StopLSN)
	}
	return true, nil
}

// lastCommit reads the interval's WAL backwards, segment by segment, to its last
// commit or the newest backup, and returns where the last record ends; 0 if none
// was found. WAL from where it turns out to be damaged on is cut off the interval.
func (v *survey) lastCommit(ctx context.Context, iv *Interval) (end pg.LSN, err error) {
	size := v.cluster.SegmentSize
	number := uint64(iv.end-1) / uint64(size)
	oldest := uint64(iv.newest) / uint64(size)
	for i := 0; i < lookBack && number >= oldest; i++ {
		// From the second on the segment behind it is read once more: a record
		// may begin in one and end in the other.
		from := pg.LSN(number * uint64(size))
		to := min(from+pg.LSN(size)*2, iv.end)
		got, err := v.decode(ctx, iv.path, from, to)
		if err != nil {
			return 0, err
		}
		end = max(end, got.end)
		if got.bad != nil {
			v.window.problem("the WAL of timeline %d from %s on cannot be used: %v", iv.Timeline, max(got.end, from), got.bad)
			iv.end = max(got.end, from)
			end = min(end, iv.end)
		}
		if iv.LastCommit = got.commit; !got.commit.IsZero() || number == 0 {
			break
		}
		number--
	}
	return end, nil
}

// decoded is what a stretch of WAL holds.
type decoded struct {
	end    pg.LSN    // of the last record; 0: none
	commit time.Time // of the last commit; zero: none
	bad    error     // why it is good only up to end
}

func (v *survey) decode(ctx context.Context, path pg.History, from, to pg.LSN) (got decoded, err error) {
	d, err := wal.NewDecoder(wal.Config{SystemID: v.cluster.SystemIdentifier, SegmentSize: v.cluster.SegmentSize, Timeline: path.Timeline})
	if err != nil {
		return got, err
	}
	r := Reader{Repo: v.Repository, Cluster: v.cluster, Path: path}
	for p, err := range r.Pieces(ctx, from, to) {
		if err == nil {
			err = d.Feed(p.LSN, p.Data)
		}
		for more := true; err == nil && more; {
			var rec *wal.Record
			if rec, more, err = d.Next(); err == nil && more {
				got.see(rec)
			}
		}
		var end *wal.EndOfWALError
		var bad *wal.DamageError
		var gap *GapError
		switch {
		case err == nil:
		case errors.As(err, &end):
			if size := pg.LSN(v.cluster.SegmentSize); p.LSN-p.LSN%size+size < to {
				got.bad = err // a segment follows that does not follow on it
			}
			return got, nil
		case errors.As(err, &bad), errors.As(err, &gap), errors.Is(err, repo.ErrDamaged), errors.Is(err, repo.ErrNotFound):
			// What was listed and is gone was pruned, or deleted by somebody.
			got.bad = err
			return got, nil
		default:
			return got, err
		}
	}
	return got, nil
}

func (g *decoded) see(rec *wal.Record) {
	g.end = rec.End
	if c, ok, err := wal.ParseCommit(rec); err == nil && ok && c.Kind.Committed() {
		g.commit = c.Time
	}
}
