package restore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// Reading ahead: this many segments are fetched and expanded at once, each at
// most blocksAhead blocks ahead of the decoder. Memory: 4 × 9 MiB.
const (
	segmentsAhead = 4
	blockSize     = 1 << 20
	blocksAhead   = 8
)

// block is a piece of WAL.
type block struct {
	lsn  pg.LSN
	data []byte
}

// walStream is WAL along a path, read ahead, from begin to where it ends.
type walStream struct {
	w     *RepositoryWAL
	path  pg.History
	begin pg.LSN
	queue chan *segmentStream // in the order of the WAL
	now   *segmentStream
	last  pg.Segment // the last one looked at
	pool  sync.Pool
	group sync.WaitGroup
	ctx   context.Context
}

// segmentStream is one segment on its way.
type segmentStream struct {
	segment pg.Segment
	blocks  chan block
	known   chan struct{} // closed once absent and partial are known
	absent  bool          // the repository holds nothing of it
	partial bool          // it is unfinished, nothing follows it
	err     error         // of meaning when blocks is closed
}

func (w *RepositoryWAL) read(ctx context.Context, path pg.History, begin pg.LSN) *walStream {
	s := &walStream{w: w, path: path, begin: begin, queue: make(chan *segmentStream, segmentsAhead-1), ctx: ctx}
	s.group.Go(s.open)
	return s
}

// wait returns when every goroutine has ended; the context was cancelled before.
func (s *walStream) wait() { s.group.Wait() }

// open starts one segment after the other until one is not whole.
func (s *walStream) open() {
	defer close(s.queue)
	size := s.w.Cluster.SegmentSize
	for number := uint64(s.begin) / uint64(size); ; number++ {
		seg := &segmentStream{segment: pg.Segment{Number: number, Size: size}, blocks: make(chan block, blocksAhead), known: make(chan struct{})}
		seg.segment.Timeline = s.path.TimelineAt(seg.segment.End() - 1)
		s.group.Go(func() { s.fetch(seg) })
		select {
		case s.queue <- seg:
		case <-s.ctx.Done():
			return
		}
		select {
		case <-seg.known:
			if seg.absent || seg.partial {
				return
			}
		case <-s.ctx.Done():
			return
		}
	}
}

// next is the next piece; ok is false at the end.
func (s *walStream) next() (b block, ok bool, err error) {
	for {
		if s.now == nil {
			select {
			case s.now, ok = <-s.queue:
				if !ok {
					s.now = nil
					return b, false, s.ctx.Err()
				}
				s.last = s.now.segment
			case <-s.ctx.Done():
				return b, false, s.ctx.Err()
			}
		}
		select {
		case b, ok = <-s.now.blocks:
		case <-s.ctx.Done():
			return b, false, s.ctx.Err()
		}
		if ok {
			return b, true, nil
		}
		if s.now.err != nil {
			return b, false, s.now.err
		}
		if s.now.absent || s.now.partial {
			return b, false, nil
		}
		s.now = nil
	}
}

// unfinished tells whether the segment being read is not a complete one.
func (s *walStream) unfinished() bool { return s.now != nil && s.now.partial }

// release gives a block's memory back; the decoder has taken what it needs.
func (s *walStream) release(b block) {
	if cap(b.data) == blockSize {
		s.pool.Put(&b.data)
	}
}

// fetch reads one segment, of the newest timeline that has it: the one in which a
// timeline was left begins with a copy of the older timeline's WAL.
func (s *walStream) fetch(seg *segmentStream) {
	defer close(seg.blocks)
	rc, limit, err := s.w.openOnPath(s.ctx, s.path, seg)
	close(seg.known)
	if err != nil {
		seg.err = err
		return
	}
	if rc == nil {
		return
	}
	defer rc.Close()
	seg.err = s.pump(seg, rc, limit)
}

func (s *walStream) pump(seg *segmentStream, r io.Reader, limit pg.LSN) error {
	for pos := seg.segment.Start(); ; {
		p, ok := s.pool.Get().(*[]byte)
		if !ok {
			b := make([]byte, blockSize)
			p = &b
		}
		data := (*p)[:blockSize]
		n, err := io.ReadFull(r, data)
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return err
		}
		b := block{lsn: pos, data: data[:n]}
		pos += pg.LSN(n)
		if limit != 0 && pos > limit {
			b.data = b.data[:max(0, n-int(pos-limit))]
			end = true
		}
		if b.lsn < s.begin {
			skip := min(int(s.begin-b.lsn), len(b.data))
			b.lsn, b.data = b.lsn+pg.LSN(skip), b.data[skip:]
		}
		if len(b.data) > 0 {
			select {
			case seg.blocks <- b:
			case <-s.ctx.Done():
				return s.ctx.Err()
			}
		}
		if end {
			return nil
		}
	}
}

// openOnPath opens seg's bytes and sets absent and partial. limit is where they
// stop counting on the path, 0 if they all do. A nil reader: there are none.
func (w *RepositoryWAL) openOnPath(ctx context.Context, path pg.History, seg *segmentStream) (rc io.ReadCloser, limit pg.LSN, err error) {
	oldest := path.TimelineAt(seg.segment.Start())
	for _, tli := range descending(path, seg.segment.Timeline, oldest) {
		s := seg.segment
		s.Timeline = tli
		if end, ok := path.End(tli); ok && end < s.End() {
			// An older timeline's copy: it holds the WAL up to the switch only.
			limit, seg.partial = end, true
		}
		rc, err = w.Repo.OpenSegment(ctx, w.Cluster.Name, s)
		if err == nil {
			return rc, limit, nil
		}
		if !errors.Is(err, repo.ErrNotFound) {
			return nil, 0, err
		}
		data, err := w.Repo.ReadParts(ctx, w.Cluster.Name, s)
		if err != nil {
			return nil, 0, err
		}
		if len(data) > 0 {
			seg.partial = int64(len(data)) < s.Size || limit != 0
			return io.NopCloser(bytes.NewReader(data)), limit, nil
		}
	}
	seg.absent = true
	return nil, 0, nil
}

// descending lists the timelines of the path from newest to oldest, both included.
func descending(path pg.History, newest, oldest pg.TimelineID) []pg.TimelineID {
	out := []pg.TimelineID{}
	if path.Timeline == newest {
		out = append(out, newest)
	}
	for i := len(path.Entries) - 1; i >= 0; i-- {
		if tli := path.Entries[i].Timeline; tli <= newest && tli >= oldest {
			out = append(out, tli)
		}
	}
	return out
}
