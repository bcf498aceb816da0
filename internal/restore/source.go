package restore

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"pileus/internal/pg"
	"pileus/internal/repo"
	"pileus/internal/wal"
)

// RepositoryWAL reads the WAL of one cluster from a repository: complete segments,
// and the parts of the one that is unfinished.
type RepositoryWAL struct {
	Repo    *repo.Repository
	Cluster repo.Cluster
}

// Records implements WAL.
func (w *RepositoryWAL) Records(ctx context.Context, path pg.History, from pg.LSN) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		// A decoder that starts at a page passes over the rest of an earlier record.
		const page = 8 << 10
		begin := from - from%page
		d, err := wal.NewDecoder(wal.Config{SystemID: w.Cluster.SystemIdentifier, SegmentSize: w.Cluster.SegmentSize, Timeline: path.Timeline})
		if err != nil {
			yield(Record{}, err)
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		s := w.read(ctx, path, begin)
		defer s.wait()
		defer cancel()
		for {
			b, ok, err := s.next()
			if err == nil && ok {
				if err = d.Feed(b.lsn, b.data); err == nil {
					var more bool
					if more, err = drain(d, from, yield); err == nil && !more {
						return
					}
				}
				s.release(b)
			}
			if err == nil && ok {
				continue
			}
			if ctx.Err() != nil {
				err = ctx.Err()
			} else if err = w.ended(ctx, path, d, s, err); err == nil {
				return
			}
			yield(Record{}, err)
			return
		}
	}
}

// Holds implements WAL.
func (w *RepositoryWAL) Holds(ctx context.Context, tli pg.TimelineID, end pg.LSN) (bool, error) {
	s := pg.SegmentAt(tli, end-1, w.Cluster.SegmentSize)
	whole, err := w.Repo.HasSegment(ctx, w.Cluster.Name, s)
	if whole || err != nil {
		return whole, err
	}
	parts, err := w.Repo.Parts(ctx, w.Cluster.Name, s)
	return s.Start()+pg.LSN(repo.PartsEnd(parts)) >= end, err
}

// drain yields the records that the decoder has; more is false if the consumer has enough.
func drain(d *wal.Decoder, from pg.LSN, yield func(Record, error) bool) (more bool, err error) {
	for {
		rec, ok, err := d.Next()
		if err != nil || !ok {
			return true, err
		}
		if rec.LSN < from {
			continue
		}
		r, err := convert(rec)
		if err != nil {
			return true, err
		}
		if !yield(r, nil) {
			return false, nil
		}
	}
}

func convert(rec *wal.Record) (Record, error) {
	r := Record{LSN: rec.LSN, End: rec.End}
	if rec.IsSwitch() {
		r.Kind = RecordSwitch
		return r, nil
	}
	c, ok, err := wal.ParseCommit(rec)
	if err != nil {
		return r, err
	}
	if ok {
		r.XID, r.Subs, r.Time = c.Xid, c.SubXids, c.Time
		switch c.Kind {
		case wal.KindCommit, wal.KindCommitPrepared:
			r.Kind = RecordCommit
		case wal.KindPrepare:
			r.Kind = RecordPrepare
		case wal.KindAbortPrepared:
			r.Kind = RecordAbortPrepared
		default:
			r.Kind = RecordAbort
		}
		return r, nil
	}
	p, ok, err := wal.ParseRestorePoint(rec)
	if ok && err == nil {
		r.Kind, r.Name, r.Time = RecordRestorePoint, p.Name, p.Time
	}
	return r, err
}

// ended tells the end of the durable WAL (nil) from a hole in it, from damage, and from a store that failed.
func (w *RepositoryWAL) ended(ctx context.Context, path pg.History, d *wal.Decoder, s *walStream, err error) error {
	var eow *wal.EndOfWALError
	var bad *wal.DamageError
	gap := &GapError{Timeline: path.TimelineAt(d.End()), From: d.End()}
	switch {
	case errors.As(err, &bad):
		gap.Detail = bad.Error()
		return gap
	case errors.As(err, &eow) && !s.unfinished():
		gap.Detail = "a segment that counts as complete ends there: " + eow.Reason
		return gap
	case errors.Is(err, repo.ErrDamaged):
		gap.Detail = err.Error()
		return fmt.Errorf("%w: %w", gap, err)
	case err != nil && !errors.As(err, &eow):
		return err
	}
	if gap.From == 0 { // not one byte was there
		gap.From = s.begin
	}
	later, err := w.later(ctx, path, s.last)
	if err != nil {
		return err
	}
	if later != 0 {
		gap.To = later
		return gap
	}
	return nil
}

// later is the start of the first segment on the path behind the given one that
// the repository holds anything of; 0: there is none.
func (w *RepositoryWAL) later(ctx context.Context, path pg.History, last pg.Segment) (pg.LSN, error) {
	first := pg.LSN(0)
	see := func(s pg.Segment) {
		if s.Number > last.Number && path.TimelineAt(s.End()-1) == s.Timeline && (first == 0 || s.Start() < first) {
			first = s.Start()
		}
	}
	timelines := []pg.TimelineID{path.Timeline}
	for _, e := range path.Entries {
		timelines = append(timelines, e.Timeline)
	}
	for _, tli := range timelines {
		for s, err := range w.Repo.Segments(ctx, w.Cluster.Name, tli, w.Cluster.SegmentSize, last.End()) {
			if err != nil {
				return 0, err
			}
			see(s)
			if s.Number > last.Number {
				break
			}
		}
	}
	parts, err := w.Repo.PartSegments(ctx, w.Cluster.Name, w.Cluster.SegmentSize)
	if err != nil {
		return 0, err
	}
	for _, s := range parts {
		see(s)
	}
	return first, nil
}
