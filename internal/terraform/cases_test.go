package terraform

import (
	"strings"
	"testing"
)

// judgement is one written case: a plan, and what the guard says of one address in it.
type judgement struct {
	name    string
	plan    object
	allow   []string
	address string // theCluster if empty
	level   Level  // of the address; empty if it has no verdict
	because string // part of an attribute, of the reason, of what to do or of a note
	safe    bool
}

func judgeAll(t *testing.T, cases []judgement) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := Check(decode(t, c.plan), c.allow)
			complete(t, r)
			if r.Safe != c.safe {
				t.Errorf("safe is %v, want %v: %+v", r.Safe, c.safe, r.Verdicts)
			}
			address := c.address
			if address == "" {
				address = theCluster
			}
			for _, v := range r.Verdicts {
				if v.Address != address {
					continue
				}
				if v.Level != c.level {
					t.Errorf("%s is %q, want %q: %+v", address, v.Level, c.level, v)
				}
				said := strings.Join(append(append(v.Attributes, v.Notes...), v.Reason, v.Do), "\n")
				if !strings.Contains(said, c.because) {
					t.Errorf("%s does not say %q: %+v", address, c.because, v)
				}
				return
			}
			if c.level != "" {
				t.Errorf("no verdict on %s: %+v", address, r.Verdicts)
			}
		})
	}
}

func TestDestroyed(t *testing.T) {
	each := `module.db["prod.eu"].aws_rds_cluster.main[0]`
	judgeAll(t, []judgement{
		{name: "deleted", plan: planOf(planned(theCluster, remove, clusterObject(nil), nil)), level: Refused, because: "state rm"},
		{name: "allowed in vain", plan: planOf(planned(theCluster, remove, clusterObject(nil), nil)), allow: []string{theCluster}, level: Refused},
		{name: "in a module with for_each and count", plan: planOf(planned(each, remove, clusterObject(nil), nil)), address: each, level: Refused},
		{name: "created before destroyed", plan: planOf(planned(theCluster, list{"create", "delete"}, clusterObject(nil), clusterObject(nil))), level: Refused},
		{name: "tainted", plan: planOf(planned(theCluster, replace, clusterObject(nil), clusterObject(nil), object{"action_reason": "replace_because_tainted"})), level: Refused, because: "terraform untaint"},
		{name: "-replace", plan: planOf(planned(theCluster, replace, clusterObject(nil), clusterObject(nil), object{"action_reason": "replace_by_request"})), level: Refused, because: "without -replace="},
		{name: "replace_triggered_by", plan: planOf(planned(theCluster, replace, clusterObject(nil), clusterObject(nil), object{"action_reason": "replace_by_triggers"})), level: Refused, because: "replace_triggered_by"},
		{name: "for_each key gone", plan: planOf(planned(each, remove, clusterObject(nil), nil, object{"action_reason": "delete_because_each_key"})), address: each, level: Refused, because: "for_each"},
		{name: "count turned into for_each", plan: planOf(planned(each, remove, clusterObject(nil), nil, object{"action_reason": "delete_because_wrong_repetition"})), address: each, level: Refused, because: "`moved`"},
		{name: "block removed", plan: planOf(planned(theCluster, remove, clusterObject(nil), nil, object{"action_reason": "delete_because_no_resource_config"})), level: Refused, because: "back into the configuration"},
		{name: "an unknown reason", plan: planOf(planned(theCluster, remove, clusterObject(nil), nil, object{"action_reason": "delete_because_tuesday"})), level: Refused},
		{name: "deposed", plan: planOf(untouched(), planned(theCluster, remove, clusterObject(nil), nil, object{"deposed": "4a1b"})), level: Refused, because: "4a1b"},
		{name: "moved and replaced", plan: planOf(planned(theCluster, replace, clusterObject(nil), clusterObject(nil), object{"previous_address": "aws_rds_cluster.old"})), level: Refused, because: "aws_rds_cluster.old"},
		{name: "imported and replaced", plan: planOf(planned(theCluster, replace, clusterObject(nil), clusterObject(object{"engine_mode": "serverless"}),
			object{"importing": object{"id": "cumulus-new"}, "replace_paths": list{list{"engine_mode"}}})), level: Refused, because: "engine_mode: provisioned → serverless"},
		{name: "a nested path", plan: planOf(planned(theCluster, replace, clusterObject(nil), clusterObject(nil),
			object{"replace_paths": list{list{"restore_to_point_in_time", 0, "source_cluster_identifier"}, list{"tags", "hunter2222"}}})), level: Refused, because: "restore_to_point_in_time[0].source_cluster_identifier"},
		{name: "forgotten and created", plan: planOf(planned(theCluster, list{"create", "forget"}, clusterObject(nil), clusterObject(nil))), level: Refused, because: "let go"},
		{name: "forgotten", plan: planOf(planned(theCluster, forget, clusterObject(nil), nil)), level: Unexpected, because: "goes on running"},
		{name: "forgotten, allowed", plan: planOf(planned(theCluster, forget, clusterObject(nil), nil)), allow: []string{theCluster}, level: Allowed, safe: true},
		{name: "an action of the future", plan: planOf(planned(theCluster, list{"evaporate"}, clusterObject(nil), clusterObject(nil))), allow: []string{theCluster}, level: Refused, because: "does not know"},
		{name: "an action of the future on something else", plan: planOf(planned("aws_vpc.v", list{"update", "evaporate"}, object{}, object{})), address: "aws_vpc.v", level: Refused},
		{name: "instance, count lowered", plan: planOf(untouched(), planned(theInstance, remove, object{}, nil, object{"action_reason": "delete_because_count_index"})), address: theInstance, level: Refused, because: "cluster_instance_count"},
		{name: "instance of the old cluster", plan: planOf(untouched(), planned(theInstance, replace, object{"cluster_identifier": "cumulus-src"}, object{"cluster_identifier": "cumulus-new"},
			object{"action_reason": "replace_because_cannot_update", "replace_paths": list{list{"cluster_identifier"}}})), address: theInstance, level: Refused, because: "instance of cumulus-src"},
		{name: "a database that is no cluster", plan: planOf(planned("aws_db_instance.db", remove, object{}, nil)), address: "aws_db_instance.db", level: Refused},
		{name: "global cluster", plan: planOf(planned("aws_rds_global_cluster.g", remove, object{}, nil)), address: "aws_rds_global_cluster.g", level: Refused},
		{name: "a snapshot", plan: planOf(planned("aws_db_cluster_snapshot.s", remove, object{}, nil)), address: "aws_db_cluster_snapshot.s", level: Refused},
		{name: "by Cloud Control", plan: planOf(planned("awscc_rds_db_cluster.c", replace, object{}, object{})), address: "awscc_rds_db_cluster.c", level: Refused},
		{name: "the database itself", plan: planOf(planned("postgresql_database.cumulus", remove, object{}, nil)), address: "postgresql_database.cumulus", level: Refused},
		{name: "everything", plan: planOf(planned(theCluster, remove, clusterObject(nil), nil), planned("aws_vpc.v", remove, object{}, nil)), address: WholePlan, level: Refused, because: "-destroy"},
		{name: "everything, without a database", plan: planOf(planned("aws_subnet.a", remove, object{}, nil), planned("aws_vpc.v", remove, object{}, nil)), address: "aws_vpc.v", level: Unexpected},
	})
}

func TestChangedInPlace(t *testing.T) {
	judgeAll(t, []judgement{
		{name: "tags", plan: planOf(updated(nil, object{"tags": object{"a": "b"}})), level: Expected, because: "tags", safe: true},
		{name: "the password", plan: planOf(updated(object{"master_password": nil}, nil)), level: Expected, because: "master_password (sensitive)", safe: true},
		{name: "imported and updated", plan: planOf(updated(nil, object{"apply_immediately": false}, object{"importing": object{"id": "cumulus-new"}})), level: Expected, because: "imported", safe: true},
		{name: "imported as it is", plan: planOf(planned(theCluster, noop, clusterObject(nil), clusterObject(nil), object{"importing": object{"id": "x"}})), level: Expected, safe: true},
		{name: "moved", plan: planOf(planned(theCluster, noop, clusterObject(nil), clusterObject(nil), object{"previous_address": "aws_rds_cluster.old"})), level: Expected, because: "aws_rds_cluster.old", safe: true},
		{name: "nothing", plan: planOf(untouched()), safe: true},
		{name: "snapshot_identifier, called an update", plan: planOf(updated(nil, object{"snapshot_identifier": "snap"})), level: Refused, because: "none → snap"},
		{name: "snapshot_identifier, called no change", plan: planOf(planned(theCluster, noop, clusterObject(nil), clusterObject(object{"snapshot_identifier": "snap"}))), level: Refused},
		{name: "snapshot_identifier, another", plan: planOf(updated(object{"snapshot_identifier": "a"}, object{"snapshot_identifier": "b"})), level: Refused, because: "a → b"},
		{name: "snapshot_identifier, known after apply", plan: planOf(updated(nil, nil, object{"after_unknown": object{"snapshot_identifier": true}})), level: Refused, because: "known after apply"},
		{name: "snapshot_identifier, empty instead of null", plan: planOf(updated(nil, object{"snapshot_identifier": ""})), level: Expected, safe: true},
		{name: "all known after apply", plan: planOf(updated(nil, nil, object{"after_unknown": true})), level: Refused},
		{name: "restore_to_point_in_time", plan: planOf(updated(nil, object{"restore_to_point_in_time": list{object{"use_latest_restorable_time": true}}})), level: Refused, because: "restore_to_point_in_time"},
		{name: "its key", plan: planOf(updated(nil, object{"kms_key_id": "arn:aws:kms:key/other"})), level: Refused, because: "kms_key_id"},
		{name: "its encryption", plan: planOf(updated(object{"storage_encrypted": false}, nil)), level: Refused, because: "storage_encrypted"},
		{name: "encryption, false instead of null", plan: planOf(updated(object{"storage_encrypted": nil}, object{"storage_encrypted": false})), level: Expected, safe: true},
		{name: "its name", plan: planOf(updated(nil, object{"cluster_identifier": "else"})), level: Refused, because: "cumulus-new → else"},
		{name: "its name, known after apply", plan: planOf(updated(nil, object{"cluster_identifier": nil}, object{"after_unknown": object{"cluster_identifier": true}})), level: Refused, because: "terraform.tfvars"},
		{name: "replacing, says the provider, but update, says the plan", plan: planOf(updated(nil, nil, object{"replace_paths": list{list{"port"}}})), level: Refused, because: "port"},
		{name: "deletion protection off", plan: planOf(updated(nil, object{"deletion_protection": false})), level: Refused, because: "deletion_protection: true → false"},
		{name: "deletion protection off, allowed in vain", plan: planOf(updated(nil, object{"deletion_protection": false})), allow: []string{theCluster}, level: Refused},
		{name: "deletion protection no longer set", plan: planOf(updated(nil, object{"deletion_protection": nil})), level: Refused},
		{name: "deletion protection known after apply", plan: planOf(updated(nil, nil, object{"after_unknown": object{"deletion_protection": true}})), level: Refused},
		{name: "deletion protection on", plan: planOf(updated(object{"deletion_protection": false}, nil)), level: Expected, safe: true},
		{name: "deletion protection off as before", plan: planOf(updated(object{"deletion_protection": false}, object{"deletion_protection": false, "tags": "x"})), level: Expected, because: "protection is off", safe: true},
		{name: "no final snapshot", plan: planOf(updated(nil, object{"skip_final_snapshot": true})), level: Refused, because: "skip_final_snapshot: false → true"},
		{name: "no final snapshot, not said before", plan: planOf(updated(object{"skip_final_snapshot": nil}, object{"skip_final_snapshot": true})), level: Refused},
		{name: "a final snapshot", plan: planOf(updated(object{"skip_final_snapshot": true}, nil)), level: Expected, safe: true},
		{name: "no backups", plan: planOf(updated(nil, object{"backup_retention_period": 0})), level: Refused, because: "7 → 0"},
		{name: "backups no longer configured", plan: planOf(updated(nil, object{"backup_retention_period": nil})), level: Refused},
		{name: "fewer backups", plan: planOf(updated(nil, object{"backup_retention_period": 1})), level: Expected, because: "1 days instead of 7", safe: true},
		{name: "more backups", plan: planOf(updated(nil, object{"backup_retention_period": 35})), level: Expected, safe: true},
		{name: "backups that go with it", plan: planOf(updated(object{"delete_automated_backups": false}, object{"delete_automated_backups": true})), level: Unexpected, because: "delete_automated_backups"},
		{name: "minor upgrade", plan: planOf(updated(nil, object{"engine_version": "15.12"})), level: Expected, safe: true},
		{name: "major upgrade", plan: planOf(updated(nil, object{"engine_version": "16.3"})), level: Unexpected, because: "15.10 → 16.3"},
		{name: "no objects", plan: planOf(planned(theCluster, update, nil, nil)), level: Refused, because: "does not show"},
		{name: "an instance", plan: planOf(planned(theInstance, update, object{"promotion_tier": 0}, object{"promotion_tier": 1})), address: theInstance, level: Expected, safe: true},
		{name: "an instance, to another cluster", plan: planOf(planned(theInstance, update, object{"cluster_identifier": "a"}, object{"cluster_identifier": "b"})), address: theInstance, level: Refused},
		{name: "a marked value", plan: planOf(updated(nil, object{"cluster_identifier": "hunter2222"}, object{"after_sensitive": object{"cluster_identifier": true, "master_password": true}})), level: Refused, because: "cluster_identifier (sensitive)"},
		{name: "all marked", plan: planOf(updated(nil, object{"cluster_identifier": "hunter2222"}, object{"after_sensitive": true})), level: Refused, because: "(sensitive)"},
	})
}

func TestCreated(t *testing.T) {
	made := func(with object, more ...object) object {
		return planOf(planned(theCluster, create, nil, clusterObject(with), more...))
	}
	judgeAll(t, []judgement{
		{name: "empty", plan: made(nil), level: Unexpected, because: "terraform import"},
		{name: "empty, allowed", plan: made(nil), allow: []string{theCluster}, level: Allowed, safe: true},
		{name: "from a snapshot", plan: made(object{"snapshot_identifier": "snap"}), level: Expected, because: "snap", safe: true},
		{name: "from a snapshot, unprotected", plan: made(object{"snapshot_identifier": "snap", "deletion_protection": false}), level: Unexpected, because: "deletion_protection"},
		{name: "from a moment", plan: made(object{"restore_to_point_in_time": list{object{"source_cluster_identifier": "cumulus-src"}}}), level: Expected, because: "restore_to_point_in_time", safe: true},
		{name: "from who knows what", plan: made(nil, object{"after_unknown": object{"snapshot_identifier": true}}), level: Unexpected, because: "not known"},
		{name: "an instance", plan: planOf(untouched(), planned(theInstance, create, nil, object{"cluster_identifier": "cumulus-new"})), address: theInstance, level: Expected, safe: true},
		{name: "a snapshot", plan: planOf(planned("aws_db_cluster_snapshot.s", create, nil, object{})), address: "aws_db_cluster_snapshot.s", level: Expected, safe: true},
	})
}

func TestSurroundings(t *testing.T) {
	gone := func(address string, before object) object { return planned(address, remove, before, nil) }
	version := func(actions list, before, after object, with ...object) object {
		return planned(theVersion, actions, before, after, with...)
	}
	elsewhere := "module.cumulus.aws_secretsmanager_secret.launchpad"
	rootKey, lambdas := "aws_kms_key.k", "module.cumulus.aws_security_group.lambdas"
	loginLog := object{"name": "/aws/rds/cluster/cumulus/postgresql"}
	judgeAll(t, []judgement{
		{name: "its security group", plan: planOf(untouched(), gone(theGroup, object{"id": "sg-live"})), address: theGroup, level: Refused},
		{name: "its security group, in another module", plan: planOf(untouched(), gone(lambdas, object{"id": "sg-live"})), address: lambdas, level: Refused},
		{name: "another security group", plan: planOf(untouched(), gone(lambdas, object{"id": "sg-other"})), address: lambdas, level: Unexpected},
		{name: "a security group beside a cluster that names none", plan: planOf(planned(theCluster, noop, object{}, object{}), gone(theGroup, object{"id": "sg"})), address: theGroup, level: Refused},
		{name: "its security group replaced", plan: planOf(untouched(), planned(theGroup, replace, object{"id": "sg-live"}, object{})), address: theGroup, level: Refused},
		{name: "its security group changed", plan: planOf(untouched(), planned(theGroup, update, object{"id": "sg-live"}, object{"id": "sg-live", "tags": "x"})), address: theGroup, level: Unexpected, because: "tags"},
		{name: "its security group, known from the state", plan: merge(planOf(gone(lambdas, object{"id": "sg-live"})), priorState(theModule, "managed", "aws_rds_cluster", object{"vpc_security_group_ids": list{"sg-live"}})), address: lambdas, level: Refused},
		{name: "its subnet group", plan: planOf(gone(theSubnets, object{})), address: theSubnets, level: Refused},
		{name: "its subnet group replaced", plan: planOf(planned(theSubnets, replace, object{}, object{})), address: theSubnets, level: Refused},
		{name: "its subnet group forgotten", plan: planOf(planned(theSubnets, forget, object{}, nil)), address: theSubnets, level: Unexpected},
		{name: "its key", plan: planOf(untouched(), gone(rootKey, object{"arn": "arn:aws:kms:key/live"})), address: rootKey, level: Refused},
		{name: "another key", plan: planOf(untouched(), gone(rootKey, object{"arn": "arn:aws:kms:key/other"})), address: rootKey, level: Unexpected},
		{name: "its secret", plan: planOf(untouched(), gone(theSecret, object{})), allow: []string{theSecret}, address: theSecret, level: Refused},
		{name: "its secret, alone in a plan", plan: planOf(gone("aws_secretsmanager_secret.db_credentials", object{})), address: "aws_secretsmanager_secret.db_credentials", level: Refused},
		{name: "another secret", plan: planOf(untouched(), gone(elsewhere, object{})), address: elsewhere, level: Unexpected},
		{name: "secret version replaced", plan: planOf(version(replace, object{"secret_id": "s", "secret_string": "hunter2222"}, object{"secret_id": "s"}, object{"replace_paths": list{list{"secret_string"}}})), address: theVersion, level: Expected, because: "secret_string (sensitive)", safe: true},
		{name: "secret version updated", plan: planOf(version(update, object{"secret_id": "s"}, object{"secret_id": "s", "secret_string": "hunter2222"})), address: theVersion, level: Expected, safe: true},
		{name: "secret version of another secret", plan: planOf(version(replace, object{"secret_id": "s"}, object{"secret_id": "t"})), address: theVersion, level: Unexpected, because: "secret_id"},
		{name: "secret version created", plan: planOf(version(create, nil, object{"secret_id": "s"})), address: theVersion, level: Expected, safe: true},
		{name: "secret version deleted", plan: planOf(version(remove, object{"secret_id": "s"}, nil)), address: theVersion, level: Unexpected},
		{name: "secret version deposed", plan: planOf(version(remove, object{"secret_id": "s"}, nil, object{"deposed": "1"})), address: theVersion, level: Unexpected, because: "deposed"},
		{name: "an unrelated secret's version", plan: planOf(planned("aws_secretsmanager_secret_version.launchpad", replace, object{}, object{})), address: "aws_secretsmanager_secret_version.launchpad", level: Unexpected},
		{name: "log group replaced", plan: planOf(planned(theLog, replace, loginLog, object{"name": "/aws/rds/cluster/new/postgresql"})), address: theLog, level: Expected, safe: true},
		{name: "log group beside the cluster", plan: planOf(untouched(), planned(theLog, create, nil, object{}, object{"after_unknown": object{"name": true}})), address: theLog, level: Expected, safe: true},
		{name: "log group deleted", plan: planOf(planned(theLog, remove, loginLog, nil)), address: theLog, level: Unexpected},
		{name: "a function's log group", plan: planOf(planned("aws_cloudwatch_log_group.f", replace, object{"name": "/aws/lambda/f"}, object{"name": "/aws/lambda/g"})), address: "aws_cloudwatch_log_group.f", level: Unexpected},
	})
}

// priorState is a plan's state with one resource.
func priorState(module, mode, resourceType string, values object) object {
	resource := object{"address": module + "." + resourceType + ".x", "mode": mode, "type": resourceType, "name": "x", "values": values}
	return object{"prior_state": object{"format_version": "1.0", "values": object{"root_module": object{
		"child_modules": list{object{"address": module, "resources": list{resource}}}}}}}
}

func TestOthers(t *testing.T) {
	changed := func(address string) object {
		return planned(address, update, object{"a": 1}, object{"a": 2})
	}
	judgeAll(t, []judgement{
		{name: "unknown type", plan: planOf(changed("acme_cloud.c")), address: "acme_cloud.c", level: Unexpected, because: "--allow 'acme_cloud.c'"},
		{name: "unknown type, allowed", plan: planOf(changed("acme_cloud.c")), allow: []string{"acme_cloud.c"}, address: "acme_cloud.c", level: Allowed, safe: true},
		{name: "all instances allowed", plan: planOf(changed(`module.m["x"].acme_cloud.c["a]b"]`)), allow: []string{`module.m["x"].acme_cloud.c`}, address: `module.m["x"].acme_cloud.c["a]b"]`, level: Allowed, safe: true},
		{name: "another instance allowed", plan: planOf(changed("acme_cloud.c[0]")), allow: []string{"acme_cloud.c[1]"}, address: "acme_cloud.c[0]", level: Unexpected},
		{name: "a module is no address", plan: planOf(changed("module.m.acme_cloud.c")), allow: []string{"module.m"}, address: "module.m.acme_cloud.c", level: Unexpected},
		{name: "unknown type, unchanged", plan: planOf(planned("acme_cloud.c", noop, object{}, object{})), address: "acme_cloud.c", safe: true},
		{name: "a data source", plan: planOf(planned("data.aws_rds_cluster.c", read, nil, object{})), address: "data.aws_rds_cluster.c", safe: true},
		{name: "a provisioner's trigger", plan: planOf(planned("null_resource.migrate", replace, object{}, object{})), address: "null_resource.migrate", level: Unexpected},
		{name: "an address that steers terminals", plan: planOf(planned("acme_cloud.\x1b[2Jc", create, nil, object{})), address: "acme_cloud.\uFFFD[2Jc", level: Unexpected},
		{name: "errored", plan: merge(planOf(untouched()), object{"errored": true}), address: WholePlan, level: Refused, because: "error"},
		{name: "incomplete", plan: merge(planOf(untouched()), object{"complete": false}), allow: []string{WholePlan}, address: WholePlan, level: Refused, because: "-target"},
		{name: "complete", plan: merge(planOf(untouched()), object{"complete": true, "applyable": true, "errored": false}), safe: true},
		{name: "database deferred", plan: merge(planOf(), object{"deferred_changes": list{object{"reason": "provider_config_unknown", "resource_change": updated(nil, nil)}}}), allow: []string{theCluster}, level: Refused, because: "provider_config_unknown"},
		{name: "something deferred", plan: merge(planOf(), object{"deferred_changes": list{object{"reason": "x", "resource_change": changed("acme_cloud.c")}}}), address: "acme_cloud.c", level: Unexpected},
		{name: "database gone", plan: merge(planOf(), object{"resource_drift": list{planned(theCluster, remove, clusterObject(nil), nil)}}), level: Unexpected, because: "does not exist any more"},
		{name: "database gone, and known", plan: merge(planOf(), object{"resource_drift": list{planned(theCluster, remove, clusterObject(nil), nil)}}), allow: []string{theCluster}, level: Allowed, safe: true},
		{name: "database changed outside", plan: merge(planOf(untouched()), object{"resource_drift": list{updated(object{"tags": nil}, object{"tags": object{}})}}), safe: true},
		{name: "no changes", plan: planOf(), safe: true},
	})
}
