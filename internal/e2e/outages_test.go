package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pileus/internal/pgtest"
)

// count runs a query that yields one number on a restored server.
func (r *rig) count(res *restored, query string) int64 {
	r.t.Helper()
	conn, err := pgx.Connect(r.t.Context(), res.dsn())
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	return column(r.t, conn, query)[0]
}

// after runs f once d has passed.
func after(d time.Duration, f func()) {
	<-time.After(d)
	f()
}

// counter inserts numbered rows one after the other until stopped, and knows the
// last that was acknowledged.
type counter struct {
	acked atomic.Int64
	stop  context.CancelFunc
	done  chan error
}

func (r *rig) countUp() *counter {
	r.t.Helper()
	r.server.Exec(`CREATE TABLE IF NOT EXISTS counted (number bigint PRIMARY KEY)`)
	conn, err := pgx.Connect(r.t.Context(), r.server.DSN())
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	c := &counter{stop: cancel, done: make(chan error, 1)}
	go func() {
		defer conn.Close(context.Background())
		for n := int64(1); ctx.Err() == nil; n++ {
			if _, err := conn.Exec(r.t.Context(), `INSERT INTO counted VALUES ($1)`, n); err != nil {
				c.done <- err
				return
			}
			c.acked.Store(n)
		}
		c.done <- nil
	}()
	r.t.Cleanup(cancel)
	return c
}

// end stops counting and returns the last number.
func (c *counter) end(t *testing.T) int64 {
	t.Helper()
	c.stop()
	if err := <-c.done; err != nil {
		t.Fatal(err)
	}
	return c.acked.Load()
}

// TestKilled kills backup, receiver and restore at random moments; each continues
// where it was, and nothing is lost.
func TestKilled(t *testing.T) {
	r := newRig(t, pgtest.Newest(t), flavour{})
	rng := rand.New(rand.NewPCG(7, 7))
	r.server.Pgbench("-i", "-q", "-s", "3")
	receiver := r.receive()
	load := r.countUp()
	for _, sig := range []os.Signal{os.Interrupt, os.Kill, os.Kill} {
		b := r.start("backup", "src")
		after(time.Duration(50+rng.IntN(400))*time.Millisecond, func() { b.cmd.Process.Signal(sig) }) // it may have ended
		<-b.done
	}
	r.run("backup", "src") // not hindered by the leases of the dead
	pgtest.WaitFor(t, "the server to be out of backup mode", func() bool {
		return r.server.Query(`SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pileus' AND query ILIKE '%backup_start%'`) == "0"
	})
	for range 4 {
		after(time.Duration(200+rng.IntN(900))*time.Millisecond, receiver.kill)
		receiver = r.receive()
	}
	last := load.end(t)
	r.caughtUp()
	if n := r.server.Query(`SELECT count(*) FROM pg_replication_slots`); n != "1" {
		t.Errorf("%s slots are left, want the receiver's own", n)
	}
	dir := filepath.Join(r.dir, "again")
	for range 3 {
		p := r.start("restore", "src", "--as", "again", "--data-dir", dir, "--latest")
		after(time.Duration(30+rng.IntN(300))*time.Millisecond, p.kill)
		if p.cmd.ProcessState.ExitCode() == 0 {
			break // it was quicker
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "global", "pg_control")); err == nil {
		os.RemoveAll(dir) // a restore came to its end before it could be killed
	}
	res := r.restore("again2", "--latest")
	if got := r.count(res, `SELECT count(*) FROM counted`); got != last {
		t.Errorf("%d rows restored of %d that were acknowledged", got, last)
	}
	r.run("verify", "--read-data", "all")
}

// TestRestoreKilledAndRunAgain ends with the same result as one that was not killed.
func TestRestoreKilledAndRunAgain(t *testing.T) {
	r := newRig(t, pgtest.Newest(t), flavour{})
	r.server.Pgbench("-i", "-q", "-s", "5")
	r.run("backup", "src")
	dir := filepath.Join(r.dir, "new")
	port := fmt.Sprint(pgtest.FreePort(t))
	p := r.start("restore", "src", "--as", "new", "--data-dir", dir, "--start", "--port", port, "--latest")
	pgtest.WaitFor(t, "the restore to write", func() bool {
		_, err := os.Stat(filepath.Join(dir, "base"))
		return err == nil || !p.running()
	})
	p.kill()
	if _, err := os.Stat(filepath.Join(dir, "pileus-restore.json")); err != nil {
		t.Fatalf("the directory has no marker: %v", err)
	}
	r.refused(2, []string{"unfinished restore", "another than this one"}, "restore", "src", "--as", "other", "--data-dir", dir, "--latest")
	res := r.restore("new", "--latest", "--port", port)
	if got := r.count(res, `SELECT count(*) FROM pgbench_accounts`); got != 500000 {
		t.Errorf("%d rows", got)
	}
}

// TestRepositoryAway takes the repository away under load and brings it back.
func TestRepositoryAway(t *testing.T) {
	r := newRig(t, pgtest.Newest(t), flavour{})
	r.receive()
	r.run("backup", "src")
	load := r.countUp()
	repo, away := filepath.Join(r.dir, "repo"), filepath.Join(r.dir, "away")
	if err := os.Rename(repo, away); err != nil {
		t.Fatal(err)
	}
	pgtest.WaitFor(t, "check to say since when the repository is away", func() bool {
		b, err := os.ReadFile(filepath.Join(r.dir, "state", "status", "src.receive.json"))
		return err == nil && strings.Contains(string(b), "repository_failing_since")
	})
	if _, err := os.Stat(repo); !errors.Is(err, os.ErrNotExist) {
		t.Error("the repository was made anew while its disk was away")
	}
	if stdout, stderr, code := r.try("check", "src"); code == 0 {
		t.Errorf("check says that all is well:\n%s%s", stdout, stderr)
	}
	r.fetchStops("000000010000000000000001")
	if err := os.Rename(away, repo); err != nil {
		t.Fatal(err)
	}
	last := load.end(t)
	r.caughtUp()
	res := r.restore("back", "--latest")
	if got := r.count(res, `SELECT count(*) FROM counted`); got != last {
		t.Errorf("%d rows restored of %d that were acknowledged", got, last)
	}
}

// fetchStops expects `wal fetch` to die by a signal, so that recovery stops.
func (r *rig) fetchStops(name string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 6*time.Minute)
	defer cancel()
	cmd := r.command(ctx, "wal", "fetch", "--cluster", "src", name, filepath.Join(r.dir, "fetched"))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled() {
		r.t.Errorf("wal fetch ended with %v, want a signal:\n%s", err, out)
	}
}

// TestFetchTellsTheEndFromDamage: exit 1 is only for what is not there.
func TestFetchTellsTheEndFromDamage(t *testing.T) {
	r := newRig(t, pgtest.Newest(t), flavour{})
	r.receive()
	r.run("backup", "src")
	for range 3 {
		r.server.SwitchWAL()
	}
	r.caughtUp()
	dest := filepath.Join(r.dir, "fetched")
	segments := find(t, filepath.Join(r.dir, "repo"), "/wal/")
	name := filepath.Base(segments[1])
	r.run("wal", "fetch", "--cluster", "src", name, dest)
	if info, err := os.Stat(dest); err != nil || info.Size() != 16<<20 {
		t.Errorf("fetched %v, %v", info, err)
	}
	for _, none := range []string{"0000000100000FFF00000001", "00000009.history"} {
		r.refused(1, []string{"no such file"}, "wal", "fetch", "--cluster", "src", none, dest)
	}
	edit(t, segments[1], func(s string) string { return s[:len(s)/2] })
	r.fetchStops(name)
	if err := os.Remove(segments[1]); err != nil {
		t.Fatal(err)
	}
	r.fetchStops(name) // a hole is no end
}

// TestArchiveCommand protects a server by archive_command alone.
func TestArchiveCommand(t *testing.T) {
	v := pgtest.Newest(t)
	r := newRig(t, v, flavour{}, pgtest.With("archive_mode", "on"), pgtest.With("archive_command", "/bin/true"))
	command := fmt.Sprintf("%s --config %s wal push --cluster src %%p", r.bin, r.config)
	r.server.Exec(`ALTER SYSTEM SET archive_command = '` + command + `'`)
	r.server.Exec(`SELECT pg_reload_conf()`)
	r.server.Pgbench("-i", "-q", "-s", "1")
	r.server.SwitchWAL()
	pgtest.WaitFor(t, "a segment to be archived", func() bool {
		return r.server.Query(`SELECT archived_count > 0 FROM pg_stat_archiver`) == "t"
	})
	r.run("backup", "src")
	r.server.Pgbench("-n", "-t", "300")
	sum := r.server.Query(`SELECT sum(delta) FROM pgbench_history`)
	r.server.SwitchWAL()
	pgtest.WaitFor(t, "everything to be archived", func() bool {
		return len(find(t, filepath.Join(r.server.Instance.DataDir, "pg_wal", "archive_status"), ".ready")) == 0
	})
	res := r.restore("pushed", "--latest")
	if got := r.count(res, `SELECT sum(delta)::bigint FROM pgbench_history`); fmt.Sprint(got) != sum {
		t.Errorf("sum %d, want %s", got, sum)
	}
	// A segment that is not whole is refused, whatever its name says.
	segments := find(t, filepath.Join(r.server.Instance.DataDir, "pg_wal"), "00000001")
	torn := filepath.Join(r.dir, "000000010000000000000077")
	b, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(torn, b[:len(b)-8192], 0o644); err != nil {
		t.Fatal(err)
	}
	r.refused(1, []string{"000000010000000000000077"}, "wal", "push", "--cluster", "src", torn)
}

// TestDamagedPage flips bytes of a table on disk.
func TestDamagedPage(t *testing.T) {
	r := newRig(t, pgtest.Newest(t), flavour{})
	r.server.Exec(`CREATE TABLE victim AS SELECT generate_series(1, 20000) AS i`)
	r.server.Checkpoint()
	path := r.server.Query(`SELECT pg_relation_filepath('victim')`)
	f, err := os.OpenFile(filepath.Join(r.server.Instance.DataDir, path), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("this is not what PostgreSQL wrote"), 3*8192+4000); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, mode := range []string{"files", "stream"} {
		r.refused(3, []string{"DAMAGE", path + " block 3", "page LSN"}, "backup", "src", "--mode", mode)
	}
	r.refused(5, []string{"wrong checksum"}, "check", "src")
	res := r.restore("anyway", "--latest") // the backup is complete, damage and all
	if got := r.count(res, `SELECT count(*) FROM pg_class WHERE relname = 'victim'`); got != 1 {
		t.Error("the table is gone")
	}
}

// TestIdleServer: a time after the last commit is good as far as the evidence goes.
func TestIdleServer(t *testing.T) {
	r := newRig(t, pgtest.Newest(t), flavour{})
	r.receive()
	r.run("backup", "src")
	r.server.Exec(`CREATE TABLE ledger AS SELECT 1 AS number`)
	after := r.server.Query(`SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`)
	var stderr string
	pgtest.WaitFor(t, "a watermark that covers the time", func() bool {
		var code int
		_, stderr, code = r.try("restore", "src", "--as", "dry", "--data-dir", filepath.Join(r.dir, "dry"), "--to", after, "--dry-run")
		if code != 0 && code != 4 {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		return code == 0
	})
	res := r.restore("idle", "--to", after)
	if got := r.count(res, `SELECT count(*) FROM ledger`); got != 1 {
		t.Errorf("%d rows", got)
	}
	// Twice from one source: the clones do not know each other.
	res2 := r.restore("idle2", "--to", after)
	if res2.Timeline != res.Timeline || r.count(res2, `SELECT count(*) FROM ledger`) != 1 {
		t.Errorf("the second clone is on timeline %d", res2.Timeline)
	}
	r.refused(2, []string{"identifier"}, "restore", "src", "--as", "idle", "--data-dir", filepath.Join(r.dir, "third"), "--latest")
	if r.server.Query(`SELECT timeline_id FROM pg_control_checkpoint()`) != "1" {
		t.Error("the source's timeline changed")
	}
}

// TestRestoredClusterIsProtected: a restored cluster gets an archive of its own
// beside its source's, and its first backup shares with the source's.
func TestRestoredClusterIsProtected(t *testing.T) {
	r := newRig(t, pgtest.Newest(t), flavour{})
	r.receive()
	r.server.Pgbench("-i", "-q", "-s", "2")
	r.run("backup", "src")
	r.caughtUp()
	before := find(t, filepath.Join(r.dir, "repo", "clusters", "src"), "/wal/")
	res := r.restore("new", "--latest")
	edit(t, r.config, func(s string) string {
		return s + "\n  new:\n    connection: \"" + res.dsn() + "\"\n"
	})
	var b struct {
		Size   int64  `json:"size"`
		Stored int64  `json:"stored"`
		Parent string `json:"parent"`
	}
	r.runJSON(&b, "backup", "new")
	if b.Parent == "" || b.Stored > b.Size/20 {
		t.Errorf("the first backup of the new cluster stored %d of %d bytes, parent %q", b.Stored, b.Size, b.Parent)
	}
	if now := find(t, filepath.Join(r.dir, "repo", "clusters", "src"), "/wal/"); len(now) != len(before) {
		t.Errorf("the source's archive changed: %v", now)
	}
	if len(find(t, filepath.Join(r.dir, "repo", "clusters", "new"), "/parts/00000002"))+len(find(t, filepath.Join(r.dir, "repo", "clusters", "new"), "/wal/00000002")) == 0 {
		t.Error("the new cluster's WAL is not in its own archive, on its own timeline")
	}
	res.close(t)
	r.run("restore", "new", "--as", "newer", "--data-dir", filepath.Join(r.dir, "newer"), "--latest")
}
