package rdsapi

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"pileus/internal/access"
	"pileus/internal/fleet"
	"pileus/internal/ledger"
)

// TestReadOnlyKeys: describe and list, and nothing else reaches the fleet.
func TestReadOnlyKeys(t *testing.T) {
	s := newSDK(t, keyring{ID: "PILEREAD", Secret: "secret", Role: access.ReadOnly})
	for action := range s.api.operations {
		reads := strings.HasPrefix(action, "Describe") || strings.HasPrefix(action, "List")
		s.fleet.asked = nil
		_, err := s.call(t, action, exchanges[action].change)
		status, code, _ := failure(err)
		switch {
		case reads && err != nil:
			t.Errorf("%s: %v", action, err)
		case !reads && (status != 403 || code != "AccessDenied" || s.fleet.last() != nil):
			t.Errorf("%s: %d %s, asked for %v", action, status, code, s.fleet.last())
		}
	}
}

// TestAudit: every call that would change something is noted with who, what and how it ended, and without secrets.
func TestAudit(t *testing.T) {
	s := newSDK(t, ring)
	for action := range s.api.operations {
		if _, err := s.call(t, action, exchanges[action].change); err != nil {
			t.Fatal(err)
		}
	}
	s.fleet.err = &fleet.Fault{Code: fleet.CodeClusterState, Message: "busy"}
	if _, err := s.call(t, "StopDBCluster", nil); err == nil {
		t.Fatal("no error")
	}
	log, err := s.book.AuditLog(t.Context(), ledger.AuditQuery{})
	if err != nil {
		t.Fatal(err)
	}
	noted := map[string]ledger.AuditEntry{}
	for _, e := range log {
		if e.AccessKey != ring.ID || e.Role != string(access.Operator) || e.SourceAddress != "127.0.0.1" || e.RequestID == "" || e.Time.IsZero() {
			t.Errorf("%+v", e)
		}
		noted[e.Action+" "+e.Result] = e
	}
	for action, op := range s.api.operations {
		if _, ok := noted[action+" ok"]; ok != op.changes {
			t.Errorf("%s: noted %v, changes something %v", action, ok, op.changes)
		}
	}
	if e := noted["StopDBCluster InvalidDBClusterStateFault"]; e.Status != 400 || e.Resource != "DBClusterIdentifier" {
		t.Errorf("%+v", e)
	}
	create := noted["CreateDBCluster ok"]
	if create.Parameters["MasterUserPassword"] != "(hidden)" || create.Parameters["Engine"] != "Engine" || create.Parameters["Action"] != "" {
		t.Errorf("%+v", create.Parameters)
	}
}

// TestAuditIsBounded: a large request leaves a small entry.
func TestAuditIsBounded(t *testing.T) {
	s := newSDK(t, keyring{ID: "PILEREAD", Secret: "secret", Role: access.ReadOnly})
	tags := []types.Tag{{Key: aws.String("k"), Value: aws.String(strings.Repeat("ü", 100_000))}}
	for i := range 500 {
		tags = append(tags, types.Tag{Key: aws.String(fmt.Sprint(i)), Value: aws.String("v")})
	}
	if _, err := s.AddTagsToResource(t.Context(), &rds.AddTagsToResourceInput{ResourceName: aws.String(strings.Repeat("x", 10_000)), Tags: tags}); err == nil {
		t.Fatal("no error")
	}
	log, err := s.book.AuditLog(t.Context(), ledger.AuditQuery{})
	if err != nil || len(log) != 1 {
		t.Fatal(log, err)
	}
	size := len(log[0].Resource)
	for k, v := range log[0].Parameters {
		size += len(k) + len(v)
	}
	if size > 20_000 || len(log[0].Parameters) > maxAuditValues+1 || log[0].Parameters["(more)"] == "" {
		t.Errorf("%d bytes, %d parameters", size, len(log[0].Parameters))
	}
}

// TestRefusals: what is wrong in form does not reach the fleet.
func TestRefusals(t *testing.T) {
	s := newSDK(t, ring)
	now := time.Now()
	for name, c := range map[string]struct {
		do   func() error
		code string
	}{
		"no engine": {func() error {
			_, err := s.call(t, "CreateDBCluster", func(in any) { in.(*rds.CreateDBClusterInput).Engine = aws.String("") })
			return err
		}, "InvalidParameterValue"},
		"no identifier of an instance": {func() error {
			_, err := s.call(t, "CreateDBInstance", func(in any) { in.(*rds.CreateDBInstanceInput).DBInstanceClass = aws.String("") })
			return err
		}, "InvalidParameterValue"},
		"a managed password": {func() error {
			_, err := s.call(t, "CreateDBCluster", func(in any) { in.(*rds.CreateDBClusterInput).ManageMasterUserPassword = aws.Bool(true) })
			return err
		}, "InvalidParameterCombination"},
		"a domain": {func() error {
			_, err := s.call(t, "ModifyDBCluster", func(in any) { in.(*rds.ModifyDBClusterInput).Domain = aws.String("x") })
			return err
		}, "InvalidParameterCombination"},
		"a backtrack": {func() error {
			_, err := s.call(t, "CreateDBCluster", func(in any) { in.(*rds.CreateDBClusterInput).BacktrackWindow = aws.Int64(20) })
			return err
		}, "InvalidParameterValue"},
		"a failover": {func() error {
			_, err := s.call(t, "RebootDBInstance", func(in any) { in.(*rds.RebootDBInstanceInput).ForceFailover = aws.Bool(true) })
			return err
		}, "InvalidParameterCombination"},
		"few records": {func() error {
			_, err := s.DescribeDBClusters(t.Context(), &rds.DescribeDBClustersInput{MaxRecords: aws.Int32(19)})
			return err
		}, "InvalidParameterValue"},
		"an unknown filter": {func() error {
			_, err := s.DescribeDBClusters(t.Context(), &rds.DescribeDBClustersInput{Filters: []types.Filter{{Name: aws.String("colour"), Values: []string{"x"}}}})
			return err
		}, "InvalidParameterValue"},
		"a filter without values": {func() error {
			_, err := s.DescribeDBClusters(t.Context(), &rds.DescribeDBClustersInput{Filters: []types.Filter{{Name: aws.String("engine"), Values: []string{}}}})
			return err
		}, "InvalidParameterCombination"},
		"a cluster and a snapshot": {func() error {
			_, err := s.DescribeDBClusterSnapshots(t.Context(), &rds.DescribeDBClusterSnapshotsInput{DBClusterIdentifier: aws.String("a"), DBClusterSnapshotIdentifier: aws.String("b")})
			return err
		}, "InvalidParameterCombination"},
		"an unknown type of snapshot": {func() error {
			_, err := s.DescribeDBClusterSnapshots(t.Context(), &rds.DescribeDBClusterSnapshotsInput{SnapshotType: aws.String("instant")})
			return err
		}, "InvalidParameterValue"},
		"an unknown attribute": {func() error {
			_, err := s.call(t, "ModifyDBClusterSnapshotAttribute", nil)
			return err
		}, "InvalidParameterValue"},
		"events of a source without a type": {func() error {
			_, err := s.DescribeEvents(t.Context(), &rds.DescribeEventsInput{SourceIdentifier: aws.String("x")})
			return err
		}, "InvalidParameterCombination"},
		"events of long ago": {func() error {
			_, err := s.DescribeEvents(t.Context(), &rds.DescribeEventsInput{StartTime: aws.Time(now.Add(-15 * 24 * time.Hour))})
			return err
		}, "InvalidParameterValue"},
		"events that end before they begin": {func() error {
			_, err := s.DescribeEvents(t.Context(), &rds.DescribeEventsInput{StartTime: &now, EndTime: aws.Time(now.Add(-time.Hour))})
			return err
		}, "InvalidParameterCombination"},
		"events of too long a time": {func() error {
			_, err := s.DescribeEvents(t.Context(), &rds.DescribeEventsInput{Duration: aws.Int32(20161)})
			return err
		}, "InvalidParameterValue"},
		"another action": {func() error {
			_, err := s.DescribeDBProxies(t.Context(), &rds.DescribeDBProxiesInput{})
			return err
		}, "InvalidAction"},
		"an unknown backup": {func() error {
			_, err := s.DescribeDBClusterAutomatedBackups(t.Context(), &rds.DescribeDBClusterAutomatedBackupsInput{DbClusterResourceId: aws.String("cluster-X")})
			return err
		}, "DBClusterAutomatedBackupNotFoundFault"},
		"an unknown subnet group": {func() error {
			_, err := s.DescribeDBSubnetGroups(t.Context(), &rds.DescribeDBSubnetGroupsInput{DBSubnetGroupName: aws.String("x")})
			return err
		}, "DBSubnetGroupNotFoundFault"},
		"an unknown parameter group": {func() error {
			_, err := s.DescribeDBClusterParameterGroups(t.Context(), &rds.DescribeDBClusterParameterGroupsInput{DBClusterParameterGroupName: aws.String("x")})
			return err
		}, "DBParameterGroupNotFound"},
	} {
		s.fleet.asked = nil
		if _, code, message := failure(c.do()); code != c.code || message == "" || s.fleet.last() != nil {
			t.Errorf("%s: %s %q, want %s; the fleet was asked for %v", name, code, message, c.code, s.fleet.last())
		}
	}
}

// TestPagesOfSnapshots: snapshots of times that differ in the length of their fractions come page by page, though
// the one that the marker names is deleted meanwhile.
func TestPagesOfSnapshots(t *testing.T) {
	s := newSDK(t, ring)
	for i := range 50 {
		v := full[fleet.Snapshot]("")
		v.Identifier, v.Created = fmt.Sprintf("s%02d", i), signedAt.Add(time.Duration(i)*250*time.Millisecond)
		s.fleet.snapshots = append(s.fleet.snapshots, v)
	}
	want := len(s.fleet.snapshots)
	seen := map[string]bool{}
	pages := rds.NewDescribeDBClusterSnapshotsPaginator(s.Client, &rds.DescribeDBClusterSnapshotsInput{MaxRecords: aws.Int32(21)})
	for pages.HasMorePages() {
		out, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range out.DBClusterSnapshots {
			if seen[*v.DBClusterSnapshotIdentifier] {
				t.Errorf("%s comes twice", *v.DBClusterSnapshotIdentifier)
			}
			seen[*v.DBClusterSnapshotIdentifier] = true
		}
		last := *out.DBClusterSnapshots[len(out.DBClusterSnapshots)-1].DBClusterSnapshotIdentifier
		s.fleet.snapshots = slices.DeleteFunc(s.fleet.snapshots, func(v fleet.Snapshot) bool { return v.Identifier == last })
	}
	if len(seen) != want {
		t.Errorf("%d of %d were seen", len(seen), want)
	}
}
