package backup

import (
	"context"
	"errors"
	"sync"
	"time"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// A page that the server writes while it is read may be seen half old and half
// new. It is read again this often, with these pauses between, before it counts.
var rereads = [...]time.Duration{0, 2 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond}

// horizon knows how far WAL can reach at the moment, to tell a page that was
// changed since the backup began from one whose header is garbage.
type horizon struct {
	start pg.LSN
	mu    sync.Mutex
	end   pg.LSN
	ask   func(context.Context) (pg.LSN, error) // nil: end is not known
}

// covers tells whether WAL replay will bring a page with this LSN into order: it was
// changed after the backup's start, so its full image is in the WAL.
func (h *horizon) covers(ctx context.Context, lsn pg.LSN) bool {
	if lsn < h.start {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if lsn > h.end && h.ask != nil {
		if end, err := h.ask(ctx); err == nil {
			h.end = end
		}
	}
	return lsn <= h.end || h.ask == nil
}

// checkPages verifies the pages of one chunk in place, which starts at offset of
// the file. reread reads a page again into its argument; nil if that is impossible.
func (r *run) checkPages(ctx context.Context, h *horizon, f *file, offset int64, data []byte, reread func(page []byte, offset int64) error) error {
	for i := 0; i+pg.PageSize <= len(data); i += pg.PageSize {
		page := data[i : i+pg.PageSize]
		at := offset + int64(i)
		block := f.first + uint32(at/pg.PageSize)
		if pg.CheckPage(page, block) == nil {
			continue
		}
		ok, err := settle(ctx, h, page, block, at, reread)
		if err != nil {
			return err
		}
		if !ok {
			head := pg.PageHeader(page)
			r.result.bad(repo.Damage{Path: f.entry.Path, Block: at / pg.PageSize, LSN: head.LSN(),
				Expected: pg.Checksum(page, block), Found: head.Checksum()})
		}
	}
	return nil
}

// errShrunk: the page that was to be read again is gone, as the file was truncated.
var errShrunk = errors.New("the file was truncated")

// settle decides about a page that failed its check.
func settle(ctx context.Context, h *horizon, page []byte, block uint32, at int64, reread func([]byte, int64) error) (ok bool, err error) {
	for _, pause := range rereads {
		if h.covers(ctx, pg.PageHeader(page).LSN()) {
			return true, nil
		}
		if reread == nil {
			return false, nil
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return false, context.Cause(ctx)
		}
		if err := reread(page, at); errors.Is(err, errShrunk) {
			return true, nil // the truncation is in the WAL
		} else if err != nil {
			return false, err
		}
		if pg.CheckPage(page, block) == nil {
			return true, nil
		}
	}
	return h.covers(ctx, pg.PageHeader(page).LSN()), nil
}
