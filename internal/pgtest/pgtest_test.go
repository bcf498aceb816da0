package pgtest_test

import (
	"os/exec"
	"syscall"
	"testing"

	"pileus/internal/pgtest"
)

func TestServersAreDistinctAndKeepDataOverAKill(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		a, b := pgtest.Start(t, v), pgtest.Start(t, v)
		const id = "SELECT system_identifier FROM pg_control_system()"
		if x, y := a.Query(id), b.Query(id); x == y {
			t.Fatalf("two servers share the system identifier %s", x)
		}
		a.Exec("CREATE TABLE kept (n int); INSERT INTO kept SELECT generate_series(1, 1000)")
		a.Kill()
		a.Restart()
		if n := a.Query("SELECT count(*) FROM kept"); n != "1000" {
			t.Fatalf("after a kill %s rows are there instead of 1000", n)
		}
	})
}

func TestPgbenchRuns(t *testing.T) {
	s := pgtest.Start(t, pgtest.Newest(t))
	s.Pgbench("-i", "-s", "1", "-q")
	s.Pgbench("-t", "10", "-n")
	if n := s.Query("SELECT count(*) FROM pgbench_history"); n != "10" {
		t.Fatalf("%s transactions were recorded instead of 10", n)
	}
}

func TestPileusRunsAsTheAccountOfTheServers(t *testing.T) {
	cmd := exec.Command(pgtest.PileusBinary(t), "--help")
	cmd.Dir = pgtest.TempDir(t)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: pgtest.RunAs(t)}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
