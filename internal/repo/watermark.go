package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"pileus/internal/pg"
	"pileus/internal/store"
)

// Watermark states: every transaction that the server had committed at Time lies
// before LSN on Timeline, and the repository's WAL is durable up to LSN. It is
// what makes "restore to 11:00" answerable when the last commit was at 10:00.
type Watermark struct {
	Timeline pg.TimelineID
	LSN      pg.LSN
	Time     time.Time // server's clock, microseconds
}

func watermarkPrefix(cluster string) string { return "clusters/" + cluster + "/watermarks/" }

func (w Watermark) key(cluster string) string {
	return fmt.Sprintf("%s%016X-%08X-%016X", watermarkPrefix(cluster), uint64(w.Time.UnixMicro()), uint32(w.Timeline), uint64(w.LSN))
}

// PutWatermark stores a watermark and removes those before the one it follows.
func (r *Repository) PutWatermark(ctx context.Context, cluster string, w Watermark) error {
	old, err := r.Watermarks(ctx, cluster)
	if err != nil {
		return err
	}
	if err := r.store.Put(ctx, w.key(cluster), bytes.NewReader(nil)); err != nil && !errors.Is(err, store.ErrExists) {
		return fmt.Errorf("store watermark of %s: %w", cluster, err)
	}
	for i := 0; i+1 < len(old); i++ {
		if old[i].Timeline != w.Timeline {
			continue // the last word on a timeline that was left
		}
		if err := r.store.Delete(ctx, old[i].key(cluster)); err != nil {
			return fmt.Errorf("remove an old watermark of %s: %w", cluster, err)
		}
	}
	return nil
}

// Watermarks lists the watermarks that are kept, oldest first.
func (r *Repository) Watermarks(ctx context.Context, cluster string) ([]Watermark, error) {
	prefix := watermarkPrefix(cluster)
	var out []Watermark
	for info, err := range r.store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list watermarks of %s: %w", cluster, err)
		}
		f := strings.Split(info.Key[len(prefix):], "-")
		if len(f) != 3 {
			return nil, damaged(info.Key, "its name is not that of a watermark")
		}
		micro, err1 := strconv.ParseInt(f[0], 16, 64)
		tli, err2 := strconv.ParseUint(f[1], 16, 32)
		lsn, err3 := strconv.ParseUint(f[2], 16, 64)
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, damaged(info.Key, "its name is not that of a watermark")
		}
		out = append(out, Watermark{Timeline: pg.TimelineID(tli), LSN: pg.LSN(lsn), Time: time.UnixMicro(micro).UTC()})
	}
	return out, nil
}
