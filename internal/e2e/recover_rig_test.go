package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/jackc/pgx/v5"
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
