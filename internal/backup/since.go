package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	"pileus/internal/archive"
	"pileus/internal/changes"
	"pileus/internal/pg"
	"pileus/internal/repo"
	"pileus/internal/wal"
)

// since finds out what changed since the parent, if the WAL in between tells. If not, every page is
// read and compared, and the manifest says why. It fails only where ctx ends.
func (r *run) since(ctx context.Context) error {
	why := r.unfit()
	if why == "" && r.Parent.StopLSN > r.head.StartLSN {
		why = fmt.Sprintf("backup %s ended at %s, after this one began", r.Parent.ID, r.Parent.StopLSN)
	}
	if why != "" {
		r.head.WhyFull = why
		return nil
	}
	r.Progress.Stage("find what changed", 0)
	found, err := r.scan(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		r.head.WhyFull = fmt.Sprintf("the WAL since backup %s does not tell what changed: %v", r.Parent.ID, err)
		r.Progress.Note("every page is read: %s", r.head.WhyFull)
		return nil
	}
	r.changed, r.head.Incremental, r.head.ReadWAL = found.Set, true, found.Bytes
	return nil
}

// unfit says why the parent is none to start from, whatever the WAL tells; empty: it is.
func (r *run) unfit() string {
	p := r.Parent
	switch {
	case r.head.WhyFull != "":
		return r.head.WhyFull
	case r.Full:
		return "a full backup was asked for"
	case p == nil:
		return "there is no earlier backup"
	case p.Cluster != r.Cluster:
		return fmt.Sprintf("the backup to start from is another cluster's, %s", p.Cluster)
	case p.SystemIdentifier != r.info.SystemIdentifier, p.Version/10000 != r.info.Major, p.PageSize != pg.PageSize:
		return fmt.Sprintf("backup %s is of another server", p.ID)
	case p.Checksums != r.info.DataChecksums:
		return fmt.Sprintf("data checksums were switched on or off since backup %s", p.ID)
	case p.DamagedPages > int64(len(p.Damage)):
		return fmt.Sprintf("backup %s has %d damaged pages, more than it lists", p.ID, p.DamagedPages)
	}
	return ""
}

func (r *run) scan(ctx context.Context) (changes.Result, error) {
	src := walSource{dir: filepath.Join(r.dataDir(), "pg_wal"), size: r.info.WALSegmentSize}
	path, err := archive.History(ctx, r.Repo, r.Cluster, r.head.Timeline)
	if errors.Is(err, repo.ErrNotFound) { // it may be on its way
		path, err = src.history(r.head.Timeline)
	}
	if err != nil {
		return changes.Result{}, err
	}
	if err := r.descends(path); err != nil {
		return changes.Result{}, err
	}
	src.archived = archive.Reader{Repo: r.Repo, Cluster: r.known, Path: path}
	if src.until, err = archive.Reach(ctx, r.Repo, r.known, path, r.Parent.StartLSN); err != nil {
		return changes.Result{}, err
	}
	s := changes.Scanner{Pieces: src.pieces, Workers: r.Workers, Ignore: r.ignore,
		Decoder: wal.Config{SystemID: r.info.SystemIdentifier, SegmentSize: r.info.WALSegmentSize, Timeline: r.head.Timeline, Major: r.info.Major}}
	return s.Scan(ctx, r.Parent.StartLSN, r.head.StartLSN)
}

// descends refuses a parent that is none of the past of a timeline.
func (r *run) descends(path pg.History) error {
	if left, ended := path.End(r.Parent.Timeline); !path.Contains(r.Parent.Timeline) || ended && r.Parent.StopLSN > left {
		return fmt.Errorf("timeline %d, which it was taken on, is not what timeline %d came from", r.Parent.Timeline, path.Timeline)
	}
	return nil
}

// walSource reads WAL out of the repository as far as it is there without a hole, and
// the rest, which is still on its way, out of the server's own directory.
type walSource struct {
	archived archive.Reader
	until    pg.LSN
	dir      string
	size     int64 // of a segment
}

// history reads a timeline's ancestry.
func (s *walSource) history(tli pg.TimelineID) (pg.History, error) {
	name := fmt.Sprintf("%08X.history", uint32(tli))
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		return pg.History{}, fmt.Errorf("%s is neither in the repository nor in pg_wal: %w", name, err)
	}
	return pg.ParseHistory(tli, text)
}

// pieces yields the WAL from from to to.
func (s *walSource) pieces(ctx context.Context, from, to pg.LSN) iter.Seq2[archive.Piece, error] {
	return func(yield func(archive.Piece, error) bool) {
		if from < s.until {
			for p, err := range s.archived.Pieces(ctx, from, min(to, s.until)) {
				if !yield(p, err) || err != nil {
					return
				}
			}
		}
		buf := make([]byte, 1<<20)
		for at := max(from, s.until); at < to; {
			n, err := s.local(at, buf[:min(len(buf), int(to-at))])
			if !yield(archive.Piece{LSN: at, Data: buf[:n]}, err) || err != nil {
				return
			}
			at += pg.LSN(n)
		}
	}
}

// local reads WAL from pg_wal, up to the end of a segment. Where timelines change within it, the newest
// has a copy of the older ones' WAL. The decoder tells WAL from what a recycled file held before.
func (s *walSource) local(at pg.LSN, buf []byte) (int, error) {
	path := s.archived.Path
	for tli := path.Timeline; tli > 0; tli-- {
		if !path.Contains(tli) {
			continue
		}
		seg := pg.SegmentAt(tli, at, s.size)
		f, err := os.Open(filepath.Join(s.dir, seg.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return 0, err
		}
		defer f.Close() // read only
		n, err := f.ReadAt(buf[:min(len(buf), int(seg.End()-at))], int64(at-seg.Start()))
		if errors.Is(err, io.EOF) && n > 0 {
			err = nil
		}
		return n, err
	}
	return 0, fmt.Errorf("the WAL from %s on is neither in the repository nor in pg_wal any more", at)
}
