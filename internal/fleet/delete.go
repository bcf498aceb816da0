package fleet

import (
	"context"
	"fmt"
	"strings"
)

// DeleteCluster begins to delete a cluster. Its snapshots stay; its automated backups go
// unless they are to be retained.
func (f *Fleet) DeleteCluster(ctx context.Context, q DeleteCluster) (Cluster, error) {
	if q.Identifier == "" {
		return Cluster{}, fault(CodeMissingParameter, "The request must contain the parameter DBClusterIdentifier.")
	}
	if q.FinalSnapshot != "" {
		if err := f.newSnapshotName(ctx, "FinalDBSnapshotIdentifier", q.FinalSnapshot); err != nil {
			return Cluster{}, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.findManaged(q.Identifier, "deleting it")
	if err != nil {
		return Cluster{}, err
	}
	if c.DeletionProtection {
		return Cluster{}, fault(CodeInvalidCombination, "Cannot delete protected Cluster, please disable deletion protection and try again.")
	}
	switch {
	case q.SkipFinalSnapshot && q.FinalSnapshot != "":
		return Cluster{}, fault(CodeInvalidCombination, "FinalDBSnapshotIdentifier cannot be given when the final snapshot is skipped.")
	case !q.SkipFinalSnapshot && q.FinalSnapshot == "":
		return Cluster{}, fault(CodeInvalidCombination, "FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is given.")
	case len(f.members(c.ResourceID)) > 0:
		return Cluster{}, fault(CodeClusterState, "Cluster cannot be deleted, it still contains DB instances in non-deleting state.")
	}
	if err := idle(c, "deleted", StatusAvailable, StatusStopped, StatusFailed); err != nil {
		return Cluster{}, err
	}
	if c.Status == StatusFailed && q.FinalSnapshot != "" {
		return Cluster{}, fault(CodeClusterState, "DB cluster %s is in failed state: no final snapshot can be taken of it; skip it.", c.Identifier)
	}
	op := Operation{Kind: OpDelete, FinalSnapshot: strings.ToLower(q.FinalSnapshot), RetainBackups: q.RetainBackups}
	if op.FinalSnapshot != "" {
		if err := f.announceSnapshot(c, op.FinalSnapshot, nil); err != nil {
			return Cluster{}, err
		}
	}
	if err := f.begin(c, StatusDeleting, op); err != nil {
		return Cluster{}, err
	}
	return f.seen(c), nil
}

// doDelete takes the final snapshot, removes the server, and then the document: a kill in
// between leaves a cluster that is being deleted.
func (f *Fleet) doDelete(ctx context.Context, c Cluster) error {
	s, _, err := f.server(ctx, c)
	if err != nil {
		return err
	}
	if name := c.Operation.FinalSnapshot; name != "" {
		if err := f.finalSnapshot(ctx, c, name); err != nil {
			return fmt.Errorf("take the final snapshot %s; the cluster was not deleted: %w", name, err)
		}
	}
	if err := f.rejoin(ctx, c); err != nil {
		f.o.Log.Warn("a server is stopped without a receiver: the WAL since it was last received is in its data directory only", "cluster", c.Identifier, "error", err)
	}
	if err := f.halt(ctx, c); err != nil {
		f.o.Log.Warn("a server that is to be deleted did not stop well", "cluster", c.Identifier, "error", err)
	}
	if err := s.Remove(ctx); err != nil {
		return fmt.Errorf("remove the server's files: %w", err)
	}
	return f.bury(c)
}

// bury moves the document to the retained ones. Those whose backups are not to be
// kept are marked, and the next prune removes what no snapshot keeps.
func (f *Fleet) bury(c Cluster) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	gone := c.clone()
	gone.Dropped = !c.Operation.RetainBackups
	gone.Operation, gone.Pending, gone.Password, gone.Problem = nil, nil, "", ""
	gone.Status, gone.Deleted = StatusRetained, f.now()
	if err := f.docs.retained.save(c.ResourceID, &gone); err != nil {
		return err
	}
	f.retained[c.ResourceID] = &gone
	delete(f.clusters, c.ResourceID)
	return f.docs.clusters.remove(c.ResourceID)
}
