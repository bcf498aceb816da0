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
// dest appears whole and checked, or not at all. Errors: ErrNoSuchFile; *GapError when later
// WAL is there; anything else means that it is not known whether the file exists.
func Fetch(ctx context.Context, r *repo.Repository, c repo.Cluster, name, dest string) error {
	if tli, ok := pg.ParseHistoryName(name); ok {
		text, err := r.History(ctx, c.Name, tli)
		if errors.Is(err, repo.ErrNotFound) {
			return fmt.Errorf("%s: %w", name, ErrNoSuchFile)
		} else if err != nil {
			return err
		}
		return writeWhole(dest, func(w io.Writer) error { _, err := w.Write(text); return err })
	}
	seg, err := pg.ParseSegmentName(name, c.SegmentSize)
	if err != nil {
		return fmt.Errorf("%s: %w", name, ErrNoSuchFile) // backup history files, .partial
	}
	src, err := openStored(ctx, r, c, seg)
	if errors.Is(err, errUnstored) {
		return absent(ctx, r, c, seg)
	} else if err != nil {
		return err
	}
	defer src.Close()
	return writeWhole(dest, func(w io.Writer) error {
		n, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{src}, make([]byte, 1<<20))
		if err != nil {
			return err
		}
		return pad(w, seg.Size-n)
	})
}

// absent tells the end of the archive from a hole in it.
func absent(ctx context.Context, r *repo.Repository, c repo.Cluster, seg pg.Segment) error {
	end, err := DurableEnd(ctx, r, c, seg.Timeline)
	if err != nil {
		return err
	}
	if end > seg.End() {
		for s, err := range r.Segments(ctx, c.Name, seg.Timeline, c.SegmentSize, seg.End()) {
			if err != nil {
				return err
			}
			// PostgreSQL also asks for the first segment of a new timeline under
			// older ones, and for older segments under the new: no hole if nothing of
			// this timeline came before.
			if earlier, err := hasEarlier(ctx, r, c, seg); err != nil {
				return err
			} else if earlier {
				return &GapError{Timeline: seg.Timeline, From: seg.Start(), To: s.Start()}
			}
			break
		}
	}
	return fmt.Errorf("%s: %w", seg, ErrNoSuchFile)
}

func hasEarlier(ctx context.Context, r *repo.Repository, c repo.Cluster, seg pg.Segment) (bool, error) {
	for s, err := range r.Segments(ctx, c.Name, seg.Timeline, c.SegmentSize, 0) {
		return err == nil && s.Number < seg.Number, err
	}
	return false, nil
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
		err = os.Rename(tmp.Name(), dest)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", dest, errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}
