package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"pileus/internal/dbserver"
)

// CreateInstance adds a member to a cluster: the first is a name for the writer, every
// further one a streaming standby.
func (f *Fleet) CreateInstance(ctx context.Context, q CreateInstance) (Instance, error) {
	if err := checkIdentifier("DBInstanceIdentifier", q.Identifier); err != nil {
		return Instance{}, err
	}
	switch {
	case q.Cluster == "":
		return Instance{}, fault(CodeInvalidCombination, "Pileus has DB instances as members of DB clusters only: give DBClusterIdentifier.")
	case q.Class == "":
		return Instance{}, fault(CodeMissingParameter, "The request must contain the parameter DBInstanceClass.")
	}
	if err := errors.Join(checkTags(q.Tags), checkTier(q.Tier), checkWindow(q.Maintenance, parseWeekWindow)); err != nil {
		return Instance{}, first(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.find(q.Cluster)
	if err != nil {
		return Instance{}, fault(CodeClusterNotFound, "The source cluster could not be found or cannot be accessed: %s", q.Cluster)
	}
	if err := checkMember(c, q); err != nil {
		return Instance{}, err
	}
	members := f.members(c.ResourceID)
	if len(members) > 0 {
		if _, err := f.findManaged(q.Cluster, "adding readers"); err != nil {
			return Instance{}, err
		}
	}
	if err := idle(c, "given an instance", StatusAvailable); err != nil {
		return Instance{}, err
	}
	id := strings.ToLower(q.Identifier)
	if f.instanceNamed(id) != nil {
		return Instance{}, fault(CodeInstanceExists, "DB instance already exists: %s", id)
	}
	i := &Instance{Identifier: id, ResourceID: newResourceID("db-"), Cluster: c.ResourceID, Created: f.now(), Status: StatusCreating, Class: q.Class,
		Tier: 1, AutoMinor: true, Maintenance: c.MaintenanceWindow, Reader: len(members) > 0, Tags: mergeTags(nil, q.Tags)}
	set(&i.Tier, q.Tier)
	set(&i.Public, q.Public)
	set(&i.AutoMinor, q.AutoMinor)
	set(&i.Maintenance, q.Maintenance)
	set(&i.Zone, q.Zone)
	set(&i.ParamGroup, q.ParamGroup)
	set(&i.CopyTags, q.CopyTags)
	set(&i.Monitoring, q.Monitoring)
	set(&i.Insights, q.Insights)
	if i.Reader {
		if i.Port, err = f.choosePort(nil, c.SubnetGroup); err != nil {
			return Instance{}, err
		}
	}
	if err := f.docs.instances.save(i.ResourceID, i); err != nil {
		return Instance{}, err
	}
	f.instances[i.ResourceID] = i
	f.startInstance(i.ResourceID)
	return f.seenInstance(i), nil
}

// checkMember refuses what cannot be a member of a cluster.
func checkMember(c *Cluster, q CreateInstance) error {
	switch {
	case q.Engine != "" && q.Engine != c.Engine:
		return fault(CodeInvalidCombination, "The engine name requested for your DB instance (%s) doesn't match the engine name of your DB cluster (%s).", q.Engine, c.Engine)
	case c.EngineMode == "serverless":
		return fault(CodeInvalidParameter, "Instances cannot be added to Aurora Serverless clusters.")
	}
	return nil
}

func checkTier(tier *int) error {
	if tier != nil && (*tier < 0 || *tier > 15) {
		return fault(CodeInvalidParameter, "Invalid promotion tier %d: it must be 0 to 15.", *tier)
	}
	return nil
}

// instanceNamed finds an instance by its identifier, nil if there is none. The caller holds mu.
func (f *Fleet) instanceNamed(id string) *Instance {
	for _, i := range f.instances {
		if i.Identifier == id || i.NewIdentity == id {
			return i
		}
	}
	return nil
}

// findInstance looks an instance up by its identifier or ARN. The caller holds mu.
func (f *Fleet) findInstance(idOrARN string) (*Instance, error) {
	id, err := f.identifierOf(kindInstance, idOrARN)
	if err != nil {
		return nil, err
	}
	if i := f.instanceNamed(id); i != nil {
		return i, nil
	}
	for _, i := range f.instances {
		if i.ResourceID == idOrARN {
			return i, nil
		}
	}
	return nil, fault(CodeInstanceNotFound, "DBInstance %s not found.", idOrARN)
}

// seenInstance is an instance with what is derived. The caller holds mu.
func (f *Fleet) seenInstance(i *Instance) Instance {
	out := *i
	out.Tags = slices.Clone(i.Tags)
	out.ARN = f.arn(kindInstance, i.Identifier)
	if c := f.byResourceID(i.Cluster); c != nil {
		out.ClusterView = f.seen(c)
		out.EndpointHost = out.ClusterView.Endpoint
		if !i.Reader {
			out.Port = out.ClusterView.Port
			if i.Status == StatusAvailable && c.Status != StatusAvailable {
				out.Status = c.Status
			}
		} else if i.Status == StatusAvailable && c.Status == StatusStopped {
			out.Status = StatusStopped
		}
	}
	return out
}

// Instances lists the instances, by identifier.
func (f *Fleet) Instances(context.Context) ([]Instance, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []Instance{}
	for _, i := range f.instances {
		out = append(out, f.seenInstance(i))
	}
	slices.SortFunc(out, func(a, b Instance) int { return cmp.Compare(a.Identifier, b.Identifier) })
	return out, nil
}

// Instance is one instance, by its identifier or ARN.
func (f *Fleet) Instance(_ context.Context, idOrARN string) (Instance, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.findInstance(idOrARN)
	if err != nil {
		return Instance{}, err
	}
	return f.seenInstance(i), nil
}

// ModifyInstance changes what an instance is called and what is kept for clients.
func (f *Fleet) ModifyInstance(_ context.Context, q ModifyInstance) (Instance, error) {
	if err := first(errors.Join(checkTier(q.Tier), checkWindow(q.Maintenance, parseWeekWindow))); err != nil {
		return Instance{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.findInstance(q.Identifier)
	if err != nil {
		return Instance{}, err
	}
	if i.Status != StatusAvailable {
		return Instance{}, fault(CodeInstanceState, "DB instance %s is in %s state: it cannot be modified now.", i.Identifier, i.Status)
	}
	changed := *i
	if id := strings.ToLower(q.NewIdentifier); id != "" && id != i.Identifier {
		if err := checkIdentifier("NewDBInstanceIdentifier", id); err != nil {
			return Instance{}, err
		}
		if f.instanceNamed(id) != nil {
			return Instance{}, fault(CodeInstanceExists, "DB instance already exists: %s", id)
		}
		changed.Identifier = id
	}
	if q.Class != "" {
		changed.Class = q.Class
	}
	set(&changed.Tier, q.Tier)
	set(&changed.Public, q.Public)
	set(&changed.AutoMinor, q.AutoMinor)
	set(&changed.Maintenance, q.Maintenance)
	set(&changed.ParamGroup, q.ParamGroup)
	set(&changed.CopyTags, q.CopyTags)
	set(&changed.Monitoring, q.Monitoring)
	set(&changed.Insights, q.Insights)
	if err := f.docs.instances.save(i.ResourceID, &changed); err != nil {
		return Instance{}, err
	}
	*i = changed
	f.event(kindInstance, i.Identifier, "configuration change", "Finished applying modifications to the DB instance")
	return f.seenInstance(i), nil
}

// RebootInstance restarts the server of an instance, which applies settings that wait for it.
func (f *Fleet) RebootInstance(_ context.Context, id string) (Instance, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.findInstance(id)
	if err != nil {
		return Instance{}, err
	}
	c, err := f.findManaged(f.clusterOf(i), "restarting it")
	if err != nil {
		return Instance{}, err
	}
	if i.Status != StatusAvailable || c.Status != StatusAvailable || c.Operation != nil {
		return Instance{}, fault(CodeInstanceState, "DB instance %s is in %s state: it cannot be restarted now.", i.Identifier, f.seenInstance(i).Status)
	}
	if i.Reader {
		i.Status = StatusRebooting
		f.startInstance(i.ResourceID)
		return f.seenInstance(i), nil
	}
	if err := f.begin(c, StatusModifying, Operation{Kind: OpReboot}); err != nil {
		return Instance{}, err
	}
	out := f.seenInstance(i)
	out.Status = StatusRebooting
	return out, nil
}

// clusterOf is the identifier of an instance's cluster. The caller holds mu.
func (f *Fleet) clusterOf(i *Instance) string {
	if c := f.byResourceID(i.Cluster); c != nil {
		return c.Identifier
	}
	return i.Cluster
}

// DeleteInstance begins to remove a member. When the writer goes and readers are left, the one of
// the lowest promotion tier becomes the name of the writer, whose server goes on: no data moves.
func (f *Fleet) DeleteInstance(_ context.Context, id string) (Instance, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.findInstance(id)
	if err != nil {
		return Instance{}, err
	}
	switch i.Status {
	case StatusDeleting:
		return Instance{}, fault(CodeInstanceState, "DB instance %s is being deleted already.", i.Identifier)
	case StatusPromoting:
		return Instance{}, fault(CodeInstanceState, "DB instance %s is becoming the writer: delete it when it is available.", i.Identifier)
	}
	i.Status = StatusDeleting
	if err := f.docs.instances.save(i.ResourceID, i); err != nil {
		return Instance{}, err
	}
	f.startInstance(i.ResourceID)
	return f.seenInstance(i), nil
}

// startInstance begins what an instance's document asks for. The caller holds mu.
func (f *Fleet) startInstance(id string) {
	f.work.Go(func() {
		<-f.ready
		f.resumeInstance(id)
	})
}

// resumeInstance does what an instance's document asks for: makes a reader, supervises it, or
// removes the member.
func (f *Fleet) resumeInstance(id string) {
	ctx := f.lifetime
	f.mu.Lock()
	i, ok := f.instances[id]
	if !ok || ctx.Err() != nil {
		f.mu.Unlock()
		return
	}
	at := *i
	f.mu.Unlock()
	switch {
	case at.Status == StatusDeleting:
		f.removeInstance(ctx, at)
	case at.Status == StatusPromoting:
		f.inherit(ctx, at)
	case at.Reader:
		f.runReader(ctx, at)
	case at.Status != StatusAvailable:
		f.settleInstance(id, StatusAvailable, nil)
		f.event(kindInstance, at.Identifier, "creation", "DB instance created")
	}
}

// settleInstance writes down what became of an instance, unless it is on its way elsewhere meanwhile.
func (f *Fleet) settleInstance(id string, s Status, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, ok := f.instances[id]
	if !ok || i.Status == StatusDeleting || i.Status == StatusPromoting {
		return
	}
	i.Status, i.Problem = s, ""
	if err != nil {
		i.Problem = reason(err)
	}
	if err := f.docs.instances.save(id, i); err != nil {
		f.o.Log.Error("an instance's document could not be saved", "instance", i.Identifier, "error", err)
	}
}

// removeInstance ends a member's server, if it has its own, and forgets it.
func (f *Fleet) removeInstance(ctx context.Context, i Instance) {
	if i.Reader {
		if err := f.dropReader(ctx, i); err != nil {
			f.o.Log.Error("a reader could not be removed and is tried again at the next start", "instance", i.Identifier, "error", err)
			f.event(kindInstance, i.Identifier, "failure", "The DB instance could not be deleted: %s", reason(err))
			return
		}
	}
	f.mu.Lock()
	heir := f.chooseHeir(i)
	delete(f.instances, i.ResourceID)
	if err := f.docs.instances.remove(i.ResourceID); err != nil {
		f.o.Log.Error("an instance's document could not be removed", "instance", i.Identifier, "error", err)
	}
	f.mu.Unlock()
	f.event(kindInstance, i.Identifier, "deletion", "DB instance deleted")
	if heir != "" {
		f.resumeInstance(heir)
	}
}

// chooseHeir marks the reader that becomes the name of the writer when that goes: the one of the lowest promotion
// tier, and the oldest of those. It is in the document before the writer's is removed, so that a kill in
// between leaves a cluster with a writer. The caller holds mu.
func (f *Fleet) chooseHeir(gone Instance) string {
	var heir *Instance
	for _, i := range f.members(gone.Cluster) {
		switch {
		case gone.Reader || i.ResourceID == gone.ResourceID || i.Status == StatusDeleting:
		case !i.Reader:
			return "" // chosen before the kill
		case heir == nil || i.Tier < heir.Tier:
			heir = i
		}
	}
	if heir == nil {
		return ""
	}
	heir.Reader, heir.Port, heir.Status = false, 0, StatusPromoting
	if err := f.docs.instances.save(heir.ResourceID, heir); err != nil {
		f.o.Log.Error("an instance's document could not be saved", "instance", heir.Identifier, "error", err)
	}
	return heir.ResourceID
}

// inherit ends the server that an heir had as a reader: the writer's goes on under its name.
func (f *Fleet) inherit(ctx context.Context, heir Instance) {
	if err := f.dropReader(ctx, heir); err != nil {
		f.o.Log.Error("a reader's server could not be removed and is tried again at the next start", "instance", heir.Identifier, "error", err)
		f.event(kindInstance, heir.Identifier, "failure", "The server that the DB instance had as a reader could not be removed: %s", reason(err))
		return
	}
	f.mu.Lock()
	if i, ok := f.instances[heir.ResourceID]; ok {
		i.Status = StatusAvailable
		if err := f.docs.instances.save(i.ResourceID, i); err != nil {
			f.o.Log.Error("an instance's document could not be saved", "instance", i.Identifier, "error", err)
		}
	}
	f.mu.Unlock()
	f.event(kindInstance, heir.Identifier, "failover", "DB instance is now the writer")
}

// reader is the server of a reader. The slot on the writer is named after its resource ID.
func (f *Fleet) reader(ctx context.Context, i Instance) (s, writer *dbserver.Server, spec dbserver.Spec, slot string, err error) {
	c, ok := f.snapshotOf(i.Cluster)
	if !ok {
		return nil, nil, spec, "", fmt.Errorf("the cluster of DB instance %s is gone", i.Identifier)
	}
	writer, _, err = f.server(ctx, c)
	if err != nil {
		return nil, nil, spec, "", err
	}
	bin, err := f.engines.major(ctx, majorOf(c.EngineVersion))
	if err != nil {
		return nil, nil, spec, "", err
	}
	slot = "reader_" + strings.ToLower(strings.TrimPrefix(i.ResourceID, "db-"))
	f.mu.Lock()
	defer f.mu.Unlock()
	spec = f.spec(&c, i.Port)
	spec.Name = i.Identifier
	spec.Standby = &dbserver.Standby{Primary: writer.DSN(""), Slot: slot}
	return dbserver.New(filepath.Join(f.o.DataRoot, i.ResourceID), bin, f.o.Owner), writer, spec, slot, nil
}
