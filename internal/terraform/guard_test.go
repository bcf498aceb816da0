package terraform

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fixtures are plans that Terraform and the AWS provider made: what is refused in each, and
// whether it is safe.
var fixtures = map[string][]string{
	"danger_destroy": {WholePlan, "module.rds_cluster.aws_db_subnet_group.default", "module.rds_cluster.aws_rds_cluster.cumulus",
		"module.rds_cluster.aws_secretsmanager_secret.rds_login", "module.rds_cluster.aws_security_group.sg"},
	"danger_identifier_changed_without_import": {theCluster},
	"danger_snapshot_identifier_set":           {theCluster},
	"danger_tfvars_not_updated":                {theCluster},
	"healthy_after_import":                     nil,
	"snapshot_recovery_new_cluster":            nil,
	"unchanged":                                nil,
}

func TestFixtures(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) != len(fixtures) {
		t.Fatalf("%d fixtures, want %d: %v", len(files), len(fixtures), err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			p, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			r := Check(p, nil)
			want := fixtures[strings.TrimSuffix(filepath.Base(f), ".json")]
			var refused []string
			for _, v := range r.Verdicts {
				if v.Level == Refused {
					refused = append(refused, v.Address)
				}
			}
			if strings.Join(refused, " ") != strings.Join(want, " ") {
				t.Errorf("refused %q, want %q", refused, want)
			}
			if r.Safe != (len(want) == 0) {
				t.Errorf("safe is %v", r.Safe)
			}
			complete(t, r)
		})
	}
}

// TestFixtureCauses: the verdict names what the operator has to mend.
func TestFixtureCauses(t *testing.T) {
	for name, want := range map[string]string{
		"danger_identifier_changed_without_import": "cluster_identifier: cumulus-src → cumulus-new",
		"danger_snapshot_identifier_set":           "snapshot_identifier: none → cumulus-snap-1",
		"danger_tfvars_not_updated":                "cluster_identifier: cumulus-new → cumulus-src",
		"snapshot_recovery_new_cluster":            "snapshot_identifier: none → cumulus-snap-1",
	} {
		b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		p, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		v := Check(p, nil).Verdicts[0]
		if v.Address != theCluster || len(v.Attributes) != 1 || v.Attributes[0] != want {
			t.Errorf("%s: %s because of %q, want %q", name, v.Address, v.Attributes, want)
		}
	}
}

// complete checks what holds of every report.
func complete(t interface {
	Helper()
	Errorf(format string, args ...any)
}, r Report) {
	t.Helper()
	for _, v := range r.Verdicts {
		if v.Address == "" || v.Action == "" || v.Reason == "" || v.Attributes == nil {
			t.Errorf("incomplete verdict: %+v", v)
		}
		if v.Level.blocks() && v.Do == "" {
			t.Errorf("%s is %s, and nothing says what to do", v.Address, v.Level)
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Errorf("%v", err)
	}
	if strings.Contains(string(b), "hunter2222") {
		t.Errorf("the report has a password: %s", b)
	}
}
