package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/jackc/pgx/v5"

	"pileus/internal/pgtest"
)

// TestServeKilled kills serve at random moments of every long operation. The next serve must bring each
// to a truthful end, and the databases must not notice.
func TestServeKilled(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	ctx := t.Context()
	c := p.create("orders")
	conn := p.sql(c)
	p.exec(conn, "CREATE TABLE t AS SELECT generate_series(1, 100000) x, repeat('x', 100) y")
	postmaster := p.ask(conn, "SELECT pg_postmaster_start_time()::text")
	pgtest.WaitFor(t, "the first backup", func() bool { return p.cluster("orders").EarliestRestorableTime != nil })
	var before time.Time
	if err := conn.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&before); err != nil {
		t.Fatal(err)
	}
	p.restorable("orders", before)

	// again kills serve so long after the call, and starts another.
	again := func(after time.Duration) {
		t.Helper()
		timer := time.NewTimer(after)
		<-timer.C
		p.serve.kill()
		p.up()
	}
	moments := []time.Duration{0, 150 * time.Millisecond, 600 * time.Millisecond}
	for i, after := range moments {
		id := "n" + string(rune('a'+i))
		_, err := p.api.CreateDBCluster(ctx, &rds.CreateDBClusterInput{DBClusterIdentifier: &id, Engine: aws.String("aurora-postgresql"), EngineVersion: p.version(), MasterUsername: aws.String("boss"),
			MasterUserPassword: aws.String(masterPassword), DatabaseName: aws.String("cumulus"), VpcSecurityGroupIds: []string{"sg-1"}})
		if err != nil {
			t.Fatal(err)
		}
		again(after)
		p.ask(p.sql(p.await(id, "available")), "SELECT 1::text")

		_, err = p.api.RestoreDBClusterToPointInTime(ctx, &rds.RestoreDBClusterToPointInTimeInput{DBClusterIdentifier: aws.String(id + "-r"), SourceDBClusterIdentifier: aws.String("orders"), RestoreToTime: &before})
		if err != nil {
			t.Fatal(err)
		}
		again(after)
		if got := p.ask(p.sql(p.await(id+"-r", "available")), "SELECT count(*)::text FROM t"); got != "100000" {
			t.Errorf("restored with a kill after %s: %s rows", after, got)
		}

		_, err = p.api.CreateDBClusterSnapshot(ctx, &rds.CreateDBClusterSnapshotInput{DBClusterIdentifier: aws.String("orders"), DBClusterSnapshotIdentifier: aws.String(id)})
		if err != nil {
			t.Fatal(err)
		}
		again(after)
		p.await("orders", "available")
		out, err := p.api.DescribeDBClusterSnapshots(ctx, &rds.DescribeDBClusterSnapshotsInput{DBClusterSnapshotIdentifier: &id})
		if err != nil || *out.DBClusterSnapshots[0].Status != "available" {
			t.Errorf("snapshot with a kill after %s: %+v, %v", after, out, err)
		}

		_, err = p.api.StopDBCluster(ctx, &rds.StopDBClusterInput{DBClusterIdentifier: &id})
		if err != nil {
			t.Fatal(err)
		}
		again(after)
		p.await(id, "stopped")
		_, err = p.api.StartDBCluster(ctx, &rds.StartDBClusterInput{DBClusterIdentifier: &id})
		if err != nil {
			t.Fatal(err)
		}
		again(after)
		p.await(id, "available")

		_, err = p.api.ModifyDBCluster(ctx, &rds.ModifyDBClusterInput{DBClusterIdentifier: &id, NewDBClusterIdentifier: aws.String(id + "-new"), ApplyImmediately: aws.Bool(true), MasterUserPassword: aws.String("other-password")})
		if err != nil {
			t.Fatal(err)
		}
		again(after)
		pgtest.WaitFor(t, "the new name", func() bool {
			_, err := p.api.DescribeDBClusters(ctx, &rds.DescribeDBClustersInput{DBClusterIdentifier: aws.String(id + "-new")})
			return err == nil
		})
		p.await(id+"-new", "available")

		_, err = p.api.DeleteDBCluster(ctx, &rds.DeleteDBClusterInput{DBClusterIdentifier: aws.String(id + "-new"), FinalDBSnapshotIdentifier: aws.String(id + "-last")})
		if err != nil {
			t.Fatal(err)
		}
		again(after)
		pgtest.WaitFor(t, "the cluster to go", func() bool {
			_, err := p.api.DescribeDBClusters(ctx, &rds.DescribeDBClustersInput{DBClusterIdentifier: aws.String(id + "-new")})
			return code(err) == "DBClusterNotFoundFault"
		})
		out, err = p.api.DescribeDBClusterSnapshots(ctx, &rds.DescribeDBClusterSnapshotsInput{DBClusterSnapshotIdentifier: aws.String(id + "-last")})
		if err != nil || *out.DBClusterSnapshots[0].Status != "available" {
			t.Errorf("final snapshot with a kill after %s: %+v, %v", after, out, err)
		}
		_, err = p.api.DeleteDBCluster(ctx, &rds.DeleteDBClusterInput{DBClusterIdentifier: aws.String(id + "-r"), SkipFinalSnapshot: aws.Bool(true)})
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := p.ask(conn, "SELECT pg_postmaster_start_time()::text"); got != postmaster {
		t.Error("the database was restarted")
	}

	// A server that dies is brought back, also while nobody looks.
	p.serve.kill()
	p.killServer("orders", c.DbClusterResourceId)
	p.up()
	pgtest.WaitFor(t, "the server to be back", func() bool {
		c, err := pgx.Connect(ctx, conn.Config().ConnString())
		if err != nil {
			return false
		}
		c.Close(ctx)
		return true
	})

	// Without the ledger no backup and no cluster is lost.
	p.serve.kill()
	ledgers, err := filepath.Glob(filepath.Join(p.dir, "state", "serve", "ledger.sqlite*"))
	if err != nil || len(ledgers) == 0 {
		t.Fatalf("%v %v", ledgers, err)
	}
	for _, path := range ledgers {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	p.up()
	if c := p.await("orders", "available"); c.LatestRestorableTime == nil || c.EarliestRestorableTime == nil {
		t.Errorf("restorable from %v to %v", c.EarliestRestorableTime, c.LatestRestorableTime)
	}

	// A second serve on the same state folder is refused.
	_, stderr, exit := p.try("serve")
	if exit != 6 || !strings.Contains(stderr, "another `pileus serve`") {
		t.Errorf("exit %d: %s", exit, stderr)
	}
	p.serve.stop()
	if got := p.ask(p.sql(c), "SELECT count(*)::text FROM t"); got != "100000" {
		t.Errorf("after serve has ended: %s rows", got)
	}
}

// killServer ends a managed cluster's server as a crash would.
func (p *plane) killServer(id string, resource *string) {
	p.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, "state", "servers", *resource, "data", "postmaster.pid"))
	if err != nil {
		p.t.Fatalf("%s: %v", id, err)
	}
	pid := 0
	for _, d := range strings.SplitN(string(text), "\n", 2)[0] {
		pid = 10*pid + int(d-'0')
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		p.t.Fatal(err)
	}
}
