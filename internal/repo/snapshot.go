package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"pileus/internal/pg"
	"pileus/internal/store"
)

// Snapshot is a name that keeps a backup, and the WAL it needs to be consistent,
// until the snapshot is deleted.
type Snapshot struct {
	Name    string            `json:"name"`
	Cluster string            `json:"cluster"`
	Backup  string            `json:"backup"`
	LSN     pg.LSN            `json:"lsn"` // the backup's StopLSN
	Time    time.Time         `json:"time"`
	Created time.Time         `json:"created"`
	Tags    map[string]string `json:"tags,omitempty"`
	// About is what its maker wants to know again, such as what the cluster was like. The
	// repository does not look into it.
	About json.RawMessage `json:"about,omitempty"`
}

func snapshotKey(cluster, name string) string { return "clusters/" + cluster + "/snapshots/" + name }

// PutSnapshot creates a snapshot. A used name is store.ErrExists.
func (r *Repository) PutSnapshot(ctx context.Context, s Snapshot) error {
	err := r.putObject(ctx, snapshotKey(s.Cluster, s.Name), KindSnapshot, func(w io.Writer) error { return json.NewEncoder(w).Encode(s) })
	if err != nil {
		return fmt.Errorf("create snapshot %s: %w", s.Name, err)
	}
	return nil
}

// Snapshot reads one snapshot. Absent: ErrNotFound.
func (r *Repository) Snapshot(ctx context.Context, cluster, name string) (Snapshot, error) {
	var s Snapshot
	b, err := r.readObject(ctx, snapshotKey(cluster, name), KindSnapshot)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, damaged(snapshotKey(cluster, name), "%v", err)
	}
	return s, nil
}

// HasSnapshot tells whether the name is used.
func (r *Repository) HasSnapshot(ctx context.Context, cluster, name string) (bool, error) {
	_, err := r.store.Stat(ctx, snapshotKey(cluster, name))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Snapshots yields the snapshots of a cluster, by name.
func (r *Repository) Snapshots(ctx context.Context, cluster string) iter.Seq2[Snapshot, error] {
	prefix := snapshotKey(cluster, "")
	return func(yield func(Snapshot, error) bool) {
		for info, err := range r.store.List(ctx, prefix) {
			if err != nil {
				yield(Snapshot{}, fmt.Errorf("list snapshots of %s: %w", cluster, err))
				return
			}
			s, err := r.Snapshot(ctx, cluster, info.Key[len(prefix):])
			if errors.Is(err, ErrNotFound) {
				continue // deleted meanwhile
			}
			if !yield(s, err) {
				return
			}
		}
	}
}

// DeleteSnapshot removes the name; what only it kept goes with the next prune.
func (r *Repository) DeleteSnapshot(ctx context.Context, cluster, name string) error {
	used, err := r.HasSnapshot(ctx, cluster, name)
	if err != nil {
		return err
	}
	if !used {
		return fmt.Errorf("snapshot %s of %s is %w", name, cluster, ErrNotFound)
	}
	return r.store.Delete(ctx, snapshotKey(cluster, name))
}
