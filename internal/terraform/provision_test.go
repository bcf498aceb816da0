package terraform

import (
	"testing"
)

// provisioning is a plan that reads the provisioning function, whose input is known after
// apply, as Cumulus's is; the configuration hands dbRecreation down two modules. nil leaves
// an expression out.
func provisioning(inModule, inCall, variable any) object {
	function := planned(theFunction, read, nil, object{"function_name": "p-ProvisionPostgresDatabase"},
		object{"after_unknown": object{"input": true, "id": true, "result": true}, "action_reason": "read_because_config_unknown"})
	expressions := object{}
	if inCall != nil {
		expressions["dbRecreation"] = inCall
	}
	input := object{}
	if inModule != nil {
		input = object{"input": inModule}
	}
	plan := planOf(untouched(), function)
	plan["configuration"] = object{"root_module": object{
		"variables": object{"dbRecreation": object{}, "recreate": object{}, "keep_database": object{}},
		"module_calls": object{"provision": object{"expressions": expressions, "module": object{
			"variables": object{"dbRecreation": object{"default": false}},
			"resources": list{object{"address": "data.aws_lambda_invocation.provision_database", "mode": "data", "type": "aws_lambda_invocation",
				"name": "provision_database", "expressions": input}},
		}}},
	}}
	if variable != nil {
		plan["variables"] = variable
	}
	return plan
}

func references(names ...any) object { return object{"references": names} }

func TestProvisioning(t *testing.T) {
	handed := references("var.prefix", "var.rds_user_password", "var.dbRecreation", "aws_secretsmanager_secret.db_credentials.name", "aws_secretsmanager_secret.db_credentials")
	given := func(v any) object { return object{"dbRecreation": object{"value": v}} }
	known := func(actions list, before, after string) object {
		wrap := func(s string) any {
			if s == "" {
				return nil
			}
			return object{"input": s}
		}
		return planOf(planned("aws_lambda_invocation.p", actions, wrap(before), wrap(after), object{"after_sensitive": object{"input": true}}))
	}
	const drops, keeps = `{"prefix":"p","dbPassword":"hunter2222","dbRecreation":true}`, `{"prefix":"p","dbPassword":"hunter2222","dbRecreation":false}`
	resource := "aws_lambda_invocation.p"
	noConfig := provisioning(handed, references("var.dbRecreation"), given(false))
	delete(noConfig, "configuration")
	action := func(payload string) object {
		return merge(planOf(), object{"action_invocations": list{object{"address": "action.aws_lambda_invoke.p", "type": "aws_lambda_invoke", "name": "p", "config_values": object{"payload": payload}}}})
	}
	judgeAll(t, []judgement{
		{name: "input drops", plan: known(create, "", drops), allow: []string{resource}, address: resource, level: Refused, because: "dbRecreation to false"},
		{name: "input drops, replaced", plan: known(replace, keeps, drops), address: resource, level: Refused},
		{name: "input drops, updated", plan: known(update, keeps, drops), address: resource, level: Refused},
		{name: "input dropped, deleted now", plan: known(remove, drops, ""), address: resource, level: Unexpected},
		{name: "input drops when deleted", plan: planOf(planned(resource, remove, object{"input": drops, "lifecycle_scope": "CRUD"}, nil)), address: resource, level: Refused},
		{name: "input dropped and no longer does", plan: known(replace, drops, keeps), address: resource, level: Expected, safe: true},
		{name: "input drops, not invoked", plan: known(noop, drops, drops), address: resource, safe: true},
		{name: "input keeps", plan: known(create, "", keeps), address: resource, level: Expected, safe: true},
		{name: "JavaScript takes the text for true", plan: known(create, "", `{"dbRecreation":"false"}`), address: resource, level: Refused},
		{name: "JavaScript takes 1 for true", plan: known(create, "", `{"db_recreation":1}`), address: resource, level: Refused},
		{name: "JavaScript takes a list for true", plan: known(create, "", `{"dbRecreation":[]}`), address: resource, level: Refused},
		{name: "0, null and nothing", plan: known(create, "", `{"dbRecreation":0}`), address: resource, level: Expected, safe: true},
		{name: "null", plan: known(create, "", `{"dbRecreation":null}`), address: resource, level: Expected, safe: true},
		{name: "empty text", plan: known(create, "", `{"dbRecreation":""}`), address: resource, level: Expected, safe: true},
		{name: "another function", plan: known(create, "", `{"a":1}`), address: resource, level: Unexpected},
		{name: "not an object", plan: known(create, "", `"x"`), address: resource, level: Unexpected},
		{name: "variable true", plan: provisioning(handed, references("var.dbRecreation"), given(true)), allow: []string{theFunction}, address: theFunction, level: Refused},
		{name: "variable false", plan: provisioning(handed, references("var.dbRecreation"), given(false)), address: theFunction, level: Expected, safe: true},
		{name: "constant true", plan: provisioning(handed, object{"constant_value": true}, nil), address: theFunction, level: Refused},
		{name: "constant false", plan: provisioning(handed, object{"constant_value": false}, nil), address: theFunction, level: Expected, safe: true},
		{name: "the default", plan: provisioning(handed, nil, nil), address: theFunction, level: Expected, safe: true},
		{name: "a variable of another name, which may be negated", plan: provisioning(handed, references("var.keep_database"), object{"keep_database": object{"value": false}}), address: theFunction, level: Unexpected},
		{name: "two variables", plan: provisioning(handed, references("var.dbRecreation", "var.prefix"), given(false)), address: theFunction, level: Unexpected},
		{name: "a local", plan: provisioning(handed, references("local.dbRecreation"), nil), address: theFunction, level: Unexpected},
		{name: "a function call", plan: provisioning(handed, object{}, nil), address: theFunction, level: Unexpected},
		{name: "input without dbRecreation", plan: provisioning(references("var.prefix"), nil, nil), address: theFunction, level: Unexpected},
		{name: "input without dbRecreation, allowed", plan: provisioning(references("var.prefix"), nil, nil), allow: []string{theFunction}, address: theFunction, level: Allowed, safe: true},
		{name: "no configuration of it", plan: provisioning(nil, nil, nil), address: theFunction, level: Unexpected},
		{name: "no configuration", plan: noConfig, address: theFunction, level: Unexpected},
		{name: "has run while planning", plan: merge(planOf(), priorState("module.p", "data", "aws_lambda_invocation", object{"input": drops})), address: "module.p.aws_lambda_invocation.x", level: Refused, because: "has run"},
		{name: "has run while planning, and kept", plan: merge(planOf(), priorState("module.p", "data", "aws_lambda_invocation", object{"input": keeps})), address: "module.p.aws_lambda_invocation.x", safe: true},
		{name: "action that drops", plan: action(drops), allow: []string{"action.aws_lambda_invoke.p"}, address: "action.aws_lambda_invoke.p", level: Refused},
		{name: "action", plan: action("{}"), address: "action.aws_lambda_invoke.p", level: Unexpected},
	})
}

// TestConfiguredSnapshot: a provider that keeps quiet about an argument does not mean that
// the next version will.
func TestConfiguredSnapshot(t *testing.T) {
	plan := func(before any, value any) object {
		cluster := planned(theCluster, noop, clusterObject(object{"snapshot_identifier": before}), clusterObject(object{"snapshot_identifier": before}))
		return merge(planOf(cluster), object{
			"variables": object{"snapshot_identifier": object{"value": value}},
			"configuration": object{"root_module": object{"variables": object{"snapshot_identifier": object{}},
				"module_calls": object{"rds_cluster": object{"expressions": object{"snapshot_identifier": references("var.snapshot_identifier")},
					"module": object{"variables": object{"snapshot_identifier": object{}}, "resources": list{object{"address": "aws_rds_cluster.cumulus", "mode": "managed", "type": "aws_rds_cluster", "name": "cumulus",
						"expressions": object{"snapshot_identifier": references("var.snapshot_identifier")}}}}}}}},
		})
	}
	judgeAll(t, []judgement{
		{name: "not made with it", plan: plan(nil, "snap"), level: Unexpected, because: "ignore_changes"},
		{name: "not made with it, allowed", plan: plan(nil, "snap"), allow: []string{theCluster}, level: Allowed, safe: true},
		{name: "made with it", plan: plan("snap", "snap"), safe: true},
		{name: "not configured", plan: plan(nil, nil), safe: true},
	})
}

func TestModuleNames(t *testing.T) {
	for address, want := range map[string]int{"": 0, "module.a": 1, `module.a["x.module.y\"]"].module.b[0].module.c`: 3, "module.a[": 1} {
		if got := moduleNames(address); len(got) != want {
			t.Errorf("%s: %q, want %d names", address, got, want)
		}
	}
}
