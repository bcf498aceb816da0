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
	"pileus/internal/wal"
)

// adopt takes over what an earlier receiver left in the spool: WAL that follows
// on what the repository holds of its newest timeline, as far as it decodes. The
// rest, which nothing was promised of, is removed.
func (s *spool) adopt(ctx context.Context, r *repo.Repository, c repo.Cluster, next pg.Segment) error {
	entries, err := os.ReadDir(s.dir) // sorted by name: timeline, then position
	if err != nil {
		return fmt.Errorf("look into the WAL spool: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		seg, err := pg.ParseSegmentName(e.Name(), c.SegmentSize)
		if err != nil || (next.Size != 0 && !follows(next, seg)) {
			if err := os.Remove(path); err != nil {
				return err
			}
			continue
		}
		n, err := s.adoptFile(ctx, r, c, seg, path)
		if err != nil {
			return err
		}
		if n == nil {
			continue
		}
		if next = seg; n.have == seg.Size {
			next = seg.Next()
		}
	}
	return nil
}

// follows tells whether seg goes on where next is wanted: it is that, or the segment of
// a later timeline in which that one was left.
func follows(next, seg pg.Segment) bool {
	return seg.Number == next.Number && seg.Timeline >= next.Timeline
}

func (s *spool) adoptFile(ctx context.Context, r *repo.Repository, c repo.Cluster, seg pg.Segment, path string) (*spooled, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open the WAL spool: %w", err)
	}
	have, err := validLength(f, c, seg)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	parts, err := r.ReadParts(ctx, c.Name, seg)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if same, err := samePrefix(f, parts, have); err != nil || !same || have <= int64(len(parts)) {
		return nil, errors.Join(err, f.Close(), os.Remove(path)) // the repository knows better
	}
	if err := f.Truncate(have); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	n := &spooled{seg: seg, file: f, have: have, durable: int64(len(parts))}
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := len(s.queue); k > 0 && s.queue[k-1].have < s.queue[k-1].seg.Size {
		s.queue[k-1].final = true
	}
	s.queue = append(s.queue, n)
	s.tli, s.end = seg.Timeline, seg.Start()+pg.LSN(have)
	s.notify()
	return n, nil
}

// validLength is how far the file holds WAL that decodes, in bytes.
func validLength(f *os.File, c repo.Cluster, seg pg.Segment) (int64, error) {
	d, err := wal.NewDecoder(wal.Config{SystemID: c.SystemIdentifier, SegmentSize: c.SegmentSize, Timeline: seg.Timeline})
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 1<<20)
	at := seg.Start()
	for at < seg.End() {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), int64(seg.End()-at))], int64(at-seg.Start()))
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("read the WAL spool: %w", err)
		}
		if n == 0 {
			break
		}
		if err := d.Feed(at, buf[:n]); err != nil {
			break
		}
		for {
			_, ok, err := d.Next()
			if err != nil {
				return max(int64(d.End())-int64(seg.Start()), 0), nil
			}
			if !ok {
				break
			}
		}
		at += pg.LSN(n)
	}
	if at == seg.End() {
		return seg.Size, nil // whole: its last record may go on in the next
	}
	return max(int64(d.End())-int64(seg.Start()), 0), nil
}

func samePrefix(f *os.File, prefix []byte, have int64) (bool, error) {
	n := min(int64(len(prefix)), have)
	old := make([]byte, n)
	if _, err := f.ReadAt(old, 0); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return string(old) == string(prefix[:n]), nil
}
