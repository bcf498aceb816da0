package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"pileus/internal/pg"
)

// errDiverged: the server sends other bytes for a position that was received before.
var errDiverged = errors.New("the server's WAL differs from what was received before at the same position")

// spooled is one segment in the spool: bytes 0 to have of the file are received.
// Fields are guarded by spool.mu; the file is written by the network goroutine
// and read by the uploader, below have only.
type spooled struct {
	seg     pg.Segment
	file    *os.File
	have    int64 // bytes received
	durable int64 // bytes of it in the repository
	final   bool  // the server left the timeline here: nothing will follow
}

// spool is the received WAL of one cluster on its way to the repository: plain
// segment files in a folder, oldest first. Normally it holds the segment that is
// growing; while the repository is away it grows up to its bound.
type spool struct {
	dir   string
	max   int64 // bytes
	work  chan struct{}
	mu    sync.Mutex
	queue []*spooled
	end   pg.LSN // received up to here
	tli   pg.TimelineID
}

func newSpool(dir string, max int64) (*spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the WAL spool: %w", err)
	}
	return &spool{dir: dir, max: max, work: make(chan struct{}, 1)}, nil
}

// notify tells the uploader that there may be work.
func (s *spool) notify() {
	select {
	case s.work <- struct{}{}:
	default:
	}
}

// begin makes seg the segment that is written, holding prefix already. If it is
// that already, its received bytes stay, and what comes again is compared with them.
func (s *spool) begin(seg pg.Segment, prefix []byte) (*spooled, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := len(s.queue); k > 0 {
		last := s.queue[k-1]
		if last.seg == seg {
			return last, nil
		}
		if last.have < last.seg.Size {
			last.final = true
		}
	}
	f, err := os.OpenFile(filepath.Join(s.dir, seg.Name()), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the WAL spool: %w", err)
	}
	if _, err := f.Write(prefix); err != nil {
		return nil, errors.Join(fmt.Errorf("write the WAL spool: %w", err), f.Close())
	}
	n := &spooled{seg: seg, file: f, have: int64(len(prefix)), durable: int64(len(prefix))}
	s.queue = append(s.queue, n)
	s.tli, s.end = seg.Timeline, seg.Start()+pg.LSN(n.have)
	s.notify()
	return n, nil
}

// write takes bytes at offset of the segment that is written. Bytes that are
// there already must be the same.
func (s *spool) write(n *spooled, offset int64, data []byte) error {
	if offset > n.have || offset+int64(len(data)) > n.seg.Size {
		return fmt.Errorf("the server sent bytes %d-%d of %s, expected them from %d", offset, offset+int64(len(data)), n.seg, n.have)
	}
	if again := min(n.have-offset, int64(len(data))); again > 0 {
		old := make([]byte, again)
		if _, err := n.file.ReadAt(old, offset); err != nil {
			return fmt.Errorf("read the WAL spool: %w", err)
		}
		if !bytes.Equal(old, data[:again]) {
			return fmt.Errorf("%w (segment %s, timeline %d)", errDiverged, n.seg, n.seg.Timeline)
		}
		offset, data = offset+again, data[again:]
	}
	if len(data) == 0 {
		return nil
	}
	if _, err := n.file.WriteAt(data, offset); err != nil {
		return fmt.Errorf("write the WAL spool: %w", err)
	}
	s.mu.Lock()
	n.have = offset + int64(len(data))
	s.end = n.seg.Start() + pg.LSN(n.have)
	s.mu.Unlock()
	s.notify()
	return nil
}

// left marks the segment that is written as the last of its timeline.
func (s *spool) left() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := len(s.queue); k > 0 && s.queue[k-1].have < s.queue[k-1].seg.Size {
		s.queue[k-1].final = true
	}
	s.notify()
}

// sync makes all that was received durable on this host.
func (s *spool) sync() error {
	s.mu.Lock()
	files := make([]*os.File, 0, len(s.queue))
	for _, n := range s.queue {
		files = append(files, n.file)
	}
	s.mu.Unlock()
	for _, f := range files {
		// A file that the uploader has finished with meanwhile is in the repository.
		if err := f.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
			return fmt.Errorf("flush the WAL spool: %w", err)
		}
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// size is how many bytes of files the spool holds.
func (s *spool) size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sizeLocked()
}

func (s *spool) sizeLocked() (n int64) {
	for _, q := range s.queue {
		n += q.have
	}
	return n
}

// full tells whether the spool may not grow. The segment that is growing never
// counts as too much, so that a small bound cannot stop the WAL for good.
func (s *spool) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) > 1 && s.sizeLocked() >= s.max
}

// position is what has been received and what of it is durable in the repository,
// both on the timeline that is received.
func (s *spool) position() (tli pg.TimelineID, received, durable pg.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tli, s.end, s.durableLocked()
}

// durableLocked is a promise to the server: all of the WAL before it is in the
// repository. So it waits for the oldest segment that is not whole there, however
// much of the later ones is; and on a new timeline it starts anew, where the old
// one's WAL may have reached further.
func (s *spool) durableLocked() pg.LSN {
	at := s.end
	for i := len(s.queue) - 1; i >= 0; i-- {
		q := s.queue[i]
		if q.seg.Timeline != s.tli {
			if q.durable < q.have && i+1 < len(s.queue) {
				at = min(at, q.seg.Start()+pg.LSN(q.durable), s.queue[i+1].seg.Start())
			}
			continue
		}
		if q.durable < q.have {
			at = q.seg.Start() + pg.LSN(q.durable)
		}
	}
	return at
}

// tail is the segment that is written, nil if there is none or it is finished.
func (s *spool) tail() *spooled {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := len(s.queue); k > 0 && !s.queue[k-1].final {
		return s.queue[k-1]
	}
	return nil
}

// head is a copy of the oldest segment's state.
func (s *spool) head() (n spooled, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return n, false
	}
	return *s.queue[0], true
}

// stored records that the head is in the repository up to offset to. done means
// that the repository has all of it: it leaves the spool.
func (s *spool) stored(seg pg.Segment, to int64, done bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 || s.queue[0].seg != seg {
		return fmt.Errorf("the WAL spool lost %s", seg)
	}
	n := s.queue[0]
	n.durable = max(n.durable, to)
	if !done {
		return nil
	}
	s.queue = s.queue[1:]
	return errors.Join(n.file.Close(), os.Remove(filepath.Join(s.dir, seg.Name())))
}

// close closes the files, and leaves what the repository lacks for the next start.
func (s *spool) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, n := range s.queue {
		err = errors.Join(err, n.file.Close())
		if n.durable == n.have {
			err = errors.Join(err, os.Remove(filepath.Join(s.dir, n.seg.Name())))
		}
	}
	s.queue = nil
	return err
}

// section reads the received bytes from to to of a spooled segment.
func (n spooled) section(from, to int64) *io.SectionReader {
	return io.NewSectionReader(n.file, from, to-from)
}
