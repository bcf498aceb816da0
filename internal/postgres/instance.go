package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// pollInterval is how often a server's files are looked at while waiting for it.
const pollInterval = 25 * time.Millisecond

// Instance is a data directory and the server that may run on it. Its methods
// belong to one goroutine at a time. A server that Start started lives on when this process ends.
type Instance struct {
	Binaries  Binaries
	DataDir   string
	RunAs     *Owner // account of the server when this process is root; nil: the owner of DataDir
	Port      int    // 0: what postgresql.conf says
	SocketDir string // "": what postgresql.conf says
	LogFile   string // what the server writes to stderr is appended here; "": discarded

	child *child // the postmaster, when this Instance started it
}

// InitOptions shapes a new cluster.
type InitOptions struct {
	Superuser      string // "": postgres
	Password       string // of the superuser; handed over in a file that is deleted at once
	Auth           string // pg_hba.conf method for all connections; "": scram-sha-256 with a password, else peer and reject
	Locale         string // "": C
	Encoding       string // "": UTF8
	Checksums      bool   // data page checksums
	WALSegmentSize int64  // bytes, a power of two from 1 MiB to 1 GiB; 0: 16 MiB
	NoSync         bool   // do not wait for the disk; for tests
}

// Init creates the cluster with initdb. DataDir must be empty or not exist yet; its parent must exist.
func (in *Instance) Init(ctx context.Context, o InitOptions) error {
	if err := in.makeDataDir(); err != nil {
		return fmt.Errorf("initdb: %w", err)
	}
	args, err := in.initArgs(o)
	if err != nil {
		return fmt.Errorf("initdb: %w", err)
	}
	if o.Password != "" {
		name, err := in.passwordFile(o.Password)
		if err != nil {
			return fmt.Errorf("initdb: %w", err)
		}
		defer os.Remove(name)
		args = append(args, "--pwfile="+name)
	}
	if _, err := in.run(ctx, "initdb", args...); err != nil {
		return fmt.Errorf("create cluster in %s: %w", in.DataDir, err)
	}
	return nil
}

func (in *Instance) initArgs(o InitOptions) ([]string, error) {
	or := func(s, fallback string) string {
		if s == "" {
			return fallback
		}
		return s
	}
	args := []string{"-D", in.DataDir, "-U", or(o.Superuser, "postgres"), "-E", or(o.Encoding, "UTF8"), "--locale=" + or(o.Locale, "C")}
	switch {
	case o.Auth != "":
		args = append(args, "-A", o.Auth)
	case o.Password != "":
		args = append(args, "-A", "scram-sha-256")
	default:
		args = append(args, "--auth-local=peer", "--auth-host=reject")
	}
	switch {
	case o.Checksums:
		args = append(args, "--data-checksums")
	case in.Binaries.Major >= 18: // where they are on unless told otherwise
		args = append(args, "--no-data-checksums")
	}
	if o.WALSegmentSize != 0 {
		if o.WALSegmentSize < 1<<20 || o.WALSegmentSize > 1<<30 || o.WALSegmentSize&(o.WALSegmentSize-1) != 0 {
			return nil, fmt.Errorf("a WAL segment size of %d bytes is not a power of two from 1 MiB to 1 GiB", o.WALSegmentSize)
		}
		args = append(args, "--wal-segsize="+strconv.FormatInt(o.WALSegmentSize>>20, 10))
	}
	if o.NoSync {
		args = append(args, "--no-sync")
	}
	return args, nil
}

// makeDataDir creates the data directory for the account that will own it:
// root may have a parent folder that the account cannot write.
func (in *Instance) makeDataDir() error {
	err := os.Mkdir(in.DataDir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return in.RunAs.Chown(in.DataDir)
}

func (in *Instance) passwordFile(password string) (name string, err error) {
	f, err := os.CreateTemp("", "pileus-init-*")
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(password + "\n")
	if err = errors.Join(err, f.Close()); err == nil {
		err = in.RunAs.Chown(f.Name())
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return f.Name(), err
}

// owner is the account for server programs.
func (in *Instance) owner() (*Owner, error) {
	if in.RunAs != nil {
		return in.RunAs, nil
	}
	o, err := OwnerOf(in.DataDir)
	if err != nil {
		return nil, err
	}
	if o.UID == 0 {
		return nil, fmt.Errorf("%s belongs to root, and PostgreSQL refuses to run as root: give it to another account (chown -R postgres %s)", in.DataDir, in.DataDir)
	}
	return o, nil
}

// command prepares a server program. Its environment is built from nothing, so
// that no secret and no PG* setting of ours leaks into it.
func (in *Instance) command(ctx context.Context, program string, args ...string) (*exec.Cmd, error) {
	owner, err := in.owner()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, in.Binaries.Path(program), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner.Credential()}
	cmd.Dir = in.DataDir // ours may be one that the account cannot enter
	cmd.Env = []string{"PATH=" + in.Binaries.Dir + ":/usr/local/bin:/usr/bin:/bin", "HOME=" + owner.Home, "LANG=C", "LC_MESSAGES=C"}
	for _, k := range []string{"TZ", "LD_LIBRARY_PATH", "TMPDIR"} {
		if v, ok := os.LookupEnv(k); ok {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	return cmd, nil
}

// run runs a program to its end and puts what it complained about into the error.
func (in *Instance) run(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd, err := in.command(ctx, program, args...)
	if err != nil {
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// On cancellation initdb gets the chance to end its own children.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := runBound(cmd); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%s: %w: %s", program, err, bytes.TrimSpace(lastLines(stderr.Bytes(), logTailLines)))
	}
	return stdout.Bytes(), nil
}

// ClusterState is what the control file says about the cluster.
type ClusterState uint32

// The states, numbered as PostgreSQL numbers them (DBState in catalog/pg_control.h).
const (
	ClusterStartup ClusterState = iota
	ClusterShutDown
	ClusterShutDownInRecovery
	ClusterShuttingDown
	ClusterInCrashRecovery
	ClusterInArchiveRecovery
	ClusterInProduction
)

// String names the state as pg_controldata does.
func (s ClusterState) String() string {
	names := []string{"starting up", "shut down", "shut down in recovery", "shutting down", "in crash recovery", "in archive recovery", "in production"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("unknown state %d", uint32(s))
}

// ReadClusterState reads the state from a data directory's control file. A crashed cluster
// still shows the state it was in; ask Instance.Running whether a server is there.
func ReadClusterState(dataDir string) (ClusterState, error) {
	f, err := os.Open(filepath.Join(dataDir, "global", "pg_control"))
	if err != nil {
		return 0, fmt.Errorf("read cluster state: %w", err)
	}
	defer f.Close()
	// system identifier u64 | control version u32 | catalog version u32 | state u32,
	// in the byte order of the host; the same in 13 to 18.
	var b [20]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return 0, fmt.Errorf("read cluster state from %s: %w", f.Name(), err)
	}
	return ClusterState(binary.NativeEndian.Uint32(b[16:])), nil
}

// Running tells whether a server runs on the data directory, and what it wrote about
// itself. A postmaster.pid that names a process which is no server on this directory does not count.
func (in *Instance) Running() (PIDFile, bool, error) {
	p, err := ReadPIDFile(in.DataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	if err != nil {
		return p, false, err
	}
	return p, serves(p.PID, in.DataDir), nil
}

// Status is one look at an instance.
type Status struct {
	Running bool
	Process PIDFile // zero unless Running
	Cluster ClusterState
}

// Status looks at the instance.
func (in *Instance) Status() (Status, error) {
	p, ok, err := in.Running()
	if err != nil {
		return Status{}, err
	}
	st := Status{Running: ok}
	if ok {
		st.Process = p
	}
	st.Cluster, err = ReadClusterState(in.DataDir)
	return st, err
}

// DSN is a connection string to the instance through its socket, or through
// localhost when it has none, as user to dbname.
func (in *Instance) DSN(user, dbname string) string {
	host, port := in.SocketDir, in.Port
	if p, ok, err := in.Running(); err == nil && ok {
		host, port = p.SocketDir, p.Port
	}
	if host == "" {
		host = "localhost"
	}
	return DSN(host, port, user, dbname)
}
