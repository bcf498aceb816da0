package wal_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pileus/internal/pg"
)

var majors = []int{13, 14, 15, 16, 17, 18}

// binDir is where the programs of one major version are; empty when it is not installed.
func binDir(major int) string {
	tools := os.Getenv("PILEUS_TOOLS")
	if tools == "" {
		tools = fmt.Sprintf("/var/tmp/pileus-tools-%d", os.Getuid())
	}
	for _, dir := range []string{filepath.Join(tools, "pg", strconv.Itoa(major), "bin"), fmt.Sprintf("/usr/lib/postgresql/%d/bin", major)} {
		if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
			return dir
		}
	}
	return ""
}

// server is a throw-away cluster with WAL segments of 1 MiB, none of which it removes.
type server struct {
	bin, dir string
	cred     *syscall.Credential // the server refuses to run as root
}

func newServer(t *testing.T, major int) *server {
	t.Helper()
	s := &server{bin: binDir(major)}
	if s.bin == "" {
		t.Skipf("PostgreSQL %d is not installed here: scripts/install-tools.sh gets it. Its recorded WAL in testdata is tested all the same", major)
	}
	root, err := os.MkdirTemp("/tmp", "wal")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatalf("running as root needs a user postgres to run the server: %v", err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		s.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(root, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	s.dir = filepath.Join(root, "data")
	s.run(t, "initdb", "-D", s.dir, "-U", "postgres", "-A", "trust", "-k", "--no-sync", "--locale=C", "-E", "UTF8", "--wal-segsize=1")
	conf, err := os.OpenFile(filepath.Join(s.dir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer conf.Close()
	fmt.Fprintf(conf, "listen_addresses=''\nunix_socket_directories='%s'\nfsync=off\nautovacuum=off\nwal_level=logical\nwal_keep_size='4GB'\n"+
		"max_wal_size='4GB'\ntrack_commit_timestamp=on\nmax_prepared_transactions=10\nwal_compression=on\nshared_buffers='16MB'\nlog_statement=none\n", root)
	return s
}

func (s *server) run(t *testing.T, prog string, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(s.bin, prog), args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
	out, err := cmd.CombinedOutput()
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
		t.Fatalf("%s: %v\n%s\n%s", cmd, err, out, log)
	}
	return string(out)
}

func (s *server) start(t *testing.T) {
	t.Helper()
	s.run(t, "pg_ctl", "-D", s.dir, "-l", filepath.Join(s.dir, "log"), "-w", "-t", "60", "start")
	t.Cleanup(func() { // in case the test did not come as far as stopping it
		cmd := exec.Command(filepath.Join(s.bin, "pg_ctl"), "-D", s.dir, "-m", "immediate", "stop")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
		_ = cmd.Run()
	})
}

func (s *server) stop(t *testing.T, mode string) {
	t.Helper()
	s.run(t, "pg_ctl", "-D", s.dir, "-w", "-t", "60", "-m", mode, "stop")
}

func (s *server) connect(t *testing.T) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, fmt.Sprintf("host=%s user=postgres dbname=postgres", filepath.Dir(s.dir)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *server) control(t *testing.T) pg.Control {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, pg.ControlFile))
	if err != nil {
		t.Fatal(err)
	}
	c, err := pg.ParseControl(b)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// segments are the server's WAL segments of timeline tli, in order. The last
// ones may be recycled and not yet used.
func (s *server) segments(t *testing.T, tli pg.TimelineID, size int64) []pg.Segment {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, "pg_wal"))
	if err != nil {
		t.Fatal(err)
	}
	var segs []pg.Segment
	for _, e := range entries {
		if !pg.IsSegmentName(e.Name()) {
			continue
		}
		seg, err := pg.ParseSegmentName(e.Name(), size)
		if err != nil {
			t.Fatal(err)
		}
		if seg.Timeline == tli {
			segs = append(segs, seg)
		}
	}
	return segs
}

func (s *server) read(t *testing.T, seg pg.Segment) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, "pg_wal", seg.Name()))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// workload writes all kinds of WAL.
func workload(t *testing.T, c *pgx.Conn, major int, elsewhere string) {
	t.Helper()
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := c.Exec(t.Context(), sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec("create table account (id int primary key, balance numeric, note text)")
	exec("insert into account select i, i, repeat('x', i % 300) from generate_series(1, 4000) i")
	exec("create unlogged table scratch as select generate_series(1, 1000)")
	exec("create index on account using gin (to_tsvector('english', note))")
	exec("create index on account using brin (id)")
	exec("create index on account using hash (balance)")
	for i := range 200 {
		exec("update account set balance = balance + 1 where id between $1 and $2", i, i+10)
		exec("begin")
		exec("insert into account values ($1, 0, 'sub')", 10000+i)
		exec("savepoint a")
		exec("insert into account values ($1, 0, 'sub')", 20000+i)
		if i%3 == 0 {
			exec("rollback to a")
		} else {
			exec("release a")
		}
		if i%5 == 0 {
			exec("rollback")
		} else {
			exec("commit")
		}
	}
	for i, end := range []string{"commit", "rollback"} {
		exec("begin")
		exec(fmt.Sprintf("create table prepared%d as select 1 as a", i))
		exec("savepoint a")
		exec("insert into account values ($1, 0, 'prepared')", 30000+i)
		exec(fmt.Sprintf("prepare transaction 'two phase %d'", i))
		exec(fmt.Sprintf("%s prepared 'two phase %d'", end, i))
	}
	exec("create table gone as select generate_series(1, 1000) i")
	exec("truncate gone")
	exec("drop table gone, scratch")
	for i := range 40 {
		exec("update account set note = 'last' where id = $1", i)
	}
	exec("select pg_create_restore_point('before the change')")
	exec("select pg_switch_wal()")
	exec("checkpoint")
	// Longer than a segment, so that one segment holds no start of a record.
	exec("select pg_logical_emit_message(true, 'test', repeat('pileus', 500000))")
	exec("create database other")
	exec("vacuum full account")
	exec("vacuum analyze")
	start, stop := "pg_start_backup('label', true, false)", "pg_stop_backup(false, false)"
	if major >= 15 {
		start, stop = "pg_backup_start('label', true)", "pg_backup_stop(false)"
	}
	exec("select " + start)
	exec("select " + stop)
	exec("delete from account where id % 2 = 0")
	exec("create table shrinks as select generate_series(1, 10000) i")
	exec("delete from shrinks where i > 10")
	exec("vacuum shrinks")
	exec("drop database other")
	if major >= 15 {
		exec("create database copied strategy file_copy")
	}
	exec("create tablespace elsewhere location '" + elsewhere + "'")
	exec("create table inside (i int) tablespace elsewhere")
	exec("drop table inside")
	exec("drop tablespace elsewhere")
	exec("vacuum full pg_class")
}

func lines(s string) []string { return strings.Split(strings.TrimRight(s, "\n"), "\n") }
