package postgres_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pileus/internal/pgtest"
	"pileus/internal/postgres"
)

func TestInstanceLifecycle(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		dir := pgtest.TempDir(t)
		in := &postgres.Instance{Binaries: v.Binaries, DataDir: filepath.Join(dir, "new"), RunAs: pgtest.Owner(t), Port: pgtest.FreePort(t),
			SocketDir: dir, LogFile: filepath.Join(dir, "log")}
		t.Cleanup(func() { _ = in.Kill() })
		ctx := timeout(t)
		if err := in.Init(ctx, postgres.InitOptions{Superuser: "boss", Password: secret, Checksums: true, WALSegmentSize: 1 << 20, NoSync: true}); err != nil {
			t.Fatal(err)
		}
		if err := in.Init(ctx, postgres.InitOptions{}); err == nil || !strings.Contains(err.Error(), "not empty") {
			t.Errorf("a second initdb gave %v", err)
		}
		st, err := in.Status()
		if err != nil || st.Running || st.Cluster != postgres.ClusterShutDown {
			t.Errorf("fresh: %+v: %v", st, err)
		}
		settings := map[string]string{"listen_addresses": "", "fsync": "off", "shared_buffers": "16MB"}
		if err := in.Start(ctx, postgres.StartOptions{Settings: settings}); err != nil {
			t.Fatal(err)
		}
		if err := in.Start(ctx, postgres.StartOptions{}); err == nil {
			t.Error("it was started twice")
		}
		st, err = in.Status()
		if err != nil || !st.Running || st.Process.State != postgres.StateReady || st.Cluster != postgres.ClusterInProduction || st.Process.Port != in.Port {
			t.Errorf("started: %+v: %v", st, err)
		}
		c := connect(t, in.DSN("boss", "postgres"), postgres.Options{Password: secret})
		if info, err := c.Info(ctx); err != nil || !info.DataChecksums || info.WALSegmentSize != 1<<20 {
			t.Errorf("%+v: %v", info, err)
		}
		if err := in.Promote(ctx); err != nil {
			t.Errorf("promoting a primary: %v", err)
		}
		other := &postgres.Instance{Binaries: v.Binaries, DataDir: in.DataDir}
		if err := other.Stop(ctx, postgres.StopFast); err != nil {
			t.Fatal(err)
		}
		if st, err = in.Status(); err != nil || st.Running || st.Cluster != postgres.ClusterShutDown {
			t.Errorf("stopped: %+v: %v", st, err)
		}
		if err := in.Stop(ctx, postgres.StopFast); err != nil {
			t.Errorf("stopping what does not run: %v", err)
		}
		if err := in.Promote(ctx); !errors.Is(err, postgres.ErrNotRunning) {
			t.Errorf("promoting what does not run: %v", err)
		}
	})
}

func TestStartFailureShowsTheLog(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		s := pgtest.Start(t, v)
		s.Stop()
		err := s.Instance.Start(timeout(t), postgres.StartOptions{Settings: map[string]string{"shared_buffers": "banana"}})
		var se *postgres.StartError
		if !errors.As(err, &se) || !strings.Contains(se.Log, "banana") {
			t.Errorf("a bad setting gave %v", err)
		}
		s.Restart()
	})
}

// A restored or crashed directory holds a postmaster.pid of a process that is not its server.
func TestStalePIDFileIsNoServer(t *testing.T) {
	s := pgtest.Start(t, pgtest.Newest(t))
	s.Stop()
	for name, pid := range map[string]int{"a living stranger": os.Getpid(), "nobody": deadProcess(t)} {
		s.WriteFile("postmaster.pid", strconv.Itoa(pid)+"\n"+s.Instance.DataDir+"\n1\n5432\n\n\n\nready   \n")
		if _, running, err := s.Instance.Running(); running || err != nil {
			t.Errorf("%s counts as a server: %v, %v", name, running, err)
		}
		if err := s.Instance.Stop(timeout(t), postgres.StopFast); err != nil {
			t.Error(err)
		}
	}
	if err := os.Remove(filepath.Join(s.Instance.DataDir, "postmaster.pid")); err != nil {
		t.Fatal(err)
	}
}

func deadProcess(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func TestCancelledStartLeavesNoServer(t *testing.T) {
	s := pgtest.Start(t, pgtest.Newest(t))
	s.Stop()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Instance.Start(ctx, postgres.StartOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled start gave %v", err)
	}
	if _, running, err := s.Instance.Running(); running || err != nil {
		t.Errorf("a server is left: %v, %v", running, err)
	}
}

func TestServerEnvironmentHoldsNothingOfOurs(t *testing.T) {
	t.Setenv("PGPASSWORD", "topsecret")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "topsecret")
	s := pgtest.Start(t, pgtest.Newest(t), pgtest.Env("PILEUS_MARK=here"))
	p, _, err := s.Instance.Running()
	if err != nil {
		t.Fatal(err)
	}
	env, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/environ")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(env), "topsecret") || !strings.Contains(string(env), "PILEUS_MARK=here") {
		t.Errorf("environment: %q", env)
	}
}

func TestFindBinaries(t *testing.T) {
	for _, v := range pgtest.Versions(t) {
		b, err := postgres.FindBinaries(timeout(t), v.Major, []string{filepath.Dir(v.Binaries.Dir)})
		if err != nil || b.Major != v.Major {
			t.Errorf("%d: %+v: %v", v.Major, b, err)
		}
	}
	_, err := postgres.FindBinaries(timeout(t), 12, []string{"/nowhere"})
	var none *postgres.NoBinariesError
	if !errors.As(err, &none) || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("a version that is not there gave %v", err)
	}
}

func TestDiskFreeOfAPathToBe(t *testing.T) {
	dir := pgtest.TempDir(t)
	a, err := postgres.DiskFree(filepath.Join(dir, "not", "yet"))
	if err != nil || a <= 0 {
		t.Errorf("%d: %v", a, err)
	}
}
