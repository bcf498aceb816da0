package archive

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"pileus/internal/postgres"
	"pileus/internal/repo"
	"pileus/internal/store/storetest"
)

// An outage that outlasts the lease must not end the receiver: who would then keep
// the primary's disk from filling? When the repository is back so is the lease.
func TestOutageLongerThanTheLease(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		st := storetest.NewFaulty(storetest.NewMem(t))
		rp, err := repo.Init(t.Context(), st, nil, repo.Options{})
		if err != nil {
			t.Fatal(err)
		}
		away := errors.New("no server in this test")
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			done <- Receive(ctx, ReceiverOptions{Repo: rp, Cluster: theCluster, Slot: "pileus", StateDir: dir, Log: slog.New(slog.DiscardHandler),
				SQL:         func(context.Context) (*postgres.Conn, error) { return nil, away },
				Replication: func(context.Context) (*postgres.ReplConn, error) { return nil, away }})
		}()
		held := func() int {
			t.Helper()
			h, err := rp.Holders(t.Context(), repo.LeaseReceive)
			if err != nil {
				t.Fatal(err)
			}
			return len(h)
		}
		pass := func(d time.Duration) {
			t.Helper()
			select {
			case err := <-done:
				t.Fatalf("the receiver ended: %v", err)
			case <-time.After(d):
			}
		}
		pass(time.Minute)
		if held() != 1 {
			t.Fatal("the receiver holds no lease")
		}
		st.SetDown(true)
		pass(10 * repo.LeaseTTL)
		if s, err := ReadStatus(dir, theCluster); err != nil || s.RepositoryFailingSince == nil {
			t.Errorf("the status does not say that the repository is away: %+v, %v", s, err)
		}
		st.SetDown(false)
		pass(2 * repo.LeaseTTL)
		if held() != 1 {
			t.Error("the lease was not taken again")
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the receiver ended with %v", err)
		}
		if held() != 0 {
			t.Error("the lease was not released")
		}
	})
}
