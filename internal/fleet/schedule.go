package fleet

import (
	"context"
	"slices"
	"time"

	"pileus/internal/archive"
	"pileus/internal/control"
	"pileus/internal/progress"
	"pileus/internal/repo"
)

// The rhythm of the schedule.
const (
	scheduleTick = time.Second
	pruneEvery   = time.Hour
	// retryBackup is how long a backup that failed waits, longer with each failure.
	retryBackup, retryBackupMax = time.Minute, time.Hour
	// pruneGrace is how long a pack stays after nothing names it, well above what any
	// backup takes.
	pruneGrace = 24 * time.Hour
)

// jobBackup names automated backups in the ledger.
const jobBackup = "backup"

// schedule starts automated backups, pending changes and prunes when they are due, until ctx ends.
func (f *Fleet) schedule(ctx context.Context) {
	tick := time.NewTicker(scheduleTick)
	defer tick.Stop()
	busy := map[string]chan struct{}{}
	var pruned time.Time
	for {
		f.schedulePending()
		for _, id := range f.due(ctx, busy) {
			done := make(chan struct{})
			busy[id] = done
			f.work.Go(func() {
				defer close(done)
				f.automatedBackup(ctx, id)
			})
		}
		if now := time.Now(); now.Sub(pruned) > pruneEvery && unoccupied(busy, "prune") {
			pruned = now
			done := make(chan struct{})
			busy["prune"] = done
			f.work.Go(func() {
				defer close(done)
				f.prune(ctx)
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// unoccupied tells whether no job of that name runs.
func unoccupied(busy map[string]chan struct{}, name string) bool {
	done, ok := busy[name]
	if !ok {
		return true
	}
	select {
	case <-done:
		delete(busy, name)
		return true
	default:
		return false
	}
}

// due lists the clusters whose automated backup should begin now.
func (f *Fleet) due(ctx context.Context, busy map[string]chan struct{}) []string {
	var out []string
	f.mu.Lock()
	var all []Cluster
	for id := range f.runtimes {
		if c := f.byResourceID(id); c != nil && c.Status == StatusAvailable && c.Operation == nil {
			all = append(all, c.clone())
		}
	}
	f.mu.Unlock()
	for _, c := range all {
		if unoccupied(busy, c.ResourceID) && f.backupDue(ctx, c) {
			out = append(out, c.ResourceID)
		}
	}
	return out
}

// backupDue tells whether a cluster needs a backup: it has none that the WAL since reaches, or none
// since its window last opened. After a failure it waits.
func (f *Fleet) backupDue(ctx context.Context, c Cluster) bool {
	v, err := f.catalog.within(ctx, c.Archive, settled)
	if err != nil {
		return false // the repository is away; Health says so
	}
	last, err := f.o.Ledger.LastAttempt(ctx, c.ResourceID, jobBackup)
	if err == nil && last.Failures > 0 {
		pause := min(retryBackup<<min(last.Failures-1, 10), retryBackupMax)
		if f.age(last.At) < pause {
			return false
		}
	}
	backups := slices.DeleteFunc(slices.Clone(v.Backups), func(b control.BackupView) bool { return b.Problem != "" })
	if len(backups) == 0 {
		return true
	}
	if f.needsBackup(c, v) {
		return true
	}
	window, err := parseDayWindow(c.BackupWindow)
	return err == nil && backups[len(backups)-1].Started.Before(window.latest(f.now()))
}

// needsBackup tells whether WAL was lost since the newest backup, so that only a new
// one makes the present restorable again.
func (f *Fleet) needsBackup(c Cluster, v control.ClusterView) bool {
	lost, err := archive.ReadLost(f.o.Deployment.Config.StateDir, c.Archive)
	if err == nil && lost != nil {
		return true
	}
	gap := v.Receiver != nil && v.Receiver.Gap != nil && len(v.Backups) > 0 && v.Backups[len(v.Backups)-1].StartLSN < v.Receiver.Gap.To
	return gap
}

func (f *Fleet) automatedBackup(ctx context.Context, id string) {
	c, ok := f.snapshotOf(id)
	if !ok {
		return
	}
	f.event(kindCluster, c.Identifier, "backup", "Backing up DB cluster")
	b, err := f.backup(ctx, c, "", nil)
	if ctx.Err() != nil {
		return
	}
	if lerr := f.o.Ledger.Attempt(ctx, id, jobBackup, f.now(), err); lerr != nil {
		f.o.Log.Error("the ledger did not take a backup's result", "error", lerr)
	}
	f.note("backup "+id, err)
	if err != nil {
		f.event(kindCluster, c.Identifier, "failure", "The automated backup failed and is tried again: %s", err)
		return
	}
	f.event(kindCluster, c.Identifier, "backup", "Finished DB cluster backup")
	f.o.Log.Info("backed up", "cluster", c.Identifier, "backup", b.ID, "bytes", b.Size, "stored", b.Stored)
}

// prune removes what retention does not keep. What is read by a restore stays.
func (f *Fleet) prune(ctx context.Context) {
	keep := f.retentions()
	plan, err := repo.Prune(ctx, f.o.Deployment.Repo, repo.PruneOptions{Now: time.Now(), Grace: pruneGrace, Progress: progress.Silent{}, Retention: keep})
	f.note("prune", err)
	if err != nil {
		if ctx.Err() == nil {
			f.o.Log.Error("pruning failed and is tried again in an hour", "error", err)
		}
		return
	}
	if len(plan.Backups) > 0 || plan.PacksRemoved > 0 {
		f.o.Log.Info("pruned", "backups", len(plan.Backups), "segments", plan.Segments, "packs", plan.PacksRemoved, "bytes", plan.BytesRemoved)
	}
	f.forgetRetained(ctx)
}

// retentions says how long the automated backups of each cluster are kept. What only the
// repository knows is left alone.
func (f *Fleet) retentions() func(string) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	keep := map[string]time.Duration{}
	for _, c := range f.retained {
		keep[c.Archive] = retention(*c)
		if c.Dropped || f.age(c.Deleted) > retention(*c) {
			keep[c.Archive] = repo.SnapshotsOnly
		}
	}
	// The living come last: whatever was deleted under the same name, theirs stays.
	for _, c := range f.attached {
		if conf, ok := f.conf(c); ok {
			keep[c.Archive] = conf.Retention
		}
	}
	for _, c := range f.clusters {
		keep[c.Archive] = retention(*c)
	}
	for _, c := range f.clusters {
		if c.Operation != nil && c.Operation.Restore != nil {
			delete(keep, c.Operation.Restore.Cluster)
		}
	}
	return func(archive string) time.Duration { return keep[archive] }
}

// forgetRetained removes the documents of deleted clusters of which nothing is left, and their
// names from the repository.
func (f *Fleet) forgetRetained(ctx context.Context) {
	f.mu.Lock()
	var gone []Cluster
	for _, c := range f.retained {
		if c.Dropped || f.age(c.Deleted) > retention(*c) {
			gone = append(gone, c.clone())
		}
	}
	f.mu.Unlock()
	for _, c := range gone {
		f.catalog.forget(c.Archive)
		v, err := f.catalog.get(ctx, c.Archive)
		if err != nil || len(v.Backups) > 0 || len(v.Snapshots) > 0 {
			continue
		}
		if v.Identity != nil {
			if err := f.o.Deployment.Repo.DeleteCluster(ctx, c.Archive); err != nil {
				f.o.Log.Warn("a deleted cluster's name could not be removed from the repository", "cluster", c.Archive, "error", err)
				continue
			}
		}
		f.mu.Lock()
		if err := f.docs.retained.remove(c.ResourceID); err == nil {
			delete(f.retained, c.ResourceID)
		}
		f.mu.Unlock()
	}
}

// schedulePending carries out changes that wait, in clusters whose maintenance window is open.
func (f *Fleet) schedulePending() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.clusters {
		if c.Pending == nil || c.Operation != nil || c.Status != StatusAvailable {
			continue
		}
		window, err := parseWeekWindow(c.MaintenanceWindow)
		if err != nil || !window.open(f.now()) {
			continue
		}
		if err := f.begin(c, StatusModifying, Operation{Kind: OpModify, Immediately: true, NewIdentifier: c.Pending.Identifier}); err != nil {
			f.o.Log.Error("a pending change could not be begun", "cluster", c.Identifier, "error", err)
		}
	}
}
