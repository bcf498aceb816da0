package terraform

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
)

// object is a JSON object.
type object = map[string]any

// list is a JSON array.
type list = []any

const (
	theModule   = "module.rds_cluster"
	theCluster  = theModule + ".aws_rds_cluster.cumulus"
	theInstance = theModule + ".aws_rds_cluster_instance.cumulus[0]"
	theGroup    = theModule + ".aws_security_group.rds_cluster_access"
	theSubnets  = theModule + ".aws_db_subnet_group.default"
	theSecret   = theModule + ".aws_secretsmanager_secret.rds_login"
	theVersion  = theModule + ".aws_secretsmanager_secret_version.rds_login"
	theLog      = theModule + ".aws_cloudwatch_log_group.rds"
	theFunction = "module.provision.data.aws_lambda_invocation.provision_database"
)

// clusterObject is a cluster as the module makes it, with what a case changes. nil
// removes an attribute.
func clusterObject(with object) object {
	return merge(object{
		"id": "cumulus-new", "cluster_identifier": "cumulus-new", "engine": "aurora-postgresql", "engine_version": "15.10",
		"engine_mode": "provisioned", "database_name": "postgres", "snapshot_identifier": nil, "deletion_protection": true,
		"skip_final_snapshot": false, "backup_retention_period": 7, "kms_key_id": "arn:aws:kms:key/live", "storage_encrypted": true,
		"db_subnet_group_name": "cumulus-subnets", "vpc_security_group_ids": list{"sg-live"}, "master_password": "hunter2222",
		"availability_zones": list{"a", "b"}, "restore_to_point_in_time": list{}, "apply_immediately": true,
	}, with)
}

func merge(base, with object) object {
	merged := maps.Clone(base)
	maps.Copy(merged, with)
	return merged
}

// planned is a change at an address, whose parts it is taken apart for.
func planned(address string, actions list, before, after any, with ...object) object {
	module, mode, rest := "", "managed", resourceOf(address)
	parts := split(rest)
	resourceType, name := parts[len(parts)-2], parts[len(parts)-1]
	parts = parts[:len(parts)-2]
	if len(parts) > 0 && parts[len(parts)-1] == "data" {
		mode, parts = "data", parts[:len(parts)-1]
	}
	module = strings.Join(parts, ".")
	change := object{"actions": actions, "before": before, "after": after, "after_unknown": object{},
		"before_sensitive": object{"master_password": true, "secret_string": true}, "after_sensitive": object{"master_password": true, "secret_string": true}}
	c := object{"address": address, "module_address": module, "mode": mode, "type": resourceType, "name": name, "change": change}
	for _, w := range with {
		for key, v := range w {
			if key == "deposed" || key == "previous_address" || key == "action_reason" || key == "mode" {
				c[key] = v
			} else {
				change[key] = v
			}
		}
	}
	return c
}

// split cuts an address at its dots, except within an instance key.
func split(address string) []string {
	var parts []string
	from := 0
	for i := 0; i < len(address); i++ {
		switch address[i] {
		case '[':
			i += keyLength(address[i:]) - 1
		case '.':
			parts, from = append(parts, address[from:i]), i+1
		}
	}
	return append(parts, address[from:])
}

var (
	noop    = list{"no-op"}
	create  = list{"create"}
	update  = list{"update"}
	remove  = list{"delete"}
	replace = list{"delete", "create"}
	forget  = list{"forget"}
	read    = list{"read"}
)

// updated is an update in place of the cluster from one object to another.
func updated(before, after object, with ...object) object {
	return planned(theCluster, update, clusterObject(before), clusterObject(after), with...)
}

// untouched is the cluster that nothing happens to; it makes the module the database's.
func untouched() object {
	return planned(theCluster, noop, clusterObject(nil), clusterObject(nil))
}

// planOf is a whole plan with changes.
func planOf(changes ...object) object {
	return object{"format_version": "1.2", "terraform_version": "1.11.4", "planned_values": object{"root_module": object{}}, "resource_changes": changes}
}

// decode sends a plan through its JSON.
func decode(t interface {
	Helper()
	Fatal(args ...any)
}, plan object) *Plan {
	t.Helper()
	b, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSplit(t *testing.T) {
	got := split(`module.a["x.y\"]."].aws_x.b`)
	if len(got) != 4 || got[1] != `a["x.y\"]."]` || got[3] != "b" {
		t.Errorf("%q", got)
	}
}
