package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pileus/internal/pg"
	"pileus/internal/postgres"
)

// startTimeout bounds everything that a test waits a server for.
const startTimeout = 2 * time.Minute

// Server is a running test server. Its methods fail the test when they fail.
type Server struct {
	Version  Version
	Instance *postgres.Instance
	Password string // of the superuser postgres over TCP; "" unless Scram was asked for
	Port     int
	Dir      string // holds data, socket and log

	t        testing.TB
	settings map[string]string
}

type options struct {
	init     postgres.InitOptions
	settings map[string]string
	password string
	env      []string
}

// Option shapes a test server.
type Option func(*options)

// With sets a configuration setting.
func With(name, value string) Option { return func(o *options) { o.settings[name] = value } }

// Durable turns fsync on, which is off by default for speed. A server that is killed
// alone loses nothing either way; tests that measure durability want it on.
func Durable() Option { return With("fsync", "on") }

// NoChecksums makes a cluster without data checksums.
func NoChecksums() Option { return func(o *options) { o.init.Checksums = false } }

// WALSegmentSize sets the segment size in bytes.
func WALSegmentSize(n int64) Option { return func(o *options) { o.init.WALSegmentSize = n } }

// Scram asks for a password on TCP connections (SCRAM-SHA-256), and gives the superuser this
// one. The socket stays open to all on the host.
func Scram(password string) Option { return func(o *options) { o.password = password } }

// Env gives the server process a NAME=VALUE.
func Env(pair string) Option { return func(o *options) { o.env = append(o.env, pair) } }

func newOptions(opts []Option) options {
	o := options{
		init: postgres.InitOptions{Auth: "trust", Checksums: true, NoSync: true},
		settings: map[string]string{
			"listen_addresses": "127.0.0.1", "shared_buffers": "16MB", "max_connections": "60", "wal_level": "replica",
			"max_wal_senders": "10", "max_replication_slots": "10", "fsync": "off", "autovacuum_naptime": "1h",
			"logging_collector": "off", "log_checkpoints": "off", "max_wal_size": "256MB", "log_min_messages": "warning", "wal_retrieve_retry_interval": "200ms",
		},
	}
	for _, f := range opts {
		f(&o)
	}
	return o
}

// Start makes a cluster with its own system identifier and starts a server on a free port. The server is stopped
// after the test.
func Start(t testing.TB, v Version, opts ...Option) *Server {
	t.Helper()
	o := newOptions(opts)
	s := prepare(t, v, o)
	copyTemplate(t, template(t, v, o.init), s.Instance.DataDir)
	s.finish(o)
	return s
}

func prepare(t testing.TB, v Version, o options) *Server {
	t.Helper()
	dir := TempDir(t)
	return &Server{
		Version: v, Dir: dir, t: t, settings: o.settings,
		Instance: &postgres.Instance{Binaries: v.Binaries, DataDir: filepath.Join(dir, "data"), RunAs: Owner(t), SocketDir: dir,
			LogFile: filepath.Join(dir, "server.log")},
	}
}

// finish starts a prepared cluster and gives it its password.
func (s *Server) finish(o options) {
	s.t.Helper()
	s.t.Cleanup(s.stopAtEnd)
	// The port is free when it is chosen, but may be taken when the server
	// comes to bind it: then another one is.
	var err error
	for range 5 {
		s.Port = FreePort(s.t)
		s.Instance.Port = s.Port
		var b strings.Builder
		for _, k := range slices.Sorted(maps.Keys(o.settings)) {
			b.WriteString(postgres.FormatSetting(k, o.settings[k]))
		}
		b.WriteString(postgres.FormatSetting("port", strconv.Itoa(s.Port)))
		b.WriteString(postgres.FormatSetting("unix_socket_directories", s.Dir))
		s.WriteFile("pgtest.conf", b.String())
		s.includeOnce()
		if err = s.start(o.env); err == nil {
			break
		}
		var se *postgres.StartError
		if !errors.As(err, &se) || !strings.Contains(se.Log, "could not bind") {
			break
		}
	}
	if err != nil {
		s.t.Fatalf("%s: %v", s.Version.Name(), err)
	}
	if o.password != "" {
		s.Exec("SET password_encryption = 'scram-sha-256'; ALTER ROLE postgres PASSWORD " + postgres.QuoteLiteral(o.password))
		s.SetHBA("local all all trust", "local replication all trust", "host all all 127.0.0.1/32 scram-sha-256", "host replication all 127.0.0.1/32 scram-sha-256")
		s.Password = o.password
	}
}

func (s *Server) start(env []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	return s.Instance.Start(ctx, postgres.StartOptions{Env: env})
}

func (s *Server) includeOnce() {
	s.t.Helper()
	path := filepath.Join(s.Instance.DataDir, "postgresql.conf")
	b, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	if bytes.Contains(b, []byte("include 'pgtest.conf'")) {
		return
	}
	s.WriteFile("postgresql.conf", string(b)+"\ninclude 'pgtest.conf'\n")
}

// WriteFile writes a file of the data directory with the right owner and mode.
func (s *Server) WriteFile(name, content string) {
	s.t.Helper()
	path := filepath.Join(s.Instance.DataDir, name)
	err := os.WriteFile(path, []byte(content), 0o600)
	if err == nil {
		err = Owner(s.t).Chown(path)
	}
	if err != nil {
		s.t.Fatalf("write %s: %v", name, err)
	}
}

// SetHBA replaces pg_hba.conf by these lines and reloads the server.
func (s *Server) SetHBA(lines ...string) {
	s.t.Helper()
	s.WriteFile("pg_hba.conf", strings.Join(lines, "\n")+"\n")
	s.Exec("SELECT pg_reload_conf()")
	// The postmaster takes the file when it gets to the signal; the view
	// parses it afresh, so the wait is for a new connection that sees it.
	s.settle()
}

// settle waits until the postmaster has processed a reload: it stamps
// pg_conf_load_time for the backends that it forks afterwards.
func (s *Server) settle() {
	s.t.Helper()
	before := s.Query("SELECT extract(epoch FROM clock_timestamp())")
	WaitFor(s.t, "a reload of the configuration", func() bool {
		s.Exec("SELECT pg_reload_conf()")
		return s.Query("SELECT extract(epoch FROM pg_conf_load_time()) > "+before) == "t"
	})
}

func (s *Server) stopAtEnd() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.Instance.Stop(ctx, postgres.StopImmediate); err != nil {
		s.t.Errorf("%v", errors.Join(err, s.Instance.Kill()))
	}
	s.removeSharedMemory()
	if s.t.Failed() {
		if log, err := os.ReadFile(s.Instance.LogFile); err == nil {
			s.t.Logf("%s log ends with:\n%s", s.Version.Name(), log[max(0, len(log)-3000):])
		}
	}
}

// DSN connects as the superuser through the socket.
func (s *Server) DSN() string { return postgres.DSN(s.Dir, s.Port, "postgres", "postgres") }

// TCP connects through TCP as a role; the password is the caller's business.
func (s *Server) TCP(user, dbname string) string {
	return postgres.DSN("127.0.0.1", s.Port, user, dbname) + " sslmode=disable"
}

// Exec runs SQL, possibly several statements.
func (s *Server) Exec(sql string) {
	s.t.Helper()
	s.withConn(func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.PgConn().Exec(ctx, sql).ReadAll()
		return err
	}, sql)
}

// Query runs SQL and returns its first value as psql would print it; "" for NULL and for no row.
func (s *Server) Query(sql string) string {
	s.t.Helper()
	var out string
	s.withConn(func(ctx context.Context, c *pgx.Conn) error {
		res, err := c.PgConn().Exec(ctx, sql).ReadAll()
		if err == nil && len(res) > 0 && len(res[len(res)-1].Rows) > 0 {
			out = string(res[len(res)-1].Rows[0][0])
		}
		return err
	}, sql)
	return out
}

func (s *Server) withConn(f func(context.Context, *pgx.Conn) error, sql string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	c, err := pgx.Connect(ctx, s.DSN())
	if err == nil {
		err = errors.Join(f(ctx, c), c.Close(ctx))
	}
	if err != nil {
		s.t.Fatalf("%s: %v\nSQL: %s", s.Version.Name(), err, sql)
	}
}

// LSN is the flush position, behind every commit that has returned; on a standby the replayed one. The insert
// position would not do for waiting: the server may leave its last bytes unflushed, and unsent, for 15 seconds.
func (s *Server) LSN() pg.LSN {
	s.t.Helper()
	lsn, err := pg.ParseLSN(s.Query("SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END"))
	if err != nil {
		s.t.Fatal(err)
	}
	return lsn
}

// Checkpoint runs CHECKPOINT.
func (s *Server) Checkpoint() { s.t.Helper(); s.Exec("CHECKPOINT") }

// SwitchWAL ends the current segment, writing a record first so that there is something to end.
func (s *Server) SwitchWAL() {
	s.t.Helper()
	s.Exec("SELECT pg_create_restore_point('pgtest'); SELECT pg_switch_wal()")
}

// CreateTablespace creates a tablespace in a new folder and returns the folder.
func (s *Server) CreateTablespace(name string) string {
	s.t.Helper()
	dir := filepath.Join(TempDir(s.t), name)
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		err = Owner(s.t).Chown(dir)
	}
	if err != nil {
		s.t.Fatalf("folder of tablespace %s: %v", name, err)
	}
	s.Exec("CREATE TABLESPACE " + postgres.QuoteIdent(name) + " LOCATION " + postgres.QuoteLiteral(dir))
	return dir
}

// Kill ends the server with SIGKILL, all of its processes.
func (s *Server) Kill() {
	s.t.Helper()
	if err := s.Instance.Kill(); err != nil {
		s.t.Fatal(err)
	}
}

// Stop stops the server with a shutdown checkpoint.
func (s *Server) Stop() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := s.Instance.Stop(ctx, postgres.StopFast); err != nil {
		s.t.Fatal(err)
	}
}

// Restart starts the server again after Stop or Kill, or stops it first.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	if err := s.start(nil); err != nil {
		s.t.Fatal(err)
	}
}

// Pgbench runs pgbench of any installed version against the server, for example Pgbench("-i", "-s", "1").
func (s *Server) Pgbench(args ...string) string {
	s.t.Helper()
	out, err := s.PgbenchCommand(s.t.Context(), args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("pgbench %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// PgbenchCommand prepares pgbench, for a load that runs beside the test.
func (s *Server) PgbenchCommand(ctx context.Context, args ...string) *exec.Cmd {
	s.t.Helper()
	path, err := pgbench()
	if err != nil {
		s.t.Fatal(err)
	}
	args = append([]string{"-h", s.Dir, "-p", strconv.Itoa(s.Port), "-U", "postgres"}, args...)
	return exec.CommandContext(ctx, path, append(args, "postgres")...)
}

func pgbench() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench")
	if err == nil && len(found) > 0 {
		return found[len(found)-1], nil
	}
	path, err := exec.LookPath("pgbench")
	if err != nil {
		return "", fmt.Errorf("pgbench is needed for tests; on Debian: apt-get install postgresql-15: %w", err)
	}
	return path, nil
}

// FreePort is a TCP port of 127.0.0.1 that nothing listens on at the moment.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// WaitFor polls a condition for up to a minute and then fails the test, saying what was waited for.
func WaitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited a minute in vain for %s", what)
		case <-tick.C:
		}
	}
}
