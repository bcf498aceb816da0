package rdsapi

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"pileus/internal/fleet"
	"pileus/internal/ledger"
)

// sdk is Go's SDK before the API over a fake fleet.
type sdk struct {
	*rds.Client
	api   *API
	fleet *fakeFleet
	book  *ledger.Ledger
}

func newSDK(t *testing.T, key keyring) *sdk {
	t.Helper()
	book, _, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := book.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &sdk{fleet: &fakeFleet{t: t}, book: book}
	s.api = New(Options{Fleet: s.fleet, Keys: key, Ledger: book, Region: "us-east-1", Account: "123456789012", Log: quiet()})
	server := httptest.NewServer(s.api)
	t.Cleanup(server.Close)
	s.Client = rds.New(rds.Options{Region: "us-east-1", BaseEndpoint: &server.URL, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(key.ID, key.Secret, "")})
	return s
}

// unsupported are parameters that requests here must not have: what asks for the impossible, or
// has no effect and no place in the fleet.
var unsupported = map[string]bool{"ManageMasterUserPassword": true, "ReplicationSourceIdentifier": true, "GlobalClusterIdentifier": true, "Domain": true,
	"BacktrackWindow": true, "ForceFailover": true, "PreSignedUrl": true, "SourceRegion": true}

// call sends a request with all parameters set to their own names, and returns the answer.
func (s *sdk) call(t *testing.T, action string, change func(in any)) (any, error) {
	t.Helper()
	method := reflect.ValueOf(s.Client).MethodByName(action)
	if !method.IsValid() {
		t.Fatalf("the SDK has no operation %s", action)
	}
	in := reflect.New(method.Type().In(1).Elem())
	for i := range in.Elem().NumField() {
		if f := in.Elem().Type().Field(i); f.IsExported() && !unsupported[f.Name] {
			fill(in.Elem().Field(i), f.Name)
		}
	}
	for name, v := range map[string]any{"Filters": []types.Filter(nil), "MaxRecords": aws.Int32(20), "Marker": (*string)(nil)} {
		if f := in.Elem().FieldByName(name); f.IsValid() {
			f.Set(reflect.ValueOf(v))
		}
	}
	if change != nil {
		change(in.Interface())
	}
	out := method.Call([]reflect.Value{reflect.ValueOf(t.Context()), in})
	err, _ := out[1].Interface().(error)
	return out[0].Interface(), err
}

// settings are what the common parameters are read as.
func settings(but ...string) fleet.Settings {
	s := fleet.Settings{Port: aws.Int(7), SubnetGroup: aws.String("DBSubnetGroupName"), ParameterGroup: aws.String("DBClusterParameterGroupName"),
		SecurityGroups: []string{"VpcSecurityGroupIds"}, RetentionDays: aws.Int(7), BackupWindow: aws.String("PreferredBackupWindow"),
		MaintenanceWindow: aws.String("PreferredMaintenanceWindow"), DeletionProtection: aws.Bool(true), CopyTagsToSnapshot: aws.Bool(true),
		AutoMinorUpgrade: aws.Bool(true), IAMAuth: aws.Bool(true), EngineMode: aws.String("EngineMode"), StorageType: aws.String("StorageType"),
		ServerlessMin: aws.Float64(7), ServerlessMax: aws.Float64(7), LogExports: []string{"EnableCloudwatchLogsExports"}, KMSKeyID: aws.String("KmsKeyId"),
		Encrypted: aws.Bool(true), AvailabilityZones: []string{"AvailabilityZones"},
		InstanceClass: aws.String("DBClusterInstanceClass"), AllocatedStorage: aws.Int(7), IOPS: aws.Int(7), Public: aws.Bool(true)}
	for _, name := range but {
		reflect.ValueOf(&s).Elem().FieldByName(name).SetZero()
	}
	return s
}

var oneTag = []fleet.Tag{{Key: "Tags.Key", Value: "Tags.Value"}}

// exchange is what an operation asks the fleet for when every parameter is given.
type exchange struct {
	change func(in any)
	want   any // nil: the fleet is not asked with anything
}

var exchanges = map[string]exchange{
	"CreateDBCluster": {nil, fleet.CreateCluster{Identifier: "DBClusterIdentifier", Engine: "Engine", EngineVersion: "EngineVersion", MasterUsername: "MasterUsername",
		MasterPassword: "MasterUserPassword", DatabaseName: "DatabaseName", Tags: oneTag, Settings: settings()}},
	"DescribeDBClusters": {nil, named2{"cluster", "DBClusterIdentifier"}},
	"ModifyDBCluster": {nil, fleet.ModifyCluster{Identifier: "DBClusterIdentifier", NewIdentifier: "NewDBClusterIdentifier", MasterPassword: "MasterUserPassword",
		EngineVersion: "EngineVersion", Immediately: true, EnableLogs: []string{"CloudwatchLogsExportConfiguration.EnableLogTypes"},
		DisableLogs: []string{"CloudwatchLogsExportConfiguration.DisableLogTypes"}, Settings: settings("SubnetGroup", "LogExports", "KMSKeyID", "Encrypted", "AvailabilityZones", "Public")}},
	"DeleteDBCluster": {func(in any) { in.(*rds.DeleteDBClusterInput).DeleteAutomatedBackups = aws.Bool(false) },
		fleet.DeleteCluster{Identifier: "DBClusterIdentifier", SkipFinalSnapshot: true, FinalSnapshot: "FinalDBSnapshotIdentifier", RetainBackups: true}},
	"StartDBCluster": {nil, named2{"start", "DBClusterIdentifier"}},
	"StopDBCluster":  {nil, named2{"stop", "DBClusterIdentifier"}},
	"RestoreDBClusterToPointInTime": {nil, fleet.RestoreToPointInTime{Identifier: "DBClusterIdentifier", Source: "SourceDBClusterIdentifier",
		SourceResourceID: "SourceDbClusterResourceId", Time: signedAt, Latest: true, RestoreType: "RestoreType", Tags: oneTag,
		Settings: settings("MaintenanceWindow", "AutoMinorUpgrade", "Encrypted", "AvailabilityZones", "AllocatedStorage")}},
	"RestoreDBClusterFromSnapshot": {nil, fleet.RestoreFromSnapshot{Identifier: "DBClusterIdentifier", Snapshot: "SnapshotIdentifier", Engine: "Engine",
		EngineVersion: "EngineVersion", DatabaseName: "DatabaseName", Tags: oneTag, Settings: settings("MaintenanceWindow", "AutoMinorUpgrade", "Encrypted", "AllocatedStorage")}},
	"CreateDBClusterSnapshot": {nil, fleet.CreateSnapshot{Identifier: "DBClusterSnapshotIdentifier", Cluster: "DBClusterIdentifier", Tags: oneTag}},
	"DescribeDBClusterSnapshots": {func(in any) {
		q := in.(*rds.DescribeDBClusterSnapshotsInput)
		q.DBClusterIdentifier, q.SnapshotType = nil, aws.String("manual")
	}, fleet.SnapshotQuery{Identifier: "DBClusterSnapshotIdentifier", ResourceID: "DbClusterResourceId", Type: fleet.SnapshotManual}},
	"CopyDBClusterSnapshot":               {nil, fleet.CopySnapshot{Source: "SourceDBClusterSnapshotIdentifier", Target: "TargetDBClusterSnapshotIdentifier", CopyTags: true, Tags: oneTag}},
	"DeleteDBClusterSnapshot":             {nil, named2{"delete snapshot", "DBClusterSnapshotIdentifier"}},
	"DescribeDBClusterSnapshotAttributes": {nil, named2{"snapshot", "DBClusterSnapshotIdentifier"}},
	"ModifyDBClusterSnapshotAttribute": {func(in any) { in.(*rds.ModifyDBClusterSnapshotAttributeInput).AttributeName = aws.String("restore") },
		share{"DBClusterSnapshotIdentifier", []string{"ValuesToAdd"}, []string{"ValuesToRemove"}}},
	"DescribeDBClusterAutomatedBackups": {func(in any) {
		*in.(*rds.DescribeDBClusterAutomatedBackupsInput) = rds.DescribeDBClusterAutomatedBackupsInput{}
	}, nil},
	"DeleteDBClusterAutomatedBackup": {nil, named2{"delete backup", "DbClusterResourceId"}},
	"CreateDBInstance": {nil, fleet.CreateInstance{Identifier: "DBInstanceIdentifier", Cluster: "DBClusterIdentifier", Class: "DBInstanceClass", Engine: "Engine", Tier: aws.Int(7),
		Public: aws.Bool(true), AutoMinor: aws.Bool(true), Maintenance: aws.String("PreferredMaintenanceWindow"), Zone: aws.String("AvailabilityZone"),
		ParamGroup: aws.String("DBParameterGroupName"), CopyTags: aws.Bool(true), Monitoring: aws.Int(7), Insights: aws.Bool(true), Tags: oneTag}},
	"DescribeDBInstances": {nil, named2{"instance", "DBInstanceIdentifier"}},
	"ModifyDBInstance": {nil, fleet.ModifyInstance{Identifier: "DBInstanceIdentifier", NewIdentifier: "NewDBInstanceIdentifier", Class: "DBInstanceClass", Immediately: true,
		Tier: aws.Int(7), Public: aws.Bool(true), AutoMinor: aws.Bool(true), Maintenance: aws.String("PreferredMaintenanceWindow"),
		ParamGroup: aws.String("DBParameterGroupName"), CopyTags: aws.Bool(true), Monitoring: aws.Int(7), Insights: aws.Bool(true)}},
	"RebootDBInstance":              {nil, named2{"reboot", "DBInstanceIdentifier"}},
	"DeleteDBInstance":              {nil, named2{"delete instance", "DBInstanceIdentifier"}},
	"CreateDBSubnetGroup":           {nil, fleet.SubnetGroup{Name: "DBSubnetGroupName", Description: "DBSubnetGroupDescription", Subnets: []string{"SubnetIds"}, Tags: oneTag}},
	"DescribeDBSubnetGroups":        {func(in any) { in.(*rds.DescribeDBSubnetGroupsInput).DBSubnetGroupName = aws.String("NAME") }, nil},
	"ModifyDBSubnetGroup":           {nil, renaming{"DBSubnetGroupName", "DBSubnetGroupDescription", []string{"SubnetIds"}}},
	"DeleteDBSubnetGroup":           {nil, named2{"delete subnet group", "DBSubnetGroupName"}},
	"CreateDBClusterParameterGroup": {nil, fleet.ParameterGroup{Name: "DBClusterParameterGroupName", Family: "DBParameterGroupFamily", Description: "Description", Tags: oneTag}},
	"DescribeDBClusterParameterGroups": {func(in any) {
		in.(*rds.DescribeDBClusterParameterGroupsInput).DBClusterParameterGroupName = aws.String("Name")
	}, nil},
	"DescribeDBClusterParameters": {nil, named2{"parameters Source", "DBClusterParameterGroupName"}},
	"ModifyDBClusterParameterGroup": {func(in any) {
		in.(*rds.ModifyDBClusterParameterGroupInput).Parameters[0].ApplyMethod = types.ApplyMethodImmediate
	},
		changing{group: "DBClusterParameterGroupName", changes: []fleet.ParameterChange{{Name: "Parameters.ParameterName", Value: "Parameters.ParameterValue", Immediate: true}}}},
	"ResetDBClusterParameterGroup":  {nil, changing{group: "DBClusterParameterGroupName", all: true, names: []string{"Parameters.ParameterName"}}},
	"DeleteDBClusterParameterGroup": {nil, named2{"delete parameter group", "DBClusterParameterGroupName"}},
	"AddTagsToResource":             {nil, tagging{arn: "ResourceName", tags: oneTag}},
	"RemoveTagsFromResource":        {nil, tagging{arn: "ResourceName", keys: []string{"TagKeys"}}},
	"ListTagsForResource":           {nil, named2{"tags", "ResourceName"}},
	"DescribeEvents": {func(in any) {
		now := time.Now().UTC().Truncate(time.Millisecond)
		*in.(*rds.DescribeEventsInput) = rds.DescribeEventsInput{SourceIdentifier: aws.String("x"), SourceType: types.SourceTypeDbCluster, StartTime: aws.Time(now.Add(-time.Hour)),
			EndTime: &now, EventCategories: []string{"backup"}}
	}, ledger.EventQuery{SourceType: "db-cluster", Source: "x", Categories: []string{"backup"}}},
	"DescribeGlobalClusters":   {func(in any) { in.(*rds.DescribeGlobalClustersInput).GlobalClusterIdentifier = nil }, nil},
	"DescribeDBEngineVersions": {func(in any) { *in.(*rds.DescribeDBEngineVersionsInput) = rds.DescribeDBEngineVersionsInput{} }, nil},
	"DescribeOrderableDBInstanceOptions": {func(in any) {
		*in.(*rds.DescribeOrderableDBInstanceOptionsInput) = rds.DescribeOrderableDBInstanceOptionsInput{Engine: aws.String("Engine")}
	}, nil},
}

// TestEveryOperation sends each request as Go's SDK does, with every parameter given, and looks at what the
// fleet was asked for; and at the answer as the SDK understands it, which must have all that was sent.
func TestEveryOperation(t *testing.T) {
	s := newSDK(t, ring)
	for action := range s.api.operations {
		t.Run(action, func(t *testing.T) {
			x, ok := exchanges[action]
			if !ok {
				t.Fatal("it has no test")
			}
			var sent any
			op := s.api.operations[action]
			s.api.operations[action] = operation{op.changes, func(ctx context.Context, p *params) (any, error) {
				v, err := op.do(ctx, p)
				sent = v
				return v, err
			}}
			s.fleet.asked = nil
			out, err := s.call(t, action, x.change)
			if err != nil {
				t.Fatal(err)
			}
			asked := s.fleet.last()
			if q, ok := asked.(ledger.EventQuery); ok {
				q.From, q.To = time.Time{}, time.Time{}
				asked = q
			}
			all := cmp.Exporter(func(reflect.Type) bool { return true })
			if diff := cmp.Diff(x.want, asked, all); diff != "" {
				t.Errorf("the fleet was asked for (-want +got)\n%s", diff)
			}
			if sent != nil {
				understood(t, action, reflect.ValueOf(sent), reflect.ValueOf(out).Elem())
			}
		})
	}
}

// understood checks that what was sent is in the answer that a client sees: a field of another
// name is dropped by clients silently.
func understood(t *testing.T, path string, sent, got reflect.Value) {
	t.Helper()
	for got.Kind() == reflect.Pointer {
		if got.IsNil() {
			t.Errorf("%s was sent and is not understood", path)
			return
		}
		got = got.Elem()
	}
	for sent.Kind() == reflect.Pointer {
		if sent.IsNil() {
			return
		}
		sent = sent.Elem()
	}
	if sent.Kind() != reflect.Struct {
		return
	}
	if items := sent.FieldByName("items"); items.IsValid() && strings.HasPrefix(sent.Type().Name(), "list[") {
		if items.Len() == 0 {
			return
		}
		if got.Len() != items.Len() {
			t.Errorf("%s: %d elements were sent as %s, %d are understood", path, items.Len(), sent.FieldByName("element"), got.Len())
			return
		}
		understood(t, path+"[]", items.Index(0), got.Index(0))
		return
	}
	for i := range sent.NumField() {
		f := sent.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("xml"), ",")
		if name == "" {
			name = f.Name
		}
		if sent.Field(i).IsZero() {
			continue
		}
		there := got.FieldByNameFunc(func(n string) bool { return strings.EqualFold(n, name) })
		if !there.IsValid() {
			t.Errorf("%s has no field %s", path, name)
			continue
		}
		understood(t, path+"."+name, sent.Field(i), there)
	}
}

// TestStatuses: each error has the status that AWS gives it.
func TestStatuses(t *testing.T) {
	s := newSDK(t, ring)
	for code, want := range map[fleet.Code]int{
		fleet.CodeInvalidParameter: 400, fleet.CodeInvalidCombination: 400, fleet.CodeMissingParameter: 400, fleet.CodeClusterNotFound: 404, fleet.CodeClusterExists: 400,
		fleet.CodeClusterState: 400, fleet.CodeClusterQuota: 403, fleet.CodeSnapshotNotFound: 404, fleet.CodeSnapshotExists: 400, fleet.CodeSnapshotState: 400,
		fleet.CodeSnapshotQuota: 400, fleet.CodeInvalidRestore: 400, fleet.CodeBackupNotFound: 404, fleet.CodeBackupState: 400, fleet.CodeInstanceNotFound: 404,
		fleet.CodeInstanceExists: 400, fleet.CodeInstanceState: 400, fleet.CodeSubnetGroupNotFound: 404, fleet.CodeSubnetGroupExists: 400, fleet.CodeSubnetGroupState: 400,
		fleet.CodeInvalidSubnet: 400, fleet.CodeParameterGroupMissing: 404, fleet.CodeClusterGroupMissing: 404, fleet.CodeParameterGroupExists: 400,
		fleet.CodeParameterGroupState: 400, fleet.CodeStorageFull: 400, fleet.CodeInsufficientCapacity: 403, fleet.CodeInsufficientStorage: 400, fleet.CodeInternal: 500,
	} {
		s.fleet.err = &fleet.Fault{Code: code, Message: `it is <so> & "so"`}
		_, err := s.call(t, "StartDBCluster", nil)
		status, got, message := failure(err)
		if status != want || got != string(code) || message != `it is <so> & "so"` {
			t.Errorf("%s: %d %s %q, want %d", code, status, got, message, want)
		}
	}
	s.fleet.err = errors.New("secret details")
	if status, got, message := failure(func() error { _, err := s.call(t, "StartDBCluster", nil); return err }()); status != 500 || got != "InternalFailure" || strings.Contains(message, "secret") {
		t.Errorf("%d %s %q", status, got, message)
	}
	if _, err := s.DescribeGlobalClusters(t.Context(), &rds.DescribeGlobalClustersInput{GlobalClusterIdentifier: aws.String("g")}); !errors.As(err, new(*types.GlobalClusterNotFoundFault)) {
		t.Error(err)
	} else if status, _, _ := failure(err); status != 404 {
		t.Error(status)
	}
}

// failure takes an error of the SDK apart.
func failure(err error) (status int, code, message string) {
	var http interface{ HTTPStatusCode() int }
	var api smithy.APIError
	if errors.As(err, &http) {
		status = http.HTTPStatusCode()
	}
	if errors.As(err, &api) {
		code, message = api.ErrorCode(), api.ErrorMessage()
	}
	return status, code, message
}

// TestLargeAnswers: answers larger than a client's buffer arrive whole, since they do not come too soon; see largeAfter.
func TestLargeAnswers(t *testing.T) {
	s := newSDK(t, ring)
	ask := func(clusters int) time.Duration {
		s.fleet.clusters = make([]fleet.Cluster, clusters)
		for i := range s.fleet.clusters {
			s.fleet.clusters[i] = full[fleet.Cluster]("")
			s.fleet.clusters[i].Identifier = fmt.Sprintf("c%03d", i)
		}
		asked := time.Now()
		out, err := s.DescribeDBClusters(t.Context(), &rds.DescribeDBClustersInput{})
		if err != nil || len(out.DBClusters) != clusters {
			t.Fatal(err)
		}
		return time.Since(asked)
	}
	quickest := time.Hour
	for range 20 {
		if took := ask(100); took < largeAfter {
			t.Fatalf("a large answer came after %s", took)
		}
		quickest = min(quickest, ask(0))
	}
	if quickest >= largeAfter {
		t.Errorf("small answers take %s", quickest)
	}
}
