package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/jackc/pgx/v5"

	"pileus/internal/pgtest"
)

const (
	operatorKey, operatorSecret = "PILEOPERATOR", "operator-secret-0123456789"
	readerKey, readerSecret     = "PILEREADER", "reader-secret-0123456789"
	masterPassword              = "correct-horse-41"
)

// plane is a rig whose pileus serves the RDS API.
type plane struct {
	*rig
	serve *process
	at    string // address of the API
	api   *rds.Client
}

// newPlane starts `pileus serve` beside an attached cluster src on the newest major.
func newPlane(t *testing.T) *plane {
	t.Helper()
	p := &plane{rig: newRig(t, pgtest.Newest(t), flavour{})}
	var bins []string
	for _, v := range pgtest.Versions(t) {
		bins = append(bins, v.Binaries.Dir)
	}
	for name, secret := range map[string]string{"operator": operatorSecret, "reader": readerSecret} {
		p.write(name+".secret", secret+"\n")
	}
	first := pgtest.FreePort(t)
	text := strings.Replace(p.configText(), "\nserve:\n", fmt.Sprintf(`
serve:
  listen: 127.0.0.1:0
  ports: %d-%d
  bin_dirs: %s
  security_groups:
    sg-1: 127.0.0.0/8
    sg-2: 192.0.2.0/24
  subnets:
    subnet-1: 127.0.0.1
  access_keys:
    %s: {secret_file: operator.secret, role: operator}
    %s: {secret_file: reader.secret, role: read-only}
`, first, min(first+200, 65535), strings.Join(bins, ", "), operatorKey, readerKey), 1)
	p.write("pileus.yaml", text)
	t.Cleanup(p.endServers)
	p.up()
	return p
}

func (p *plane) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := pgtest.Owner(p.t).Chown(path); err != nil {
		p.t.Fatal(err)
	}
}

var servingOn = regexp.MustCompile(`serving on (\S+)`)

// up starts the service and waits until it answers.
func (p *plane) up() {
	p.t.Helper()
	p.serve = p.start("serve")
	pgtest.WaitFor(p.t, "serve to answer", func() bool {
		if !p.serve.running() {
			p.t.Fatalf("serve has ended:\n%s", p.serve.log.String())
		}
		m := servingOn.FindStringSubmatch(p.serve.log.String())
		if m == nil {
			return false
		}
		p.at = m[1]
		return true
	})
	p.api = p.client(operatorKey, operatorSecret)
}

func (p *plane) client(id, secret string) *rds.Client {
	return rds.New(rds.Options{Region: "us-east-1", BaseEndpoint: aws.String("http://" + p.at), Credentials: credentials.NewStaticCredentialsProvider(id, secret, ""), RetryMaxAttempts: 1})
}

// endServers stops what outlives serve.
func (p *plane) endServers() {
	if p.serve != nil {
		p.serve.kill()
	}
	pids, err := filepath.Glob(filepath.Join(p.dir, "state", "servers", "*", "data", "postmaster.pid"))
	if err != nil {
		p.t.Error(err)
	}
	for _, path := range pids {
		text, err := os.ReadFile(path)
		var pid int
		if err == nil {
			_, err = fmt.Sscan(string(text), &pid)
		}
		if err == nil {
			err = syscall.Kill(pid, syscall.SIGQUIT)
		}
		if err != nil {
			p.t.Errorf("%s: %v", path, err)
			continue
		}
		pgtest.WaitFor(p.t, "a server to end", func() bool { return syscall.Kill(pid, 0) != nil })
	}
}

// cluster describes one cluster.
func (p *plane) cluster(id string) types.DBCluster {
	p.t.Helper()
	out, err := p.api.DescribeDBClusters(p.t.Context(), &rds.DescribeDBClustersInput{DBClusterIdentifier: &id})
	if err != nil {
		p.t.Fatal(err)
	}
	return out.DBClusters[0]
}

// await waits until a cluster has a status.
func (p *plane) await(id, status string) types.DBCluster {
	p.t.Helper()
	var c types.DBCluster
	deadline := time.Now().Add(2 * time.Minute)
	for {
		if c = p.cluster(id); *c.Status == status {
			return c
		}
		if *c.Status == "failed" || time.Now().After(deadline) {
			p.t.Fatalf("cluster %s is %s, want %s\nevents: %s", id, *c.Status, status, strings.Join(p.events(), "\n"))
		}
		select {
		case <-p.t.Context().Done():
			p.t.Fatal("the test was ended")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (p *plane) events() []string {
	p.t.Helper()
	out, err := p.api.DescribeEvents(p.t.Context(), &rds.DescribeEventsInput{})
	if err != nil {
		p.t.Fatal(err)
	}
	var all []string
	for _, e := range out.Events {
		all = append(all, fmt.Sprintf("%s %s: %s", e.SourceType, *e.SourceIdentifier, *e.Message))
	}
	return all
}

// version is the major under test: others may be installed that serve takes for its newest.
func (p *plane) version() *string { return aws.String(strconv.Itoa(pgtest.Newest(p.t).Major)) }

// create makes a managed cluster and waits for it.
func (p *plane) create(id string) types.DBCluster {
	p.t.Helper()
	_, err := p.api.CreateDBCluster(p.t.Context(), &rds.CreateDBClusterInput{DBClusterIdentifier: &id, Engine: aws.String("aurora-postgresql"), EngineVersion: p.version(), MasterUsername: aws.String("boss"),
		MasterUserPassword: aws.String(masterPassword), DatabaseName: aws.String("cumulus"), VpcSecurityGroupIds: []string{"sg-1"}})
	if err != nil {
		p.t.Fatal(err)
	}
	return p.await(id, "available")
}

// sql connects to a managed cluster as its master user.
func (p *plane) sql(c types.DBCluster) *pgx.Conn {
	p.t.Helper()
	return p.connect(c, masterPassword, "cumulus")
}

func (p *plane) connect(c types.DBCluster, password, database string) *pgx.Conn {
	p.t.Helper()
	conn, err := pgx.Connect(p.t.Context(), fmt.Sprintf("host=%s port=%d user=boss password=%s dbname=%s sslmode=require", *c.Endpoint, *c.Port, password, database))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (p *plane) exec(conn *pgx.Conn, sql string) {
	p.t.Helper()
	if _, err := conn.Exec(p.t.Context(), sql); err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
}

func (p *plane) ask(conn *pgx.Conn, sql string) string {
	p.t.Helper()
	var out string
	if err := conn.QueryRow(p.t.Context(), sql).Scan(&out); err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
	return out
}

// restorable waits until a cluster can be restored to a moment.
func (p *plane) restorable(id string, at time.Time) {
	p.t.Helper()
	pgtest.WaitFor(p.t, "the restorable window to reach "+at.String(), func() bool {
		c := p.cluster(id)
		return c.LatestRestorableTime != nil && c.EarliestRestorableTime != nil && !c.LatestRestorableTime.Before(at)
	})
}
