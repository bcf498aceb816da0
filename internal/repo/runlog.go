package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"pileus/internal/store"
)

func runKey(run string, seq int) string { return fmt.Sprintf("runs/%s/%08d", run, seq) }

// PutRunEntry keeps a copy of one entry of a recovery run's journal, which is outside the database that is
// recovered and may be outside the host that is lost. Entries are immutable: the same one again is no error.
func (r *Repository) PutRunEntry(ctx context.Context, run string, seq int, entry []byte) error {
	err := r.putObject(ctx, runKey(run, seq), KindRun, func(w io.Writer) error {
		_, err := w.Write(entry)
		return err
	})
	if errors.Is(err, store.ErrExists) {
		return r.sameContent(ctx, runKey(run, seq), KindRun, bytes.NewReader(entry))
	}
	return err
}

// RunEntry reads one. Absent: ErrNotFound.
func (r *Repository) RunEntry(ctx context.Context, run string, seq int) ([]byte, error) {
	return r.readObject(ctx, runKey(run, seq), KindRun)
}
