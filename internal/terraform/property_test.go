package terraform

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

// anyChange is a change of anything to anything.
func anyChange() *rapid.Generator[object] {
	return rapid.Custom(func(t *rapid.T) object {
		types := []string{"aws_rds_cluster", "aws_rds_cluster_instance", "aws_db_instance", "aws_security_group", "aws_secretsmanager_secret",
			"aws_secretsmanager_secret_version", "aws_lambda_invocation", "aws_cloudwatch_log_group", "acme_cloud", "aws_kms_key"}
		actions := []list{noop, create, update, remove, replace, forget, read, {"create", "delete"}, {"create", "forget"}}
		attributes := rapid.MapOf(rapid.SampledFrom([]string{"id", "name", "cluster_identifier", "snapshot_identifier", "deletion_protection", "input", "kms_key_id"}),
			rapid.SampledFrom([]any{nil, "", "x", "sg-live", true, false, 7, list{}, `{"dbRecreation":false}`}))
		modules := []string{"", "module.rds_cluster.", `module.a["b.c"].`, "module.a[0].module.b."}
		keys := []string{"", "[0]", `["x"]`, `["a]b.c"]`}
		address := rapid.SampledFrom(modules).Draw(t, "module") + rapid.SampledFrom(types).Draw(t, "type") + "." +
			rapid.SampledFrom([]string{"cumulus", "rds_login", "x"}).Draw(t, "name") + rapid.SampledFrom(keys).Draw(t, "key")
		with := object{"after_unknown": rapid.SampledFrom([]any{object{}, true, object{"input": true}, object{"deletion_protection": true}}).Draw(t, "unknown")}
		if rapid.Bool().Draw(t, "deposed") {
			with["deposed"] = "00000001"
		}
		if rapid.Bool().Draw(t, "importing") {
			with["importing"] = object{"id": "x"}
		}
		return planned(address, rapid.SampledFrom(actions).Draw(t, "actions"), attributes.Draw(t, "before"), attributes.Draw(t, "after"), with)
	})
}

// anyPlan is a plan with any changes, and with all that a plan can say of itself.
func anyPlan(t *rapid.T, changes []object) object {
	plan := planOf(changes...)
	for _, key := range []string{"errored", "complete", "applyable"} {
		if rapid.Bool().Draw(t, "has "+key) {
			plan[key] = rapid.Bool().Draw(t, key)
		}
	}
	if rapid.Bool().Draw(t, "drifted") {
		plan["resource_drift"] = []object{anyChange().Draw(t, "drift")}
	}
	if rapid.Bool().Draw(t, "old") {
		plan["format_version"] = "0.1"
	}
	return plan
}

// TestDeletedDatabaseIsRefused: whatever else a plan has, and whatever is allowed, a database
// that it deletes, replaces or leaves for a new one makes it refused, at that address.
func TestDeletedDatabaseIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		changes := rapid.SliceOfN(anyChange(), 0, 6).Draw(t, "others")
		doomed := anyChange().Draw(t, "doomed")
		doomed["type"] = rapid.SampledFrom([]string{"aws_rds_cluster", "aws_rds_cluster_instance", "aws_db_instance", "aws_rds_global_cluster"}).Draw(t, "database")
		doomed["change"].(object)["actions"] = rapid.SampledFrom([]list{remove, replace, {"create", "delete"}, {"create", "forget"}, {"forget", "create"}}).Draw(t, "fatal")
		at := rapid.IntRange(0, len(changes)).Draw(t, "at")
		changes = append(changes[:at:at], append([]object{doomed}, changes[at:]...)...)
		address := doomed["address"].(string)
		allow := []string{address, resourceOf(address), WholePlan}
		for _, c := range changes {
			allow = append(allow, c["address"].(string))
		}
		r := Check(decode(t, anyPlan(t, changes)), allow)
		complete(t, r)
		if r.Safe {
			t.Fatalf("safe: %+v", r)
		}
		for _, v := range r.Verdicts {
			if v.Address == address && v.Level == Refused {
				return
			}
		}
		t.Fatalf("%s is not refused: %+v", address, r.Verdicts)
	})
}

// TestVerdictsAreStable: the order of a plan's changes does not matter, allowing more never
// makes a plan less safe, and nothing destroyed is ever merely expected, but for secret
// versions and log groups.
func TestVerdictsAreStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		changes := rapid.SliceOfN(anyChange(), 0, 6).Draw(t, "changes")
		plan := anyPlan(t, changes)
		bare := Check(decode(t, plan), nil)
		complete(t, bare)
		var all []string
		for _, c := range changes {
			all = append(all, c["address"].(string))
		}
		plan["resource_changes"] = rapid.Permutation(changes).Draw(t, "order")
		generous := Check(decode(t, plan), all)
		if bare.Safe && !generous.Safe || bare.Count(Refused) != generous.Count(Refused) || len(bare.Verdicts) != len(generous.Verdicts) {
			t.Fatalf("with everything allowed, and in another order:\n%+v\nwithout:\n%+v", generous, bare)
		}
		for _, v := range bare.Verdicts {
			k := kindOf(typeOf(v.Address))
			if v.Level == Expected && (v.Action == "delete" || v.Action == "replace" && k != secretVersion && k != logGroup && k != lambdaInvocation) {
				t.Fatalf("destroyed, and expected: %+v", v)
			}
		}
	})
}

func typeOf(address string) string {
	parts := split(resourceOf(address))
	if len(parts) < 2 {
		return ""
	}
	return parts[len(parts)-2]
}

// FuzzDecode: no input makes the reader panic or the verdict incomplete, and no plan with a
// deleted database is safe.
func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no fixtures", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, plan := range []object{planOf(untouched()), provisioning(references("var.dbRecreation"), references("var.dbRecreation"), object{"dbRecreation": object{"value": true}}),
		merge(planOf(), priorState("module.p", "data", "aws_lambda_invocation", object{"input": "{}"}))} {
		b, err := json.Marshal(plan)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"format_version":"1.0","planned_values":{},"resource_changes":[null],"deferred_changes":[{"resource_change":null}],"action_invocations":[null]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Decode(b)
		if err != nil {
			return
		}
		r := Check(p, []string{"a.b", theCluster})
		for _, v := range r.Verdicts {
			if v.Address == "" || v.Action == "" || v.Reason == "" {
				t.Errorf("incomplete verdict: %+v", v)
			}
		}
		for _, c := range p.tf.ResourceChanges {
			if kindOf(c.Type).holdsData() && newChange(c).destroys() && r.Safe {
				t.Errorf("%s is destroyed, and the plan is safe", c.Address)
			}
		}
	})
}
