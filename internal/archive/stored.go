package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// errUnstored: the repository has neither the segment nor parts of it.
var errUnstored = errors.New("no such segment in the repository")

// openStored opens a complete segment, or what there is of an unfinished one.
func openStored(ctx context.Context, r *repo.Repository, c repo.Cluster, s pg.Segment) (io.ReadCloser, error) {
	rc, err := r.OpenSegment(ctx, c.Name, s)
	if !errors.Is(err, repo.ErrNotFound) {
		return rc, err
	}
	data, err := r.ReadParts(ctx, c.Name, s)
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		// It may have become whole between the two looks.
		if rc, err := r.OpenSegment(ctx, c.Name, s); !errors.Is(err, repo.ErrNotFound) {
			return rc, err
		}
		return nil, fmt.Errorf("%s: %w", s, errUnstored)
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}
