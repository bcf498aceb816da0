package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// partsPerLevel is how many parts of one level are merged into one of the next.
// A segment so never has more than a few dozen, and each byte is stored about
// three times at the worst before its segment is whole.
const partsPerLevel = 16

// uploader carries the spool's head into the repository: the unfinished segment
// as parts, a finished one as a whole.
type uploader struct {
	repo     *repo.Repository
	cluster  string
	spool    *spool
	interval time.Duration // the longest that received WAL waits

	mu          sync.Mutex
	synchronous bool // a commit waits for us: store at once
	failing     time.Time
	failure     error
	wake        func() // called when durable has moved

	seg    pg.Segment    // that levels are of
	levels [][]repo.Part // parts in the repository, by level
}

// run stores what arrives until ctx ends, and then what is left, as far as the
// repository takes it within drain.
func (u *uploader) run(ctx context.Context, drain time.Duration) {
	tick := time.NewTimer(u.interval)
	defer tick.Stop()
	due := time.Now().Add(u.interval)
	for {
		select {
		case <-ctx.Done():
			dctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
			for {
				if more, err := u.step(dctx, true); err != nil || !more {
					break
				}
			}
			cancel()
			return
		case <-tick.C:
		case <-u.spool.work:
		}
		now := time.Now()
		flush := u.urgent() || !now.Before(due)
		more, err := u.step(ctx, flush)
		for more && err == nil && ctx.Err() == nil {
			more, err = u.step(ctx, flush)
		}
		if err != nil {
			u.failed(err, now)
			u.pause(ctx)
			u.spool.notify()
			continue
		}
		u.succeeded()
		if flush {
			due = now.Add(u.interval)
		}
		tick.Reset(time.Until(due))
	}
}

// pause waits a second after a failure: the store has retried by itself before.
func (u *uploader) pause(ctx context.Context) {
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// step does one thing to the head of the spool. more means that there may be
// another at once.
func (u *uploader) step(ctx context.Context, flush bool) (more bool, err error) {
	h, ok := u.spool.head()
	if !ok {
		return false, nil
	}
	if u.seg != h.seg {
		if err := u.adoptParts(ctx, h.seg); err != nil {
			return false, err
		}
	}
	whole := h.have == h.seg.Size
	if h.durable < h.have && (h.final || (flush && !whole) || (whole && u.urgent())) {
		if err := u.part(ctx, h); err != nil {
			return false, err
		}
		if !whole {
			return h.final, nil
		}
	}
	switch {
	case whole:
		err = u.segment(ctx, h)
	case h.final && h.durable == h.have:
		err = u.spool.stored(h.seg, h.have, true)
	default:
		return false, nil
	}
	u.moved()
	return err == nil, err
}

// adoptParts learns which parts of a segment the repository has already.
func (u *uploader) adoptParts(ctx context.Context, seg pg.Segment) error {
	parts, err := u.repo.Parts(ctx, u.cluster, seg)
	if err != nil {
		return err
	}
	u.seg, u.levels = seg, [][]repo.Part{parts}
	return nil
}

// part stores what is received of the head and not yet in the repository.
func (u *uploader) part(ctx context.Context, h spooled) error {
	p := repo.Part{Segment: h.seg, From: h.durable, To: h.have}
	if err := u.put(ctx, h, p); err != nil {
		return err
	}
	if err := u.spool.stored(h.seg, h.have, false); err != nil {
		return err
	}
	u.moved()
	u.levels[0] = append(u.levels[0], p)
	return u.merge(ctx, h)
}

func (u *uploader) put(ctx context.Context, h spooled, p repo.Part) error {
	data := make([]byte, p.To-p.From)
	if _, err := io.ReadFull(h.section(p.From, p.To), data); err != nil {
		return fmt.Errorf("read the WAL spool: %w", err)
	}
	return u.repo.PutPart(ctx, u.cluster, p, data)
}

// merge replaces full levels by one part of the next. The longer part is durable
// before the shorter ones go.
func (u *uploader) merge(ctx context.Context, h spooled) error {
	for l := 0; l < len(u.levels) && len(u.levels[l]) >= partsPerLevel; l++ {
		old := u.levels[l]
		p := repo.Part{Segment: h.seg, From: old[0].From, To: old[len(old)-1].To}
		if err := u.put(ctx, h, p); err != nil {
			return err
		}
		for _, o := range old {
			if o == p {
				continue
			}
			if err := u.repo.DeletePart(ctx, u.cluster, o); err != nil {
				return err
			}
		}
		u.levels[l] = nil
		if l+1 == len(u.levels) {
			u.levels = append(u.levels, nil)
		}
		u.levels[l+1] = append(u.levels[l+1], p)
	}
	return nil
}

// segment stores the whole head and removes its parts and its spool file.
func (u *uploader) segment(ctx context.Context, h spooled) error {
	if err := u.repo.PutSegment(ctx, u.cluster, h.seg, h.section(0, h.seg.Size)); err != nil {
		return err
	}
	if err := u.spool.stored(h.seg, h.seg.Size, true); err != nil {
		return err
	}
	u.moved()
	for _, level := range u.levels {
		for _, p := range level {
			if err := u.repo.DeletePart(ctx, u.cluster, p); err != nil {
				return err
			}
		}
	}
	u.seg, u.levels = pg.Segment{}, nil
	return nil
}

func (u *uploader) moved() {
	u.mu.Lock()
	wake := u.wake
	u.mu.Unlock()
	if wake != nil {
		wake()
	}
}

func (u *uploader) onMove(wake func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.wake = wake
}

func (u *uploader) urgent() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.synchronous
}

func (u *uploader) setSynchronous(on bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.synchronous = on
}

func (u *uploader) failed(err error, now time.Time) {
	if errors.Is(err, context.Canceled) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.failure == nil {
		u.failing = now
	}
	u.failure = err
}

func (u *uploader) succeeded() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.failing, u.failure = time.Time{}, nil
}

// health is since when the repository refuses, and with what; nil if it does not.
func (u *uploader) health() (since time.Time, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.failing, u.failure
}
