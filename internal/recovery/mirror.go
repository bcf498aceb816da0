package recovery

import (
	"context"
	"encoding/json"

	"pileus/internal/repo"
)

// RepositoryMirror keeps the second copy of journals in the repository, an object for each entry.
type RepositoryMirror struct{ Repo *repo.Repository }

// mirrored is one object: the entry, and what the run is.
type mirrored struct {
	Run   Run   `json:"run"`
	Entry Entry `json:"entry"`
}

// Put implements Mirror.
func (m RepositoryMirror) Put(ctx context.Context, run Run, e Entry) error {
	text, err := json.Marshal(mirrored{run, e})
	if err != nil {
		return err
	}
	return m.Repo.PutRunEntry(ctx, run.ID, e.Seq, text)
}
