package restore

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"pileus/internal/pgtest"
	"pileus/internal/repo"
	"pileus/internal/store"
)

// childVariable holds, in a process that a test starts to kill it, what it is to restore.
const childVariable = "PILEUS_RESTORE_CHILD"

type childRequest struct {
	Repository, DataDir, NewCluster, Owner, BinDir, SocketDir, Command string
	Port                                                               int
}

func TestMain(m *testing.M) {
	if spec := os.Getenv(childVariable); spec != "" {
		if err := restoreAsChild(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func restoreAsChild(spec string) error {
	var c childRequest
	if err := json.Unmarshal([]byte(spec), &c); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	st, err := store.OpenLocal(c.Repository, store.LocalOptions{})
	if err != nil {
		return err
	}
	defer st.Close()
	r, err := repo.Open(ctx, st, nil, repo.Options{})
	if err != nil {
		return err
	}
	p, err := NewPlan(ctx, Request{Repo: r, Source: source, NewCluster: c.NewCluster, DataDir: c.DataDir, Target: Target{Kind: ToLatest},
		Owner: c.Owner, BinDirs: []string{c.BinDir}, Start: true, Port: c.Port, SocketDir: c.SocketDir, RestoreCommand: c.Command})
	if err != nil {
		return err
	}
	_, err = Run(ctx, p, Options{})
	return err
}

// TestKilledAnywhereAndRerun kills a restoring process with SIGKILL while it
// writes and while its server replays, which is left running, and restores again.
func TestKilledAnywhereAndRerun(t *testing.T) {
	l, _, _ := simpleLab(t)
	r := l.request("killed", Target{Kind: ToLatest})
	quick := r.RestoreCommand
	for _, stage := range []Stage{StageWriting, StageRecovering, StageWriting, StageRecovering} {
		// Replay takes long enough to be killed in the middle of it.
		r.RestoreCommand = "sleep 0.2; " + quick
		spec, err := json.Marshal(childRequest{Repository: l.dir, DataDir: r.DataDir, NewCluster: r.NewCluster, Owner: r.Owner,
			BinDir: r.BinDirs[0], SocketDir: r.SocketDir, Command: r.RestoreCommand, Port: r.Port})
		l.check(err)
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), childVariable+"="+string(spec))
		cmd.Stderr = os.Stderr
		l.check(cmd.Start())
		pgtest.WaitFor(t, "stage "+string(stage), func() bool {
			m, ok, err := readMarker(r.DataDir)
			return err == nil && ok && m.Stage == stage
		})
		l.check(cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
	}
	r.RestoreCommand = quick
	res, err := l.restore(r)
	if err != nil {
		t.Fatal(err)
	}
	if !res.Plan.Resumes {
		t.Error("the plan does not say that it clears what was there")
	}
	if got := l.ask(res, "SELECT count(*) FROM ledger"); got != "9" {
		t.Errorf("%s rows, want 9", got)
	}
}
