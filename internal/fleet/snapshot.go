package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"pileus/internal/control"
	"pileus/internal/repo"
	"pileus/internal/store"
)

// CreateSnapshot begins to take a snapshot of a cluster.
func (f *Fleet) CreateSnapshot(ctx context.Context, q CreateSnapshot) (Snapshot, error) {
	if err := f.newSnapshotName(ctx, "DBClusterSnapshotIdentifier", q.Identifier); err != nil {
		return Snapshot{}, err
	}
	if err := checkTags(q.Tags); err != nil {
		return Snapshot{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.find(q.Cluster)
	if err != nil {
		return Snapshot{}, err
	}
	if err := idle(c, "snapshotted", StatusAvailable); err != nil {
		return Snapshot{}, err
	}
	id := strings.ToLower(q.Identifier)
	if err := f.announceSnapshot(c, id, q.Tags); err != nil {
		return Snapshot{}, err
	}
	if err := f.begin(c, StatusBackingUp, Operation{Kind: OpSnapshot, Snapshot: id}); err != nil {
		return Snapshot{}, err
	}
	return f.seenSnapshot(*f.snapshots[id]), nil
}

// newSnapshotName refuses an identifier that is wrong or used.
func (f *Fleet) newSnapshotName(ctx context.Context, parameter, id string) error {
	if err := checkSnapshotIdentifier(parameter, id); err != nil {
		return err
	}
	all, err := f.Snapshots(ctx, SnapshotQuery{})
	if err != nil {
		return err
	}
	for _, s := range all {
		if strings.EqualFold(s.Identifier, id) {
			return fault(CodeSnapshotExists, "Cannot create the snapshot because a snapshot with the identifier %s already exists.", id)
		}
	}
	return nil
}

// announceSnapshot makes the document of a snapshot that is about to be taken. The caller holds mu.
func (f *Fleet) announceSnapshot(c *Cluster, id string, tags []Tag) error {
	if _, ok := f.snapshots[id]; ok {
		return fault(CodeSnapshotExists, "Cannot create the snapshot because a snapshot with the identifier %s already exists.", id)
	}
	if c.CopyTagsToSnapshot && len(tags) == 0 { // as on RDS: tags of the request replace the cluster's
		tags = c.Tags
	}
	s := &Snapshot{Identifier: id, Type: SnapshotManual, Status: StatusCreating, Created: f.now(), Archive: c.Archive, Cluster: f.about(c), Tags: mergeTags(nil, tags)}
	if err := f.docs.snapshots.save(id, s); err != nil {
		return err
	}
	f.snapshots[id] = s
	return nil
}

// about is a cluster as a snapshot remembers it. The caller holds mu.
func (f *Fleet) about(c *Cluster) Cluster {
	out := f.seen(c) // an attached one's port and retention are in the configuration
	out.Operation, out.Pending, out.Password, out.Problem = nil, nil, "", ""
	out.Status = StatusAvailable
	return out
}

// doSnapshot takes the backup of an announced snapshot.
func (f *Fleet) doSnapshot(ctx context.Context, c Cluster) error {
	return f.takeSnapshot(ctx, c, c.Operation.Snapshot)
}

// finalSnapshot takes the last snapshot of a cluster that is to be deleted, whose server may be stopped.
func (f *Fleet) finalSnapshot(ctx context.Context, c Cluster, id string) error {
	s, _, err := f.server(ctx, c)
	if err != nil {
		return err
	}
	if up, err := s.Running(); err != nil || !up {
		if err := errors.Join(err, s.Start(ctx)); err != nil {
			return err
		}
	}
	return f.takeSnapshot(ctx, c, id)
}

func (f *Fleet) takeSnapshot(ctx context.Context, c Cluster, id string) error {
	f.mu.Lock()
	doc, ok := f.snapshots[id]
	var about Cluster
	if ok {
		about = doc.Cluster
	}
	f.mu.Unlock()
	if !ok {
		return fmt.Errorf("snapshot %s was deleted while it was being taken", id)
	}
	text, err := json.Marshal(about)
	if err != nil {
		return err
	}
	have, err := f.o.Deployment.Repo.Snapshot(ctx, c.Archive, id)
	if errors.Is(err, repo.ErrNotFound) { // not taken by an attempt before
		var b repo.Backup
		b, err = f.backup(ctx, c, id, text)
		have.Backup = b.ID
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		doc.Status, doc.Problem = StatusFailed, reason(err)
		f.event(kindSnapshot, id, "failure", "The snapshot %s failed: %s", id, reason(err))
	} else {
		doc.Status, doc.Percent, doc.Backup, doc.Problem = StatusAvailable, 100, have.Backup, ""
		f.event(kindSnapshot, id, "backup", "Manual cluster snapshot created")
	}
	f.catalog.forget(c.Archive)
	return errors.Join(err, f.docs.snapshots.save(id, doc))
}

// Snapshots lists manual and automated snapshots, by time of creation.
func (f *Fleet) Snapshots(ctx context.Context, q SnapshotQuery) ([]Snapshot, error) {
	id, err := f.identifierOf(kindSnapshot, q.Identifier)
	if err != nil {
		return nil, err
	}
	cluster, err := f.identifierOf(kindCluster, q.Cluster)
	if err != nil {
		return nil, err
	}
	all, err := f.allSnapshots(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s Snapshot) bool {
		return id != "" && s.Identifier != id || cluster != "" && s.Cluster.Identifier != cluster ||
			q.ResourceID != "" && s.Cluster.ResourceID != q.ResourceID || q.Type != "" && s.Type != q.Type
	})
	if id != "" && len(all) == 0 {
		return nil, fault(CodeSnapshotNotFound, "DBClusterSnapshot %s not found.", q.Identifier)
	}
	return all, nil
}

// Snapshot is one snapshot, by its identifier or ARN.
func (f *Fleet) Snapshot(ctx context.Context, idOrARN string) (Snapshot, error) {
	found, err := f.Snapshots(ctx, SnapshotQuery{Identifier: idOrARN})
	if err != nil {
		return Snapshot{}, err
	}
	return found[0], nil
}

// allSnapshots joins the documents with what the repository has that no document tells of.
func (f *Fleet) allSnapshots(ctx context.Context) ([]Snapshot, error) {
	archives, err := f.archives(ctx)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	var out []Snapshot
	documented := map[[2]string]bool{} // to Scheduled
	for _, s := range f.snapshots {
		documented[[2]string{s.Archive, s.Identifier}] = s.Scheduled
		out = append(out, *s)
	}
	f.mu.Unlock()
	for _, c := range archives {
		v, err := f.catalog.get(ctx, c.Archive)
		if err != nil {
			return nil, err
		}
		for _, s := range v.Snapshots {
			if _, ok := documented[[2]string{c.Archive, s.Name}]; !ok {
				out = append(out, undocumented(c, s, v))
			}
		}
		out = append(out, automated(c, v, f.now(), func(name string) bool { return documented[[2]string{c.Archive, name}] })...)
	}
	for i, s := range out {
		out[i] = f.seenSnapshot(s)
	}
	slices.SortFunc(out, func(a, b Snapshot) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Identifier, b.Identifier))
	})
	return out, nil
}

func (f *Fleet) seenSnapshot(s Snapshot) Snapshot {
	s.Tags = slices.Clone(s.Tags)
	s.Shared = slices.Clone(s.Shared)
	s.ARN = f.arn(kindSnapshot, s.Identifier)
	return s
}

// undocumented is a snapshot that the repository alone knows, such as one made by
// `pileus snapshot create`, or by a serve whose documents are lost.
func undocumented(c Cluster, s repo.Snapshot, v control.ClusterView) Snapshot {
	out := Snapshot{Identifier: strings.ToLower(s.Name), Type: SnapshotManual, Status: StatusAvailable, Percent: 100, Created: s.Created,
		Backup: s.Backup, Archive: c.Archive, Cluster: c}
	var was Cluster
	if len(s.About) > 0 && json.Unmarshal(s.About, &was) == nil {
		out.Cluster = was
	}
	for _, b := range v.Backups {
		if b.ID == s.Backup {
			out.Bytes = b.Size
		}
	}
	return out
}

// automated are the backups of the schedule, under the names that RDS gives such snapshots. They have no documents, so
// their tags are those that the cluster has now, if it copies them. A backup with snapshots of its own is none, unless those
// are copies of an automated one, which scheduled tells, and its retention period has not passed.
func automated(c Cluster, v control.ClusterView, now time.Time, scheduled func(name string) bool) []Snapshot {
	var out []Snapshot
	if c.Dropped {
		return nil
	}
	var tags []Tag
	if c.CopyTagsToSnapshot {
		tags = c.Tags
	}
	for _, b := range v.Backups {
		if b.Problem != "" || len(b.Snapshots) > 0 && now.Sub(b.Stopped) > retention(c) || slices.ContainsFunc(b.Snapshots, func(name string) bool { return !scheduled(name) }) {
			continue
		}
		out = append(out, Snapshot{Identifier: automatedPrefix + c.Identifier + b.Stopped.UTC().Format("-2006-01-02-15-04"), Type: SnapshotAutomated,
			Status: StatusAvailable, Percent: 100, Created: b.Stopped, Backup: b.ID, Archive: c.Archive, Cluster: c, Bytes: b.Size, Tags: tags})
	}
	return out
}

// CopySnapshot makes another snapshot of a snapshot's backup. The bytes are shared, so
// it is there at once.
func (f *Fleet) CopySnapshot(ctx context.Context, q CopySnapshot) (Snapshot, error) {
	if q.Source == "" {
		return Snapshot{}, fault(CodeMissingParameter, "The request must contain the parameter SourceDBClusterSnapshotIdentifier.")
	}
	if err := f.newSnapshotName(ctx, "TargetDBClusterSnapshotIdentifier", q.Target); err != nil {
		return Snapshot{}, err
	}
	if err := checkTags(q.Tags); err != nil {
		return Snapshot{}, err
	}
	from, err := f.Snapshot(ctx, q.Source)
	if err != nil {
		return Snapshot{}, err
	}
	if from.Status != StatusAvailable {
		return Snapshot{}, fault(CodeSnapshotState, "DB cluster snapshot %s is in %s state: it must be available.", from.Identifier, from.Status)
	}
	s := from
	s.Identifier, s.Type, s.Created, s.Source, s.Shared = strings.ToLower(q.Target), SnapshotManual, f.now(), from.ARN, nil
	s.Scheduled = from.Scheduled || from.Type == SnapshotAutomated
	s.Tags = mergeTags(nil, q.Tags)
	if q.CopyTags && len(q.Tags) == 0 {
		s.Tags = from.Tags
	}
	about, err := json.Marshal(s.Cluster)
	if err != nil {
		return Snapshot{}, err
	}
	if err := f.o.Deployment.Keep(ctx, s.Archive, s.Backup, s.Identifier, about); errors.Is(err, store.ErrExists) {
		return Snapshot{}, fault(CodeSnapshotExists, "Cannot create the snapshot because a snapshot with the identifier %s already exists.", q.Target)
	} else if err != nil {
		return Snapshot{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.docs.snapshots.save(s.Identifier, &s); err != nil {
		return Snapshot{}, err
	}
	f.snapshots[s.Identifier] = &s
	f.catalog.forget(s.Archive)
	f.event(kindSnapshot, s.Identifier, "notification", "Cluster snapshot copied from %s", from.Identifier)
	return f.seenSnapshot(s), nil
}

// DeleteSnapshot deletes a manual snapshot. What only it kept goes with the next prune.
func (f *Fleet) DeleteSnapshot(ctx context.Context, idOrARN string) (Snapshot, error) {
	s, err := f.Snapshot(ctx, idOrARN)
	if err != nil {
		return Snapshot{}, err
	}
	if s.Type == SnapshotAutomated {
		return Snapshot{}, fault(CodeSnapshotState, "Automated snapshots cannot be deleted: %s goes when its retention period has passed.", s.Identifier)
	}
	if s.Status != StatusAvailable && s.Status != StatusFailed {
		return Snapshot{}, fault(CodeSnapshotState, "DB cluster snapshot %s is in %s state: it can be deleted when it is available.", s.Identifier, s.Status)
	}
	if err := f.o.Deployment.Repo.DeleteSnapshot(ctx, s.Archive, s.Identifier); err != nil && !errors.Is(err, repo.ErrNotFound) {
		return Snapshot{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.docs.snapshots.remove(s.Identifier); err != nil {
		return Snapshot{}, err
	}
	delete(f.snapshots, s.Identifier)
	f.catalog.forget(s.Archive)
	f.event(kindSnapshot, s.Identifier, "deletion", "Cluster snapshot deleted")
	return s, nil
}

// ShareSnapshot changes the accounts that attribute "restore" names. They have no
// effect here: there is one account.
func (f *Fleet) ShareSnapshot(ctx context.Context, idOrARN string, add, remove []string) (Snapshot, error) {
	s, err := f.Snapshot(ctx, idOrARN)
	if err != nil {
		return Snapshot{}, err
	}
	if s.Type == SnapshotAutomated {
		return Snapshot{}, fault(CodeSnapshotState, "Automated snapshots cannot be shared: copy %s first.", s.Identifier)
	}
	for _, a := range add {
		if slices.Contains(remove, a) {
			return Snapshot{}, fault(CodeInvalidCombination, "The account %s cannot be added and removed at once.", a)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range add {
		if !slices.Contains(s.Shared, a) {
			s.Shared = append(s.Shared, a)
		}
	}
	s.Shared = slices.DeleteFunc(s.Shared, func(a string) bool { return slices.Contains(remove, a) })
	if len(s.Shared) > 20 {
		return Snapshot{}, fault("SharedSnapshotQuotaExceeded", "A snapshot can be shared with at most 20 accounts.")
	}
	if err := f.docs.snapshots.save(s.Identifier, &s); err != nil {
		return Snapshot{}, err
	}
	f.snapshots[s.Identifier] = &s
	return f.seenSnapshot(s), nil
}

// age is how long ago a time was.
func (f *Fleet) age(t time.Time) time.Duration { return f.now().Sub(t) }
