package e2e

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
)

// TestServeRestores creates a cluster, damages it and restores it, by time and from a snapshot.
func TestServeRestores(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	c := p.create("orders")
	conn := p.sql(c)
	p.exec(conn, "CREATE TABLE t (x int, at timestamptz DEFAULT clock_timestamp())")
	p.exec(conn, "INSERT INTO t SELECT generate_series(1, 1000)")
	_, err := p.api.CreateDBClusterSnapshot(t.Context(), &rds.CreateDBClusterSnapshotInput{DBClusterIdentifier: aws.String("orders"), DBClusterSnapshotIdentifier: aws.String("Before-It")})
	if err != nil {
		t.Fatal(err)
	}
	p.await("orders", "available")
	p.exec(conn, "INSERT INTO t VALUES (1001)")
	var before time.Time
	if err := conn.QueryRow(t.Context(), "SELECT clock_timestamp()").Scan(&before); err != nil {
		t.Fatal(err)
	}
	p.exec(conn, "DELETE FROM t")
	p.restorable("orders", before)

	_, err = p.api.RestoreDBClusterToPointInTime(t.Context(), &rds.RestoreDBClusterToPointInTimeInput{DBClusterIdentifier: aws.String("orders-2"),
		SourceDBClusterIdentifier: aws.String("orders"), RestoreToTime: &before})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.api.RestoreDBClusterFromSnapshot(t.Context(), &rds.RestoreDBClusterFromSnapshotInput{DBClusterIdentifier: aws.String("orders-3"), Engine: aws.String("aurora-postgresql"),
		SnapshotIdentifier: aws.String("before-it")})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"orders-2": "1001", "orders-3": "1000"} {
		restored := p.await(id, "available")
		if got := p.ask(p.sql(restored), "SELECT count(*)::text FROM t"); got != want {
			t.Errorf("%s has %s rows, want %s", id, got, want)
		}
		if len(restored.DBClusterMembers) != 0 || *restored.DeletionProtection {
			t.Errorf("%s: %d members, protection %v", id, len(restored.DBClusterMembers), *restored.DeletionProtection)
		}
	}
	if got := p.ask(conn, "SELECT count(*)::text FROM t"); got != "0" {
		t.Errorf("the source has %s rows", got)
	}
}
