package recovery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"
)

// source is the cluster to recover, as the run found it.
type source struct {
	Identifier string    `json:"identifier"`
	ResourceID string    `json:"resource_id"`
	Status     string    `json:"status"` // deleted: only its automated backups are left
	At         Place     `json:"at"`
	Reachable  bool      `json:"reachable"` // the administrator could connect
	Why        string    `json:"why,omitempty"`
	Earliest   time.Time `json:"earliest,omitzero"`
	Latest     time.Time `json:"latest,omitzero"`
	Members    int       `json:"members"`
	// Described is everything that the API says of it: what a restore drops is filled in from here.
	Described *types.DBCluster `json:"described,omitempty"`
}

const statusDeleted = "deleted"

// code is the error code of an API's answer, empty for other errors.
func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

const codeNoCluster = "DBClusterNotFoundFault"

// cluster describes one cluster; nil if there is none of that name.
func (e *environment) cluster(ctx context.Context, id string) (*types.DBCluster, error) {
	out, err := e.api.DescribeDBClusters(ctx, &rds.DescribeDBClustersInput{DBClusterIdentifier: &id})
	if code(err) == codeNoCluster {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask the RDS API about cluster %s: %w", id, err)
	}
	if len(out.DBClusters) != 1 || aws.ToString(out.DBClusters[0].DBClusterIdentifier) == "" {
		return nil, fmt.Errorf("the RDS API answers with %d clusters when asked for %s: what it says cannot be trusted", len(out.DBClusters), id)
	}
	return &out.DBClusters[0], nil
}

func placeOf(c *types.DBCluster) Place {
	return Place{Host: aws.ToString(c.Endpoint), Port: int(aws.ToInt32(c.Port))}
}

// source looks the cluster up; a deleted one by its retained backups.
func (e *environment) source(ctx context.Context, id string) (source, error) {
	c, err := e.cluster(ctx, id)
	if err != nil {
		return source{}, err
	}
	if c == nil {
		return e.deleted(ctx, id)
	}
	s := source{Identifier: id, ResourceID: aws.ToString(c.DbClusterResourceId), Status: aws.ToString(c.Status), At: placeOf(c),
		Earliest: aws.ToTime(c.EarliestRestorableTime), Latest: aws.ToTime(c.LatestRestorableTime), Members: len(c.DBClusterMembers), Described: c}
	if s.Status == "stopped" || s.Status == "failed" || s.At.Host == "" {
		s.Why = "it is " + s.Status
		return s, nil
	}
	conn, err := e.admin(ctx, s.At)
	if err != nil {
		s.Why = err.Error()
		return s, nil
	}
	s.Reachable = true
	return s, conn.Close(ctx)
}

func (e *environment) deleted(ctx context.Context, id string) (source, error) {
	out, err := e.api.DescribeDBClusterAutomatedBackups(ctx, &rds.DescribeDBClusterAutomatedBackupsInput{DBClusterIdentifier: &id})
	if err != nil && code(err) != "DBClusterAutomatedBackupNotFoundFault" {
		return source{}, fmt.Errorf("ask the RDS API about backups of the deleted cluster %s: %w", id, err)
	}
	s := source{Identifier: id, Status: statusDeleted, Why: "there is no such cluster (any more)"}
	if err == nil && len(out.DBClusterAutomatedBackups) > 0 {
		b := out.DBClusterAutomatedBackups[0]
		s.ResourceID = aws.ToString(b.DbClusterResourceId)
		if w := b.RestoreWindow; w != nil {
			s.Earliest, s.Latest = aws.ToTime(w.EarliestTime), aws.ToTime(w.LatestTime)
		}
	}
	return s, nil
}

// check tells why the target cannot be reached from this source; empty: it can.
func (s source) check(ctx context.Context, e *environment, t Target) (string, error) {
	if t.Snapshot != "" {
		out, err := e.api.DescribeDBClusterSnapshots(ctx, &rds.DescribeDBClusterSnapshotsInput{DBClusterSnapshotIdentifier: &t.Snapshot})
		if code(err) == "DBClusterSnapshotNotFoundFault" {
			return "there is no snapshot " + t.Snapshot, nil
		}
		if err != nil {
			return "", fmt.Errorf("ask the RDS API about snapshot %s: %w", t.Snapshot, err)
		}
		if len(out.DBClusterSnapshots) != 1 {
			return "", fmt.Errorf("the RDS API answers with %d snapshots when asked for %s", len(out.DBClusterSnapshots), t.Snapshot)
		}
		snap := out.DBClusterSnapshots[0]
		if status := aws.ToString(snap.Status); status != "available" {
			return fmt.Sprintf("snapshot %s is %s", t.Snapshot, status), nil
		}
		if from := aws.ToString(snap.DBClusterIdentifier); from != s.Identifier {
			return fmt.Sprintf("snapshot %s is of cluster %s", t.Snapshot, from), nil
		}
		return "", nil
	}
	if s.Status == statusDeleted && s.ResourceID == "" {
		return fmt.Sprintf("there is no cluster %s, and no retained backup of it: give --snapshot", s.Identifier), nil
	}
	if s.Earliest.IsZero() {
		return fmt.Sprintf("nothing of %s can be restored yet: it has no complete backup", s.Identifier), nil
	}
	if !t.Time.IsZero() && (t.Time.Before(s.Earliest) || t.Time.After(time.Now())) {
		return fmt.Sprintf("%s can be recovered to any moment since %s", s.Identifier, s.Earliest.UTC().Format(time.RFC3339Nano)), nil
	}
	return "", nil
}
