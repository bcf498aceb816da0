package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// Window says which moments of a cluster can be restored. Its own fields describe
// the interval on the newest timeline that reaches furthest; Intervals are all.
type Window struct {
	Timeline    pg.TimelineID `json:"timeline,omitempty"`
	Earliest    time.Time     `json:"earliest,omitzero"` // the first backup was complete
	EarliestLSN pg.LSN        `json:"earliest_lsn,omitzero"`
	// Latest is the time up to which everything that was committed is durable in
	// the repository, without a gap; never later.
	Latest       time.Time  `json:"latest,omitzero"`
	LatestLSN    pg.LSN     `json:"latest_lsn,omitzero"`    // end of the last whole record
	LatestCommit time.Time  `json:"latest_commit,omitzero"` // of the last commit, if one was found near the end
	Intervals    []Interval `json:"intervals,omitempty"`
	Gaps         []Range    `json:"gaps,omitempty"` // WAL that is missing between WAL that is there
	Problems     []string   `json:"problems,omitempty"`
}

// Interval is a stretch of restorable moments: from the end of its first backup to
// where the WAL that follows on it ends.
type Interval struct {
	Timeline   pg.TimelineID `json:"timeline"` // newest one on its path
	Backup     string        `json:"backup"`   // its first
	From       time.Time     `json:"from"`
	FromLSN    pg.LSN        `json:"from_lsn"`
	To         time.Time     `json:"to"`
	ToLSN      pg.LSN        `json:"to_lsn"` // end of the last whole record
	LastCommit time.Time     `json:"last_commit,omitzero"`

	path   pg.History
	start  pg.LSN // the first backup needs WAL from here
	newest pg.LSN // the last backup does: where to stop looking for commits
	end    pg.LSN // WAL is stored up to here
}

// Restorable tells whether any moment can be restored.
func (w Window) Restorable() bool { return len(w.Intervals) > 0 }

// RestorableWindow works out the window from what the repository holds. It lists
// objects and decodes the last segments; what cannot be read is a problem in
// the answer, not an error, unless the store itself fails.
func RestorableWindow(ctx context.Context, r *repo.Repository, c repo.Cluster) (Window, error) {
	var w Window
	v := survey{Repository: r, cluster: c, window: &w}
	if err := v.collect(ctx); err != nil {
		return Window{}, err
	}
	restorable := map[string]bool{}
	for _, p := range v.paths {
		v.intervals(p, restorable)
		v.gaps(p)
	}
	for _, b := range v.backups {
		if !restorable[b.ID] {
			end := covered(v.ranges, v.pathOf(b.Timeline), b.StartLSN, c.SegmentSize)
			w.problem("backup %s cannot be restored: it needs the WAL of timeline %d to %s, and the repository has it to %s", b.ID, b.Timeline, b.StopLSN, end)
		}
	}
	w.Intervals = slices.DeleteFunc(w.Intervals, v.redundant)
	var keep []Interval
	for _, iv := range w.Intervals {
		ok, err := v.measure(ctx, &iv)
		if err != nil {
			return Window{}, err
		}
		if ok {
			keep = append(keep, iv)
		}
	}
	w.Intervals = keep
	w.choose()
	return w, nil
}

func (w *Window) problem(format string, args ...any) {
	w.Problems = append(w.Problems, fmt.Sprintf(format, args...))
}

// choose copies the interval that reaches furthest into the window's own fields.
func (w *Window) choose() {
	for _, iv := range w.Intervals {
		if iv.Timeline > w.Timeline || (iv.Timeline == w.Timeline && iv.ToLSN > w.LatestLSN) {
			w.Timeline, w.Earliest, w.EarliestLSN = iv.Timeline, iv.From, iv.FromLSN
			w.Latest, w.LatestLSN, w.LatestCommit = iv.To, iv.ToLSN, iv.LastCommit
		}
	}
}

// survey is what a window is worked out from.
type survey struct {
	*repo.Repository
	cluster repo.Cluster
	window  *Window
	ranges  []Range
	backups []repo.Backup // that can be read, oldest first
	marks   []repo.Watermark
	paths   []pg.History // one for each timeline
}

func (v *survey) collect(ctx context.Context) error {
	var err error
	if v.ranges, err = Coverage(ctx, v.Repository, v.cluster); err != nil {
		return err
	}
	if v.marks, err = v.Watermarks(ctx, v.cluster.Name); errors.Is(err, repo.ErrDamaged) {
		v.window.problem("%v", err) // only evidence: without it the window is shorter
	} else if err != nil {
		return err
	}
	for b, err := range v.Backups(ctx, v.cluster.Name) {
		if errors.Is(err, repo.ErrDamaged) {
			v.window.problem("%v", err)
		} else if err != nil {
			return err
		} else {
			v.backups = append(v.backups, b)
		}
	}
	tlis, err := v.Timelines(ctx, v.cluster.Name)
	if err != nil {
		return err
	}
	for _, tli := range tlis {
		path, err := History(ctx, v.Repository, v.cluster.Name, tli)
		var format *HistoryError
		switch {
		case errors.Is(err, repo.ErrNotFound):
			v.window.problem("the history of timeline %d is not in the repository: backups of earlier timelines cannot be rolled forward into it; a new backup can", tli)
			path = pg.History{Timeline: tli}
		case errors.Is(err, repo.ErrDamaged) || errors.As(err, &format):
			v.window.problem("%v", err)
			path = pg.History{Timeline: tli}
		case err != nil:
			return err
		}
		v.paths = append(v.paths, path)
	}
	return nil
}

func (v *survey) pathOf(tli pg.TimelineID) pg.History {
	for _, p := range v.paths {
		if p.Timeline == tli {
			return p
		}
	}
	return pg.History{Timeline: tli}
}

// intervals adds what the backups on a path make restorable along it.
func (v *survey) intervals(path pg.History, restorable map[string]bool) {
	first := len(v.window.Intervals)
	for _, b := range v.backups {
		if left, ok := path.End(b.Timeline); !path.Contains(b.Timeline) || ok && b.StopLSN > left {
			continue
		}
		end := covered(v.ranges, path, b.StartLSN, v.cluster.SegmentSize)
		if end < b.StopLSN {
			continue
		}
		restorable[b.ID] = true
		v.join(first, b, path, end)
	}
}

// join adds a backup to the interval of its path that it continues, or begins a new one.
func (v *survey) join(first int, b repo.Backup, path pg.History, end pg.LSN) {
	all := v.window.Intervals
	for i := first; i < len(all); i++ {
		iv := &all[i]
		if iv.end != end {
			continue // other WAL: a gap lies between them
		}
		iv.newest = max(iv.newest, b.StartLSN)
		if b.StopLSN < iv.FromLSN {
			iv.Backup, iv.From, iv.FromLSN, iv.start = b.ID, b.Stopped, b.StopLSN, b.StartLSN
		}
		return
	}
	v.window.Intervals = append(all, Interval{Timeline: path.Timeline, Backup: b.ID, From: b.Stopped, FromLSN: b.StopLSN,
		path: path, start: b.StartLSN, newest: b.StartLSN, end: end})
}

// redundant tells whether another interval says all that this one does: it ends
// before its own timeline begins, or another timeline goes on with it.
func (v *survey) redundant(iv Interval) bool {
	if at := iv.path.TimelineAt(iv.end - 1); at != iv.Timeline && covered(v.ranges, v.pathOf(at), iv.start, v.cluster.SegmentSize) >= iv.end {
		return true
	}
	for _, p := range v.paths {
		if left, ok := p.End(iv.Timeline); ok && left >= iv.end && covered(v.ranges, p, iv.start, v.cluster.SegmentSize) > iv.end {
			return true
		}
	}
	return false
}

// gaps adds the holes in a path's WAL.
func (v *survey) gaps(path pg.History) {
	at, ok := pg.LSN(0), false
	for _, rg := range v.ranges {
		if start, end := onPath(rg, path, v.cluster.SegmentSize); start < end && (!ok || start < at) {
			at, ok = start, true
		}
	}
	for ok {
		at = covered(v.ranges, path, at, v.cluster.SegmentSize)
		var next pg.LSN
		if next, ok = resumes(v.ranges, path, at, v.cluster.SegmentSize); ok {
			g := Range{Timeline: path.TimelineAt(at), Start: at, End: next}
			if !slices.Contains(v.window.Gaps, g) {
				v.window.Gaps = append(v.window.Gaps, g)
			}
			at = next
		}
	}
}
