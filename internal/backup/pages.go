package backup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/repo"
)

// A page that the server writes while it is read may be seen half old and half
// new. It is read again this often, with these pauses before, until it counts.
var rereads = [...]time.Duration{0, 2 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond}

// errShrunk: the page that was to be read again is gone, as its file was
// truncated or dropped. WAL replay does the same.
var errShrunk = errors.New("the file was truncated")

// errBlind: pages cannot be read again.
var errBlind = errors.New("pages cannot be read again")

// horizon knows where the backup's WAL starts and how far WAL can reach at the moment,
// to tell a page that was changed since the backup began from one whose header is garbage.
type horizon struct {
	start pg.LSN

	mu    sync.Mutex
	end   pg.LSN
	ask   func(context.Context) (pg.LSN, error)
	conn  *postgres.Conn
	blind bool
}

// newHorizon opens a session of its own, since the run's one may be in use.
func (r *run) newHorizon(ctx context.Context) (*horizon, error) {
	conn, err := r.SQL(ctx)
	if err != nil {
		return nil, err
	}
	return &horizon{conn: conn, ask: conn.CurrentLSN}, nil
}

func (h *horizon) close(ctx context.Context) {
	_ = h.conn.Close(context.WithoutCancel(ctx)) // all was read
}

// covers tells whether WAL replay will bring a page with this LSN into order: it was
// changed after the backup's start, so its full image is in the WAL.
func (h *horizon) covers(ctx context.Context, lsn pg.LSN) (bool, error) {
	if lsn <= h.start { // a page's LSN is where the record ends that changed it last
		return false, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if lsn > h.end {
		end, err := h.ask(ctx)
		if err != nil {
			return false, err
		}
		h.end = end
	}
	return lsn <= h.end, nil
}

// fetch reads a page again through the server, into page. Errors: errShrunk, errBlind
// if the role may not (pg_read_binary_file).
func (h *horizon) fetch(ctx context.Context, path string, page []byte, offset int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.blind {
		return errBlind
	}
	var b []byte
	err := h.conn.SQL().QueryRow(ctx, `SELECT pg_read_binary_file($1, $2, $3, true)`, path, offset, int64(len(page))).Scan(&b)
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused) && refused.Code == "42501":
		h.blind = true
		return errBlind
	case err != nil:
		return fmt.Errorf("read %s again: %w", path, err)
	case len(b) < len(page):
		return errShrunk
	}
	copy(page, b)
	return nil
}

// check verifies the pages of one chunk of f, which starts at offset. again reads a
// page once more. If late, that may happen after the end of the backup, and a page from then must not
// be taken for the one that was read first: it may hold what a recovery is to leave out.
type check struct {
	r      *run
	h      *horizon
	f      *file
	offset int64
	data   []byte
	again  func(ctx context.Context, page []byte, offset int64) error
	late   bool
}

// pages mends in place what was only read at a bad moment, and reports the rest as damage.
func (c *check) pages(ctx context.Context) error {
	bad := c.failed()
	if len(bad) == 0 {
		return nil
	}
	fresh := make([]byte, pg.PageSize)
	for _, pause := range rereads {
		if err := wait(ctx, pause); err != nil {
			return err
		}
		still := bad[:0]
		for _, i := range bad {
			settled, err := c.settle(ctx, i, fresh)
			if err != nil {
				return err
			}
			if !settled {
				still = append(still, i)
			}
		}
		if bad = still; len(bad) == 0 {
			return nil
		}
	}
	for _, i := range bad {
		page, at := c.data[i:i+pg.PageSize], c.offset+int64(i)
		head := pg.PageHeader(page)
		c.r.result.bad(repo.Damage{Path: c.f.entry.Path, Block: at / pg.PageSize, LSN: head.LSN(),
			Expected: pg.Checksum(page, c.block(i)), Found: head.Checksum()})
	}
	return nil
}

// failed finds the pages that do not pass, by their place in data.
func (c *check) failed() (bad []int) {
	for i := 0; i+pg.PageSize <= len(c.data); i += pg.PageSize {
		if pg.CheckPage(c.data[i:i+pg.PageSize], c.block(i)) != nil {
			bad = append(bad, i)
		}
	}
	return bad
}

// block is the number, within the relation fork, of the page at place i of data.
func (c *check) block(i int) uint32 {
	return c.f.first + uint32((c.offset+int64(i))/pg.PageSize)
}

func (c *check) settle(ctx context.Context, i int, fresh []byte) (bool, error) {
	page := c.data[i : i+pg.PageSize]
	if ok, err := c.h.covers(ctx, pg.PageHeader(page).LSN()); ok || err != nil {
		return ok, err
	}
	switch err := c.again(ctx, fresh, c.offset+int64(i)); {
	case errors.Is(err, errShrunk):
		return true, nil
	case errors.Is(err, errBlind):
		return false, nil
	case err != nil:
		return false, err
	}
	covered, err := c.h.covers(ctx, pg.PageHeader(fresh).LSN())
	if err != nil {
		return false, err
	}
	sound := pg.CheckPage(fresh, c.block(i)) == nil
	if sound && !(c.late && covered) {
		copy(page, fresh)
	}
	return sound || covered, nil
}

func wait(ctx context.Context, pause time.Duration) error {
	if pause == 0 {
		return nil
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
