package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pileus/internal/pgtest"
	"pileus/internal/postgres"
	"pileus/internal/store/storetest"
)

// flavour is where a repository lies and whether it is sealed.
type flavour struct {
	s3, encrypted bool
}

func (f flavour) String() string {
	where, sealed := "local", "plain"
	if f.s3 {
		where = "s3"
	}
	if f.encrypted {
		sealed = "encrypted"
	}
	return where + "-" + sealed
}

// rig is a server, a repository, and the pileus command that works on them as the
// server's account.
type rig struct {
	t      *testing.T
	server *pgtest.Server
	dir    string
	config string
	env    []string
	bin    string
}

const passphrase = "correct horse battery staple"

func newRig(t *testing.T, v pgtest.Version, f flavour, opts ...pgtest.Option) *rig {
	t.Helper()
	r := &rig{t: t, dir: pgtest.TempDir(t), bin: pgtest.PileusBinary(t)}
	r.config = filepath.Join(r.dir, "pileus.yaml")
	r.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir}
	opts = append([]pgtest.Option{pgtest.With("track_commit_timestamp", "on"), pgtest.With("max_prepared_transactions", "20"),
		pgtest.With("max_slot_wal_keep_size", "1GB")}, opts...)
	r.server = pgtest.Start(t, v, opts...)
	args := []string{"init", "--cluster", "src", "--connection", r.server.DSN(), "--bin-dir", v.Binaries.Dir,
		"--state-dir", filepath.Join(r.dir, "state")}
	if f.s3 {
		s := storetest.StartS3(t)
		r.env = append(r.env, s.Env...)
		u, err := url.Parse(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		u.RawQuery = ""
		u.Path = "/repo/" + v.Name()
		args = append(args, "--repository", u.String(), "--s3-endpoint", s.Options.S3.Endpoint, "--s3-region", s.Options.S3.Region, "--s3-path-style")
	} else {
		args = append(args, "--repository", filepath.Join(r.dir, "repo"))
	}
	if f.encrypted {
		r.env = append(r.env, "PILEUS_PASSPHRASE="+passphrase)
		args = append(args, "--encrypt")
	}
	r.run(args...)
	if f.encrypted { // every-day use needs no passphrase
		r.env = r.env[:len(r.env)-1]
	}
	return r
}

func (r *rig) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, r.bin, append([]string{"--config", r.config}, args...)...)
	cmd.Env = r.env
	cmd.Dir = r.dir
	if cred := pgtest.RunAs(r.t); cred != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	}
	return cmd
}

// try runs pileus and returns what it printed, and its exit code.
func (r *rig) try(args ...string) (stdout, stderr string, code int) {
	r.t.Helper()
	var out, errs bytes.Buffer
	cmd := r.command(context.Background(), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatalf("pileus %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// run runs pileus and fails the test unless it succeeds.
func (r *rig) run(args ...string) string {
	r.t.Helper()
	stdout, stderr, code := r.try(args...)
	if code != 0 {
		r.t.Fatalf("pileus %s: exit %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// runJSON decodes what pileus --json prints.
func (r *rig) runJSON(into any, args ...string) {
	r.t.Helper()
	out := r.run(append([]string{"--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		r.t.Fatalf("pileus %s printed no JSON: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// process is a pileus that runs beside the test.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  syncBuffer
	done chan struct{}
}

// start runs pileus in the background until the test ends or stop is called.
func (r *rig) start(args ...string) *process {
	r.t.Helper()
	p := &process{t: r.t, cmd: r.command(context.Background(), args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		p.cmd.Wait() // its outcome is read from ProcessState
		close(p.done)
	}()
	r.t.Cleanup(func() {
		p.kill()
		if r.t.Failed() {
			r.t.Logf("pileus %s said:\n%s", strings.Join(args, " "), p.log.String())
		}
	})
	return p
}

// stop ends the process as a person would, and expects it to end well.
func (p *process) stop() {
	p.t.Helper()
	p.cmd.Process.Signal(os.Interrupt) // fails only if it has ended
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		p.t.Fatalf("pileus did not stop when interrupted:\n%s", p.log.String())
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.t.Fatalf("pileus ended with status %d:\n%s", code, p.log.String())
	}
}

func (p *process) kill() {
	p.cmd.Process.Kill() // fails only if it has ended
	<-p.done
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// receive starts `wal receive` and waits until it streams.
func (r *rig) receive() *process {
	r.t.Helper()
	p := r.start("wal", "receive", "src")
	pgtest.WaitFor(r.t, "the receiver to stream", func() bool {
		if !p.running() {
			r.t.Fatalf("wal receive has ended:\n%s", p.log.String())
		}
		return r.server.Query(`SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pileus' AND state = 'streaming'`) != "0"
	})
	return p
}

// caughtUp waits until the repository holds all WAL that the server has flushed now.
func (r *rig) caughtUp() {
	r.t.Helper()
	want := r.server.LSN()
	pgtest.WaitFor(r.t, "the archive to catch up", func() bool {
		got := r.server.Query(`SELECT coalesce(max(flush_lsn), '0/0') >= '` + want.String() + `' FROM pg_stat_replication WHERE application_name = 'pileus'`)
		return got == "t"
	})
}

// restored is the answer of `restore --start --json`.
type restored struct {
	Plan struct {
		DataDir    string `json:"data_directory"`
		Resolution struct {
			FirstExcluded *struct {
				LSN  string    `json:"lsn"`
				Time time.Time `json:"time"`
			} `json:"first_excluded"`
		} `json:"resolution"`
	} `json:"plan"`
	Started  bool   `json:"started"`
	Timeline int    `json:"timeline"`
	Port     int    `json:"port"`
	Socket   string `json:"socket_dir"`
	instance *postgres.Instance
}

// restore brings src back as name and leaves it running until closed.
func (r *rig) restore(name string, flags ...string) *restored {
	r.t.Helper()
	var res restored
	dir := filepath.Join(r.dir, name)
	args := append([]string{"restore", "src", "--as", name, "--data-dir", dir, "--start", "--port", fmt.Sprint(pgtest.FreePort(r.t))}, flags...)
	r.runJSON(&res, args...)
	if !res.Started {
		r.t.Fatalf("restore %s did not start the cluster", name)
	}
	res.instance = &postgres.Instance{Binaries: r.server.Version.Binaries, DataDir: dir, Port: res.Port, SocketDir: res.Socket, RunAs: pgtest.Owner(r.t)}
	r.t.Cleanup(func() { res.close(r.t) })
	return &res
}

func (res *restored) dsn() string { return res.instance.DSN("postgres", "postgres") }

// close stops the restored server and removes its files.
func (res *restored) close(t *testing.T) {
	if _, running, _ := res.instance.Running(); running {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := res.instance.Stop(ctx, postgres.StopImmediate); err != nil {
			t.Errorf("stop the restored server: %v", err)
		}
	}
	if err := os.RemoveAll(res.instance.DataDir); err != nil {
		t.Errorf("remove the restored server: %v", err)
	}
}

// syncBuffer is a bytes.Buffer that a process may write while a test reads it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
