package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"pileus/internal/config"
	"pileus/internal/fence"
)

// runTag marks what a run made, so that a run that is resumed knows its own.
const runTag = "pileus-run"

// Restored is the new cluster.
type Restored struct {
	Identifier string `json:"identifier"`
	At         Place  `json:"at"`
	Instance   string `json:"instance,omitempty"`
	Unfenced   bool   `json:"unfenced,omitempty"` // it came back fenced, and was opened
	Took       string `json:"took"`
}

func (r Restored) String() string {
	return fmt.Sprintf("%s at %s, in %s", r.Identifier, r.At, r.Took)
}

type restoring struct{}

func (restoring) done(ctx context.Context, w *work) (bool, error) {
	c, err := w.env.cluster(ctx, w.run.New)
	if err != nil {
		return false, err
	}
	if c == nil || aws.ToString(c.Status) != "available" {
		return false, nil
	}
	return true, w.own(c)
}

// own refuses a cluster that this run did not make.
func (w *work) own(c *types.DBCluster) error {
	if only := w.run.Options.Only; only != "" && only != StepRestore {
		return nil // the operator named it
	}
	for _, t := range c.TagList {
		if aws.ToString(t.Key) == runTag && aws.ToString(t.Value) == w.run.ID {
			return nil
		}
	}
	return fmt.Errorf("cluster %s exists and this run did not make it: it is left alone. Abort the run, and begin one with another name", w.run.New)
}

func (restoring) do(ctx context.Context, w *work) (any, error) {
	began := time.Now()
	s, err := w.source()
	if err != nil {
		return nil, err
	}
	c, err := w.env.cluster(ctx, w.run.New)
	if err != nil {
		return nil, err
	}
	if c != nil {
		if err := w.own(c); err != nil {
			return nil, err
		}
		if aws.ToString(c.Status) == "failed" { // an earlier attempt of this run
			if err := w.deleteNew(ctx); err != nil {
				return nil, err
			}
			c = nil
		}
	}
	if c == nil {
		if err := w.did(ctx, "restore-asked", "the RDS API is asked for "+w.run.New, nil); err != nil {
			return nil, err
		}
		if err := w.ask(ctx, s); err != nil {
			return nil, err
		}
	}
	if c, err = w.available(ctx, w.run.New); err != nil {
		return nil, err
	}
	out := Restored{Identifier: w.run.New, At: placeOf(c)}
	if out.Instance, err = w.instance(ctx, s, c); err != nil {
		return nil, err
	}
	if err := w.did(ctx, "endpoint", "the new cluster listens at "+out.At.String(), out.At); err != nil {
		return nil, err
	}
	disabled, err := w.disableRules(ctx, out.At, false)
	if err != nil {
		return nil, err
	}
	if out.Unfenced, err = w.open(ctx, out.At); err != nil {
		return nil, err
	}
	if !disabled {
		if _, err := w.disableRules(ctx, out.At, true); err != nil {
			return nil, err
		}
	}
	out.Took = time.Since(began).Round(time.Millisecond).String()
	return out, nil
}

// ask sends the request. What RDS would drop and a request can carry is carried.
func (w *work) ask(ctx context.Context, s source) error {
	tags := []types.Tag{{Key: aws.String(runTag), Value: aws.String(w.run.ID)}}
	var d types.DBCluster
	if s.Described != nil {
		d = *s.Described
		for _, t := range d.TagList {
			if key := aws.ToString(t.Key); key != runTag && !strings.HasPrefix(key, "aws:") {
				tags = append(tags, t)
			}
		}
	}
	var groups []string
	for _, g := range d.VpcSecurityGroups {
		groups = append(groups, aws.ToString(g.VpcSecurityGroupId))
	}
	var scaling *types.ServerlessV2ScalingConfiguration
	if v := d.ServerlessV2ScalingConfiguration; v != nil {
		scaling = &types.ServerlessV2ScalingConfiguration{MinCapacity: v.MinCapacity, MaxCapacity: v.MaxCapacity}
	}
	t := w.run.Target
	var err error
	if t.Snapshot != "" {
		engine := d.Engine
		if engine == nil {
			engine = aws.String("aurora-postgresql")
		}
		_, err = w.env.api.RestoreDBClusterFromSnapshot(ctx, &rds.RestoreDBClusterFromSnapshotInput{
			DBClusterIdentifier: &w.run.New, SnapshotIdentifier: &t.Snapshot, Engine: engine, DBSubnetGroupName: d.DBSubnetGroup,
			DBClusterParameterGroupName: d.DBClusterParameterGroup, VpcSecurityGroupIds: groups, CopyTagsToSnapshot: d.CopyTagsToSnapshot, Tags: tags,
			ServerlessV2ScalingConfiguration: scaling, EnableCloudwatchLogsExports: d.EnabledCloudwatchLogsExports})
	} else {
		in := &rds.RestoreDBClusterToPointInTimeInput{
			DBClusterIdentifier: &w.run.New, DBSubnetGroupName: d.DBSubnetGroup, DBClusterParameterGroupName: d.DBClusterParameterGroup,
			VpcSecurityGroupIds: groups, CopyTagsToSnapshot: d.CopyTagsToSnapshot, Tags: tags, ServerlessV2ScalingConfiguration: scaling,
			EnableCloudwatchLogsExports: d.EnabledCloudwatchLogsExports}
		if s.Status == statusDeleted {
			in.SourceDbClusterResourceId = aws.String(s.ResourceID)
		} else {
			in.SourceDBClusterIdentifier = &w.run.Cluster
		}
		if t.Latest {
			in.UseLatestRestorableTime = aws.Bool(true)
		} else if !t.Time.IsZero() {
			in.RestoreToTime = aws.Time(t.Time)
		}
		_, err = w.env.api.RestoreDBClusterToPointInTime(ctx, in, exact(t))
	}
	if err != nil && code(err) == "DBClusterAlreadyExistsFault" {
		return nil // asked twice; whose it is shows when it is waited for
	}
	if err != nil {
		return fmt.Errorf("ask for the new cluster: %w", err)
	}
	return nil
}

// exact adds what RDS has no word for to a request for `pileus serve`. AWS refuses such a request, since it then
// names neither a time nor the latest.
func exact(t Target) func(*rds.Options) {
	return func(o *rds.Options) {
		more := url.Values{}
		switch {
		case t.XID != "":
			more.Set("PileusRestoreToXid", t.XID)
		case t.LSN != "":
			more.Set("PileusRestoreToLsn", t.LSN)
		default:
			return
		}
		if t.Exclusive {
			more.Set("PileusExclusive", "true")
		}
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Serialize.Add(middleware.SerializeMiddlewareFunc("PileusTarget", func(ctx context.Context, in middleware.SerializeInput, next middleware.SerializeHandler) (middleware.SerializeOutput, middleware.Metadata, error) {
				req, ok := in.Request.(*smithyhttp.Request)
				if !ok || req.GetStream() == nil {
					return middleware.SerializeOutput{}, middleware.Metadata{}, errors.New("the request has no form that a target could be added to")
				}
				form, err := io.ReadAll(req.GetStream())
				if err != nil {
					return middleware.SerializeOutput{}, middleware.Metadata{}, err
				}
				req, err = req.SetStream(bytes.NewReader(append(form, "&"+more.Encode()...)))
				if err != nil {
					return middleware.SerializeOutput{}, middleware.Metadata{}, err
				}
				in.Request = req
				return next.HandleSerialize(ctx, in)
			}), middleware.After)
		})
	}
}

// available waits until a cluster is, and refuses one that this run did not make.
func (w *work) available(ctx context.Context, id string) (*types.DBCluster, error) {
	began := time.Now()
	var c *types.DBCluster
	err := w.wait(ctx, func() (bool, string, error) {
		var err error
		if c, err = w.env.cluster(ctx, id); err != nil || c == nil {
			return false, "", errors.Join(err, gone(err == nil, id))
		}
		if err := w.own(c); err != nil {
			return false, "", err
		}
		switch status := aws.ToString(c.Status); status {
		case "available":
			return true, "", nil
		case "failed", "incompatible-restore", "incompatible-parameters", "deleting", "deleted":
			return false, "", fmt.Errorf("cluster %s is %s: %s", id, status, w.why(ctx, id))
		default:
			return false, fmt.Sprintf("%s is %s for %s", id, status, time.Since(began).Round(time.Second)), nil
		}
	})
	return c, err
}

// why asks the events what went wrong with a cluster.
func (w *work) why(ctx context.Context, id string) string {
	out, err := w.env.api.DescribeEvents(ctx, &rds.DescribeEventsInput{SourceIdentifier: &id, SourceType: types.SourceTypeDbCluster, Duration: aws.Int32(60)})
	if err != nil || len(out.Events) == 0 {
		return "its events say nothing"
	}
	return aws.ToString(out.Events[len(out.Events)-1].Message)
}

// instance gives the new cluster a writer, if the source had any member, or it is Aurora's, which serves nobody without one.
func (w *work) instance(ctx context.Context, s source, c *types.DBCluster) (string, error) {
	if len(c.DBClusterMembers) > 0 {
		return aws.ToString(c.DBClusterMembers[0].DBInstanceIdentifier), nil
	}
	if s.Members == 0 && w.env.c.Provider != config.ProviderAWS {
		return "", nil
	}
	class := "db.serverless"
	if s.Described != nil {
		for _, m := range s.Described.DBClusterMembers {
			out, err := w.env.api.DescribeDBInstances(ctx, &rds.DescribeDBInstancesInput{DBInstanceIdentifier: m.DBInstanceIdentifier})
			if err != nil {
				return "", fmt.Errorf("ask what class the source's instances have: %w", err)
			}
			if aws.ToBool(m.IsClusterWriter) && len(out.DBInstances) == 1 {
				class = aws.ToString(out.DBInstances[0].DBInstanceClass)
			}
		}
	}
	id := w.run.New + "-instance-1"
	_, err := w.env.api.CreateDBInstance(ctx, &rds.CreateDBInstanceInput{DBInstanceIdentifier: &id, DBClusterIdentifier: &w.run.New, DBInstanceClass: &class,
		Engine: c.Engine, Tags: []types.Tag{{Key: aws.String(runTag), Value: aws.String(w.run.ID)}}})
	if err != nil && code(err) != "DBInstanceAlreadyExists" {
		return "", fmt.Errorf("create the instance %s of the new cluster: %w", id, err)
	}
	return id, w.wait(ctx, func() (bool, string, error) {
		out, err := w.env.api.DescribeDBInstances(ctx, &rds.DescribeDBInstancesInput{DBInstanceIdentifier: &id})
		if err != nil || len(out.DBInstances) != 1 {
			return false, "", errors.Join(err, gone(err == nil, id))
		}
		status := aws.ToString(out.DBInstances[0].DBInstanceStatus)
		if status == "failed" {
			return false, "", fmt.Errorf("instance %s is failed", id)
		}
		return status == "available", id + " is " + status, nil
	})
}

// open lifts a fence that was restored with the data: one that was up at the target.
func (w *work) open(ctx context.Context, at Place) (bool, error) {
	var st fence.State
	if !w.recall(KindFound, "access", &st) {
		return false, nil
	}
	conn, err := w.env.admin(ctx, at)
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	up, err := fence.Restored(ctx, conn, w.env.target(), st)
	if err != nil || !up {
		return false, err
	}
	return true, fence.Lift(ctx, conn, st)
}

// deleteNew deletes what this run restored.
func (w *work) deleteNew(ctx context.Context) error {
	c, err := w.env.cluster(ctx, w.run.New)
	if err != nil || c == nil {
		return err
	}
	if err := w.own(c); err != nil {
		return err
	}
	if aws.ToBool(c.DeletionProtection) {
		_, err := w.env.api.ModifyDBCluster(ctx, &rds.ModifyDBClusterInput{DBClusterIdentifier: &w.run.New, DeletionProtection: aws.Bool(false), ApplyImmediately: aws.Bool(true)})
		if err != nil {
			return fmt.Errorf("take deletion protection off %s: %w", w.run.New, err)
		}
		if _, err := w.available(ctx, w.run.New); err != nil {
			return err
		}
	}
	for _, m := range c.DBClusterMembers {
		if _, err := w.env.api.DeleteDBInstance(ctx, &rds.DeleteDBInstanceInput{DBInstanceIdentifier: m.DBInstanceIdentifier, SkipFinalSnapshot: aws.Bool(true)}); err != nil &&
			code(err) != "DBInstanceNotFound" && code(err) != "InvalidDBInstanceState" {
			return fmt.Errorf("delete instance %s: %w", aws.ToString(m.DBInstanceIdentifier), err)
		}
	}
	return w.wait(ctx, func() (bool, string, error) {
		c, err := w.env.cluster(ctx, w.run.New)
		if err != nil || c == nil {
			return err == nil, "", err
		}
		if len(c.DBClusterMembers) == 0 && aws.ToString(c.Status) != "deleting" {
			_, err := w.env.api.DeleteDBCluster(ctx, &rds.DeleteDBClusterInput{DBClusterIdentifier: &w.run.New, SkipFinalSnapshot: aws.Bool(true)})
			if err != nil && code(err) != codeNoCluster && code(err) != "InvalidDBClusterStateFault" {
				return false, "", fmt.Errorf("delete %s: %w", w.run.New, err)
			}
		}
		return false, w.run.New + " is deleted", nil
	})
}

// undo leaves the new cluster, unless the operator wants it gone: looking at it may be why he aborts.
func (restoring) undo(ctx context.Context, w *work) error {
	var gone bool
	if w.recall(KindDid, "delete-new", &gone) && gone {
		return w.deleteNew(ctx)
	}
	c, err := w.env.cluster(ctx, w.run.New)
	if err != nil || c == nil {
		return err
	}
	return w.note(ctx, "the new cluster %s is still there; delete it with `aws rds delete-db-cluster` when it is of no more use", w.run.New)
}
