package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"
)

// StopMode is how a server is asked to end.
type StopMode syscall.Signal

// The modes of pg_ctl stop.
const (
	StopSmart     StopMode = StopMode(syscall.SIGTERM) // when the last session has ended
	StopFast      StopMode = StopMode(syscall.SIGINT)  // ends the sessions, then a shutdown checkpoint
	StopImmediate StopMode = StopMode(syscall.SIGQUIT) // no checkpoint: the next start recovers
)

// Stop stops the server and waits until it is gone. A server that does not run
// is no error. When ctx ends first the request stays in force.
func (in *Instance) Stop(ctx context.Context, mode StopMode) error {
	pid, err := in.pid()
	if err != nil {
		return fmt.Errorf("stop server on %s: %w", in.DataDir, err)
	}
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, syscall.Signal(mode)); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop server on %s (process %d): %w", in.DataDir, pid, err)
	}
	if err := in.waitGone(ctx, pid); err != nil {
		return fmt.Errorf("stop server on %s (process %d): %w", in.DataDir, pid, err)
	}
	return nil
}

// Kill ends the server and all its processes with SIGKILL, as a crash would.
// It returns when they are gone; the next start recovers. A server that does not run is no error.
func (in *Instance) Kill() error {
	pid, err := in.pid()
	if err != nil || pid == 0 {
		return err
	}
	kids, err := killTree(pid)
	if err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill server on %s (process %d): %w", in.DataDir, pid, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	err = in.waitGone(ctx, pid)
	if err == nil {
		// They hold the shared memory, without which the next start is refused.
		err = poll(ctx, func() bool { return !slices.ContainsFunc(kids, alive) })
	}
	if err != nil {
		return fmt.Errorf("kill server on %s (process %d): %w", in.DataDir, pid, err)
	}
	return nil
}

// pid is the postmaster's process id, 0 when there is no server.
func (in *Instance) pid() (int, error) {
	if in.child != nil {
		select {
		case <-in.child.exited:
			in.child = nil
		default:
			return in.child.pid, nil // it may not have written its postmaster.pid yet
		}
	}
	p, running, err := in.Running()
	if err != nil || !running {
		return 0, err
	}
	return p.PID, nil
}

func (in *Instance) waitGone(ctx context.Context, pid int) error {
	if in.child != nil && in.child.pid == pid {
		select {
		case <-in.child.exited:
			in.child = nil
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return poll(ctx, func() bool { return !serves(pid, in.DataDir) })
}

// poll waits for a condition that nothing announces.
func poll(ctx context.Context, ok func() bool) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// Promote ends the recovery of a running standby and waits until the cluster is
// in production. A cluster that is in production already is no error. Error: ErrNotRunning.
func (in *Instance) Promote(ctx context.Context) error {
	st, err := in.Status()
	if err != nil {
		return fmt.Errorf("promote server on %s: %w", in.DataDir, err)
	}
	if !st.Running {
		return fmt.Errorf("promote server on %s: %w", in.DataDir, ErrNotRunning)
	}
	if st.Cluster == ClusterInProduction {
		return nil
	}
	f, err := os.OpenFile(in.promoteFile(), os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	owner, err := in.owner()
	if err == nil {
		err = owner.Chown(in.promoteFile())
	}
	if err == nil {
		err = syscall.Kill(st.Process.PID, syscall.SIGUSR1)
	}
	if err != nil {
		return fmt.Errorf("promote server on %s: %w", in.DataDir, err)
	}
	return in.WaitRecovered(ctx)
}
