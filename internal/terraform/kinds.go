package terraform

import "slices"

// kind is what a resource is to the guard.
type kind int

const (
	other            kind = iota
	cluster               // a DB cluster, or an instance that is a database by itself
	instance              // an instance of a cluster
	database              // holds data, with no arguments that the guard knows
	snapshot              // a snapshot of a database
	subnetGroup           // where a database's addresses come from
	securityGroup         // who may reach it
	encryptionKey         // what it cannot be read without
	secret                // where applications find it
	secretVersion         // its present address and password
	logGroup              // its server log
	lambdaInvocation      // may be the one that provisions the database
)

// kindOf sorts resource types. Types that are not listed are other: whatever happens to
// them is unexpected.
func kindOf(resourceType string) kind {
	switch resourceType {
	case "aws_rds_cluster", "aws_db_instance", "awscc_rds_db_cluster", "awscc_rds_db_instance":
		return cluster
	case "aws_rds_cluster_instance":
		return instance
	case "aws_rds_global_cluster", "awscc_rds_global_cluster", "postgresql_database", "postgresql_schema":
		return database
	case "aws_db_cluster_snapshot", "aws_db_snapshot", "aws_db_cluster_snapshot_copy", "aws_rds_cluster_snapshot_copy", "aws_db_snapshot_copy":
		return snapshot
	case "aws_db_subnet_group", "awscc_rds_db_subnet_group":
		return subnetGroup
	case "aws_security_group":
		return securityGroup
	case "aws_kms_key", "aws_kms_replica_key", "aws_kms_external_key":
		return encryptionKey
	case "aws_secretsmanager_secret":
		return secret
	case "aws_secretsmanager_secret_version":
		return secretVersion
	case "aws_cloudwatch_log_group":
		return logGroup
	case "aws_lambda_invocation", "aws_lambda_invoke":
		return lambdaInvocation
	}
	return other
}

// holdsData tells whether deleting the resource deletes what is in a database, or the
// only way back to it.
func (k kind) holdsData() bool {
	return k == cluster || k == instance || k == database || k == snapshot
}

func (k kind) noun() string {
	switch k {
	case cluster:
		return "database cluster"
	case instance:
		return "database instance"
	case database:
		return "database"
	case snapshot:
		return "database snapshot"
	case subnetGroup:
		return "database's subnet group"
	case securityGroup:
		return "database's security group"
	case encryptionKey:
		return "key that the database is encrypted with"
	case secret:
		return "database's secret"
	}
	return "resource"
}

// replacing lists the arguments of a resource type that replace it when they change,
// in at least one version of the AWS provider (4 to 6) or by what RDS can do at all.
func replacing(resourceType string) []string {
	switch kindOf(resourceType) {
	case cluster:
		common := []string{"snapshot_identifier", "restore_to_point_in_time", "s3_import", "engine", "kms_key_id", "storage_encrypted"}
		if resourceType == "aws_db_instance" {
			return append(common, "identifier", "identifier_prefix", "db_name", "name", "username", "availability_zone",
				"character_set_name", "nchar_character_set_name", "timezone")
		}
		return append(common, "cluster_identifier", "cluster_identifier_prefix", "database_name", "db_subnet_group_name", "engine_mode",
			"master_username", "availability_zones", "source_region", "db_system_id",
			// The Cloud Control provider's names.
			"db_cluster_identifier", "db_instance_identifier", "db_snapshot_identifier", "source_db_cluster_identifier")
	case instance:
		return []string{"cluster_identifier", "identifier", "identifier_prefix", "engine", "db_subnet_group_name", "availability_zone"}
	case database:
		return []string{"global_cluster_identifier", "source_db_cluster_identifier", "engine", "database_name", "storage_encrypted", "name"}
	}
	return nil
}

// origins are the arguments that say what a new database is made from.
func origins() []string {
	return []string{"snapshot_identifier", "restore_to_point_in_time", "replication_source_identifier", "replicate_source_db"}
}

// shown tells whether a report may contain the values of a database's attribute. None of
// these can hold a secret, unless it is marked as sensitive, which is asked separately.
func shown(attribute string) bool {
	return slices.Contains(shownAttributes(), attribute)
}

func shownAttributes() []string {
	return []string{
		"cluster_identifier", "identifier", "global_cluster_identifier", "snapshot_identifier", "database_name", "db_name",
		"db_subnet_group_name", "engine", "engine_mode", "engine_version", "storage_encrypted", "source_region",
		"deletion_protection", "skip_final_snapshot", "backup_retention_period", "delete_automated_backups",
	}
}
