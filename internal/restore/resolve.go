package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pileus/internal/pg"
	"pileus/internal/progress"
	"pileus/internal/repo"
)

// Resolution is a target, resolved to the last record that is replayed.
type Resolution struct {
	Backup    repo.Backup   `json:"backup"`
	Timeline  pg.TimelineID `json:"timeline"`  // recovery follows this one
	Immediate bool          `json:"immediate"` // ends as soon as the backup is consistent
	StopLSN   pg.LSN        `json:"stop_lsn"`  // where the last record starts; with Immediate, the backup's StopLSN
	EndLSN    pg.LSN        `json:"end_lsn"`   // where it ends
	// LastCommit is the last transaction that is in the result. Nil: none committed
	// since the backup started.
	LastCommit *Commit `json:"last_commit,omitempty"`
	// FirstExcluded is the first transaction that is not. Nil: none is known.
	FirstExcluded *Commit  `json:"first_excluded,omitempty"`
	Notes         []string `json:"notes,omitempty"`
	path          pg.History
}

// errTooEarly: the cut lies before the backup is consistent; an older one may reach it.
var errTooEarly = errors.New("it lies before the end of the backup")

// resolver looks for the newest backup that reaches the target.
type resolver struct {
	cat    catalog
	wal    WAL
	target Target
	report progress.Reporter
	seen   Window // grows with what is read
}

// resolve finds backup and stop record, reading WAL but writing nothing. Errors:
// *WindowError, *GapError (within a WindowError's chain), *AmbiguousError, *TransactionError, ErrNoBackup.
func resolve(ctx context.Context, cat catalog, wal WAL, t Target, report progress.Reporter) (Resolution, error) {
	r := resolver{cat: cat, wal: wal, target: t, report: report, seen: cat.window()}
	if len(cat.backups) == 0 {
		return Resolution{}, fmt.Errorf("cluster %s: %w on timeline %d; take one, or choose another timeline", cat.cluster, ErrNoBackup, cat.path.Timeline)
	}
	candidates := r.candidates()
	if len(candidates) == 0 {
		return Resolution{}, r.outside("it is earlier than the end of the first backup", nil)
	}
	return r.try(ctx, candidates)
}

// try goes through the candidates until one reaches the target.
func (r *resolver) try(ctx context.Context, candidates []repo.Backup) (Resolution, error) {
	var first error
	var blocked, limit pg.LSN
	for i, b := range candidates {
		if b.StartLSN < blocked {
			continue // it would meet the same gap
		}
		res, found, err := r.from(ctx, b, limit)
		if err == nil && found {
			r.notes(&res)
			return res, nil
		}
		if err != nil && !errors.Is(err, errTooEarly) && !errors.Is(err, errWindow) {
			return Resolution{}, err
		}
		if first == nil {
			first = err
		}
		var gap *GapError
		switch {
		case r.target.searches():
			// Behind this backup's end there is nothing: an older one is searched up to there.
			limit = b.StopLSN
			if i+1 < len(candidates) && candidates[i+1].StartLSN > b.StartLSN {
				limit = 0
			}
		case errors.As(err, &gap):
			blocked = gap.From
		}
	}
	switch {
	case first == nil:
		return Resolution{}, r.outside("it is not in the WAL that the repository holds on this timeline", nil)
	case errors.Is(first, errTooEarly):
		return Resolution{}, r.outside("it is earlier than the end of the first backup", nil)
	}
	return Resolution{}, first
}

// searches tells whether the target's place in the WAL is not known beforehand.
func (t Target) searches() bool { return t.Kind == ToXID || t.Kind == ToName }

// candidates are the backups that may reach the target, in the order to be tried:
// newest first, those that hold damaged pages last.
func (r *resolver) candidates() []repo.Backup {
	var sound, damaged []repo.Backup
	for i := len(r.cat.backups) - 1; i >= 0; i-- {
		b := r.cat.backups[i]
		switch r.target.Kind {
		case ToTime:
			// One that ended at the very time may hold a commit of that time.
			if b.Stopped.After(r.target.Time) || r.target.Exclusive && b.Stopped.Equal(r.target.Time) {
				continue
			}
		case ToLSN:
			if b.StopLSN > r.target.LSN {
				continue
			}
		}
		if b.DamagedPages > 0 {
			damaged = append(damaged, b)
		} else {
			sound = append(sound, b)
		}
	}
	return append(sound, damaged...)
}

// from tries one backup. found is false, without an error, if the target is not in the WAL behind it.
func (r *resolver) from(ctx context.Context, b repo.Backup, limit pg.LSN) (res Resolution, found bool, err error) {
	s, err := scan(ctx, r.wal, r.cat.path, b.StartLSN, limit, r.target, r.report)
	if err != nil {
		return res, false, fmt.Errorf("look for %s in the WAL from backup %s on: %w", r.target, b.ID, err)
	}
	r.seen.extend(s.ended.timed, s.ended.end)
	c := s.found
	if c == nil && s.gap != nil {
		return res, false, r.gap(s)
	}
	if len(s.points) > 1 {
		return res, false, &AmbiguousError{Name: r.target.Name, Found: s.points}
	}
	if c == nil {
		if !s.eof {
			return res, false, nil // limit reached: what lies behind was searched before
		}
		if c, err = r.atEnd(b, &s.ended); c == nil {
			return res, false, err
		}
	}
	if res, err = r.settle(b, c); err == nil {
		res.Timeline, err = r.timeline(ctx, res.EndLSN)
	}
	return res, err == nil, err
}

// atEnd decides where the target stops when WAL ended before anything decided it.
func (r *resolver) atEnd(b repo.Backup, end *position) (*cut, error) {
	reach := end.reach(b.SegmentSize)
	if reach < b.StopLSN {
		return nil, r.outside(fmt.Sprintf("the WAL that backup %s needs up to LSN %s has arrived only up to %s; archive the rest", b.ID, b.StopLSN, end.end), nil)
	}
	switch r.target.Kind {
	case ToLatest, ToSnapshot, ToBackup:
	case ToLSN:
		if r.target.LSN > reach {
			return nil, r.outside(fmt.Sprintf("the WAL in the repository ends at LSN %s", end.end), nil)
		}
	case ToTime:
		known := end.timed
		if at := r.cat.completeAt(reach); at.After(known) {
			known = at
		}
		if r.target.Time.After(known) {
			return nil, r.outside(fmt.Sprintf("the repository is known to be complete only up to %s", formatTime(known)), nil)
		}
	default:
		return nil, nil
	}
	return &cut{at: *end, bound: reach}, nil
}

// settle turns a cut into the resolution for one backup.
func (r *resolver) settle(b repo.Backup, c *cut) (Resolution, error) {
	res := Resolution{Backup: b, Timeline: r.cat.path.Timeline, path: r.cat.path, LastCommit: c.at.commit, FirstExcluded: c.next}
	if c.bound < b.StopLSN {
		return res, errTooEarly
	}
	stop := c.at.last
	if r.target.Kind == ToTime {
		// What was written behind the last boundary belongs to transactions that are
		// not part of the result: replaying it would change nothing but the duration.
		stop = c.at.boundary
	}
	if stop.LSN < b.StopLSN {
		res.Immediate, res.StopLSN, res.EndLSN = true, b.StopLSN, b.StopLSN
		return res, nil
	}
	res.StopLSN, res.EndLSN = stop.LSN, stop.End
	return res, nil
}

// timeline is the one that recovery is to follow: that of the stop record. To
// follow a later one would work, but the server would then write a history that
// claims WAL of it. It is the way only where just the later one's copy of the
// last segment is there.
func (r *resolver) timeline(ctx context.Context, end pg.LSN) (pg.TimelineID, error) {
	tli := r.cat.path.TimelineAt(end - 1)
	if tli == r.cat.path.Timeline {
		return tli, nil
	}
	held, err := r.wal.Holds(ctx, tli, end)
	if err != nil || !held {
		return r.cat.path.Timeline, err
	}
	return tli, nil
}

func (r *resolver) notes(res *Resolution) {
	res.Notes = append(res.Notes, r.cat.notes...)
	if n := res.Backup.DamagedPages; n > 0 {
		res.Notes = append(res.Notes, fmt.Sprintf("Backup %s holds %d damaged pages, and no sound backup reaches the target: those pages are restored as they were found.", res.Backup.ID, n))
	}
	for _, b := range r.cat.backups {
		if b.DamagedPages > 0 && b.StartLSN > res.Backup.StartLSN && b.StopLSN <= res.EndLSN {
			res.Notes = append(res.Notes, fmt.Sprintf("Backup %s is newer but holds %d damaged pages: an older one is used, which replays more WAL.", b.ID, b.DamagedPages))
		}
	}
}

// errWindow marks a *WindowError for errors.Is.
var errWindow = errors.New("outside of the restorable window")

// Is makes errors.Is(err, errWindow) true of every WindowError.
func (e *WindowError) Is(target error) bool { return target == errWindow }

func (r *resolver) outside(reason string, cause error) error {
	e := &WindowError{Cluster: r.cat.cluster, Target: r.target, Window: r.seen, Reason: reason}
	if cause == nil {
		return e
	}
	return &gapped{WindowError: e, cause: cause}
}

// gapped is a WindowError with the gap that caused it.
type gapped struct {
	*WindowError
	cause error
}

// Unwrap gives the window error and the gap to errors.As.
func (g *gapped) Unwrap() []error { return []error{g.WindowError, g.cause} }

func (r *resolver) gap(s scanResult) error {
	reason := s.gap.Error()
	if r.target.Kind == ToLatest && s.ended.last.LSN != 0 {
		reason += fmt.Sprintf("; what lies before can be restored with the LSN %s as the target", s.ended.last.LSN)
	}
	// The window ends where the gap begins.
	r.seen.Latest, r.seen.LatestLSN = time.Time{}, 0
	r.seen.extend(s.ended.timed, s.ended.end)
	return r.outside(reason, s.gap)
}
