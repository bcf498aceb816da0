package fleet

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pileus/internal/control"
	"pileus/internal/repo"
)

// is tells whether err is a fault of a code; "": none.
func is(err error, code Code) bool {
	var f *Fault
	if code == "" {
		return err == nil
	}
	return errors.As(err, &f) && f.Code == code
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		name  string
		check func(string) error
		code  Code
	}{
		{"orders", checkMasterUsername, ""},
		{"", checkMasterUsername, CodeInvalidParameter},
		{"pileus_admin", checkMasterUsername, CodeInvalidParameter},
		{"PG_boss", checkMasterUsername, CodeInvalidParameter},
		{"1boss", checkMasterUsername, CodeInvalidParameter},
		{`b"; DROP`, checkMasterUsername, CodeInvalidParameter},
		{"eight888", checkPassword, ""},
		{"seven77", checkPassword, CodeInvalidParameter},
		{strings.Repeat("x", 42), checkPassword, CodeInvalidParameter},
		{"with space", checkPassword, CodeInvalidParameter},
		{"with@sign", checkPassword, CodeInvalidParameter},
		{"mit-Ümlaut", checkPassword, CodeInvalidParameter},
		{"", checkDatabaseName, ""},
		{"cumulus", checkDatabaseName, ""},
		{"template1", checkDatabaseName, CodeInvalidParameter},
		{"postgres", checkDatabaseName, CodeInvalidParameter},
		{"a-b", checkDatabaseName, CodeInvalidParameter},
		{"snap-1", func(s string) error { return checkSnapshotIdentifier("X", s) }, ""},
		{"rds:snap", func(s string) error { return checkSnapshotIdentifier("X", s) }, CodeInvalidParameter},
		{"snap-", func(s string) error { return checkSnapshotIdentifier("X", s) }, CodeInvalidParameter},
		{"a--b", func(s string) error { return checkIdentifier("X", s) }, CodeInvalidParameter},
		{"", func(s string) error { return checkIdentifier("X", s) }, CodeMissingParameter},
		{"default", func(s string) error { return checkGroupName("X", s) }, CodeInvalidParameter},
		{"../group", func(s string) error { return checkGroupName("X", s) }, CodeInvalidParameter},
	} {
		if err := c.check(c.name); !is(err, c.code) {
			t.Errorf("%q: %v, want %q", c.name, err, c.code)
		}
	}
}

func TestARNs(t *testing.T) {
	f := &Fleet{o: Options{Region: "us-east-1", Account: "123456789012"}}
	arn := f.arn(kindSnapshot, "rds:a-2026-01-01-00-00")
	if kind, id, err := f.parseARN(arn); err != nil || kind != kindSnapshot || id != "rds:a-2026-01-01-00-00" {
		t.Error(kind, id, err)
	}
	for _, wrong := range []string{"", "arn:aws:rds:us-east-1:123456789012:", "arn:aws:rds:us-east-1:123456789012:cluster", "arn:aws:rds:us-east-1:123456789012:cluster:",
		"arn:aws:rds:eu-west-1:123456789012:cluster:a", "arn:aws:rds:us-east-1:999999999999:cluster:a"} {
		if _, _, err := f.parseARN(wrong); !is(err, CodeInvalidParameter) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	if id, err := f.identifierOf(kindCluster, f.arn(kindCluster, "Orders")); err != nil || id != "orders" {
		t.Error(id, err)
	}
	if _, err := f.identifierOf(kindCluster, arn); !is(err, CodeInvalidParameter) {
		t.Error(err)
	}
}

func TestTags(t *testing.T) {
	got := mergeTags([]Tag{{"a", "1"}, {"b", "2"}}, []Tag{{"b", "3"}, {"c", "4"}, {"c", "5"}})
	if diff := cmp.Diff([]Tag{{"a", "1"}, {"b", "3"}, {"c", "5"}}, got); diff != "" {
		t.Error(diff)
	}
	for _, wrong := range [][]Tag{{{"", "x"}}, {{"aws:x", "x"}}, {{strings.Repeat("k", 129), "x"}}, {{"k", strings.Repeat("v", 257)}}, make([]Tag, 51)} {
		if err := checkTags(wrong); !is(err, CodeInvalidParameter) {
			t.Errorf("%.40v: %v", wrong, err)
		}
	}
}

func TestResourceIDs(t *testing.T) {
	a, b := newResourceID("cluster-"), newResourceID("cluster-")
	if a == b || len(a) != len("cluster-")+26 {
		t.Error(a, b)
	}
	x := derivedResourceID("cluster-", "x")
	if again := derivedResourceID("cluster-", "x"); x != again || x == derivedResourceID("cluster-", "y") {
		t.Error("a derived ID does not follow from the name")
	}
}

func TestDocuments(t *testing.T) {
	d, err := openDocuments[Cluster](filepath.Join(t.TempDir(), "clusters"))
	if err != nil {
		t.Fatal(err)
	}
	c := Cluster{Identifier: "a", Operation: &Operation{Kind: OpCreate}, Tags: []Tag{{"k", "v"}}}
	for range 2 {
		if err := d.save("a", &c); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(d.dir, ".new-1"), []byte("{"), 0o600); err != nil { // cut short
		t.Fatal(err)
	}
	all, err := d.all()
	if diff := cmp.Diff(map[string]*Cluster{"a": &c}, all); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if info, err := os.Stat(d.path("a")); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	if err := os.WriteFile(d.path("b"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.all(); err == nil || !strings.Contains(err.Error(), d.path("b")) {
		t.Errorf("a damaged document: %v", err)
	}
	for range 2 {
		if err := d.remove("b"); err != nil {
			t.Error(err)
		}
	}
}

func TestParameters(t *testing.T) {
	known := parseParameters([]byte("work_mem\tuser\tResource Usage / Memory\tINTEGER\t4096\t64\t2147483647\tSets the maximum memory\textra\n" +
		"max_connections\tpostmaster\tx\tINTEGER\t100\t1\t262143\tSets it\t\n" +
		"autovacuum\tsighup\tx\tBOOLEAN\tTRUE\t\t\tStarts it\t\n" +
		"archive_command\tsighup\tx\tSTRING\t\t\t\tSets it\t\n" +
		"server_version\tinternal\tx\tSTRING\t18\t\t\tShows it\t\n" +
		"too\tshort\n"))
	if len(known) != 5 {
		t.Fatalf("%+v", known)
	}
	for _, c := range []struct {
		change ParameterChange
		code   Code
	}{
		{ParameterChange{"work_mem", "8192", true}, ""},
		{ParameterChange{"WORK_MEM", "8MB", true}, ""},
		{ParameterChange{"work_mem", "8 parsecs", true}, CodeInvalidParameter},
		{ParameterChange{"work_mem", "1", true}, CodeInvalidParameter},
		{ParameterChange{"work_mem", "x'\nfsync = off", true}, CodeInvalidParameter},
		{ParameterChange{"max_connections", "200", true}, CodeInvalidCombination},
		{ParameterChange{"max_connections", "200", false}, ""},
		{ParameterChange{"autovacuum", "off", true}, ""},
		{ParameterChange{"autovacuum", "perhaps", true}, CodeInvalidParameter},
		{ParameterChange{"archive_command", "rm -rf ~", true}, CodeInvalidParameter},
		{ParameterChange{"server_version", "1", true}, CodeInvalidParameter},
		{ParameterChange{"nothing", "1", true}, CodeInvalidParameter},
	} {
		if err := checkParameter(known, c.change); !is(err, c.code) {
			t.Errorf("%+v: %v, want %q", c.change, err, c.code)
		}
	}
}

func TestVersions(t *testing.T) {
	for s, want := range map[string]int{"15.18": 15, "18beta1": 18, "13": 13, "": 0, "x": 0} {
		if got := majorOf(s); got != want {
			t.Errorf("majorOf(%q) = %d", s, got)
		}
	}
	if got := familyMajor("aurora-postgresql15"); got != 15 {
		t.Error(got)
	}
	if got := familyMajor("postgres16"); got != 16 {
		t.Error(got)
	}
}

// TestAutomatedSnapshots: the backups of the schedule are automated snapshots, with the cluster's tags if it copies them, also
// when there are copies of them, which may outlive them; backups of manual snapshots and damaged ones are not.
func TestAutomatedSnapshots(t *testing.T) {
	at := time.Date(2026, 3, 7, 23, 45, 0, 0, time.UTC)
	backup := func(id, problem string, snapshots ...string) control.BackupView {
		return control.BackupView{Backup: repo.Backup{ID: id, Stopped: at}, Problem: problem, Snapshots: snapshots}
	}
	v := control.ClusterView{Backups: []control.BackupView{backup("plain", ""), backup("copied", "", "copy"), backup("taken", "", "manual"), backup("both", "", "copy", "manual"), backup("bad", "damaged")}}
	c := Cluster{Identifier: "orders", RetentionDays: 1, Tags: []Tag{{"k", "v"}}, CopyTagsToSnapshot: true}
	var got []string
	for _, s := range automated(c, v, at.Add(time.Hour), func(name string) bool { return name == "copy" }) {
		got = append(got, s.Backup)
		if s.Identifier != "rds:orders-2026-03-07-23-45" || len(s.Tags) != 1 {
			t.Errorf("%+v", s)
		}
	}
	if diff := cmp.Diff([]string{"plain", "copied"}, got); diff != "" {
		t.Error(diff)
	}
	c.CopyTagsToSnapshot = false
	if s := automated(c, v, at.Add(25*time.Hour), func(string) bool { return true }); len(s) != 1 || s[0].Backup != "plain" || s[0].Tags != nil {
		t.Errorf("%+v", s)
	}
}

// TestMembers: what cannot be a member of a cluster is refused with RDS's code.
func TestMembers(t *testing.T) {
	for _, c := range []struct {
		mode, engine string
		want         Code
	}{{"provisioned", "postgres", ""}, {"provisioned", "", ""}, {"provisioned", "mysql", CodeInvalidCombination}, {"serverless", "postgres", CodeInvalidParameter}} {
		err := checkMember(&Cluster{Engine: enginePostgres, EngineMode: c.mode}, CreateInstance{Engine: c.engine})
		if !is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
