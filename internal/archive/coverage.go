package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// GapError: WAL is missing although later WAL is in the repository.
type GapError struct {
	Timeline pg.TimelineID
	From     pg.LSN // the WAL before it is there
	To       pg.LSN // the WAL from here on is there
}

func (e *GapError) Error() string {
	return fmt.Sprintf("WAL of timeline %d is missing in the repository from LSN %s to %s", e.Timeline, e.From, e.To)
}

// Range is WAL of one timeline that the repository holds without a hole.
type Range struct {
	Timeline pg.TimelineID `json:"timeline"`
	Start    pg.LSN        `json:"from"`
	End      pg.LSN        `json:"to"` // exclusive
}

// Coverage lists what WAL the repository holds, by timeline and position. It
// only lists objects; it reads none.
func Coverage(ctx context.Context, r *repo.Repository, c repo.Cluster) ([]Range, error) {
	tlis, err := r.Timelines(ctx, c.Name)
	if err != nil {
		return nil, err
	}
	partly, err := r.PartSegments(ctx, c.Name, c.SegmentSize)
	if err != nil {
		return nil, err
	}
	var out []Range
	for _, tli := range tlis {
		ranges, err := timelineCoverage(ctx, r, c, tli, partly)
		if err != nil {
			return nil, err
		}
		out = append(out, ranges...)
	}
	return out, nil
}

func timelineCoverage(ctx context.Context, r *repo.Repository, c repo.Cluster, tli pg.TimelineID, partly []pg.Segment) ([]Range, error) {
	var out []Range
	add := func(start, end pg.LSN) {
		if k := len(out); k > 0 && out[k-1].End == start {
			out[k-1].End = end
			return
		}
		out = append(out, Range{Timeline: tli, Start: start, End: end})
	}
	// Parts lie after the complete segments, or fill a hole between them; both
	// lists are in order, and are merged.
	var mine []pg.Segment
	for _, s := range partly {
		if s.Timeline == tli {
			mine = append(mine, s)
		}
	}
	parts := func(before uint64) error {
		for len(mine) > 0 && mine[0].Number < before {
			list, err := r.Parts(ctx, c.Name, mine[0])
			if err != nil {
				return err
			}
			if end := repo.PartsEnd(list); end > 0 {
				add(mine[0].Start(), mine[0].Start()+pg.LSN(end))
			}
			mine = mine[1:]
		}
		return nil
	}
	for s, err := range r.Segments(ctx, c.Name, tli, c.SegmentSize, 0) {
		if err != nil {
			return nil, err
		}
		if err := parts(s.Number); err != nil {
			return nil, err
		}
		for len(mine) > 0 && mine[0].Number == s.Number {
			mine = mine[1:] // left over: the segment is whole
		}
		add(s.Start(), s.End())
	}
	if err := parts(^uint64(0)); err != nil {
		return nil, err
	}
	return out, nil
}

// DurableEnd is where the newest WAL of the timeline ends; 0 if there is none.
func DurableEnd(ctx context.Context, r *repo.Repository, c repo.Cluster, tli pg.TimelineID) (pg.LSN, error) {
	partly, err := r.PartSegments(ctx, c.Name, c.SegmentSize)
	if err != nil {
		return 0, err
	}
	ranges, err := timelineCoverage(ctx, r, c, tli, partly)
	if err != nil || len(ranges) == 0 {
		return 0, err
	}
	return ranges[len(ranges)-1].End, nil
}

// covered is how far WAL from from on is there without a hole along a path.
func covered(ranges []Range, path pg.History, from pg.LSN, size int64) pg.LSN {
	at := from
	for {
		tli := path.TimelineAt(at)
		next := at
		for _, rg := range ranges {
			if rg.Timeline == tli && rg.Start <= at && rg.End > at {
				next = rg.End
			}
			// The segment of a switch is found under the later timeline, with the
			// earlier one's bytes before the switch.
			if rg.Timeline != tli && path.Contains(rg.Timeline) && rg.Timeline > tli && rg.Start <= at && rg.End > at {
				if end, ok := path.End(tli); ok && pg.SegmentAt(tli, end, size).Start() <= at {
					next = max(next, min(rg.End, end))
				}
			}
		}
		if end, ok := path.End(tli); ok && next > end {
			next = end
		}
		if next == at {
			return at
		}
		at = next
	}
}

// resumes finds where on the path WAL is there again after a hole at at; ok is
// false if the path has no WAL behind at but such as follows on it.
func resumes(ranges []Range, path pg.History, at pg.LSN, size int64) (next pg.LSN, ok bool) {
	if covered(ranges, path, at, size) > at {
		return 0, false // it has grown since at was its end
	}
	for _, rg := range ranges {
		start, end := onPath(rg, path, size)
		if start < end && start > at && (!ok || start < next) {
			next, ok = start, true
		}
	}
	return next, ok
}

// onPath is what of a range belongs to the path; start = end: nothing. The segment in which a timeline
// begins has a copy of the older one's WAL as well.
func onPath(rg Range, path pg.History, size int64) (start, end pg.LSN) {
	if !path.Contains(rg.Timeline) {
		return 0, 0
	}
	start, end = rg.Start, rg.End
	for _, e := range path.Entries {
		if e.Timeline < rg.Timeline {
			start = max(start, pg.SegmentAt(e.Timeline, e.End, size).Start())
		}
		if e.Timeline == rg.Timeline {
			end = min(end, e.End)
		}
	}
	return start, max(start, end)
}

// Covered tells whether the repository holds the WAL from from to to along a path
// without a hole, and how far it does.
func Covered(ctx context.Context, r *repo.Repository, c repo.Cluster, path pg.History, from, to pg.LSN) (bool, pg.LSN, error) {
	at := from
	for at < to {
		src, err := locate(ctx, r, c, path, at)
		if err != nil {
			return false, at, err
		}
		if src.end <= at {
			return false, at, nil
		}
		at = src.end
	}
	return true, at, nil
}

// Reach is how far the repository holds the WAL along a path from a position on without
// a hole; the position itself if it holds nothing there.
func Reach(ctx context.Context, r *repo.Repository, c repo.Cluster, path pg.History, from pg.LSN) (pg.LSN, error) {
	ranges, err := Coverage(ctx, r, c)
	if err != nil {
		return from, err
	}
	return covered(ranges, path, from, c.SegmentSize), nil
}

// WaitCovered waits until the repository holds the WAL from from to to of a
// timeline. It looks again soon, as little may be missing, and then less often, up to every poll.
func WaitCovered(ctx context.Context, r *repo.Repository, c repo.Cluster, tli pg.TimelineID, from, to pg.LSN, poll time.Duration) error {
	again := time.NewTimer(poll)
	defer again.Stop()
	pause := poll / 20
	for at := from; ; pause = min(2*pause, poll) {
		// The history may come later than the backup that waits.
		path, err := History(ctx, r, c.Name, tli)
		if errors.Is(err, repo.ErrNotFound) {
			path, err = pg.History{Timeline: tli}, nil
		}
		if err != nil {
			return err
		}
		var ok bool
		if ok, at, err = Covered(ctx, r, c, path, at, to); ok || err != nil {
			return err
		}
		again.Reset(pause)
		select {
		case <-again.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), fmt.Errorf("the WAL reaches %s so far", at))
		}
	}
}
