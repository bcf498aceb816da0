package archive

import (
	"context"
	"errors"
	"fmt"

	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/repo"
)

// errSpoolFull: the slot is not there, and there is no room for WAL either.
var errSpoolFull = errors.New("the spool is full and the slot was given up: waiting for the repository")

// adoptSpool continues with what an earlier receiver could not store any more.
func (r *receiver) adoptSpool(ctx context.Context, c repo.Cluster) error {
	timelines, err := r.Repo.Timelines(ctx, c.Name)
	if err != nil {
		return err
	}
	tli, end, err := r.storedEnd(ctx, c, timelines)
	if err != nil {
		return err
	}
	next := pg.Segment{}
	if end != 0 {
		next = pg.SegmentAt(tli, end, c.SegmentSize)
	}
	return r.spool.adopt(ctx, r.Repo, c, next)
}

// storedEnd is where the WAL of the newest of these timelines that has any ends,
// 0 if none has. They ascend. That of a timeline may be known, by its history, before
// its first byte is there: the older one's WAL may then lack its tail.
func (r *receiver) storedEnd(ctx context.Context, c repo.Cluster, timelines []pg.TimelineID) (pg.TimelineID, pg.LSN, error) {
	for i := len(timelines) - 1; i >= 0; i-- {
		end, err := DurableEnd(ctx, r.Repo, c, timelines[i])
		if err != nil || end != 0 {
			return timelines[i], end, err
		}
	}
	return 0, 0, nil
}

// learnHistory gets the history of a timeline from the server and sees to it that it, and
// those of its ancestors, reach the repository: no restore across a promotion can
// do without.
func (s *session) learnHistory(ctx context.Context, tli pg.TimelineID) (pg.History, error) {
	if tli <= 1 {
		return pg.History{Timeline: tli}, nil
	}
	_, content, err := s.conn.TimelineHistory(ctx, tli)
	if err != nil {
		return pg.History{}, fmt.Errorf("get the history of timeline %d: %w", tli, err)
	}
	path, err := pg.ParseHistory(tli, content)
	if err != nil {
		return path, err
	}
	s.up.addHistory(tli, content)
	for _, e := range path.Entries {
		if e.Timeline <= 1 || s.up.hasHistory(e.Timeline) {
			continue
		}
		// A server that was restored may not have it any more. The newest one holds
		// all that a restore along it needs.
		if _, content, err := s.conn.TimelineHistory(ctx, e.Timeline); err == nil {
			s.up.addHistory(e.Timeline, content)
		} else if s.conn.Closed() || ctx.Err() != nil {
			return path, err
		}
	}
	return path, nil
}

// position decides where to go on: after what was received, on the timeline it
// was received on, if the server's history knows that place; if not, after what the
// repository holds of that history.
func (s *session) position(ctx context.Context, sys postgres.System, path pg.History) (pg.TimelineID, pg.LSN, error) {
	tli, end, _ := s.spool.position()
	if end == 0 {
		var err error
		if tli, end, err = s.newestStored(ctx); err != nil {
			return 0, 0, err
		}
	}
	if end != 0 && sys.Timeline < tli {
		return 0, 0, fmt.Errorf("the server is on timeline %d, the archive of %s is on %d already: is this the former primary? Point the connection to the server that was promoted", sys.Timeline, s.Cluster, tli)
	}
	if end != 0 && !path.Contains(tli) {
		left, lsn := tli, end
		var err error
		if tli, end, err = s.storedEnd(ctx, s.cluster, lineage(path)); err != nil {
			return 0, 0, err
		}
		s.Log.Warn("the server does not descend from the timeline that was received; going on where its own history is in the archive", "cluster", s.Cluster,
			"left", uint32(left), "at", lsn.String(), "timeline", uint32(tli), "from", end.String())
		s.spool.left()
	}
	if end == 0 {
		return s.oldest(ctx, sys, path)
	}
	left, ok := path.End(tli)
	if !ok || end < left {
		return tli, end, nil // on the server's own timeline, or first the rest of an old one
	}
	if end > left {
		s.Log.Warn("WAL was received that the new primary never had; it stays in the archive, on the old timeline", "cluster", s.Cluster,
			"timeline", uint32(tli), "from", left.String(), "to", end.String())
	}
	s.spool.left()
	return path.TimelineAt(left), left, nil
}

// newestStored is where the newest WAL of the repository ends, whatever its timeline.
func (s *session) newestStored(ctx context.Context) (pg.TimelineID, pg.LSN, error) {
	timelines, err := s.Repo.Timelines(ctx, s.Cluster)
	if err != nil {
		return 0, 0, err
	}
	return s.storedEnd(ctx, s.cluster, timelines)
}

// lineage lists the timelines of a path, oldest first.
func lineage(path pg.History) []pg.TimelineID {
	var out []pg.TimelineID
	for _, e := range path.Entries {
		out = append(out, e.Timeline)
	}
	return append(out, path.Timeline)
}

// oldest is the oldest WAL that the slot keeps.
func (s *session) oldest(ctx context.Context, sys postgres.System, path pg.History) (pg.TimelineID, pg.LSN, error) {
	sql, err := s.SQL(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer sql.Close(context.WithoutCancel(ctx))
	slot, err := sql.ReadSlot(ctx, s.Slot)
	if err != nil {
		return 0, 0, err
	}
	from := slot.RestartLSN
	if from == 0 {
		from = sys.LSN
	}
	return path.TimelineAt(from), from, nil
}

// skipRemoved goes on with the oldest WAL that the server still has: what lies between
// is lost, and is said to be.
func (s *session) skipRemoved(ctx context.Context, sys postgres.System, path pg.History, from pg.LSN) (pg.TimelineID, pg.LSN, error) {
	tli, oldest, err := s.oldest(ctx, sys, path)
	if err != nil {
		return 0, 0, err
	}
	if oldest <= from && s.CreateSlot {
		if err := s.conn.DropSlot(ctx, s.Slot); err != nil {
			return 0, 0, err
		}
		return 0, 0, fmt.Errorf("%w, although the slot %s was to keep it from %s: the slot was dropped and is created anew", postgres.ErrWALRemoved, s.Slot, oldest)
	}
	if oldest <= from {
		return 0, 0, fmt.Errorf("%w, although the slot says that it keeps WAL from %s: drop the slot %s, and it is created anew", postgres.ErrWALRemoved, oldest, s.Slot)
	}
	s.spool.left()
	start := pg.SegmentAt(tli, oldest, s.cluster.SegmentSize).Start()
	if start <= from {
		// The segment is there again: nothing is lost.
		return tli, oldest, nil
	}
	s.gap(from, start, "the server removed WAL before it was received")
	return tli, oldest, nil
}
