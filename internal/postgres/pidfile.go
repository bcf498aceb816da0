package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ServerState is what a running postmaster says in the last line of postmaster.pid.
type ServerState string

// The states of a postmaster. Ready includes a hot standby, which takes
// read-only queries; Recovering is recovery that takes no queries (hot_standby off).
const (
	StateStarting   ServerState = "starting"
	StateStopping   ServerState = "stopping"
	StateReady      ServerState = "ready"
	StateRecovering ServerState = "standby"
)

// PIDFile is the content of postmaster.pid (its format: PostgreSQL's src/include/utils/pidfile.h).
type PIDFile struct {
	PID       int
	DataDir   string
	Started   time.Time
	Port      int
	SocketDir string      // the first one; "" when there is none
	Listen    string      // the first address; "" when there is none
	ShmemID   int         // System V shared memory; -1 while not known
	State     ServerState // "" while not known
}

// parsePIDFile reads what is there: a starting server has written only the first lines.
func parsePIDFile(b []byte) (PIDFile, error) {
	p := PIDFile{ShmemID: -1}
	lines := strings.Split(string(b), "\n")
	line := func(n int) string {
		if n <= len(lines) {
			return strings.TrimSpace(lines[n-1])
		}
		return ""
	}
	n, err := strconv.ParseInt(line(1), 10, 32)
	pid := int(n)
	if err != nil || pid == 0 {
		return p, fmt.Errorf("postmaster.pid starts with %q, which is not a process id", line(1))
	}
	if pid < 0 { // a standalone backend writes its id negated
		pid = -pid
	}
	p.PID, p.DataDir = pid, line(2)
	if n, err := strconv.ParseInt(line(3), 10, 64); err == nil {
		p.Started = time.Unix(n, 0).UTC()
	}
	if n, err := strconv.Atoi(line(4)); err == nil {
		p.Port = n
	}
	p.SocketDir, p.Listen = line(5), line(6)
	if f := strings.Fields(line(7)); len(f) == 2 {
		if n, err := strconv.Atoi(f[1]); err == nil {
			p.ShmemID = n
		}
	}
	p.State = ServerState(line(8))
	return p, nil
}

// ReadPIDFile reads postmaster.pid of a data directory. It does not tell whether
// the process lives: see Instance.Running. Error: fs.ErrNotExist when there is none.
func ReadPIDFile(dataDir string) (PIDFile, error) {
	b, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return PIDFile{}, fmt.Errorf("read process id of the server: %w", err)
	}
	return parsePIDFile(b)
}

// serves tells whether process pid is a server on dataDir. A postmaster.pid that came with a restored copy, or
// that outlived a crash, may name a process that has nothing to do with it.
func serves(pid int, dataDir string) bool {
	if !alive(pid) {
		return false
	}
	proc := "/proc/" + strconv.Itoa(pid)
	cwd, err := os.Stat(proc + "/cwd") // a postmaster's working directory is its data directory
	if err != nil {
		if _, self := os.Stat("/proc/self/cwd"); self == nil && errors.Is(err, fs.ErrNotExist) {
			return false
		}
		return true // not allowed to look, or no /proc here: the careful answer
	}
	dir, err := os.Stat(dataDir)
	return err == nil && os.SameFile(cwd, dir)
}

// zombie tells whether a process has ended and only waits for its parent.
func zombie(proc string) bool {
	b, err := os.ReadFile(proc + "/stat")
	if err != nil {
		return false
	}
	_, after, ok := strings.Cut(string(b), ") ")
	return ok && (after[0] == 'Z' || after[0] == 'X')
}
