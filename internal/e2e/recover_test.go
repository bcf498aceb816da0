package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"pileus/internal/pgtest"
	"pileus/internal/recovery"
)

// An application that has nothing to do with Cumulus is recovered by its commands, under load.
func TestRecoverAnApplication(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.load()
	before, rows := s.accident()
	rights := s.rights()

	plan := s.run("recover", "shop", "--as", "shop-2", "--to", before.Format(time.RFC3339Nano), "--dry-run")
	for _, want := range []string{"shop-2 is free", "writers", "its role connects", "as the new cluster shop-2"} {
		if !strings.Contains(plan, want) {
			t.Errorf("the plan does not say %q:\n%s", want, plan)
		}
	}
	if s.halted() || s.rights() != rights {
		t.Error("--dry-run changed something")
	}
	if _, stderr, code := s.try("recover", "shop", "--as", "shop-2", "--to", before.Format(time.RFC3339Nano)); code != 2 || !strings.Contains(stderr, "--yes") {
		t.Errorf("without a terminal and --yes: exit %d, %s", code, stderr)
	}
	out, stderr, code := s.try("recover", "shop", "--as", "shop-2", "--to", before.Format(time.RFC3339Nano), "--yes")
	if code != 0 {
		t.Fatalf("exit %d\n%s\n%s", code, out, stderr)
	}
	s.recovered("shop-2", rows)
	if !strings.Contains(out, "shop still runs, fenced") {
		t.Errorf("it does not tell what is left to do:\n%s", out)
	}
	var runs []recovery.Run
	s.runJSON(&runs, "run", "list")
	if len(runs) != 1 || runs[0].Status != recovery.Done {
		t.Fatalf("%+v", runs)
	}
	for _, args := range [][]string{{"run", "report", runs[0].ID}, {"run", "report", runs[0].ID, "--html"}} {
		if report := s.run(args...); !strings.Contains(report, "shop-2") || !strings.Contains(report, "RTO") || !strings.Contains(report, "1000 or more") {
			t.Errorf("%v:\n%s", args, report)
		}
	}
	if shown := s.run("run", "show", runs[0].ID); strings.Contains(shown, shopPassword) || strings.Contains(shown, masterPassword) {
		t.Error("a password is in the journal")
	}
	// The journal has a copy in the repository.
	copies, err := filepath.Glob(filepath.Join(s.dir, "repo", "runs", runs[0].ID, "*"))
	var shown struct{ Journal []recovery.Entry }
	s.runJSON(&shown, "run", "show", runs[0].ID)
	if err != nil || len(copies) != len(shown.Journal) {
		t.Errorf("%d entries, %d copies in the repository, %v", len(shown.Journal), len(copies), err)
	}
	if status := s.run("fence", "status", "shop"); !strings.Contains(status, "CLOSED") {
		t.Errorf("%s", status)
	}
	for range 2 { // by itself, the second time
		s.run("unfence", "shop")
		if got := s.rights(); got != rights {
			t.Errorf("after unfence the rights are\n%s\nand were\n%s", got, rights)
		}
		s.app(s.cluster).Close(t.Context())
		if out := s.run("fence", "shop"); !strings.Contains(out, "the application is refused") {
			t.Errorf("%s", out)
		}
	}
	s.run("unfence", "shop")
	s.app(s.cluster).Close(t.Context())

	s.drilled()
}

// drilled rehearses, and nothing stays of it.
func (s *shop) drilled() {
	s.t.Helper()
	s.restorable("shop", time.Now())                                                      // the latest moment is one behind the fence
	s.write("pileus.yaml", strings.Replace(s.configText(), "least: 1000", "least: 0", 1)) // everything is deleted at the latest moment
	out := s.run("drill", "shop")
	if !strings.Contains(out, "can be recovered") {
		s.t.Errorf("%s", out)
	}
	var drills []recovery.Drill
	s.runJSON(&drills, "drill", "shop", "--list")
	if len(drills) != 1 || !drills[0].OK || drills[0].RTO <= 0 {
		s.t.Errorf("%+v", drills)
	}
	s.write("pileus.yaml", strings.Replace(s.configText(), "least: 0", "least: 1000000", 1))
	if _, stderr, code := s.try("drill", "shop"); code == 0 || !strings.Contains(stderr, "not as expected") {
		s.t.Errorf("a drill that fails: exit %d, %s", code, stderr)
	}
	s.runJSON(&drills, "drill", "shop", "--list")
	if len(drills) != 2 || drills[0].OK {
		s.t.Errorf("%+v", drills)
	}
	all, err := s.api.DescribeDBClusters(s.t.Context(), &rds.DescribeDBClustersInput{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range all.DBClusters {
		if strings.HasPrefix(*c.DBClusterIdentifier, "drill-") && *c.Status != "deleting" {
			s.t.Errorf("a drill left %s, which is %s", *c.DBClusterIdentifier, *c.Status)
		}
	}
}

// A run that is killed after each entry of its journal ends as one that is not.
func TestRecoverKilledAfterEveryEntry(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.load()
	before, rows := s.accident()
	killer := pgtest.Program(t, "internal/e2e/runkiller")
	command := func(args ...string) (killed bool) {
		t.Helper()
		cmd := exec.Command(killer, append([]string{s.config}, args...)...)
		cmd.Env, cmd.Dir = s.env, s.dir
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if cred := pgtest.RunAs(t); cred != nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
		}
		err := cmd.Run()
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
			return true
		}
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out.String())
		}
		return false
	}
	// Each process dies after its first entry; so the run is killed after every one.
	if !command("1", "recover", "shop", "shop-2", before.Format(time.RFC3339Nano)) {
		t.Fatal("it was not killed")
	}
	var runs []recovery.Run
	s.runJSON(&runs, "run", "list")
	id := runs[0].ID
	if _, stderr, code := s.try("recover", "shop", "--as", "shop-3", "--latest", "--yes"); code != 6 || !strings.Contains(stderr, id) {
		t.Errorf("a second run beside one that is not over: exit %d, %s", code, stderr)
	}
	entries := func() []recovery.Entry {
		var shown struct{ Journal []recovery.Entry }
		s.runJSON(&shown, "run", "show", id)
		return shown.Journal
	}
	// A process begins the step it is in anew, which is an entry. So it must be let through that to get on.
	for n := 0; command("2", "resume", id); n++ {
		if n > 60 {
			t.Fatalf("the run does not come to its end:\n%s", s.run("run", "show", id))
		}
	}
	s.recovered("shop-2", rows)
	s.runJSON(&runs, "run", "list")
	if runs[0].Status != recovery.Done {
		t.Errorf("the run is %s", runs[0].Status)
	}
	for i, e := range entries() {
		if e.Seq != i+1 {
			t.Errorf("entry %d has the number %d", i+1, e.Seq)
		}
	}
}

// A run is taken back after each step before cut-over: everything is as it was.
func TestRecoverAborted(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.load()
	before, _ := s.accident()
	rights := s.rights()
	steps := recovery.Steps[:slices.Index(recovery.Steps, recovery.StepCutover)]
	for i, step := range steps {
		name := fmt.Sprintf("shop-%d", i+2)
		_, stderr, code := s.try("recover", "shop", "--as", name, "--to", before.Format(time.RFC3339Nano), "--yes", "--pause-after", string(step))
		if code != 7 || !strings.Contains(stderr, "pileus run resume") {
			t.Fatalf("paused after %s: exit %d, %s", step, code, stderr)
		}
		var runs []recovery.Run
		s.runJSON(&runs, "run", "list")
		args := []string{"run", "abort", runs[0].ID}
		if i%2 == 1 {
			args = append(args, "--delete-new")
		}
		s.run(args...)
		if got := s.rights(); got != rights {
			t.Errorf("aborted after %s the rights are\n%s\nand were\n%s", step, got, rights)
		}
		if s.halted() {
			t.Errorf("aborted after %s the work stays halted", step)
		}
		app := s.app(s.cluster)
		had := s.ask(app, "SELECT count(*)::text FROM shop.granules")
		pgtest.WaitFor(t, "the work to go on", func() bool { return s.ask(app, "SELECT count(*)::text FROM shop.granules") != had })
		app.Close(t.Context())
		_, err := s.api.DescribeDBClusters(t.Context(), &rds.DescribeDBClustersInput{DBClusterIdentifier: &name})
		if restored := slices.Index(steps, step) >= slices.Index(steps, recovery.StepRestore); restored && i%2 == 0 && err != nil {
			t.Errorf("the new cluster is gone although nobody asked for that: %v", err)
		} else if i%2 == 1 && err == nil {
			t.Errorf("%s is still there", name)
		}
	}
}

// A restore that fails stops the run with the reason, and abort leaves nothing of it.
func TestRecoverWhoseRestoreFails(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	rights := s.rights()
	_, stderr, code := s.try("recover", "shop", "--as", "shop-2", "--to-xid", "4000000000", "--yes")
	if code != 7 || !strings.Contains(stderr, "shop-2 is failed") || !strings.Contains(stderr, "4000000000") || !strings.Contains(stderr, "pileus run abort") {
		t.Fatalf("exit %d, %s", code, stderr)
	}
	var runs []recovery.Run
	s.runJSON(&runs, "run", "list")
	if _, stderr, code := s.try("run", "resume", runs[0].ID); code != 7 || !strings.Contains(stderr, "shop-2 is failed") {
		t.Errorf("resumed, it fails again: exit %d, %s", code, stderr)
	}
	s.run("run", "abort", runs[0].ID, "--delete-new")
	if got := s.rights(); got != rights || s.halted() {
		t.Errorf("after abort the rights are\n%s\nand were\n%s; halted: %v", got, rights, s.halted())
	}
	if _, err := s.api.DescribeDBClusters(t.Context(), &rds.DescribeDBClustersInput{DBClusterIdentifier: aws.String("shop-2")}); err == nil {
		t.Error("what failed is still there")
	}
	// An API that is away: nothing is changed, and the run says so.
	s.serve.kill()
	if _, stderr, code := s.try("recover", "shop", "--as", "shop-3", "--latest", "--yes"); code == 0 || !strings.Contains(stderr, "RDS API") {
		t.Errorf("without the API: exit %d, %s", code, stderr)
	}
}

// What goes wrong ends in a clear stop, from which the run goes on when it is put right.
func TestRecoverStopsAndGoesOn(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	before, rows := s.accident()
	at := before.Format(time.RFC3339Nano)
	for want, args := range map[string][]string{
		"can be recovered to any moment since": {"--as", "shop-2", "--to", "2001-01-01T00:00:00Z"},
		"another name than the source":         {"--as", "shop", "--to", at},
		"exists already":                       {"--as", "src", "--to", at},
		"there is no snapshot":                 {"--as", "shop-2", "--snapshot", "nowhere"},
	} {
		out, stderr, code := s.try(append([]string{"recover", "shop", "--yes"}, args...)...)
		if code != 4 || !strings.Contains(out+stderr, want) {
			t.Errorf("%v: exit %d, want %q\n%s%s", args, code, want, out, stderr)
		}
	}
	// A stuck worker, an expectation that is not met, and a prepared transaction.
	if err := os.WriteFile(filepath.Join(s.dir, "busy"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s.write("pileus.yaml", strings.Replace(s.configText(), "  halt:\n", "  drain_timeout: 1s\n  halt:\n", 1))
	s.write("pileus.yaml", strings.Replace(s.configText(), "least: 1000", "least: 1000000", 1))
	_, stderr, code := s.try("recover", "shop", "--as", "shop-2", "--to", at, "--yes")
	if code != 7 || !strings.Contains(stderr, "--approve drain") || !strings.Contains(stderr, "writers") {
		t.Fatalf("a stuck worker: exit %d, %s", code, stderr)
	}
	var runs []recovery.Run
	s.runJSON(&runs, "run", "list")
	id := runs[0].ID
	_, stderr, code = s.try("run", "resume", id, "--approve", "drain")
	if code != 7 || !strings.Contains(stderr, "--approve validate") || !strings.Contains(stderr, "rows: expected 1e+06 or more, found "+rows) {
		t.Fatalf("an expectation that is not met: exit %d, %s", code, stderr)
	}
	// The operator mends what he expects.
	s.write("pileus.yaml", strings.Replace(s.configText(), "least: 1000000", "least: 1000", 1))
	s.run("run", "resume", id)
	s.recovered("shop-2", rows)
	if report := s.run("run", "report", id); !strings.Contains(report, "approved by") || !strings.Contains(report, "although work was left") {
		t.Errorf("the report does not tell of the approval:\n%s", report)
	}
	if _, stderr, code := s.try("run", "abort", id); code == 0 || !strings.Contains(stderr, "is over") {
		t.Errorf("aborting a run that is over: exit %d, %s", code, stderr)
	}

	// To the transaction of the accident, from the new cluster, which is the source now; and the application's role is
	// deliberately unable to connect before: that would make the proof of the fence worthless.
	c := s.plane.cluster("shop-2")
	s.restorable("shop-2", time.Now()) // its first backup is complete
	app := s.app(c)
	xid := ""
	if err := app.QueryRow(t.Context(), "WITH d AS (DELETE FROM shop.granules RETURNING 1) SELECT pg_current_xact_id()::text FROM d LIMIT 1").Scan(&xid); err != nil {
		t.Fatal(err)
	}
	app.Close(t.Context())
	s.write("shop.password", "wrong\n")
	if out, _, code := s.try("recover", "shop-2", "--as", "shop-3", "--to-xid", xid, "--exclusive", "--yes"); code != 4 || !strings.Contains(out, "proves nothing") {
		t.Errorf("a wrong password of the application: exit %d\n%s", code, out)
	}
	s.write("shop.password", shopPassword+"\n")
	if err := os.Remove(filepath.Join(s.dir, "busy")); err != nil {
		t.Fatal(err)
	}
	s.cluster = c
	s.run("recover", "shop-2", "--as", "shop-3", "--to-xid", xid, "--exclusive", "--yes")
	s.recovered("shop-3", rows)
	if tags := s.plane.cluster("shop-3").TagList; !slices.ContainsFunc(tags, func(g types.Tag) bool { return aws.ToString(g.Key) == "pileus-run" }) {
		t.Errorf("%+v", tags)
	}
	var doc map[string]any
	if err := json.Unmarshal([]byte(s.run("--json", "fence", "status", "shop-2")), &doc); err != nil || doc["closed"] != true {
		t.Errorf("%v %v", doc, err)
	}
}

// The page by hand, a step at a time.
func TestRecoverStepByStep(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	before, rows := s.accident()
	s.restorable("shop", before)
	rights := s.rights()
	s.run("step", "halt", "shop")
	if !s.halted() {
		t.Error("the work was not halted")
	}
	s.run("step", "drain", "shop")
	s.run("step", "fence", "shop")
	if conn, err := s.tryApp(s.cluster); err == nil {
		conn.Close(t.Context())
		t.Error("the fence is not up")
	}
	s.run("step", "wal", "shop")
	s.run("step", "restore", "shop", "--as", "shop-2", "--to", before.Format(time.RFC3339Nano))
	s.run("step", "compare", "shop", "--as", "shop-2")
	s.run("step", "validate", "shop", "--as", "shop-2")
	s.run("step", "cutover", "shop", "--as", "shop-2")
	s.run("step", "resume", "shop")
	s.recovered("shop-2", rows)
	s.run("unfence", "shop")
	if got := s.rights(); got != rights {
		t.Errorf("after unfence the rights are\n%s\nand were\n%s", got, rights)
	}
	for want, args := range map[string][]string{
		"there is no step":         {"fense", "shop"},
		"has a command of its own": {"report", "shop"},
		"needs the other cluster":  {"validate", "shop"},
		"exactly one of":           {"restore", "shop", "--as", "shop-3"},
	} {
		if _, stderr, code := s.try(append([]string{"step"}, args...)...); code != 2 || !strings.Contains(stderr, want) {
			t.Errorf("%v: exit %d, %s", args, code, stderr)
		}
	}
}
