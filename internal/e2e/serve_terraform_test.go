package e2e

import (
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/google/go-cmp/cmp"

	"pileus/internal/pgtest"
)

// read is what Terraform's aws_rds_cluster asks at each refresh, and what it would hold against its configuration. All
// must answer, or no plan can be made.
func (p *plane) read(id, group string) map[string]any {
	p.t.Helper()
	c := p.cluster(id)
	groups, err := p.api.DescribeDBSubnetGroups(p.t.Context(), &rds.DescribeDBSubnetGroupsInput{DBSubnetGroupName: &group})
	if err != nil {
		p.t.Fatal(err)
	}
	tags := map[string]string{}
	for _, arn := range []*string{c.DBClusterArn, groups.DBSubnetGroups[0].DBSubnetGroupArn} {
		out, err := p.api.ListTagsForResource(p.t.Context(), &rds.ListTagsForResourceInput{ResourceName: arn})
		if err != nil {
			p.t.Fatal(err)
		}
		for _, t := range out.TagList {
			tags[*t.Key] = *t.Value
		}
	}
	global, err := p.api.DescribeGlobalClusters(p.t.Context(), &rds.DescribeGlobalClustersInput{Filters: []types.Filter{{Name: aws.String("db-cluster-id"), Values: []string{*c.DBClusterArn}}}})
	if err != nil || len(global.GlobalClusters) != 0 {
		p.t.Fatalf("%+v, %v", global, err)
	}
	return map[string]any{"cluster_identifier": *c.DBClusterIdentifier, "engine": *c.Engine, "engine_version": *c.EngineVersion, "database_name": aws.ToString(c.DatabaseName),
		"master_username": *c.MasterUsername, "port": *c.Port, "backup_retention_period": *c.BackupRetentionPeriod, "preferred_backup_window": *c.PreferredBackupWindow,
		"preferred_maintenance_window": *c.PreferredMaintenanceWindow, "deletion_protection": *c.DeletionProtection, "copy_tags_to_snapshot": *c.CopyTagsToSnapshot,
		"db_subnet_group_name": *c.DBSubnetGroup, "db_cluster_parameter_group_name": *c.DBClusterParameterGroup, "storage_encrypted": *c.StorageEncrypted,
		"iam_database_authentication_enabled": *c.IAMDatabaseAuthenticationEnabled, "vpc_security_groups": len(c.VpcSecurityGroups), "resource_id": *c.DbClusterResourceId, "tags": tags}
}

// TestServeAsTerraform walks the life of an aws_rds_cluster by the calls that the provider makes.
func TestServeAsTerraform(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	_, err := p.api.CreateDBSubnetGroup(t.Context(), &rds.CreateDBSubnetGroupInput{DBSubnetGroupName: aws.String("tf"), DBSubnetGroupDescription: aws.String("Managed by Terraform"),
		SubnetIds: []string{"subnet-1"}, Tags: []types.Tag{{Key: aws.String("Deployment"), Value: aws.String("prod")}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.api.CreateDBCluster(t.Context(), &rds.CreateDBClusterInput{DBClusterIdentifier: aws.String("tf-1"), Engine: aws.String("aurora-postgresql"), EngineVersion: p.version(), MasterUsername: aws.String("boss"),
		MasterUserPassword: aws.String(masterPassword), DatabaseName: aws.String("cumulus"), DBSubnetGroupName: aws.String("tf"), VpcSecurityGroupIds: []string{"sg-1"},
		BackupRetentionPeriod: aws.Int32(1), PreferredBackupWindow: aws.String("07:00-09:00"), DeletionProtection: aws.Bool(true), CopyTagsToSnapshot: aws.Bool(false),
		StorageEncrypted: aws.Bool(false), Tags: []types.Tag{{Key: aws.String("Deployment"), Value: aws.String("prod")}}})
	if err != nil {
		t.Fatal(err)
	}
	p.await("tf-1", "available")
	first := p.read("tf-1", "tf")
	if first["deletion_protection"] != true || first["backup_retention_period"] != int32(1) || first["preferred_backup_window"] != "07:00-09:00" || first["database_name"] != "cumulus" {
		t.Errorf("%+v", first)
	}
	// A plan without a change: a refresh reads the same.
	if diff := cmp.Diff(first, p.read("tf-1", "tf")); diff != "" {
		t.Errorf("a second plan is not empty:\n%s", diff)
	}
	// Modify, as apply_immediately = true does.
	_, err = p.api.ModifyDBCluster(t.Context(), &rds.ModifyDBClusterInput{DBClusterIdentifier: aws.String("tf-1"), ApplyImmediately: aws.Bool(true), BackupRetentionPeriod: aws.Int32(7), DeletionProtection: aws.Bool(false)})
	if err != nil {
		t.Fatal(err)
	}
	p.await("tf-1", "available")
	first["backup_retention_period"], first["deletion_protection"] = int32(7), false
	if diff := cmp.Diff(first, p.read("tf-1", "tf")); diff != "" {
		t.Errorf("after apply:\n%s", diff)
	}
	// An import reads by the identifier alone, whatever its case, or by the ARN.
	c := p.cluster("TF-1")
	if *c.DBClusterIdentifier != "tf-1" || *p.cluster(*c.DBClusterArn).DBClusterIdentifier != "tf-1" {
		t.Errorf("%+v", c)
	}
	// snapshot_identifier: a cluster from a snapshot, then what its arguments say on top.
	_, err = p.api.CreateDBClusterSnapshot(t.Context(), &rds.CreateDBClusterSnapshotInput{DBClusterIdentifier: aws.String("tf-1"), DBClusterSnapshotIdentifier: aws.String("tf-snap")})
	if err != nil {
		t.Fatal(err)
	}
	p.await("tf-1", "available")
	_, err = p.api.RestoreDBClusterFromSnapshot(t.Context(), &rds.RestoreDBClusterFromSnapshotInput{DBClusterIdentifier: aws.String("tf-2"), SnapshotIdentifier: aws.String("tf-snap"),
		Engine: aws.String("aurora-postgresql"), DBSubnetGroupName: aws.String("tf"), VpcSecurityGroupIds: []string{"sg-1"}, CopyTagsToSnapshot: aws.Bool(false), DeletionProtection: aws.Bool(false)})
	if err != nil {
		t.Fatal(err)
	}
	p.await("tf-2", "available")
	_, err = p.api.ModifyDBCluster(t.Context(), &rds.ModifyDBClusterInput{DBClusterIdentifier: aws.String("tf-2"), ApplyImmediately: aws.Bool(true), MasterUserPassword: aws.String("another-password-41"),
		PreferredBackupWindow: aws.String("07:00-09:00")})
	if err != nil {
		t.Fatal(err)
	}
	p.await("tf-2", "available")
	p.connect(p.cluster("tf-2"), "another-password-41", "cumulus")
	if got := p.read("tf-2", "tf"); got["preferred_backup_window"] != "07:00-09:00" || got["db_subnet_group_name"] != "tf" {
		t.Errorf("%+v", got)
	}
	// Destroy, in the order of the dependencies.
	if _, err := p.api.DeleteDBSubnetGroup(t.Context(), &rds.DeleteDBSubnetGroupInput{DBSubnetGroupName: aws.String("tf")}); err == nil {
		t.Error("a subnet group in use was deleted")
	}
	for _, id := range []string{"tf-2", "tf-1"} {
		if _, err := p.api.DeleteDBCluster(t.Context(), &rds.DeleteDBClusterInput{DBClusterIdentifier: &id, SkipFinalSnapshot: aws.Bool(true)}); err != nil {
			t.Fatal(err)
		}
	}
	p.gone("tf-1")
	p.gone("tf-2")
	if _, err := p.api.DeleteDBSubnetGroup(t.Context(), &rds.DeleteDBSubnetGroupInput{DBSubnetGroupName: aws.String("tf")}); err != nil {
		t.Error(err)
	}
}

// gone waits until there is no such cluster.
func (p *plane) gone(id string) {
	p.t.Helper()
	pgtest.WaitFor(p.t, id+" to be gone", func() bool {
		_, err := p.api.DescribeDBClusters(p.t.Context(), &rds.DescribeDBClustersInput{DBClusterIdentifier: &id})
		var missing *types.DBClusterNotFoundFault
		if err != nil && !errors.As(err, &missing) {
			p.t.Fatal(err)
		}
		return err != nil
	})
}
