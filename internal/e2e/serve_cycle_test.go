package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"
	"github.com/jackc/pgx/v5"

	"pileus/internal/pgtest"
)

// ok fails the test unless a call succeeded.
func ok[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// code is the error code of a call, "" if it succeeded.
func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// TestServeLifeCycle walks what becomes of a cluster from its creation to its deletion and after.
func TestServeLifeCycle(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	ctx := t.Context()
	c := p.create("orders")
	conn := p.sql(c)
	p.exec(conn, "CREATE TABLE t AS SELECT generate_series(1, 100) x")

	// An attached cluster is protected without anybody's doing.
	pgtest.WaitFor(t, "the attached cluster to be restorable", func() bool { return p.cluster("src").LatestRestorableTime != nil })

	// The first instance is the writer, the second a standby.
	for _, id := range []string{"orders-a", "orders-b"} {
		ok[*rds.CreateDBInstanceOutput](t)(p.api.CreateDBInstance(ctx, &rds.CreateDBInstanceInput{DBInstanceIdentifier: &id, DBClusterIdentifier: aws.String("orders"),
			DBInstanceClass: aws.String("db.serverless"), Engine: aws.String("aurora-postgresql")}))
	}
	a, b := p.instance("orders-a", "available"), p.instance("orders-b", "available")
	if *a.Endpoint.Port != *c.Port || *b.Endpoint.Port == *c.Port {
		t.Errorf("ports %d and %d, of the cluster %d", *a.Endpoint.Port, *b.Endpoint.Port, *c.Port)
	}
	members := p.cluster("orders").DBClusterMembers
	if len(members) != 2 || !*members[0].IsClusterWriter || *members[1].IsClusterWriter || *members[1].DBInstanceIdentifier != "orders-b" {
		t.Errorf("%+v", members)
	}
	reader := ok[*pgx.Conn](t)(pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=boss password=%s dbname=cumulus sslmode=require", *b.Endpoint.Address, *b.Endpoint.Port, masterPassword)))
	defer reader.Close(ctx)
	p.exec(conn, "INSERT INTO t VALUES (101)")
	pgtest.WaitFor(t, "the reader to follow", func() bool { return p.ask(reader, "SELECT count(*)::text FROM t") == "101" })
	if _, err := reader.Exec(ctx, "INSERT INTO t VALUES (102)"); err == nil {
		t.Error("the reader was written to")
	}
	if _, err := p.api.DeleteDBCluster(ctx, &rds.DeleteDBClusterInput{DBClusterIdentifier: aws.String("orders"), SkipFinalSnapshot: aws.Bool(true)}); code(err) != "InvalidDBClusterStateFault" {
		t.Errorf("deleted with members: %v", err)
	}

	// Parameters reach the server: at once, or with a restart.
	ok[*rds.CreateDBClusterParameterGroupOutput](t)(p.api.CreateDBClusterParameterGroup(ctx, &rds.CreateDBClusterParameterGroupInput{DBClusterParameterGroupName: aws.String("tuned"),
		DBParameterGroupFamily: aws.String("aurora-postgresql" + *p.version()), Description: aws.String("x")}))
	ok[*rds.ModifyDBClusterOutput](t)(p.api.ModifyDBCluster(ctx, &rds.ModifyDBClusterInput{DBClusterIdentifier: aws.String("orders"), DBClusterParameterGroupName: aws.String("tuned"), ApplyImmediately: aws.Bool(true)}))
	p.await("orders", "available")
	ok[*rds.ModifyDBClusterParameterGroupOutput](t)(p.api.ModifyDBClusterParameterGroup(ctx, &rds.ModifyDBClusterParameterGroupInput{DBClusterParameterGroupName: aws.String("tuned"), Parameters: []types.Parameter{
		{ParameterName: aws.String("work_mem"), ParameterValue: aws.String("7000"), ApplyMethod: types.ApplyMethodImmediate},
		{ParameterName: aws.String("max_connections"), ParameterValue: aws.String("123"), ApplyMethod: types.ApplyMethodPendingReboot}}}))
	c = p.await("orders", "available")
	if got := p.ask(conn, "SHOW work_mem"); got != "7000kB" {
		t.Errorf("work_mem %s", got)
	}
	if got := p.ask(conn, "SHOW max_connections"); got == "123" || *c.DBClusterMembers[0].DBClusterParameterGroupStatus != "pending-reboot" {
		t.Errorf("max_connections %s, %s", got, *c.DBClusterMembers[0].DBClusterParameterGroupStatus)
	}
	ok[*rds.RebootDBInstanceOutput](t)(p.api.RebootDBInstance(ctx, &rds.RebootDBInstanceInput{DBInstanceIdentifier: aws.String("orders-a")}))
	c = p.await("orders", "available")
	conn = p.sql(c)
	if got := p.ask(conn, "SHOW max_connections"); got != "123" || *c.DBClusterMembers[0].DBClusterParameterGroupStatus != "in-sync" {
		t.Errorf("max_connections %s, %s", got, *c.DBClusterMembers[0].DBClusterParameterGroupStatus)
	}

	// Rename, password, access.
	ok[*rds.ModifyDBClusterOutput](t)(p.api.ModifyDBCluster(ctx, &rds.ModifyDBClusterInput{DBClusterIdentifier: aws.String("orders"), NewDBClusterIdentifier: aws.String("Sales"), ApplyImmediately: aws.Bool(true),
		MasterUserPassword: aws.String("another-password"), BackupRetentionPeriod: aws.Int32(3), DeletionProtection: aws.Bool(true)}))
	pgtest.WaitFor(t, "the new name", func() bool {
		_, err := p.api.DescribeDBClusters(ctx, &rds.DescribeDBClustersInput{DBClusterIdentifier: aws.String("sales")})
		return err == nil
	})
	c = p.await("sales", "available")
	if *c.BackupRetentionPeriod != 3 || !*c.DeletionProtection || c.PendingModifiedValues != nil {
		t.Errorf("%d days, protection %v, pending %+v", *c.BackupRetentionPeriod, *c.DeletionProtection, c.PendingModifiedValues)
	}
	if _, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=boss password=%s dbname=cumulus sslmode=require", *c.Endpoint, *c.Port, masterPassword)); err == nil {
		t.Error("the old password is still good")
	}
	conn = ok[*pgx.Conn](t)(pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=boss password=another-password dbname=cumulus sslmode=require", *c.Endpoint, *c.Port)))

	// Stop and start.
	if _, err := p.api.DeleteDBCluster(ctx, &rds.DeleteDBClusterInput{DBClusterIdentifier: aws.String("sales"), SkipFinalSnapshot: aws.Bool(true)}); code(err) != "InvalidParameterCombination" {
		t.Errorf("deleted although protected: %v", err)
	}
	p.exec(conn, "INSERT INTO t VALUES (102)")
	ok[*rds.StopDBClusterOutput](t)(p.api.StopDBCluster(ctx, &rds.StopDBClusterInput{DBClusterIdentifier: aws.String("sales")}))
	p.await("sales", "stopped")
	if _, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=boss dbname=cumulus", *c.Endpoint, *c.Port)); err == nil {
		t.Error("it is stopped and takes connections")
	}
	if _, err := p.api.CreateDBClusterSnapshot(ctx, &rds.CreateDBClusterSnapshotInput{DBClusterIdentifier: aws.String("sales"), DBClusterSnapshotIdentifier: aws.String("s")}); code(err) != "InvalidDBClusterStateFault" {
		t.Errorf("a snapshot of a stopped cluster: %v", err)
	}
	ok[*rds.StartDBClusterOutput](t)(p.api.StartDBCluster(ctx, &rds.StartDBClusterInput{DBClusterIdentifier: aws.String("sales")}))
	p.await("sales", "available")
	pgtest.WaitFor(t, "the reader to follow again", func() bool {
		r, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=boss password=another-password dbname=cumulus sslmode=require", *b.Endpoint.Address, *b.Endpoint.Port))
		if err != nil {
			return false
		}
		defer r.Close(ctx)
		return p.ask(r, "SELECT count(*)::text FROM t") == "102"
	})

	// The writer's name goes, and the reader takes over.
	for _, id := range []string{"orders-a", "orders-b"} {
		ok[*rds.DeleteDBInstanceOutput](t)(p.api.DeleteDBInstance(ctx, &rds.DeleteDBInstanceInput{DBInstanceIdentifier: &id}))
		pgtest.WaitFor(t, "instance "+id+" to go", func() bool {
			_, err := p.api.DescribeDBInstances(ctx, &rds.DescribeDBInstancesInput{DBInstanceIdentifier: &id})
			return code(err) == "DBInstanceNotFound"
		})
		if id == "orders-a" {
			pgtest.WaitFor(t, "the reader to be the writer", func() bool {
				m := p.cluster("sales").DBClusterMembers
				return len(m) == 1 && *m[0].IsClusterWriter
			})
		}
	}
	pgtest.WaitFor(t, "the reader's slot to go", func() bool {
		c, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=boss password=another-password dbname=cumulus sslmode=require", *c.Endpoint, *c.Port))
		if err != nil {
			return false
		}
		defer c.Close(ctx)
		return p.ask(c, "SELECT count(*)::text FROM pg_replication_slots WHERE slot_name LIKE 'reader%'") == "0"
	})

	// Delete with a last snapshot and the automated backups retained; both can be restored.
	conn = ok[*pgx.Conn](t)(pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=boss password=another-password dbname=cumulus sslmode=require", *c.Endpoint, *c.Port)))
	p.exec(conn, "INSERT INTO t VALUES (103)")
	ok[*rds.ModifyDBClusterOutput](t)(p.api.ModifyDBCluster(ctx, &rds.ModifyDBClusterInput{DBClusterIdentifier: aws.String("sales"), DeletionProtection: aws.Bool(false)}))
	p.await("sales", "available")
	ok[*rds.DeleteDBClusterOutput](t)(p.api.DeleteDBCluster(ctx, &rds.DeleteDBClusterInput{DBClusterIdentifier: aws.String("sales"), FinalDBSnapshotIdentifier: aws.String("last"), DeleteAutomatedBackups: aws.Bool(false)}))
	pgtest.WaitFor(t, "the cluster to go", func() bool {
		_, err := p.api.DescribeDBClusters(ctx, &rds.DescribeDBClustersInput{DBClusterIdentifier: aws.String("sales")})
		return code(err) == "DBClusterNotFoundFault"
	})
	backups := ok[*rds.DescribeDBClusterAutomatedBackupsOutput](t)(p.api.DescribeDBClusterAutomatedBackups(ctx, &rds.DescribeDBClusterAutomatedBackupsInput{DBClusterIdentifier: aws.String("sales")})).DBClusterAutomatedBackups
	if len(backups) != 1 || *backups[0].Status != "retained" || *backups[0].DbClusterResourceId != *c.DbClusterResourceId {
		t.Fatalf("%+v", backups)
	}
	ok[*rds.RestoreDBClusterToPointInTimeOutput](t)(p.api.RestoreDBClusterToPointInTime(ctx, &rds.RestoreDBClusterToPointInTimeInput{DBClusterIdentifier: aws.String("sales"),
		SourceDbClusterResourceId: c.DbClusterResourceId, UseLatestRestorableTime: aws.Bool(true)}))
	again := p.await("sales", "available")
	conn = ok[*pgx.Conn](t)(pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=boss password=another-password dbname=cumulus sslmode=require", *again.Endpoint, *again.Port)))
	if got := p.ask(conn, "SELECT count(*)::text FROM t"); got != "103" {
		t.Errorf("the deleted cluster comes back with %s rows: the last commits before the deletion are missing", got)
	}
	conn.Close(ctx)

	snapshots := ok[*rds.DescribeDBClusterSnapshotsOutput](t)(p.api.DescribeDBClusterSnapshots(ctx, &rds.DescribeDBClusterSnapshotsInput{DBClusterSnapshotIdentifier: aws.String("last")})).DBClusterSnapshots
	if len(snapshots) != 1 || *snapshots[0].Status != "available" || *snapshots[0].SnapshotType != "manual" || *snapshots[0].PercentProgress != 100 {
		t.Errorf("%+v", snapshots)
	}
	for _, want := range []string{"DB cluster created", "Renamed DB cluster", "Reset master credentials", "DB cluster stopped", "DB cluster started", "is now the writer", "DB cluster deleted"} {
		if all := p.events(); !slices.ContainsFunc(all, func(e string) bool { return strings.Contains(e, want) }) {
			t.Errorf("no event says %q:\n%s", want, strings.Join(all, "\n"))
		}
	}
}

// instance waits until an instance has a status.
func (p *plane) instance(id, status string) types.DBInstance {
	p.t.Helper()
	var found types.DBInstance
	pgtest.WaitFor(p.t, "instance "+id+" to be "+status, func() bool {
		out, err := p.api.DescribeDBInstances(p.t.Context(), &rds.DescribeDBInstancesInput{DBInstanceIdentifier: &id})
		if err != nil {
			p.t.Fatal(err)
		}
		found = out.DBInstances[0]
		return *found.DBInstanceStatus == status
	})
	return found
}
