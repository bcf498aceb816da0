package backup

import (
	"context"
	"testing"

	"pileus/internal/pg"
)

// A page's LSN is where the record ends that changed it last, so one that equals the
// backup's start was changed before, and its WAL is not in the backup.
func TestWALCoversWhatEndsAfterTheStart(t *testing.T) {
	h := &horizon{start: 1000, ask: func(context.Context) (pg.LSN, error) { return 2000, nil }}
	for lsn, want := range map[pg.LSN]bool{0: false, 999: false, 1000: false, 1001: true, 2000: true, 2001: false} {
		if got, err := h.covers(t.Context(), lsn); err != nil || got != want {
			t.Errorf("LSN %d: %t, %v", lsn, got, err)
		}
	}
}
