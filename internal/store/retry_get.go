package store

import (
	"context"
	"errors"
	"io"
)

// Get implements Store.
func (r *retrying) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	reader := &retryReader{store: r, ctx: ctx, key: key, offset: offset, left: length, budget: r.newBudget()}
	if err := reader.open(); err != nil {
		return nil, err
	}
	return reader, nil
}

// retryReader continues a download with a new one where it broke off.
type retryReader struct {
	store  *retrying
	ctx    context.Context
	key    string
	offset int64 // of the next byte
	left   int64 // bytes still to come; negative: all that there are
	budget *budget

	part  io.ReadCloser // the download under way, nil between two
	watch *watch        // its watch
	err   error         // final
}

// open starts a download at offset, and repeats that within the budget.
func (g *retryReader) open() error {
	for {
		ctx, w := newWatch(g.ctx, g.store.policy.StallTimeout)
		part, err := g.store.inner.Get(ctx, g.key, g.offset, g.left)
		w.pause()
		if err == nil {
			g.part, g.watch = part, w
			return nil
		}
		err = w.explain(err)
		w.stop()
		if err := g.budget.wait(g.ctx, opGet, g.key, err); err != nil {
			return err
		}
	}
}

func (g *retryReader) Read(p []byte) (int, error) {
	if g.err != nil || len(p) == 0 {
		return 0, g.err
	}
	for {
		if g.part == nil {
			if g.err = g.open(); g.err != nil {
				return 0, g.err
			}
		}
		g.watch.progress()
		n, err := g.part.Read(p)
		g.watch.pause()
		if n > 0 {
			g.offset += int64(n)
			if g.left > 0 {
				g.left -= int64(n)
			}
			g.budget = g.store.newBudget()
		}
		if err == nil {
			return n, nil
		}
		if err == io.EOF {
			g.err = err
			return n, err
		}
		err = g.watch.explain(err)
		// A length that is delivered in full has nothing left to fetch: an error
		// at its end says that the bytes are bad.
		broken := isTemporary(err) || errors.Is(err, io.ErrUnexpectedEOF)
		if !broken || g.left == 0 || g.ctx.Err() != nil {
			g.err = err
			return n, err
		}
		g.closePart()
		if !isTemporary(err) {
			err = errors.Join(ErrUnavailable, err)
		}
		if g.err = g.budget.wait(g.ctx, opGet, g.key, err); g.err != nil || n > 0 {
			return n, g.err
		}
	}
}

func (g *retryReader) closePart() {
	if g.part != nil {
		_ = g.part.Close() // read only: nothing can be lost in closing it
		g.watch.stop()
		g.part, g.watch = nil, nil
	}
}

func (g *retryReader) Close() error {
	g.closePart()
	if g.err == nil {
		g.err = errors.New("read from a closed download")
	}
	return nil
}

// progressStore reports what is read through it to a watch.
type progressStore struct {
	Store
	watch *watch
}

func (s progressStore) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := s.Store.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	return progressReader{r, s.watch}, nil
}

type progressReader struct {
	io.ReadCloser
	watch *watch
}

func (r progressReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.watch.progress()
	return n, err
}
