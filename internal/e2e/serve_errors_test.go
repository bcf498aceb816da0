package e2e

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"

	"pileus/internal/pgtest"
)

// refusal is the code that a request is to be refused with, and how it was.
type refusal struct {
	code string
	err  error
}

// failed drops the answer of a call.
func failed[T any](_ T, err error) error { return err }

// TestServeErrors provokes every error code that docs/rds-api.md says is answered by a real serve, and holds its HTTP
// status against the table there.
func TestServeErrors(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	ctx, src, none := t.Context(), aws.String("src"), aws.String("nobody")
	newest := "postgres" + *p.version()
	create := func(change func(*rds.CreateDBClusterInput)) error {
		q := &rds.CreateDBClusterInput{DBClusterIdentifier: aws.String("orders"), Engine: aws.String("postgres"), EngineVersion: p.version(), MasterUsername: aws.String("boss"), MasterUserPassword: aws.String(masterPassword)}
		change(q)
		return failed(p.api.CreateDBCluster(ctx, q))
	}
	instance := func(cluster string) error {
		return failed(p.api.CreateDBInstance(ctx, &rds.CreateDBInstanceInput{DBInstanceIdentifier: aws.String("one"), DBClusterIdentifier: &cluster, DBInstanceClass: aws.String("db.serverless"),
			Engine: p.cluster(cluster).Engine}))
	}
	restore := func(change func(*rds.RestoreDBClusterToPointInTimeInput)) error {
		q := &rds.RestoreDBClusterToPointInTimeInput{DBClusterIdentifier: aws.String("restored"), SourceDBClusterIdentifier: src}
		change(q)
		return failed(p.api.RestoreDBClusterToPointInTime(ctx, q))
	}
	subnets := func(name, subnet string) error {
		return failed(p.api.CreateDBSubnetGroup(ctx, &rds.CreateDBSubnetGroupInput{DBSubnetGroupName: &name, DBSubnetGroupDescription: aws.String("x"), SubnetIds: []string{subnet}}))
	}
	parameters := func() error {
		return failed(p.api.CreateDBClusterParameterGroup(ctx, &rds.CreateDBClusterParameterGroupInput{DBClusterParameterGroupName: aws.String("tuned"), DBParameterGroupFamily: &newest, Description: aws.String("x")}))
	}
	snapshot := func() error {
		return failed(p.api.CreateDBClusterSnapshot(ctx, &rds.CreateDBClusterSnapshotInput{DBClusterIdentifier: src, DBClusterSnapshotIdentifier: aws.String("snap")}))
	}

	// What must be there first; the cluster is stopped, of which a member cannot be restarted.
	if err := errors.Join(create(func(*rds.CreateDBClusterInput) {}), subnets("group", "subnet-1"), parameters()); err != nil {
		t.Fatal(err)
	}
	pgtest.WaitFor(t, "src to be restorable", func() bool { return p.cluster("src").EarliestRestorableTime != nil })
	p.await("src", "available")
	automated := ok[*rds.DescribeDBClusterSnapshotsOutput](t)(p.api.DescribeDBClusterSnapshots(ctx, &rds.DescribeDBClusterSnapshotsInput{DBClusterIdentifier: src, SnapshotType: aws.String("automated")})).DBClusterSnapshots[0].DBClusterSnapshotIdentifier
	ok[*rds.CopyDBClusterSnapshotOutput](t)(p.api.CopyDBClusterSnapshot(ctx, &rds.CopyDBClusterSnapshotInput{SourceDBClusterSnapshotIdentifier: automated, TargetDBClusterSnapshotIdentifier: aws.String("copy")}))
	if err := snapshot(); err != nil {
		t.Fatal(err)
	}
	p.await("orders", "available")
	if err := instance("orders"); err != nil {
		t.Fatal(err)
	}
	p.instance("one", "available")
	ok[*rds.StopDBClusterOutput](t)(p.api.StopDBCluster(ctx, &rds.StopDBClusterInput{DBClusterIdentifier: aws.String("orders")}))
	p.await("orders", "stopped")
	p.await("src", "available")

	accounts := make([]string, 21)
	for i := range accounts {
		accounts[i] = fmt.Sprintf("%012d", i)
	}
	told := toldErrors(t)
	for _, r := range []refusal{
		{"InvalidParameterValue", create(func(q *rds.CreateDBClusterInput) { q.DBClusterIdentifier = aws.String("two--hyphens") })},
		{"InvalidParameterCombination", restore(func(q *rds.RestoreDBClusterToPointInTimeInput) {
			q.UseLatestRestorableTime, q.RestoreToTime = aws.Bool(true), aws.Time(time.Now())
		})},
		{"MissingParameter", restore(func(q *rds.RestoreDBClusterToPointInTimeInput) { q.SourceDBClusterIdentifier = nil })},
		{"InvalidRestoreFault", restore(func(q *rds.RestoreDBClusterToPointInTimeInput) { q.RestoreToTime = aws.Time(time.Now().Add(time.Hour)) })},
		{"DBClusterNotFoundFault", restore(func(q *rds.RestoreDBClusterToPointInTimeInput) {
			q.SourceDBClusterIdentifier, q.UseLatestRestorableTime = none, aws.Bool(true)
		})},
		{"DBClusterAlreadyExistsFault", create(func(*rds.CreateDBClusterInput) {})},
		{"InvalidDBClusterStateFault", failed(p.api.StopDBCluster(ctx, &rds.StopDBClusterInput{DBClusterIdentifier: aws.String("orders")}))},
		{"DBSubnetGroupNotFoundFault", create(func(q *rds.CreateDBClusterInput) { q.DBClusterIdentifier, q.DBSubnetGroupName = aws.String("x"), none })},
		{"DBClusterParameterGroupNotFound", create(func(q *rds.CreateDBClusterInput) {
			q.DBClusterIdentifier, q.DBClusterParameterGroupName = aws.String("x"), none
		})},
		{"DBClusterSnapshotNotFoundFault", failed(p.api.RestoreDBClusterFromSnapshot(ctx, &rds.RestoreDBClusterFromSnapshotInput{DBClusterIdentifier: aws.String("x"), SnapshotIdentifier: none, Engine: aws.String("postgres")}))},
		{"DBClusterSnapshotAlreadyExistsFault", snapshot()},
		{"InvalidDBClusterSnapshotStateFault", failed(p.api.DeleteDBClusterSnapshot(ctx, &rds.DeleteDBClusterSnapshotInput{DBClusterSnapshotIdentifier: automated}))},
		{"SharedSnapshotQuotaExceeded", failed(p.api.ModifyDBClusterSnapshotAttribute(ctx, &rds.ModifyDBClusterSnapshotAttributeInput{DBClusterSnapshotIdentifier: aws.String("snap"), AttributeName: aws.String("restore"), ValuesToAdd: accounts}))},
		{"DBClusterAutomatedBackupNotFoundFault", failed(p.api.DeleteDBClusterAutomatedBackup(ctx, &rds.DeleteDBClusterAutomatedBackupInput{DbClusterResourceId: none}))},
		{"InvalidDBClusterAutomatedBackupStateFault", failed(p.api.DeleteDBClusterAutomatedBackup(ctx, &rds.DeleteDBClusterAutomatedBackupInput{DbClusterResourceId: p.cluster("src").DbClusterResourceId}))},
		{"DBInstanceNotFound", failed(p.api.DeleteDBInstance(ctx, &rds.DeleteDBInstanceInput{DBInstanceIdentifier: none}))},
		{"DBInstanceAlreadyExists", instance("src")},
		{"InvalidDBInstanceState", failed(p.api.RebootDBInstance(ctx, &rds.RebootDBInstanceInput{DBInstanceIdentifier: aws.String("one")}))},
		{"DBSubnetGroupAlreadyExists", subnets("group", "subnet-1")},
		{"InvalidSubnet", subnets("other", "subnet-9")},
		{"InvalidDBSubnetGroupStateFault", failed(p.api.DeleteDBSubnetGroup(ctx, &rds.DeleteDBSubnetGroupInput{DBSubnetGroupName: aws.String("default")}))},
		{"DBParameterGroupAlreadyExists", parameters()},
		{"DBParameterGroupNotFound", failed(p.api.DescribeDBClusterParameters(ctx, &rds.DescribeDBClusterParametersInput{DBClusterParameterGroupName: none}))},
		{"InvalidDBParameterGroupState", failed(p.api.DeleteDBClusterParameterGroup(ctx, &rds.DeleteDBClusterParameterGroupInput{DBClusterParameterGroupName: aws.String("default." + newest)}))},
		{"GlobalClusterNotFoundFault", failed(p.api.DescribeGlobalClusters(ctx, &rds.DescribeGlobalClustersInput{GlobalClusterIdentifier: none}))},
		{"InvalidAction", failed(p.api.DescribeDBProxies(ctx, &rds.DescribeDBProxiesInput{}))},
	} {
		var http interface{ HTTPStatusCode() int }
		if code(r.err) != r.code || !errors.As(r.err, &http) || told[r.code] != fmt.Sprint(http.HTTPStatusCode(), " serve") {
			t.Errorf("want %s, %s: %v", r.code, told[r.code], r.err)
		}
		delete(told, r.code)
	}
	for code, what := range told {
		if strings.HasSuffix(what, "serve") {
			t.Errorf("docs/rds-api.md says that %s is tested against serve", code)
		}
	}
	if got := p.cluster("src"); *got.Status != "available" {
		t.Errorf("the attached cluster is %s", *got.Status)
	}
}

// toldErrors are the statuses of the codes in the table of docs/rds-api.md, with where they are tested.
func toldErrors(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/rds-api.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\| ([0-9]{3}) \\| .* \\| ([a-z]+) \\|$").FindAllStringSubmatch(string(text), -1) {
		out[m[1]] = m[2] + " " + m[3]
	}
	return out
}
