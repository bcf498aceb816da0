package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"pileus/internal/pgtest"
)

// aws runs the AWS CLI as an operator would, and returns what it printed and its exit code.
func (p *plane) aws(key, secret string, args ...string) (stdout, stderr string, exit int) {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), "aws", append([]string{"--endpoint-url", "http://" + p.at, "--region", "us-east-1", "--output", "json", "rds"}, args...)...)
	cmd.Env = append(p.env, "AWS_ACCESS_KEY_ID="+key, "AWS_SECRET_ACCESS_KEY="+secret, "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=", "AWS_CONFIG_FILE=/dev/null",
		"AWS_SHARED_CREDENTIALS_FILE=/dev/null")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		p.t.Fatalf("the AWS CLI cannot be run (make tools installs it): %v", err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// rds runs a command that must succeed.
func (p *plane) rds(args ...string) string {
	p.t.Helper()
	stdout, stderr, exit := p.aws(operatorKey, operatorSecret, args...)
	if exit != 0 {
		p.t.Fatalf("aws rds %s: exit %d\n%s", strings.Join(args, " "), exit, stderr)
	}
	return stdout
}

// TestServeAWSCLI walks the commands that operators know, on a cluster under load.
func TestServeAWSCLI(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	ctx := t.Context()
	p.server.Exec("CREATE TABLE public.t (x int PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())")
	p.server.Exec("CREATE ROLE boss LOGIN PASSWORD '" + masterPassword + "'; GRANT SELECT ON public.t TO boss")
	pgtest.WaitFor(t, "src to be restorable", func() bool { return p.cluster("src").EarliestRestorableTime != nil })

	// Load: one row after another, each its own transaction.
	load, stop := context.WithCancel(ctx)
	written := make(chan int, 1)
	go func() {
		n := 0
		for ; load.Err() == nil; n++ {
			p.server.Exec("INSERT INTO public.t SELECT coalesce(max(x), 0) + 1 FROM public.t")
		}
		written <- n
	}()
	pgtest.WaitFor(t, "some rows", func() bool { return p.server.Query("SELECT count(*) > 50 FROM public.t") == "t" })
	before := p.server.Query("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')")
	expected := p.server.Query("SELECT count(*) FROM public.t WHERE at <= '" + before + "'::timestamptz")
	pgtest.WaitFor(t, "more rows", func() bool {
		return p.server.Query("SELECT count(*) > 20 FROM public.t WHERE at > '"+before+"'::timestamptz") == "t"
	})
	p.server.Exec("DELETE FROM public.t WHERE x <= 10")
	moment, err := time.Parse(time.RFC3339Nano, before)
	if err != nil {
		t.Fatal(err)
	}
	p.restorable("src", moment)

	p.rds("describe-db-clusters")
	p.rds("create-db-subnet-group", "--db-subnet-group-name", "group", "--db-subnet-group-description", "x", "--subnet-ids", "subnet-1")
	p.rds("restore-db-cluster-to-point-in-time", "--source-db-cluster-identifier", "src", "--restore-to-time", before,
		"--vpc-security-group-ids", "sg-1", "sg-2", "--copy-tags-to-snapshot", "--db-cluster-identifier", "new", "--db-subnet-group-name", "group")
	p.await("new", "available") // the CLI looks every 30 seconds only
	p.rds("wait", "db-cluster-available", "--db-cluster-identifier", "new")
	c := p.cluster("new")
	if !*c.CopyTagsToSnapshot || *c.DBSubnetGroup != "group" || len(c.VpcSecurityGroups) != 2 {
		t.Errorf("copies tags: %v, subnet group %s, security groups %+v", *c.CopyTagsToSnapshot, *c.DBSubnetGroup, c.VpcSecurityGroups)
	}
	count := func(c string) string {
		t.Helper()
		found := p.cluster(c)
		conn := p.connect(found, masterPassword, "postgres")
		defer conn.Close(ctx)
		return p.ask(conn, "SELECT count(*)::text FROM public.t")
	}
	// The clock has milliseconds here: rows of the same one may be in either.
	if got := count("new"); got != expected {
		at := p.server.Query("SELECT count(*) FROM public.t WHERE at <= '" + before + "'::timestamptz + interval '1 ms'")
		if got != at {
			t.Errorf("restored to %s: %s rows, want %s", before, got, expected)
		}
	}

	p.rds("create-db-cluster-snapshot", "--db-cluster-identifier", "new", "--db-cluster-snapshot-identifier", "snap", "--tags", "Key=why,Value=test")
	p.await("new", "available")
	p.rds("wait", "db-cluster-snapshot-available", "--db-cluster-snapshot-identifier", "snap")
	var shown struct {
		DBClusterSnapshots []struct{ Status, SnapshotType string }
	}
	if err := json.Unmarshal([]byte(p.rds("describe-db-cluster-snapshots", "--db-cluster-identifier", "new", "--snapshot-type", "manual")), &shown); err != nil || len(shown.DBClusterSnapshots) != 1 {
		t.Errorf("%+v, %v", shown, err)
	}
	p.rds("restore-db-cluster-from-snapshot", "--db-cluster-identifier", "newer", "--snapshot-identifier", "snap", "--engine", "aurora-postgresql")
	p.await("newer", "available")
	p.rds("wait", "db-cluster-available", "--db-cluster-identifier", "newer")
	if a, b := count("new"), count("newer"); a != b {
		t.Errorf("the snapshot has %s rows, the cluster %s", b, a)
	}
	stop()
	<-written

	// Who may not, may not.
	for name, c := range map[string]struct {
		key, secret string
		args        []string
		says        string
	}{
		"wrong secret":   {operatorKey, "wrong", []string{"describe-db-clusters"}, "SignatureDoesNotMatch"},
		"unknown key":    {"PILENOBODY", "wrong", []string{"describe-db-clusters"}, "InvalidClientTokenId"},
		"read-only":      {readerKey, readerSecret, []string{"delete-db-cluster", "--db-cluster-identifier", "new", "--skip-final-snapshot"}, "AccessDenied"},
		"unknown action": {operatorKey, operatorSecret, []string{"describe-db-proxies"}, "InvalidAction"},
	} {
		if _, stderr, exit := p.aws(c.key, c.secret, c.args...); exit == 0 || !strings.Contains(stderr, c.says) {
			t.Errorf("%s: exit %d, %s", name, exit, stderr)
		}
	}
	if _, stderr, exit := p.aws(readerKey, readerSecret, "describe-db-clusters"); exit != 0 {
		t.Errorf("a read-only key may not read: %s", stderr)
	}
	p.watched()
}

// watched looks at what an operator and a monitor see.
func (p *plane) watched() {
	p.t.Helper()
	get := func(path string) (int, string) {
		p.t.Helper()
		resp, err := http.Get("http://" + p.at + path)
		if err != nil {
			p.t.Fatal(err)
		}
		defer resp.Body.Close()
		var b bytes.Buffer
		if _, err := b.ReadFrom(resp.Body); err != nil {
			p.t.Fatal(err)
		}
		return resp.StatusCode, b.String()
	}
	if status, body := get("/healthz"); status != http.StatusOK || !strings.Contains(body, `"ok"`) {
		p.t.Errorf("%d %s", status, body)
	}
	pgtest.WaitFor(p.t, "the metrics to tell that all is well", func() bool {
		_, body := get("/metrics")
		return strings.Contains(body, `pileus_cluster_protected{cluster="src"} 1`) && strings.Contains(body, `pileus_cluster_protected{cluster="new"} 1`) &&
			strings.Contains(body, `pileus_restorable_latest_timestamp_seconds{cluster="newer"}`) && strings.Contains(body, `pileus_wal_lag_bytes{cluster="src"}`) &&
			strings.Contains(body, "pileus_repository_bytes") && strings.Contains(body, `pileus_last_backup_bytes{cluster="src"}`)
	})
	out := p.run("status")
	for _, want := range []string{"CLUSTER", "src", "newer", "yes"} {
		if !strings.Contains(out, want) {
			p.t.Errorf("pileus status does not say %q:\n%s", want, out)
		}
	}
	out = p.run("audit", "--since", "1h ago")
	for _, want := range []string{"RestoreDBClusterToPointInTime", operatorKey, "AccessDenied", readerKey, "DBClusterIdentifier=newer"} {
		if !strings.Contains(out, want) {
			p.t.Errorf("pileus audit does not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "DescribeDB") {
		p.t.Error("what only reads is in the audit log")
	}
	if status, _ := get("/anything"); status == http.StatusOK {
		p.t.Error("an unsigned request was answered")
	}
}
