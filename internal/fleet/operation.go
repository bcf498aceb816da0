package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// perform carries out the operation that a cluster's document names, now or, before
// Run, as soon as it runs. The document has been saved.
func (f *Fleet) perform(id string) {
	f.work.Go(func() {
		<-f.ready
		f.carryOut(f.lifetime, id)
	})
}

// carryOut does one operation and writes down how it ended. When serve ends meanwhile the
// document stays as it is, and the next serve does the operation again.
func (f *Fleet) carryOut(ctx context.Context, id string) {
	if ctx.Err() != nil {
		return
	}
	c, ok := f.snapshotOf(id)
	if !ok || c.Operation == nil {
		return
	}
	op := *c.Operation
	err := f.do(ctx, c)
	if err != nil && ctx.Err() != nil {
		return
	}
	if err != nil {
		f.failed(c, op, err)
		return
	}
	f.succeeded(c, op)
}

func (f *Fleet) do(ctx context.Context, c Cluster) error {
	switch c.Operation.Kind {
	case OpCreate:
		return f.doCreate(ctx, c)
	case OpRestore:
		return f.doRestore(ctx, c)
	case OpModify:
		return f.doModify(ctx, c)
	case OpReboot:
		return f.restart(ctx, c)
	case OpStart:
		return f.doStart(ctx, c)
	case OpStop:
		return f.doStop(ctx, c)
	case OpDelete:
		return f.doDelete(ctx, c)
	case OpSnapshot:
		return f.doSnapshot(ctx, c)
	}
	return fmt.Errorf("operation %q is of a newer Pileus: use that, or delete the cluster", c.Operation.Kind)
}

// results are what is said when an operation has ended well.
var results = map[OperationKind]struct{ category, message string }{
	OpCreate:   {"creation", "DB cluster created"},
	OpRestore:  {"creation", "DB cluster restored"},
	OpModify:   {"configuration change", "Finished modifying the DB cluster"},
	OpReboot:   {"notification", "DB cluster restarted"},
	OpStart:    {"notification", "DB cluster started"},
	OpStop:     {"notification", "DB cluster stopped"},
	OpDelete:   {"deletion", "DB cluster deleted"},
	OpSnapshot: {"backup", "Manual cluster snapshot created"},
}

func (f *Fleet) succeeded(c Cluster, op Operation) {
	r := results[op.Kind]
	f.event(kindCluster, c.Identifier, r.category, "%s", r.message)
	if op.Kind == OpDelete {
		return // it has no document any more
	}
	f.update(c.ResourceID, func(c *Cluster) {
		c.Operation, c.Problem = nil, ""
		c.Status = StatusAvailable
		if op.Kind == OpStop || op.Kind == OpModify && op.From == StatusStopped {
			c.Status = StatusStopped
		}
	})
	f.catalog.forget(c.Archive)
	f.run(c.ResourceID)
}

// failed writes down why an operation did not succeed. The reason is in the events, as AWS does it.
func (f *Fleet) failed(c Cluster, op Operation, err error) {
	f.o.Log.Error("an operation failed", "cluster", c.Identifier, "operation", op.Kind, "error", err)
	f.event(kindCluster, c.Identifier, "failure", "The %s of DB cluster %s failed: %s", op.Kind, c.Identifier, reason(err))
	f.update(c.ResourceID, func(c *Cluster) {
		c.Operation = nil
		c.Status = op.From
		if op.From == StatusFailed {
			c.Problem = reason(err)
		}
	})
	if op.From == StatusAvailable {
		f.run(c.ResourceID)
	}
}

// reason is what a client may know of an error.
func reason(err error) string {
	var f *Fault
	if errors.As(err, &f) {
		return f.Message
	}
	return err.Error()
}

// begin gives a cluster an operation, makes that durable and starts it. The caller holds mu.
func (f *Fleet) begin(c *Cluster, status Status, op Operation) error {
	before := c.clone()
	op.Started, op.From = f.now(), c.Status
	c.Status, c.Operation = status, &op
	if err := f.save(c); err != nil {
		*c = before
		return err
	}
	f.perform(c.ResourceID)
	return nil
}

// idle refuses a cluster that is in none of the states.
func idle(c *Cluster, toDo string, states ...Status) error {
	var names []string
	for _, s := range states {
		if c.Status == s {
			if c.Operation == nil {
				return nil
			}
			return fault(CodeClusterState, "DbCluster %s is in %s state and busy with another request: it cannot be %s now.", c.Identifier, c.Status, toDo)
		}
		names = append(names, string(s))
	}
	return fault(CodeClusterState, "DbCluster %s is in %s state but expected it to be one of %s.", c.Identifier, c.Status, strings.Join(names, ","))
}
