package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// ErrNoSuchFile: the archive does not have the file. To PostgreSQL that is the
// end of the WAL, so nothing else may ever be reported as this.
var ErrNoSuchFile = errors.New("no such file in the archive")

// Fetch writes one file of the archive to dest, for restore_command: a segment, of
// which an unfinished one is filled up with zeros, or a timeline's history.
// dest appears whole and checked, or not at all; an Ahead may have it ready. Errors: ErrNoSuchFile; *GapError
// when later WAL is known; anything else means that it is not known whether the
// file exists.
func Fetch(ctx context.Context, r *repo.Repository, c repo.Cluster, name, dest string) error {
	if tli, ok := pg.ParseHistoryName(name); ok {
		return fetchHistory(ctx, r, c, tli, dest)
	}
	seg, err := pg.ParseSegmentName(name, c.SegmentSize)
	if err != nil {
		return fmt.Errorf("%s: %w", name, ErrNoSuchFile) // backup history files, .partial
	}
	if takeAhead(seg, dest) {
		return nil
	}
	src, err := openStored(ctx, r, c, seg)
	length := seg.Size
	if errors.Is(err, errUnstored) {
		src, length, err = instead(ctx, r, c, seg)
	}
	if err != nil {
		return err
	}
	defer src.Close()
	err = writeWhole(dest, func(w io.Writer) error {
		buf := make([]byte, 1<<20)
		n, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{io.LimitReader(src, length)}, buf)
		if err != nil {
			return err
		}
		// The end of the object is where its hash is compared.
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{src}, buf); err != nil {
			return err
		}
		if n < length {
			if err := nothingBehind(ctx, r, c, seg, n); err != nil {
				return err
			}
		}
		return pad(w, seg.Size-n)
	})
	if errors.Is(err, errFinished) {
		return Fetch(ctx, r, c, name, dest)
	}
	return err
}

// errFinished: the segment was unfinished when it was opened, and is whole now.
var errFinished = errors.New("the segment has become whole meanwhile")

// nothingBehind expects that the archive of the timeline ends in an unfinished
// segment of which n bytes are there. Filled up with zeros it would otherwise be taken
// for the end of the WAL, though there is more behind the hole: *GapError.
func nothingBehind(ctx context.Context, r *repo.Repository, c repo.Cluster, seg pg.Segment, n int64) error {
	later, ok, err := firstBehind(ctx, r, c, seg.Timeline, seg.End())
	if err != nil || !ok {
		return err
	}
	if whole, err := r.HasSegment(ctx, c.Name, seg); err != nil {
		return err
	} else if whole {
		return errFinished
	}
	return &GapError{Timeline: seg.Timeline, From: seg.Start() + pg.LSN(n), To: later.Start()}
}

func fetchHistory(ctx context.Context, r *repo.Repository, c repo.Cluster, tli pg.TimelineID, dest string) error {
	text, err := r.History(ctx, c.Name, tli)
	if err == nil {
		return writeWhole(dest, func(w io.Writer) error { _, err := w.Write(text); return err })
	}
	if !errors.Is(err, repo.ErrNotFound) {
		return err
	}
	// Told that there is no such timeline, PostgreSQL would end on an older one and
	// drop what was committed later.
	if first, ok, err := firstBehind(ctx, r, c, tli, 0); err != nil {
		return err
	} else if ok && tli > 1 {
		return fmt.Errorf("the history of timeline %d is missing in the repository, although its WAL is there (%s): copy %s there from pg_wal of a server that has it with `pileus wal push`, or restore to another timeline",
			tli, first, pg.HistoryName(tli))
	}
	return fmt.Errorf("%s: %w", pg.HistoryName(tli), ErrNoSuchFile)
}

// instead tells what a segment that is not there means: the end of the archive,
// ErrNoSuchFile; or a hole, *GapError. A segment whose beginning a later timeline
// has copied is neither: it is opened there, and good for length bytes.
func instead(ctx context.Context, r *repo.Repository, c repo.Cluster, seg pg.Segment) (src io.ReadCloser, length int64, err error) {
	none := fmt.Errorf("%s: %w", seg, ErrNoSuchFile)
	begin, err := beginning(ctx, r, c, seg.Timeline)
	if err != nil {
		return nil, 0, err
	}
	if seg.End() <= begin {
		return nil, 0, none // PostgreSQL tries later timelines first; this one has not begun
	}
	if later, ok, err := firstBehind(ctx, r, c, seg.Timeline, seg.End()); err != nil {
		return nil, 0, err
	} else if ok {
		return nil, 0, &GapError{Timeline: seg.Timeline, From: seg.Start(), To: later.Start()}
	}
	tlis, err := r.Timelines(ctx, c.Name)
	if err != nil {
		return nil, 0, err
	}
	var left pg.LSN // the last place from which a later timeline went on
	var next pg.History
	for _, tli := range tlis {
		if tli <= seg.Timeline {
			continue
		}
		path, err := History(ctx, r, c.Name, tli)
		if errors.Is(err, repo.ErrNotFound) {
			continue
		} else if err != nil {
			return nil, 0, err
		}
		if end, ok := path.End(seg.Timeline); ok && end > left {
			left, next = end, path
		}
	}
	if left <= seg.Start() {
		return nil, 0, none
	}
	if left <= seg.End() {
		if src, length, err = openCopy(ctx, r, c, next, seg, left); src != nil || err != nil {
			return src, length, err
		}
	}
	return nil, 0, &GapError{Timeline: seg.Timeline, From: seg.Start(), To: left}
}

// openCopy opens a later timeline's copy of the segment if it reaches to end; nil
// if there is none.
func openCopy(ctx context.Context, r *repo.Repository, c repo.Cluster, path pg.History, seg pg.Segment, end pg.LSN) (io.ReadCloser, int64, error) {
	for _, tli := range timelines(path, end-1, seg.End()) {
		s := seg
		s.Timeline = tli
		src, err := look(ctx, r, c, s)
		if err != nil {
			return nil, 0, err
		}
		if tli != seg.Timeline && src.end >= end {
			rc, err := src.open(ctx, r, c)
			return rc, int64(end - seg.Start()), err
		}
	}
	return nil, 0, nil
}

// beginning is where a timeline begins; 0 if that is not known.
func beginning(ctx context.Context, r *repo.Repository, c repo.Cluster, tli pg.TimelineID) (pg.LSN, error) {
	h, err := History(ctx, r, c.Name, tli)
	if err != nil && !errors.Is(err, repo.ErrNotFound) {
		return 0, err
	}
	if k := len(h.Entries); k > 0 {
		return h.Entries[k-1].End, nil
	}
	return 0, nil
}

// firstBehind is the first segment from from on that the repository has anything of.
func firstBehind(ctx context.Context, r *repo.Repository, c repo.Cluster, tli pg.TimelineID, from pg.LSN) (first pg.Segment, ok bool, err error) {
	for s, err := range r.Segments(ctx, c.Name, tli, c.SegmentSize, from) {
		if err != nil {
			return first, false, err
		}
		first, ok = s, true
		break
	}
	partly, err := r.PartSegments(ctx, c.Name, c.SegmentSize)
	for _, s := range partly {
		if s.Timeline == tli && s.Start() >= from && (!ok || s.Number < first.Number) {
			first, ok = s, true
		}
	}
	return first, ok, err
}

// pad writes n zero bytes.
func pad(w io.Writer, n int64) error {
	zero := make([]byte, 64<<10)
	for n > 0 {
		k := min(n, int64(len(zero)))
		if _, err := w.Write(zero[:k]); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// writeWhole makes a file appear at dest with all its content, durably.
func writeWhole(dest string, fill func(io.Writer) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(dest), ".pileus-fetch-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", dest, err)
	}
	err = fill(tmp)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		if err = os.Rename(tmp.Name(), dest); err == nil {
			return syncFolder(filepath.Dir(dest))
		}
	}
	return fmt.Errorf("write %s: %w", dest, errors.Join(err, os.Remove(tmp.Name())))
}
