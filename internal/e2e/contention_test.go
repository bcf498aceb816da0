package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pileus/internal/pgtest"
)

// suspend waits until a process has got as far as reached tells, and stops it there.
func (p *process) suspend(what string, reached func() bool) {
	p.t.Helper()
	pgtest.WaitFor(p.t, what, func() bool {
		if !p.running() {
			p.t.Fatalf("it ended before %s:\n%s", what, p.log.String())
		}
		return reached()
	})
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) resume() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		p.t.Fatal(err)
	}
}

// exits waits for the end of a process and returns its exit code, -1 for a signal.
func (p *process) exits() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// leased tells whether somebody announced work of a kind in the repository.
func (r *rig) leased(kind string) func() bool {
	dir := filepath.Join(r.dir, "repo", "leases", kind)
	return func() bool {
		found, err := filepath.Glob(filepath.Join(dir, "src", "*"))
		return err == nil && len(found) > 0
	}
}

// manifests lists the backups that the repository holds, by their files.
func (r *rig) manifests() []string {
	r.t.Helper()
	found, err := filepath.Glob(filepath.Join(r.dir, "repo", "clusters", "src", "backups", "*"))
	if err != nil {
		r.t.Fatal(err)
	}
	return found
}

// TestBackupInterrupted ends backups that receive their own WAL, politely and not.
// Neither may leave a manifest, a slot, or anything that hinders the next.
func TestBackupInterrupted(t *testing.T) {
	r := newRig(t, pgtest.Newest(t), flavour{})
	r.server.Pgbench("-i", "-q", "-s", "8")
	packs := func() bool {
		found, err := filepath.Glob(filepath.Join(r.dir, "repo", "packs", "*", "*"))
		return err == nil && len(found) > 0
	}
	for _, c := range []struct {
		name string
		mode string
		at   func() bool
		sig  os.Signal
		code int
	}{
		{"SIGINT as it begins", "files", r.leased("backup"), os.Interrupt, 130},
		{"SIGINT while it stores", "stream", packs, os.Interrupt, 130},
		{"SIGTERM while it stores", "files", packs, syscall.SIGTERM, 130},
		{"SIGKILL as it begins", "stream", r.leased("backup"), os.Kill, -1},
		{"SIGKILL while it stores", "files", packs, os.Kill, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.RemoveAll(filepath.Join(r.dir, "repo", "packs")); err != nil {
				t.Fatal(err)
			}
			b := r.start("backup", "src", "--mode", c.mode, "--full")
			b.suspend("the backup to be there", c.at)
			if err := b.cmd.Process.Signal(c.sig); err != nil {
				t.Fatal(err)
			}
			b.resume()
			if code := b.exits(); code != c.code {
				t.Errorf("exit %d, want %d:\n%s", code, c.code, b.log.String())
			}
			if got := r.manifests(); len(got) != 0 {
				t.Errorf("it left a manifest: %v", got)
			}
			pgtest.WaitFor(t, "the server to be rid of the backup", func() bool {
				return r.server.Query(`SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pileus')`) == "0"
			})
			if c.sig != os.Kill && r.leased("backup")() {
				t.Error("it left its lease")
			}
		})
	}
	r.run("backup", "src")
	r.run("verify", "--read-data", "all")
	if got := r.manifests(); len(got) != 1 {
		t.Errorf("%d backups", len(got))
	}
}

// TestTwoAtOnce: the second of two is told who is at work, and harms nothing.
func TestTwoAtOnce(t *testing.T) {
	r := newRig(t, pgtest.Newest(t), flavour{})
	first := r.start("snapshot", "create", "src", "Before-21")
	first.suspend("the first backup to begin", r.leased("backup"))
	r.refused(6, []string{"another backup of src is under way", "process"}, "backup", "src")
	_, stderr, code := r.try("--json", "backup", "src")
	if code != 6 || !strings.Contains(stderr, `"exit_code":6`) {
		t.Errorf("exit %d: %s", code, stderr)
	}
	r.run("prune", "--grace", "0s") // beside a backup: nothing of it may go
	first.resume()
	if code := first.exits(); code != 0 {
		t.Fatalf("the first backup: exit %d\n%s", code, first.log.String())
	}
	r.refused(2, []string{"exists already", "nothing was done"}, "snapshot", "create", "src", "Before-21")
	if got := r.manifests(); len(got) != 1 {
		t.Errorf("%d backups, want the one of the snapshot", len(got))
	}

	// A receiver that was killed a moment ago is not waited for.
	receiver := r.receive()
	receiver.kill()
	r.run("backup", "src")

	// Retention keeps what is young and what has a name, and says so.
	out := r.run("prune", "--dry-run")
	r.run("prune", "--grace", "0s")
	r.run("prune", "--grace", "0s")
	if got := r.manifests(); len(got) != 2 {
		t.Errorf("prune left %d backups of 2; its dry run had said:\n%s", len(got), out)
	}
	r.run("verify", "--read-data", "all")
	res := r.restore("from-snapshot", "--snapshot", "Before-21")
	res.close(t)
	r.run("snapshot", "delete", "SRC", "Before-21") // identifiers have no case
	r.refused(4, []string{"Before-21"}, "restore", "src", "--as", "gone", "--data-dir", filepath.Join(r.dir, "gone"), "--snapshot", "Before-21")
	r.absent(filepath.Join(r.dir, "gone"))
}
