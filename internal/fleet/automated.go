package fleet

import (
	"cmp"
	"context"
	"slices"
	"time"

	"pileus/internal/control"
	"pileus/internal/postgres"
)

// archives lists every cluster that has, or may have, something in the repository: living
// ones, retained ones, and those that only the repository knows.
func (f *Fleet) archives(ctx context.Context) ([]Cluster, error) {
	names, err := f.catalog.all(ctx)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	var out []Cluster
	known := map[string]bool{}
	for _, set := range []map[string]*Cluster{f.clusters, f.attached, f.retained} {
		for _, c := range set {
			out = append(out, f.seen(c))
			known[c.Archive] = true
		}
	}
	f.mu.Unlock()
	for _, name := range names {
		if known[name] {
			continue
		}
		v, err := f.catalog.get(ctx, name)
		if err != nil {
			return nil, err
		}
		out = append(out, stranger(name, v))
	}
	slices.SortFunc(out, func(a, b Cluster) int { return cmp.Compare(a.Archive, b.Archive) })
	for i := range out {
		out[i].ARN = f.arn(kindCluster, out[i].Identifier)
	}
	return out, nil
}

// stranger is a cluster that the repository alone knows: restored from its backups it is
// PostgreSQL like any other.
func stranger(name string, v control.ClusterView) Cluster {
	c := Cluster{Identifier: name, ResourceID: derivedResourceID("cluster-", name), Archive: name, Status: StatusRetained, Engine: engineAurora,
		EngineMode: "provisioned", RetentionDays: 1}
	if v.Identity != nil {
		c.Created = v.Identity.Created
	}
	if n := len(v.Backups); n > 0 {
		c.EngineVersion = postgres.FormatVersion(v.Backups[n-1].Version)
		c.StorageBytes = v.Backups[n-1].Size
	}
	return c
}

// AutomatedBackups lists the restorable windows of living and deleted clusters.
func (f *Fleet) AutomatedBackups(ctx context.Context) ([]AutomatedBackup, error) {
	all, err := f.archives(ctx)
	if err != nil {
		return nil, err
	}
	out := []AutomatedBackup{}
	for _, c := range all {
		if c.Dropped {
			continue
		}
		f.window(ctx, &c, fresh)
		b := AutomatedBackup{Cluster: c, Status: StatusActive}
		if c.Status == StatusRetained || !c.Deleted.IsZero() {
			if c.Earliest.IsZero() {
				continue // nothing of it can be restored to a moment
			}
			b.Status = StatusRetained
			b.Retained = c.Deleted.Add(retention(c))
		}
		out = append(out, b)
	}
	return out, nil
}

func retention(c Cluster) time.Duration { return time.Duration(c.RetentionDays) * 24 * time.Hour }

// DeleteAutomatedBackup gives up the retained backups of a deleted cluster. Its snapshots stay.
func (f *Fleet) DeleteAutomatedBackup(ctx context.Context, resourceID string) (AutomatedBackup, error) {
	all, err := f.AutomatedBackups(ctx)
	if err != nil {
		return AutomatedBackup{}, err
	}
	i := slices.IndexFunc(all, func(b AutomatedBackup) bool { return b.Cluster.ResourceID == resourceID })
	if i < 0 {
		return AutomatedBackup{}, fault(CodeBackupNotFound, "No automated backup has the resource ID %s.", resourceID)
	}
	b := all[i]
	if b.Status != StatusRetained {
		return AutomatedBackup{}, fault(CodeBackupState, "The automated backup of %s is active: it goes with its DB cluster.", b.Cluster.Identifier)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c := b.Cluster.clone()
	c.Dropped, c.Status = true, StatusRetained
	if c.Deleted.IsZero() {
		c.Deleted = f.now()
	}
	if err := f.docs.retained.save(c.ResourceID, &c); err != nil {
		return AutomatedBackup{}, err
	}
	f.retained[c.ResourceID] = &c
	f.event(kindCluster, c.Identifier, "backup", "Retained automated backups deleted")
	b.Status = StatusDeleting
	return b, nil
}
