package archive

import (
	"context"
	"fmt"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// NewestTimeline is the highest timeline that the repository holds anything of; 0
// if it holds nothing.
func NewestTimeline(ctx context.Context, r *repo.Repository, cluster string) (pg.TimelineID, error) {
	tlis, err := r.Timelines(ctx, cluster)
	if err != nil || len(tlis) == 0 {
		return 0, err
	}
	return tlis[len(tlis)-1], nil
}

// HistoryError: a timeline's history was read and makes no sense.
type HistoryError struct {
	Timeline pg.TimelineID
	Cause    error
}

func (e *HistoryError) Error() string { return e.Cause.Error() }

// Unwrap returns the cause.
func (e *HistoryError) Unwrap() error { return e.Cause }

// History is the ancestry of a timeline. The first has none, and no file. Errors:
// repo.ErrNotFound, repo.ErrDamaged, *HistoryError, and the store's.
func History(ctx context.Context, r *repo.Repository, cluster string, tli pg.TimelineID) (pg.History, error) {
	if tli <= 1 {
		return pg.History{Timeline: tli}, nil
	}
	text, err := r.History(ctx, cluster, tli)
	if err != nil {
		return pg.History{}, fmt.Errorf("history of timeline %d: %w", tli, err)
	}
	h, err := pg.ParseHistory(tli, text)
	if err != nil {
		return h, &HistoryError{Timeline: tli, Cause: err}
	}
	return h, nil
}
