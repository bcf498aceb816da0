package restore

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"pileus/internal/repo"
)

// Spans: chunks that lie side by side in a pack are read at once. A gap that is
// skipped costs less than another request.
const (
	maxSpan = 4 << 20
	maxGap  = 64 << 10
)

// piece is one chunk, patch or page map, and where it goes.
type piece struct {
	file   *target
	ref    repo.Ref
	offset int64    // of a chunk, in the file
	pages  []uint32 // of a patch: the pages its bytes are, one after the other

	patched bool // a chunk that patches come over later
}

// spans orders pieces by where they lie and cuts them into runs to be read at once.
func spans(pieces []piece) [][]piece {
	slices.SortFunc(pieces, func(a, b piece) int {
		if c := bytes.Compare(a.ref.Pack[:], b.ref.Pack[:]); c != 0 {
			return c
		}
		return cmp.Compare(a.ref.Offset, b.ref.Offset)
	})
	var out [][]piece
	first, end := 0, int64(0)
	for i := range pieces {
		r, head := &pieces[i].ref, &pieces[first].ref
		stop := int64(r.Offset) + int64(r.Stored)
		if i > first && (r.Pack != head.Pack || int64(r.Offset) > end+maxGap || stop-int64(head.Offset) > maxSpan) {
			out = append(out, pieces[first:i])
			first, end = i, 0
		}
		end = max(end, stop)
	}
	if first < len(pieces) {
		out = append(out, pieces[first:])
	}
	return out
}

// sink takes the plain bytes of the pieces of one span, one after the other. It
// must not keep them.
type sink interface {
	take(p *piece, plain []byte) error
	close() error
}

// fetch reads all pieces, in parallel and in no order, and hands each one's
// checked bytes to a sink. Every span has its own.
func fetch(ctx context.Context, r *repo.Repository, parallel int, pieces []piece, open func() sink) error {
	g, ctx := errgroup.WithContext(ctx)
	work := make(chan []piece)
	g.Go(func() error {
		defer close(work)
		for _, s := range spans(pieces) {
			select {
			case work <- s:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range parallel {
		g.Go(func() error {
			f := fetcher{repo: r}
			for run := range work {
				s := open()
				err := f.run(ctx, run, s)
				if e := s.close(); err == nil {
					err = e
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// fetcher is one worker with its buffers.
type fetcher struct {
	repo          *repo.Repository
	stored, plain []byte
}

func (f *fetcher) run(ctx context.Context, run []piece, s sink) (err error) {
	first := run[0].ref
	length := int64(0)
	for i := range run {
		length = max(length, int64(run[i].ref.Offset)+int64(run[i].ref.Stored)-int64(first.Offset))
	}
	if f.stored, err = f.repo.ReadSpan(ctx, f.stored, first.Pack, int64(first.Offset), length); err != nil {
		return fmt.Errorf("%s and its neighbours: %w", run[0].file.entry.Path, err)
	}
	for i := range run {
		p := &run[i]
		at := p.ref.Offset - first.Offset
		if f.plain, err = f.repo.Decode(f.plain[:0], p.ref, f.stored[at:at+p.ref.Stored]); err != nil {
			return fmt.Errorf("%s: %w", p.file.entry.Path, err)
		}
		if err = s.take(p, f.plain); err != nil {
			return fmt.Errorf("%s: %w", p.file.entry.Path, err)
		}
	}
	return nil
}
