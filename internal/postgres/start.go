package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

const (
	logTailLines = 15
	logTailBytes = 64 << 10
	stopGrace    = 10 * time.Second // for a start that is called off
)

// StartOptions shapes one start.
type StartOptions struct {
	// Settings override the configuration files for this start. They appear in the
	// argument list: no secrets.
	Settings map[string]string
	// Env are further NAME=VALUE pairs for the server and for the commands that it runs, such as
	// restore_command.
	Env []string
	// NoWait returns when the server has written its postmaster.pid, while it
	// may still recover; see WaitReady and WaitRecovered.
	NoWait bool
}

// StartError says that the server ended instead of starting.
type StartError struct {
	DataDir string
	Log     string // last lines of the server's log
	Err     error  // how the process ended
}

// Error holds the end of the server's log, which names the cause.
func (e *StartError) Error() string {
	msg := fmt.Sprintf("the server on %s did not start: %v", e.DataDir, e.Err)
	if e.Log != "" {
		msg += "; its log ends with:\n" + e.Log
	}
	return msg
}

// Unwrap gives the way the process ended.
func (e *StartError) Unwrap() error { return e.Err }

// child is a postmaster that we are the parent of. The goroutine that reaps it
// ends with it; Stop and Kill wait for that.
type child struct {
	pid    int
	exited chan struct{}
	err    error // valid when exited is closed
	logAt  int64
}

// Start starts the server and waits until it takes queries, or, with hot_standby off in a recovery, until the recovery
// runs. When ctx ends first the server is stopped again. A server that runs already is an
// error, too. Error: *StartError when the server ended by itself.
func (in *Instance) Start(ctx context.Context, o StartOptions) error {
	if p, ok, err := in.Running(); err != nil {
		return fmt.Errorf("start server: %w", err)
	} else if ok {
		return fmt.Errorf("start server: one runs already on %s (process %d)", in.DataDir, p.PID)
	}
	if err := in.spawn(o); err != nil {
		return fmt.Errorf("start server on %s: %w", in.DataDir, err)
	}
	ready := func(p PIDFile) bool { return o.NoWait || p.State == StateReady || p.State == StateRecovering }
	if err := in.waitFor(ctx, ready); err != nil {
		if ctx.Err() != nil {
			in.callOff(ctx)
		}
		return err
	}
	return nil
}

// callOff ends a server whose start nobody waits for any longer.
func (in *Instance) callOff(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	if err := in.Stop(ctx, StopImmediate); err != nil {
		_ = in.Kill()
	}
}

// args are the postmaster's. They are visible to every account on the host.
func (in *Instance) args(o StartOptions) []string {
	args := []string{"-D", in.DataDir}
	if in.Port != 0 {
		args = append(args, "-c", "port="+strconv.Itoa(in.Port))
	}
	if in.SocketDir != "" {
		args = append(args, "-c", "unix_socket_directories="+in.SocketDir)
	}
	for _, k := range slices.Sorted(maps.Keys(o.Settings)) {
		args = append(args, "-c", k+"="+o.Settings[k])
	}
	return args
}

func (in *Instance) spawn(o StartOptions) error {
	// Not tied to a context: the server outlives the call.
	cmd, err := in.command(context.Background(), "postgres", in.args(o)...)
	if err != nil {
		return err
	}
	cmd.Env = append(cmd.Env, o.Env...)
	cmd.SysProcAttr.Setsid = true // an interrupt at our terminal is not meant for the server
	c := &child{exited: make(chan struct{})}
	if in.LogFile != "" {
		log, err := in.openLog()
		if err != nil {
			return err
		}
		defer log.Close()
		if c.logAt, err = log.Seek(0, io.SeekEnd); err != nil {
			return err
		}
		cmd.Stdout, cmd.Stderr = log, log
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.pid = cmd.Process.Pid
	in.child = c
	go c.reap(cmd)
	return nil
}

func (c *child) reap(cmd *exec.Cmd) {
	c.err = cmd.Wait()
	if c.err == nil {
		c.err = errors.New("it ended by itself")
	}
	close(c.exited)
}

func (in *Instance) openLog() (*os.File, error) {
	f, err := os.OpenFile(in.LogFile, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open server log: %w", err)
	}
	owner, err := in.owner()
	if err == nil && os.Geteuid() == 0 {
		err = f.Chown(int(owner.UID), int(owner.GID))
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open server log: %w", err)
	}
	return f, nil
}

// WaitReady waits until the running server takes queries.
func (in *Instance) WaitReady(ctx context.Context) error {
	return in.waitFor(ctx, func(p PIDFile) bool { return p.State == StateReady })
}

// WaitRecovered waits until recovery has ended and the cluster is in production, by
// itself (recovery_target_action = promote) or by Promote.
func (in *Instance) WaitRecovered(ctx context.Context) error {
	return in.waitFor(ctx, func(p PIDFile) bool {
		st, err := ReadClusterState(in.DataDir)
		return err == nil && st == ClusterInProduction && p.State == StateReady
	})
}

// waitFor polls until the server satisfies ok. Error: *StartError when the server ends first.
func (in *Instance) waitFor(ctx context.Context, ok func(PIDFile) bool) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		var ended error
		p, running, err := in.Running()
		switch {
		case in.child != nil:
			select {
			case <-in.child.exited:
				ended = in.child.err
			default:
				// postmaster.pid may still be that of a server that crashed.
				if running && p.PID == in.child.pid && ok(p) {
					return nil
				}
			}
		case err == nil && !running:
			ended = ErrNotRunning
		case err == nil && ok(p):
			return nil
		}
		if ended != nil {
			return &StartError{DataDir: in.DataDir, Log: in.logTail(), Err: ended}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the server on %s: %w", in.DataDir, ctx.Err())
		case <-tick.C:
		}
	}
}

// logTail is the end of what the server logged since the last start; "" when there is nothing.
func (in *Instance) logTail() string {
	f, err := os.Open(in.LogFile)
	if err != nil {
		return ""
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	from := max(size-logTailBytes, 0)
	if in.child != nil {
		from = max(from, min(in.child.logAt, size))
	}
	b := make([]byte, size-from)
	n, _ := f.ReadAt(b, from) // what could be read is the tail
	return string(bytes.TrimSpace(lastLines(b[:n], logTailLines)))
}

func lastLines(b []byte, n int) []byte {
	b = bytes.TrimRight(b, "\n")
	at := len(b)
	for ; n > 0 && at >= 0; n-- {
		at = bytes.LastIndexByte(b[:at], '\n')
	}
	return b[at+1:]
}

// promoteFile is what a server looks for on SIGUSR1 (PROMOTE_SIGNAL_FILE).
func (in *Instance) promoteFile() string { return filepath.Join(in.DataDir, "promote") }
