package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"pileus/internal/control"
	"pileus/internal/repo"
	"pileus/internal/restore"
)

// RestoreToPointInTime begins to restore a new cluster as another one was at a moment.
func (f *Fleet) RestoreToPointInTime(ctx context.Context, q RestoreToPointInTime) (Cluster, error) {
	if err := checkRestoreRequest(q); err != nil {
		return Cluster{}, err
	}
	source, err := f.restoreSource(ctx, q)
	if err != nil {
		return Cluster{}, err
	}
	from := &RestoreSource{Cluster: source.Archive, Latest: q.Latest, Time: q.Time.UTC(), XID: q.XID, LSN: q.LSN, Exclusive: q.Exclusive}
	if q.Time.IsZero() {
		from.Time = time.Time{}
	}
	if err := f.checkWindow(ctx, source, from); err != nil {
		return Cluster{}, err
	}
	if err := f.o.Deployment.ProbeServers(ctx); err != nil {
		return Cluster{}, fault(CodeInvalidRestore, "%v", err)
	}
	c, err := f.heir(ctx, q.Identifier, source)
	if err != nil {
		return Cluster{}, err
	}
	c.Tags = mergeTags(nil, q.Tags)
	c.Operation = &Operation{Kind: OpRestore, Started: f.now(), From: StatusFailed, Restore: from}
	return f.found(ctx, c, q.Settings)
}

func checkRestoreRequest(q RestoreToPointInTime) error {
	if err := checkIdentifier("DBClusterIdentifier", q.Identifier); err != nil {
		return err
	}
	switch {
	case q.Source == "" && q.SourceResourceID == "":
		return fault(CodeMissingParameter, "The request must contain the parameter SourceDBClusterIdentifier or SourceDbClusterResourceId.")
	case q.Source != "" && q.SourceResourceID != "":
		return fault(CodeInvalidCombination, "SourceDBClusterIdentifier and SourceDbClusterResourceId cannot be given together.")
	case q.RestoreType != "" && q.RestoreType != "full-copy" && q.RestoreType != "copy-on-write":
		return fault(CodeInvalidParameter, "Invalid restore type %s: it must be full-copy or copy-on-write.", q.RestoreType)
	case q.XID != 0 && q.LSN != 0:
		return fault(CodeInvalidCombination, "PileusRestoreToXid and PileusRestoreToLsn cannot be given together.")
	case (q.XID != 0 || q.LSN != 0) && (q.Latest || !q.Time.IsZero()):
		return fault(CodeInvalidCombination, "PileusRestoreToXid and PileusRestoreToLsn go without RestoreToTime and UseLatestRestorableTime.")
	case q.Exclusive && q.XID == 0 && q.LSN == 0:
		return fault(CodeInvalidCombination, "PileusExclusive goes with PileusRestoreToXid or PileusRestoreToLsn.")
	case q.RestoreType == "copy-on-write" && !q.Time.IsZero():
		return fault(CodeInvalidCombination, "RestoreToTime cannot be given with the restore type copy-on-write: use full-copy, or UseLatestRestorableTime.")
	case q.Latest && !q.Time.IsZero():
		return fault(CodeInvalidCombination, "RestoreToTime and UseLatestRestorableTime cannot be given together.")
	case !q.Latest && q.Time.IsZero() && q.XID == 0 && q.LSN == 0:
		return fault(CodeInvalidCombination, "Either RestoreToTime or UseLatestRestorableTime must be given.")
	}
	return checkTags(q.Tags)
}

// restoreSource finds the cluster to restore from, be it alive, deleted with its backups
// retained, or known from the repository only.
func (f *Fleet) restoreSource(ctx context.Context, q RestoreToPointInTime) (Cluster, error) {
	if q.Source != "" {
		f.mu.Lock()
		defer f.mu.Unlock()
		c, err := f.find(q.Source)
		if err != nil {
			return Cluster{}, err
		}
		return c.clone(), nil
	}
	all, err := f.AutomatedBackups(ctx)
	if err != nil {
		return Cluster{}, err
	}
	for _, b := range all {
		if b.Cluster.ResourceID == q.SourceResourceID {
			return b.Cluster, nil
		}
	}
	return Cluster{}, fault(CodeClusterNotFound, "No DB cluster and no automated backup has the resource ID %s.", q.SourceResourceID)
}

// checkWindow refuses a moment that cannot be restored, and says which can.
func (f *Fleet) checkWindow(ctx context.Context, source Cluster, from *RestoreSource) error {
	v, err := f.catalog.get(ctx, source.Archive)
	if err != nil {
		return fmt.Errorf("look what can be restored of %s: %w", source.Identifier, err)
	}
	if !from.Time.IsZero() && from.Time.After(v.Window.Latest) { // it may have grown since
		f.catalog.forget(source.Archive)
		if v, err = f.catalog.get(ctx, source.Archive); err != nil {
			return fmt.Errorf("look what can be restored of %s: %w", source.Identifier, err)
		}
	}
	w := v.Window
	if w.Earliest.IsZero() {
		return fault(CodeInvalidRestore, "Nothing of DB cluster %s can be restored yet: its first backup is not complete.", source.Identifier)
	}
	if from.Time.IsZero() { // that of a transaction or an LSN shows when its WAL is read
		return nil
	}
	for _, i := range w.Intervals {
		if !from.Time.Before(i.From) && !from.Time.After(i.To) {
			return nil
		}
	}
	return fault(CodeInvalidRestore, "DB cluster %s cannot be restored to %s: any moment from %s to %s can be.", source.Identifier,
		from.Time.Format(time.RFC3339Nano), w.Earliest.UTC().Format(time.RFC3339Nano), w.Latest.UTC().Format(time.RFC3339Nano))
}

// heir is the document of a cluster that is restored from another: what RDS hands
// down is handed down, and the rest is as for a new one.
func (f *Fleet) heir(ctx context.Context, identifier string, source Cluster) (*Cluster, error) {
	version, err := f.resolveVersion(ctx, source.Engine, fmt.Sprint(majorOf(source.EngineVersion)))
	if err != nil {
		return nil, err
	}
	c := f.newCluster(identifier, source.Engine, version)
	c.MasterUsername, c.DatabaseName, c.RetentionDays = source.MasterUsername, source.DatabaseName, max(1, source.RetentionDays)
	c.Encrypted, c.KMSKeyID, c.StorageType = source.Encrypted, source.KMSKeyID, source.StorageType
	c.InstanceClass, c.AllocatedStorage, c.IOPS = source.InstanceClass, source.AllocatedStorage, source.IOPS
	if source.EngineMode != "" {
		c.EngineMode = source.EngineMode
	}
	return c, nil
}

// target turns what the document says into the engine's words.
func (r *RestoreSource) target() restore.Target {
	switch {
	case r.Backup != "":
		return restore.Target{Kind: restore.ToBackup, Name: r.Backup}
	case !r.Time.IsZero():
		return restore.Target{Kind: restore.ToTime, Time: r.Time}
	case r.LSN != 0:
		return restore.Target{Kind: restore.ToLSN, LSN: r.LSN, Exclusive: r.Exclusive}
	case r.XID != 0:
		return restore.Target{Kind: restore.ToXID, XID: r.XID, Exclusive: r.Exclusive}
	}
	return restore.Target{Kind: restore.ToLatest}
}

// doRestore restores a cluster's data, recovers and promotes it where nobody can reach it,
// makes the server Pileus's own, and starts it. What an attempt before left is removed.
func (f *Fleet) doRestore(ctx context.Context, c Cluster) error {
	from := c.Operation.Restore
	s, spec, err := f.server(ctx, c)
	if err != nil {
		return err
	}
	if err := f.forgetUnfinished(ctx, c, s.Remove); err != nil {
		return err
	}
	if err := s.Prepare(ctx); err != nil {
		return fmt.Errorf("prepare the folder of the restored cluster: %w", err)
	}
	d := f.o.Deployment
	owner := ""
	if os.Geteuid() == 0 && f.o.Owner != nil {
		owner = f.o.Owner.Name
	}
	spaces, err := f.tablespaces(ctx, from, s.TablespaceDir)
	if err != nil {
		return err
	}
	plan, err := d.PlanRestore(ctx, control.RestoreRequest{Cluster: from.Cluster, As: c.Archive, DataDir: s.DataDir(), Target: from.target(),
		Tablespaces: spaces, Owner: owner, BinDir: s.BinDir(), Start: true, Hold: true, Port: c.Port}, silent)
	if err != nil {
		return err
	}
	result, err := d.Restore(ctx, plan)
	if err != nil {
		return err
	}
	f.o.Log.Info("restored", "cluster", c.Identifier, "from", from.Cluster, "end_lsn", result.EndLSN, "took", result.Total)
	if err := s.Adopt(ctx, spec); err != nil {
		return fmt.Errorf("take the restored server over: %w", err)
	}
	if err := s.Start(ctx); err != nil {
		return fmt.Errorf("start the restored server: %w", err)
	}
	return f.welcome(ctx, c, s)
}

// forgetUnfinished removes what an attempt to restore this cluster left: its files, and its name
// in the repository as long as nothing is kept under that.
func (f *Fleet) forgetUnfinished(ctx context.Context, c Cluster, remove func(context.Context) error) error {
	if err := remove(ctx); err != nil {
		return fmt.Errorf("remove what an earlier attempt left: %w", err)
	}
	_, err := f.o.Deployment.Repo.Cluster(ctx, c.Archive)
	if errors.Is(err, repo.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = f.o.Deployment.Repo.DeleteCluster(ctx, c.Archive)
	}
	return err
}

// tablespaces gives every tablespace of the backups that may be chosen a folder below the new cluster's.
func (f *Fleet) tablespaces(ctx context.Context, from *RestoreSource, dir func(oid uint32) string) (map[string]string, error) {
	out := map[string]string{}
	for b, err := range f.o.Deployment.Repo.Backups(ctx, from.Cluster) {
		if errors.Is(err, repo.ErrDamaged) {
			continue
		} else if err != nil {
			return nil, err
		}
		for _, t := range b.Tablespaces {
			out[fmt.Sprint(t.OID)] = dir(t.OID)
		}
	}
	return out, nil
}

// RestoreFromSnapshot begins to restore a new cluster as a snapshot holds it.
func (f *Fleet) RestoreFromSnapshot(ctx context.Context, q RestoreFromSnapshot) (Cluster, error) {
	if err := checkIdentifier("DBClusterIdentifier", q.Identifier); err != nil {
		return Cluster{}, err
	}
	if q.Snapshot == "" {
		return Cluster{}, fault(CodeMissingParameter, "The request must contain the parameter SnapshotIdentifier.")
	}
	if err := checkTags(q.Tags); err != nil {
		return Cluster{}, err
	}
	s, err := f.Snapshot(ctx, q.Snapshot)
	if err != nil {
		return Cluster{}, err
	}
	if s.Status != StatusAvailable {
		return Cluster{}, fault(CodeSnapshotState, "DB cluster snapshot %s is in %s state: it must be available.", s.Identifier, s.Status)
	}
	source := s.Cluster
	if q.Engine != "" && q.Engine != source.Engine {
		return Cluster{}, fault(CodeInvalidCombination, "The snapshot %s is of engine %s and cannot be restored as %s.", s.Identifier, source.Engine, q.Engine)
	}
	if q.EngineVersion != "" && majorOf(q.EngineVersion) != majorOf(source.EngineVersion) {
		return Cluster{}, fault(CodeInvalidCombination, "The snapshot %s is of version %s and cannot be restored as %s: restore it, then upgrade.", s.Identifier, source.EngineVersion, q.EngineVersion)
	}
	if q.EngineVersion != "" {
		if _, err := f.resolveVersion(ctx, source.Engine, q.EngineVersion); err != nil {
			return Cluster{}, err
		}
	}
	if err := f.o.Deployment.ProbeServers(ctx); err != nil {
		return Cluster{}, fault(CodeInvalidRestore, "%v", err)
	}
	c, err := f.heir(ctx, q.Identifier, source)
	if err != nil {
		return Cluster{}, err
	}
	if q.DatabaseName != "" && !strings.EqualFold(q.DatabaseName, source.DatabaseName) {
		return Cluster{}, fault(CodeInvalidCombination, "DatabaseName cannot be given: the databases are those of the snapshot.")
	}
	c.Tags = mergeTags(nil, q.Tags)
	c.Operation = &Operation{Kind: OpRestore, Started: f.now(), From: StatusFailed, Restore: &RestoreSource{Cluster: s.Archive, Backup: s.Backup}}
	return f.found(ctx, c, q.Settings)
}
