package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/jackc/pgx/v5"

	"pileus/internal/pgtest"
	"pileus/internal/recovery"
)

const shopPassword = "shop-password-17"

// shop is an ordinary application on a managed cluster: a role, a database, and work that goes on until it is halted.
type shop struct {
	*plane
	cluster types.DBCluster
	admin   *pgx.Conn
	work    sync.WaitGroup
	stop    chan struct{}
}

// newShop sets it up, and tells the configuration how it is halted, drained and resumed.
func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{plane: newPlane(t), stop: make(chan struct{})}
	s.cluster = s.create("shop")
	s.admin = s.sql(s.cluster)
	for _, sql := range []string{
		"CREATE ROLE shop LOGIN PASSWORD '" + shopPassword + "'",
		"REVOKE ALL ON DATABASE cumulus FROM PUBLIC",
		"GRANT CONNECT, TEMPORARY ON DATABASE cumulus TO shop",
		"CREATE SCHEMA shop",
		"GRANT ALL ON SCHEMA shop TO shop",
	} {
		s.exec(s.admin, sql)
	}
	app := s.app(s.cluster)
	s.exec(app, "CREATE TABLE shop.granules (id bigserial PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())")
	s.exec(app, "INSERT INTO shop.granules SELECT FROM generate_series(1, 1000)")
	app.Close(t.Context())
	s.restorable("shop", time.Now()) // its first backup is complete

	s.write("master.password", masterPassword+"\n")
	s.write("shop.password", shopPassword+"\n")
	s.write("operator2.secret", operatorSecret+"\n")
	head, rest, _ := strings.Cut(s.configText(), "\nrecovery:\n")
	_, rest, _ = strings.Cut(rest, "\ndefaults:\n")
	text := head + fmt.Sprintf(`
recovery:
  endpoint: http://%s
  access_key: %s
  secret_file: operator2.secret
  database: cumulus
  administrator: {user: boss, password_file: master.password}
  application: {user: shop, password_file: shop.password}
  halt:
    writers: touch %[3]s/halted; echo x >> %[3]s/halts
  drained:
    writers: test ! -e %[3]s/busy
  resume:
    writers: rm -f %[3]s/halted; echo x >> %[3]s/resumes
  expect:
    rows: {sql: SELECT count(*) FROM shop.granules, least: 1000}
  cutover:
    method: commands
    commands:
      point: echo "$PILEUS_NEW_HOST $PILEUS_NEW_PORT" > %[3]s/endpoint

defaults:
`, s.at, operatorKey, s.dir) + rest
	s.plane.write("pileus.yaml", text)
	t.Cleanup(func() { close(s.stop); s.work.Wait() })
	return s
}

func (s *shop) app(c types.DBCluster) *pgx.Conn {
	s.t.Helper()
	conn, err := s.tryApp(c)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (s *shop) tryApp(c types.DBCluster) (*pgx.Conn, error) {
	return pgx.Connect(s.t.Context(), fmt.Sprintf("host=%s port=%d user=shop password=%s dbname=cumulus sslmode=require", *c.Endpoint, *c.Port, shopPassword))
}

func (s *shop) halted() bool {
	_, err := os.Stat(filepath.Join(s.dir, "halted"))
	return err == nil
}

// load inserts rows until it is halted, and begins again when it is resumed.
func (s *shop) load() {
	s.work.Go(func() {
		var conn *pgx.Conn
		for {
			select {
			case <-s.stop:
				if conn != nil {
					conn.Close(context.Background())
				}
				return
			case <-time.After(5 * time.Millisecond):
			}
			if s.halted() {
				continue
			}
			if conn == nil || conn.IsClosed() {
				var err error
				if conn, err = s.tryApp(s.cluster); err != nil {
					conn = nil
					continue
				}
			}
			_, _ = conn.Exec(context.Background(), "INSERT INTO shop.granules DEFAULT VALUES") // fails when the fence comes up
		}
	})
}

// rights is everything that a fence changes.
func (s *shop) rights() string {
	return s.ask(s.admin, `SELECT concat_ws(E'\n', (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM pg_database d, unnest(d.datacl) a WHERE d.datname = 'cumulus'),
		(SELECT string_agg(rolname || rolcanlogin || rolconnlimit, ',' ORDER BY rolname) FROM pg_roles), (SELECT datconnlimit FROM pg_database WHERE datname = 'cumulus'))`)
}

// accident deletes everything, and returns a moment before and how many rows there were then.
func (s *shop) accident() (time.Time, string) {
	s.t.Helper()
	app := s.app(s.cluster)
	var before time.Time
	var rows string
	// The lock keeps the others out, so that what is counted is what there was.
	for _, sql := range []string{"BEGIN", "LOCK TABLE shop.granules IN EXCLUSIVE MODE"} {
		s.exec(app, sql)
	}
	if err := app.QueryRow(s.t.Context(), "SELECT clock_timestamp(), count(*)::text FROM shop.granules").Scan(&before, &rows); err != nil {
		s.t.Fatal(err)
	}
	for _, sql := range []string{"DELETE FROM shop.granules", "COMMIT"} {
		s.exec(app, sql)
	}
	app.Close(s.t.Context())
	return before, rows
}

// recovered checks a new cluster.
func (s *shop) recovered(id, rows string) {
	s.t.Helper()
	c := s.plane.cluster(id)
	app := s.app(c)
	if got := s.ask(app, "SELECT count(*)::text FROM shop.granules"); got != rows {
		s.t.Errorf("%s has %s rows, want %s", id, got, rows)
	}
	app.Close(s.t.Context())
	if conn, err := s.tryApp(s.cluster); err == nil {
		conn.Close(s.t.Context())
		s.t.Error("the application still gets at the old cluster")
	}
	if s.halted() {
		s.t.Error("the work was not resumed")
	}
	if got := strings.TrimSpace(s.read("endpoint")); got != fmt.Sprintf("%s %d", *c.Endpoint, *c.Port) {
		s.t.Errorf("clients were sent to %q", got)
	}
}

func (s *shop) read(name string) string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

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
