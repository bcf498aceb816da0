package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pileus/internal/terraform"
)

// checkPlan runs `pileus plan check -` with a plan on standard input, where there is no
// configuration.
func checkPlan(t *testing.T, plan []byte, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	t.Chdir(t.TempDir())
	t.Setenv("PILEUS_CONFIG", "")
	t.Setenv("HOME", t.TempDir())
	var out, errs bytes.Buffer
	code = Run(t.Context(), "test", append([]string{"plan", "check", "-"}, args...), bytes.NewReader(plan), &out, &errs)
	return out.String(), errs.String(), code
}

// TestPlanCheckExitCodes: pipelines depend on them.
func TestPlanCheckExitCodes(t *testing.T) {
	fixtures, err := filepath.Abs("../terraform/testdata")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{
		"danger_destroy": 1, "danger_identifier_changed_without_import": 1, "danger_snapshot_identifier_set": 1, "danger_tfvars_not_updated": 1,
		"healthy_after_import": 0, "snapshot_recovery_new_cluster": 0, "unchanged": 0,
	} {
		plan, err := os.ReadFile(filepath.Join(fixtures, name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		stdout, stderr, code := checkPlan(t, plan)
		word := map[int]string{0: "SAFE:", 1: "REFUSED:"}[want]
		if code != want || !strings.HasPrefix(stdout, word) || stderr != "" {
			t.Errorf("%s: exit %d, want %d: %s%s", name, code, want, stdout, stderr)
		}
		asJSON, _, jsonCode := checkPlan(t, plan, "--json")
		var report terraform.Report
		if err := json.Unmarshal([]byte(asJSON), &report); err != nil || jsonCode != want || report.Safe != (want == 0) {
			t.Errorf("%s: exit %d, %v, %s", name, jsonCode, err, asJSON)
		}
		if strings.Contains(stdout+asJSON, "hunter2222") {
			t.Errorf("%s: the password is printed", name)
		}
		// What is refused stays so.
		if _, _, code := checkPlan(t, plan, "--allow", "module.rds_cluster.aws_rds_cluster.cumulus"); code != want {
			t.Errorf("%s: exit %d with --allow, want %d", name, code, want)
		}
	}
	for _, plan := range []string{"", "{}", `{"format_version":"2.0","resource_changes":[]}`, `{"format_version":"1.0","values":{}}`} {
		if stdout, stderr, code := checkPlan(t, []byte(plan)); code != 2 || stdout != "" || stderr == "" {
			t.Errorf("%q: exit %d, %s%s", plan, code, stdout, stderr)
		}
	}
}

func TestPlanCheckAllow(t *testing.T) {
	const address = `module.m["a b"].acme_thing.x`
	quoted, err := json.Marshal(address)
	if err != nil {
		t.Fatal(err)
	}
	plan := []byte(`{"format_version":"1.2","resource_changes":[{"address":` + string(quoted) + `,"type":"acme_thing","name":"x","mode":"managed","change":{"actions":["create"]}}]}`)
	if stdout, _, code := checkPlan(t, plan); code != 1 || !strings.Contains(stdout, "--allow '"+address+"'") {
		t.Errorf("exit %d: %s", code, stdout)
	}
	stdout, _, code := checkPlan(t, plan, "--allow", address, "--allow", "a.b")
	if code != 0 || !strings.Contains(stdout, "--allow a.b was not used") {
		t.Errorf("exit %d: %s", code, stdout)
	}
}
