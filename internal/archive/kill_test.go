package archive

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"pileus/internal/pg"
	"pileus/internal/pgtest"
	"pileus/internal/postgres"
	"pileus/internal/repo"
	"pileus/internal/store"
)

// What a process that a test starts to kill it is to receive.
const (
	childDSN        = "PILEUS_RECEIVE_CHILD_DSN"
	childRepository = "PILEUS_RECEIVE_CHILD_REPOSITORY"
	childState      = "PILEUS_RECEIVE_CHILD_STATE"
)

// TestReceiveAsChild is the process that TestKilledReceiver kills.
func TestReceiveAsChild(t *testing.T) {
	dsn := os.Getenv(childDSN)
	if dsn == "" {
		return // not that process
	}
	ctx := context.Background()
	st, err := store.OpenLocal(os.Getenv(childRepository), store.LocalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := repo.Open(ctx, st, nil, repo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Fatal(Receive(ctx, ReceiverOptions{
		Repo: r, Cluster: theCluster, Slot: "pileus", CreateSlot: true, StateDir: os.Getenv(childState),
		SQL: func(ctx context.Context) (*postgres.Conn, error) {
			return postgres.Connect(ctx, dsn, postgres.Options{})
		},
		Replication: func(ctx context.Context) (*postgres.ReplConn, error) {
			return postgres.ConnectReplication(ctx, dsn, postgres.Options{})
		},
		FlushInterval: 5 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
	}))
}

// A receiver that is killed at any moment and started again leaves no gap, loses
// nothing, and has never promised the server what was not in the repository.
func TestKilledReceiver(t *testing.T) {
	l := newLab(t, pgtest.Newest(t), pgtest.WALSegmentSize(1<<20), pgtest.With("wal_keep_size", "1GB"))
	load(l.server, "1")
	bench := l.server.PgbenchCommand(t.Context(), "-i", "-s", "1", "-q")
	if out, err := bench.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	bench = l.server.PgbenchCommand(t.Context(), "-T", "120", "-c", "2", "-n")
	if err := bench.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = bench.Process.Kill() // it may have ended
		_ = bench.Wait()
	}()
	rng := rand.New(rand.NewPCG(7, 7))
	for range 12 {
		child := exec.Command(os.Args[0], "-test.run=^TestReceiveAsChild$")
		child.Env = append(os.Environ(), childDSN+"="+l.server.DSN(), childRepository+"="+l.dir, childState+"="+l.state)
		child.Stdout, child.Stderr = os.Stderr, os.Stderr
		l.check(child.Start())
		if rng.IntN(3) > 0 { // else it may be killed before it has begun
			goal := l.server.LSN()
			pgtest.WaitFor(t, "the child to receive", func() bool {
				s, err := ReadStatus(l.state, theCluster)
				return err == nil && s != nil && s.PID == child.Process.Pid && s.Durable >= goal
			})
		}
		pause := time.NewTimer(time.Duration(rng.IntN(150)) * time.Millisecond)
		<-pause.C
		told := l.server.Query("SELECT max(restart_lsn) FROM pg_replication_slots")
		l.check(child.Process.Kill())
		_ = child.Wait() // it was killed
		if told == "" {
			continue
		}
		if _, err := l.repo.Cluster(t.Context(), theCluster); err != nil {
			continue // nothing was received yet
		}
		if end, err := DurableEnd(t.Context(), l.repo, l.cluster(), 1); err != nil || end != 0 && end < mustLSN(t, told) {
			t.Fatalf("the server was told %s, the repository holds WAL to %s (%v)", told, end, err)
		}
	}
	_ = bench.Process.Kill()
	_ = bench.Wait()
	r := l.receive(l.options(l.server))
	to := load(l.server, "10")
	l.durableTo(1, to)
	r.end()
	c := l.continuous(1)
	l.same(l.server, 1, c.Start, to)
	if s := l.status(); s.Gap != nil {
		t.Errorf("a gap was reported: %+v", *s.Gap)
	}
	if left, err := filepath.Glob(filepath.Join(l.state, "spool", theCluster, "*")); err != nil || len(left) > 0 {
		t.Errorf("the spool holds %v (%v)", left, err)
	}
	// Of finished segments no parts are left behind.
	for seg := pg.SegmentAt(1, c.Start, 1<<20); seg.End() <= to; seg = seg.Next() {
		if parts, err := l.repo.Parts(t.Context(), theCluster, seg); err != nil || len(parts) > 0 {
			t.Errorf("%d parts of the finished segment %s are left (%v)", len(parts), seg, err)
		}
	}
}
