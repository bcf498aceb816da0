package e2e

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/jackc/pgx/v5"

	"pileus/internal/pgtest"
)

// TestServeReaders restarts serve over a cluster with readers: all of them are kept up again, and so is the schedule; and
// when the writer goes, the reader of the lowest promotion tier takes its place.
func TestServeReaders(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	ctx := t.Context()
	c := p.create("orders")
	conn := p.sql(c)
	for i, id := range []string{"a", "b", "c"} {
		ok[*rds.CreateDBInstanceOutput](t)(p.api.CreateDBInstance(ctx, &rds.CreateDBInstanceInput{DBInstanceIdentifier: &id, DBClusterIdentifier: aws.String("orders"),
			DBInstanceClass: aws.String("db.serverless"), Engine: aws.String("aurora-postgresql"), PromotionTier: aws.Int32(int32(9 - i))}))
		p.instance(id, "available")
	}
	p.serve.kill()
	p.up()

	p.create("later")
	pgtest.WaitFor(t, "the schedule to back a new cluster up", func() bool { return p.cluster("later").EarliestRestorableTime != nil })
	for _, id := range []string{"b", "c"} {
		i := p.instance(id, "available")
		started := func() string {
			r, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=boss password=%s dbname=cumulus sslmode=require", *i.Endpoint.Address, *i.Endpoint.Port, masterPassword))
			if err != nil {
				return ""
			}
			defer r.Close(ctx)
			return p.ask(r, "SELECT pg_postmaster_start_time()::text")
		}
		before := started()
		p.killServer(id, i.DbiResourceId)
		pgtest.WaitFor(t, "reader "+id+" to be brought back", func() bool { at := started(); return at != "" && at != before })
	}

	ok[*rds.DeleteDBInstanceOutput](t)(p.api.DeleteDBInstance(ctx, &rds.DeleteDBInstanceInput{DBInstanceIdentifier: aws.String("a")}))
	pgtest.WaitFor(t, "a reader to be the writer", func() bool {
		m := p.cluster("orders").DBClusterMembers
		return len(m) == 2 && *m[0].IsClusterWriter
	})
	if m := p.cluster("orders").DBClusterMembers; *m[0].DBInstanceIdentifier != "c" || *m[1].IsClusterWriter {
		t.Errorf("%s of tier %d is the writer, beside %s of tier %d", *m[0].DBInstanceIdentifier, *m[0].PromotionTier, *m[1].DBInstanceIdentifier, *m[1].PromotionTier)
	}
	pgtest.WaitFor(t, "the slot of the reader that was", func() bool {
		return p.ask(conn, "SELECT count(*)::text FROM pg_replication_slots WHERE slot_name LIKE 'reader%'") == "1"
	})
}
