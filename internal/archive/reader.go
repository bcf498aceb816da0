package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// Reading ahead: segments that are opened before they are wanted, and the pieces
// of each that wait. A piece is a frame of an object, most of which are 1 MiB. Memory: about 3 × 4 MiB.
const (
	readAhead   = 2
	pieceSize   = 1 << 20
	piecesAhead = 2
)

// Reader reads a cluster's WAL out of the repository as one stream, whatever
// objects it lies in: complete segments, the copy that a later timeline made of
// the segment in which it began, and at the end the parts of the unfinished one.
type Reader struct {
	Repo    *repo.Repository
	Cluster repo.Cluster
	Path    pg.History // the timelines to follow

	// Decoded: all that is read goes through wal.Decoder, which verifies the CRC-32C of each record. The hash over each
	// segment is then not compared.
	Decoded bool

	pool sync.Pool // of *[]byte, for pieces
}

// Piece is WAL that follows on the piece before. Data is the receiver's until it
// asks for the next piece.
type Piece struct {
	LSN  pg.LSN
	Data []byte

	whole []byte // that Data is a part of
}

// Pieces yields the WAL from from, up to to or, if to is 0, to where the
// repository's WAL ends. A hole before to, or before WAL that the path goes on
// with, is *GapError; what is damaged is repo.ErrDamaged. A piece is handed out before
// the hash over its whole segment could be compared, so act on it only once the
// decoder has accepted its records, or the sequence has ended without an error.
func (r *Reader) Pieces(ctx context.Context, from, to pg.LSN) iter.Seq2[Piece, error] {
	return func(yield func(Piece, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		s := &stream{Reader: r, from: from, to: to, queue: make(chan *lane, readAhead-1)}
		var all sync.WaitGroup
		defer all.Wait()
		defer cancel()
		all.Go(func() { s.open(ctx, &all) })
		for l := range s.queue {
			for p := range l.pieces {
				if !yield(p, nil) {
					return
				}
				r.pool.Put(&p.whole)
			}
			if l.err != nil {
				yield(Piece{}, l.err)
				return
			}
		}
		if err := context.Cause(ctx); err != nil {
			yield(Piece{}, err)
		}
	}
}

// stream is one run of Pieces.
type stream struct {
	*Reader
	from, to pg.LSN
	queue    chan *lane // in the order of the WAL
}

// lane carries one segment's pieces. err counts once pieces is closed.
type lane struct {
	pieces chan Piece
	err    error
}

// open starts one segment after the other, until the WAL ends.
func (s *stream) open(ctx context.Context, all *sync.WaitGroup) {
	defer close(s.queue)
	for at := s.from; (s.to == 0 || at < s.to) && ctx.Err() == nil; {
		l := &lane{pieces: make(chan Piece, piecesAhead)}
		src, err := locate(ctx, s.Repo, s.Cluster, s.Path, at)
		end := src.end
		if s.to != 0 {
			end = min(end, s.to)
		}
		more := err == nil && end > at
		if more {
			begin := at
			all.Go(func() {
				defer close(l.pieces)
				l.err = s.pump(ctx, src, begin, end, l.pieces)
			})
			at = end
		} else {
			if l.err = err; err == nil {
				l.err = s.ended(ctx, at)
			}
			close(l.pieces)
		}
		select {
		case s.queue <- l:
		case <-ctx.Done():
			return
		}
		if !more {
			return
		}
	}
}

// ended tells the end of the WAL, nil, from a hole in it.
func (s *stream) ended(ctx context.Context, at pg.LSN) error {
	ranges, err := Coverage(ctx, s.Repo, s.Cluster)
	if err != nil {
		return err
	}
	if next, ok := resumes(ranges, s.Path, at, s.Cluster.SegmentSize); ok {
		return &GapError{Timeline: s.Path.TimelineAt(at), From: at, To: next}
	}
	if s.to != 0 && covered(ranges, s.Path, at, s.Cluster.SegmentSize) < s.to {
		return &GapError{Timeline: s.Path.TimelineAt(at), From: at, To: s.to}
	}
	return nil
}

// pump reads one segment from begin to end. A segment that is wanted to its last
// byte is read to the end of its object, which compares its hash.
func (s *stream) pump(ctx context.Context, src source, begin, end pg.LSN, out chan<- Piece) error {
	rc, err := src.open(ctx, s.Repo, s.Cluster)
	if err != nil {
		return err
	}
	defer rc.Close()
	if s.Decoded {
		rc.TrustContent()
	}
	for at := src.seg.Start(); at < end; {
		b, err := rc.ReadFrame(s.buffer())
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("%s ends at byte %d: %w", src.seg, int64(at-src.seg.Start()), repo.ErrDamaged)
			}
			return fmt.Errorf("read %s: %w", src.seg, err)
		}
		next := at + pg.LSN(len(b))
		if next <= begin {
			s.pool.Put(&b)
			at = next
			continue
		}
		from, to := max(begin, at), min(end, next)
		select {
		case out <- Piece{LSN: from, Data: b[from-at : to-at], whole: b}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		at = next
	}
	if end == src.seg.End() {
		_, err = io.Copy(io.Discard, rc)
	}
	return err
}

func (s *stream) buffer() []byte {
	if p, ok := s.pool.Get().(*[]byte); ok {
		return (*p)[:0]
	}
	return make([]byte, 0, pieceSize)
}

// source is the object, or objects, that hold one segment's WAL on a path.
type source struct {
	seg   pg.Segment // as it is stored; its timeline can be later than the WAL's
	whole bool       // complete segment; else parts
	end   pg.LSN     // the path's WAL is there up to here; 0: nothing is
}

// locate finds what reaches furthest in the segment that holds the byte at at.
// Where timelines change within it, the newest has a copy of the older ones' WAL;
// if that is not there, an older one's own WAL counts up to where it was left.
func locate(ctx context.Context, r *repo.Repository, c repo.Cluster, path pg.History, at pg.LSN) (source, error) {
	var best source
	whole := pg.SegmentAt(path.Timeline, at, c.SegmentSize)
	for _, tli := range timelines(path, whole.Start(), whole.End()) {
		s := whole
		s.Timeline = tli
		src, err := look(ctx, r, c, s)
		if err != nil {
			return source{}, err
		}
		if end, left := path.End(tli); left {
			src.end = min(src.end, end)
		}
		if src.end > best.end {
			best = src
		}
		if best.end == whole.End() {
			break
		}
	}
	return best, nil
}

// timelines lists those of the path that have WAL between two positions, newest first.
func timelines(path pg.History, from, to pg.LSN) []pg.TimelineID {
	newest, oldest := path.TimelineAt(to-1), path.TimelineAt(from)
	var out []pg.TimelineID
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

// look tells what the repository holds of one segment.
func look(ctx context.Context, r *repo.Repository, c repo.Cluster, s pg.Segment) (source, error) {
	for again := false; ; again = true {
		ok, err := r.HasSegment(ctx, c.Name, s)
		if err != nil {
			return source{}, err
		}
		if ok {
			return source{seg: s, whole: true, end: s.End()}, nil
		}
		parts, err := r.Parts(ctx, c.Name, s)
		if err != nil {
			return source{}, err
		}
		if n := repo.PartsEnd(parts); n > 0 {
			return source{seg: s, end: s.Start() + pg.LSN(n)}, nil
		}
		if again {
			return source{}, nil // it has not become whole between the two looks either
		}
	}
}

// open opens the segment's bytes from its start.
func (s source) open(ctx context.Context, r *repo.Repository, c repo.Cluster) (repo.Frames, error) {
	if !s.whole {
		data, err := r.ReadParts(ctx, c.Name, s.seg)
		if err != nil {
			return nil, err
		}
		if s.seg.Start()+pg.LSN(len(data)) >= s.end {
			return &parts{bytes.NewReader(data)}, nil
		}
	}
	// Parts that went away since have made room for the whole segment.
	return r.OpenSegment(ctx, c.Name, s.seg)
}

// parts are the bytes of an unfinished segment, in pieces.
type parts struct{ *bytes.Reader }

// ReadFrame yields the next piece, in buf.
func (p *parts) ReadFrame(buf []byte) ([]byte, error) {
	if p.Len() == 0 {
		return nil, io.EOF
	}
	buf = slices.Grow(buf[:0], min(p.Len(), pieceSize))[:min(p.Len(), pieceSize)]
	_, err := io.ReadFull(p.Reader, buf)
	return buf, err
}

// TrustContent changes nothing: the parts were read and compared.
func (p *parts) TrustContent() {}

// Close does nothing.
func (p *parts) Close() error { return nil }
