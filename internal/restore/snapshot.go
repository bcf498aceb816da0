package restore

import (
	"context"
	"errors"
	"fmt"

	"pileus/internal/progress"
	"pileus/internal/repo"
)

// resolveBackup resolves the targets that name a backup, directly or by a snapshot.
// The timeline is the backup's own, whatever the cluster did later.
func resolveBackup(ctx context.Context, r *repo.Repository, cluster string, wal WAL, t Target, report progress.Reporter) (Resolution, error) {
	id := t.Name
	if t.Kind == ToSnapshot {
		s, err := r.Snapshot(ctx, cluster, t.Name)
		if errors.Is(err, repo.ErrNotFound) {
			return Resolution{}, fmt.Errorf("%w: cluster %s has no snapshot %s; `pileus list %s` shows those there are", ErrNoBackup, cluster, t.Name, cluster)
		}
		if err != nil {
			return Resolution{}, fmt.Errorf("read snapshot %s: %w", t.Name, err)
		}
		id = s.Backup
	}
	b, err := r.Backup(ctx, cluster, id)
	if errors.Is(err, repo.ErrNotFound) {
		return Resolution{}, fmt.Errorf("%w: cluster %s has no backup %s; `pileus list %s` shows those there are", ErrNoBackup, cluster, id, cluster)
	}
	if err != nil {
		return Resolution{}, fmt.Errorf("read backup %s: %w", id, err)
	}
	path, err := readHistory(ctx, r, cluster, b.Timeline)
	if err != nil {
		return Resolution{}, err
	}
	return consistent(ctx, catalog{cluster: cluster, path: path, backups: []repo.Backup{b}}, wal, t, report)
}

// consistent checks that the WAL which the catalog's only backup needs is there.
func consistent(ctx context.Context, cat catalog, wal WAL, t Target, report progress.Reporter) (Resolution, error) {
	b := cat.backups[0]
	rs := resolver{cat: cat, wal: wal, target: t, report: report, seen: cat.window()}
	s, err := scan(ctx, wal, cat.path, b.StartLSN, b.StopLSN, t, report)
	if err != nil {
		return Resolution{}, fmt.Errorf("read the WAL of backup %s: %w", b.ID, err)
	}
	if s.gap != nil {
		return Resolution{}, rs.gap(s)
	}
	end := s.ended
	if s.eof {
		if _, err := rs.atEnd(b, &end); err != nil {
			return Resolution{}, err
		}
	}
	res := Resolution{Backup: b, Timeline: cat.path.Timeline, path: cat.path, Immediate: true, StopLSN: b.StopLSN, EndLSN: b.StopLSN, LastCommit: end.commit}
	rs.notes(&res)
	return res, nil
}
