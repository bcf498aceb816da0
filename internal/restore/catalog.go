package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// catalog is what the repository says of one cluster, seen along one path.
type catalog struct {
	cluster    string
	path       pg.History
	backups    []repo.Backup // usable ones on the path, by StartLSN
	watermarks []repo.Watermark
	notes      []string
}

// readCatalog reads backups, watermarks and the history of the timeline tli (0: the newest).
func readCatalog(ctx context.Context, r *repo.Repository, cluster string, tli pg.TimelineID) (catalog, error) {
	c := catalog{cluster: cluster}
	var err error
	var all []repo.Backup
	newest := pg.TimelineID(0)
	for b, err := range r.Backups(ctx, cluster) {
		switch {
		case err == nil:
			all = append(all, b)
			newest = max(newest, b.Timeline)
		case b.ID == "":
			return c, err
		default:
			c.notes = append(c.notes, fmt.Sprintf("Backup %s cannot be read and was passed over: %v", b.ID, err))
		}
	}
	if tli == 0 {
		timelines, err := r.Timelines(ctx, cluster)
		if err != nil {
			return c, err
		}
		if n := len(timelines); n > 0 {
			newest = max(newest, timelines[n-1])
		}
		tli = newest
	}
	if len(all) == 0 {
		return c, fmt.Errorf("cluster %s: %w; take one with `pileus backup %s`", cluster, ErrNoBackup, cluster)
	}
	if c.path, err = readHistory(ctx, r, cluster, tli); err != nil {
		return c, err
	}
	if c.watermarks, err = r.Watermarks(ctx, cluster); err != nil {
		return c, err
	}
	for _, b := range all {
		if onPath(c.path, b.Timeline, b.StopLSN) {
			c.backups = append(c.backups, b)
		}
	}
	slices.SortStableFunc(c.backups, func(a, b repo.Backup) int { return cmp.Compare(a.StartLSN, b.StartLSN) })
	return c, nil
}

func readHistory(ctx context.Context, r *repo.Repository, cluster string, tli pg.TimelineID) (pg.History, error) {
	content, err := r.History(ctx, cluster, tli)
	if errors.Is(err, repo.ErrNotFound) {
		if tli == 1 {
			return pg.History{Timeline: 1}, nil
		}
		return pg.History{}, fmt.Errorf("the history of timeline %d of cluster %s (%s) is not in the repository, and without it recovery could follow the wrong branch: archive that file with `pileus wal push`, or choose another timeline: %w",
			tli, cluster, pg.HistoryName(tli), err)
	}
	if err != nil {
		return pg.History{}, err
	}
	return pg.ParseHistory(tli, content)
}

// onPath tells whether the WAL before lsn on timeline tli belongs to the path.
func onPath(path pg.History, tli pg.TimelineID, lsn pg.LSN) bool {
	if tli == path.Timeline {
		return true
	}
	end, ok := path.End(tli)
	return ok && lsn <= end
}

// window is what is known without reading WAL.
func (c *catalog) window() Window {
	w := Window{Timeline: c.path.Timeline}
	for _, b := range c.backups {
		if w.Earliest.IsZero() || b.StopLSN < w.EarliestLSN {
			w.Earliest, w.EarliestLSN = b.Stopped, b.StopLSN
		}
		w.extend(b.CompleteTo, b.StopLSN)
	}
	for _, m := range c.watermarks {
		if onPath(c.path, m.Timeline, m.LSN) {
			w.extend(m.Time, m.LSN)
		}
	}
	if w.Latest.Before(w.Earliest) {
		w.Latest = w.Earliest // the first backup itself, and nothing is known beyond it
	}
	return w
}

func (w *Window) extend(t time.Time, lsn pg.LSN) {
	if t.After(w.Latest) {
		w.Latest = t
	}
	w.LatestLSN = max(w.LatestLSN, lsn)
}

// completeAt is the latest time by which, on evidence of watermarks and backups,
// all that was committed lies before end. Zero: no evidence.
func (c *catalog) completeAt(end pg.LSN) time.Time {
	var at time.Time
	see := func(tli pg.TimelineID, lsn pg.LSN, t time.Time) {
		if lsn <= end && onPath(c.path, tli, lsn) && t.After(at) {
			at = t
		}
	}
	for _, m := range c.watermarks {
		see(m.Timeline, m.LSN, m.Time)
	}
	for _, b := range c.backups {
		see(b.Timeline, b.StopLSN, b.CompleteTo)
	}
	return at
}
