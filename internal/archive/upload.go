package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// partsPerLevel is how many parts of one level are merged into one of the next.
// A segment so never has more than a few dozen, and each byte is stored about
// three times at the worst before its segment is whole.
const partsPerLevel = 16

// maxPart bounds one part, and so the memory that it takes, in bytes.
const maxPart = 8 << 20

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

	histories map[pg.TimelineID][]byte // to be stored
	stored    map[pg.TimelineID]bool   // histories that are

	seg    pg.Segment    // that levels are of
	levels [][]repo.Part // parts in the repository, by level
}

func newUploader(r *repo.Repository, cluster string, sp *spool, interval time.Duration) *uploader {
	return &uploader{repo: r, cluster: cluster, spool: sp, interval: interval,
		histories: map[pg.TimelineID][]byte{}, stored: map[pg.TimelineID]bool{}}
}

// run stores what arrives until ctx ends, and then what is left, as far as the
// repository takes it within drain. It keeps trying; an error is final: the
// repository holds other WAL, or another history, under the same name.
func (u *uploader) run(ctx context.Context, drain time.Duration) error {
	u.seg, u.levels = pg.Segment{}, nil // another may have been at work meanwhile
	tick := time.NewTimer(u.interval)
	defer tick.Stop()
	due := time.Now().Add(u.interval)
	for {
		select {
		case <-ctx.Done():
			dctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
			defer cancel()
			for {
				if more, err := u.step(dctx, true); final(err) {
					return err
				} else if err != nil || !more {
					return nil // what is left stays in the spool
				}
			}
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
			if final(err) {
				return err
			}
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
	if err := u.putHistories(ctx); err != nil {
		return false, err
	}
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
		all, err := u.part(ctx, h)
		if err != nil {
			return false, err
		}
		if !whole || !all {
			return h.final || !all, nil
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

// part stores what is received of the head and not yet in the repository, or
// as much of it as one part may hold; all tells which.
func (u *uploader) part(ctx context.Context, h spooled) (all bool, err error) {
	p := repo.Part{Segment: h.seg, From: h.durable, To: min(h.have, h.durable+maxPart)}
	if err := u.put(ctx, h, p); err != nil {
		return false, err
	}
	if err := u.spool.stored(h.seg, p.To, false); err != nil {
		return false, err
	}
	u.moved()
	u.levels[0] = append(u.levels[0], p)
	return p.To == h.have, u.merge(ctx, h)
}

func (u *uploader) put(ctx context.Context, h spooled, p repo.Part) error {
	data := make([]byte, p.To-p.From)
	if _, err := io.ReadFull(h.section(p.From, p.To), data); err != nil {
		return fmt.Errorf("read the WAL spool: %w", err)
	}
	return u.repo.PutPart(ctx, u.cluster, p, data)
}

// merge replaces full levels by one part of the next. The longer part is durable
// before the shorter ones go. What has grown to maxPart stays as it is.
func (u *uploader) merge(ctx context.Context, h spooled) error {
	for l := 0; l < len(u.levels) && len(u.levels[l]) >= partsPerLevel; l++ {
		p := repo.Part{Segment: h.seg, From: u.levels[l][0].From}
		n := 0
		for ; n < len(u.levels[l]) && max(p.To, u.levels[l][n].To)-p.From <= maxPart; n++ {
			p.To = max(p.To, u.levels[l][n].To)
		}
		old := u.levels[l][:n]
		if n < 2 { // it stays as it is, and counts no more
			u.levels[l] = u.levels[l][1:]
			continue
		}
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
		u.levels[l] = slices.Clone(u.levels[l][n:])
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
	u.seg, u.levels = pg.Segment{}, nil
	return u.removeParts(ctx, h.seg)
}

// removeParts removes the parts of a segment that is whole in the repository. It
// lists them, since some have left the levels, or are of a receiver before.
func (u *uploader) removeParts(ctx context.Context, seg pg.Segment) error {
	parts, err := u.repo.Parts(ctx, u.cluster, seg)
	for _, p := range parts {
		err = errors.Join(err, u.repo.DeletePart(ctx, u.cluster, p))
	}
	return err
}

// sweep removes the parts of whole segments that a receiver which was killed left.
func (u *uploader) sweep(ctx context.Context, segmentSize int64) error {
	segs, err := u.repo.PartSegments(ctx, u.cluster, segmentSize)
	if err != nil {
		return err
	}
	for _, seg := range segs {
		whole, err := u.repo.HasSegment(ctx, u.cluster, seg)
		if err == nil && whole {
			err = u.removeParts(ctx, seg)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// addHistory has a timeline's history stored before any more WAL is.
func (u *uploader) addHistory(tli pg.TimelineID, content []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.stored[tli] {
		u.histories[tli] = content
		u.spool.notify()
	}
}

// hasHistory tells whether addHistory had this timeline's before.
func (u *uploader) hasHistory(tli pg.TimelineID) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stored[tli] || u.histories[tli] != nil
}

func (u *uploader) putHistories(ctx context.Context) error {
	u.mu.Lock()
	pending := maps.Clone(u.histories)
	u.mu.Unlock()
	for tli, content := range pending {
		if err := u.repo.PutHistory(ctx, u.cluster, tli, content); err != nil {
			return fmt.Errorf("store the history of timeline %d: %w", tli, err)
		}
		u.mu.Lock()
		delete(u.histories, tli)
		u.stored[tli] = true
		u.mu.Unlock()
	}
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
