package dbserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"pileus/internal/postgres"
)

// Admin is the superuser that Pileus uses.
const Admin = "pileus_admin"

const (
	markerName  = "pileus-server"
	freshSuffix = ".new"      // of a folder that is being made
	goneSuffix  = ".removing" // of one that is being removed
	// maxSocketPath is what the kernel takes for a socket's path, in bytes, and
	// socketName the longest name of one.
	maxSocketPath = 107
	socketName    = "/.s.PGSQL.65535.lock"
)

// Spec is what a server should be like.
type Spec struct {
	Name     string            // cluster_name
	Port     int               // of TCP and of the socket
	Listen   []string          // addresses
	Access   []netip.Prefix    // clients that may connect over TCP
	Settings map[string]string // of the parameter group; Ours are not among them
	Hosts    []string          // names and addresses of the certificate
	Standby  *Standby          // nil: a primary
}

// Standby says what a reader follows.
type Standby struct {
	Primary string // connection string
	Slot    string // physical replication slot on the primary
}

// Server is one server and its folder. Its methods may be called by several goroutines
// as long as their works do not contradict each other, such as starting and stopping.
type Server struct {
	dir   string
	bin   postgres.Binaries
	owner *postgres.Owner
}

// New is the server in a folder, which need not exist yet. owner is the account that
// it runs as, where this process is root.
func New(dir string, bin postgres.Binaries, owner *postgres.Owner) *Server {
	return &Server{dir: dir, bin: bin, owner: owner}
}

// DataDir is the data directory.
func (s *Server) DataDir() string { return filepath.Join(s.dir, "data") }

// BinDir is the folder of the server's programs.
func (s *Server) BinDir() string { return s.bin.Dir }

// LogDir holds the server's logs.
func (s *Server) LogDir() string { return filepath.Join(s.dir, "log") }

// TablespaceDir is where a tablespace of a restored cluster goes.
func (s *Server) TablespaceDir(oid uint32) string {
	return filepath.Join(s.dir, "tblspc", strconv.FormatUint(uint64(oid), 10))
}

func (s *Server) confDir() string { return filepath.Join(s.dir, "conf") }

// socketDir is the folder of the socket.
func (s *Server) socketDir() string {
	dir := filepath.Join(s.dir, "run")
	if len(dir)+len(socketName) <= maxSocketPath {
		return dir
	}
	sum := sha256.Sum256([]byte(s.dir))
	return filepath.Join(os.TempDir(), "pileus-"+hex.EncodeToString(sum[:8]))
}

func (s *Server) instance() *postgres.Instance {
	return &postgres.Instance{Binaries: s.bin, DataDir: s.DataDir(), RunAs: s.owner, LogFile: filepath.Join(s.LogDir(), "start.log")}
}

// Running tells whether the server is up.
func (s *Server) Running() (bool, error) {
	_, up, err := s.instance().Running()
	return up, err
}

// DSN connects to a database as Admin over the socket; with no database named, for replication.
func (s *Server) DSN(database string) string {
	in := s.instance()
	in.SocketDir = s.socketDir()
	if p, up, err := in.Running(); err == nil && up {
		in.Port = p.Port
	} else if c, err := postgres.ReadConfFile(s.confFile()); err == nil {
		if port, err := strconv.Atoi(c.Effective()["port"].Value); err == nil {
			in.Port = port
		}
	}
	return in.DSN(Admin, database)
}

// Connect opens a session as Admin.
func (s *Server) Connect(ctx context.Context, database string) (*postgres.Conn, error) {
	return postgres.Connect(ctx, s.DSN(database), postgres.Options{})
}

// Prepare makes the folder for a new data directory, and removes what an attempt that did not
// come to its end left there.
func (s *Server) Prepare(ctx context.Context) error {
	if err := s.Remove(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.dir), 0o711); err != nil {
		return fmt.Errorf("prepare the server's folder: %w", err)
	}
	// The folder appears with its marker in it, so that what a kill leaves is known as ours.
	fresh := s.dir + freshSuffix
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("prepare the server's folder: %w", err)
	}
	if err := s.makeDir(fresh); err != nil {
		return err
	}
	if err := s.write(filepath.Join(fresh, markerName), "A server of `pileus serve`. Delete it with `aws rds delete-db-cluster`, never by hand.\n"); err != nil {
		return err
	}
	if err := os.Rename(fresh, s.dir); err != nil {
		return fmt.Errorf("prepare the server's folder: %w", err)
	}
	for _, dir := range []string{s.confDir(), s.LogDir(), filepath.Join(s.dir, "tblspc")} {
		if err := s.makeDir(dir); err != nil {
			return err
		}
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	return s.makeSocketDir()
}

// enter tries whether the server's account gets at its folder, which depends on every folder above. The kernel
// answers: it changes to the folder as that account.
func (s *Server) enter(ctx context.Context) error {
	as := s.owner.Credential()
	if as == nil { // this account made it
		return nil
	}
	cmd := exec.CommandContext(ctx, "true")
	cmd.Dir, cmd.SysProcAttr = s.dir, &syscall.SysProcAttr{Credential: as}
	if err := cmd.Run(); errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("account %s cannot enter %s: let it pass through the folders above (chmod o+x), or name another folder in `serve.data_root`", s.owner.Name, s.dir)
	} else if err != nil {
		return fmt.Errorf("try %s as account %s: %w", s.dir, s.owner.Name, err)
	}
	return nil
}

// makeDir makes a folder that only the server's account, and root, may enter.
func (s *Server) makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make a folder of the server: %w", err)
	}
	if err := s.owner.Chown(dir); err != nil {
		return fmt.Errorf("give %s to the server's account: %w", dir, err)
	}
	return nil
}

// makeSocketDir makes the folder of the socket. One that somebody else made there before us,
// in a folder that all may write, is refused.
func (s *Server) makeSocketDir() error {
	dir := s.socketDir()
	if err := s.makeDir(dir); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || info.Mode().Perm() != 0o700 || s.owner != nil && st.Uid != s.owner.UID {
		return fmt.Errorf("the socket's folder %s belongs to somebody else or can be entered by others: remove it", dir)
	}
	return nil
}

// write puts a file of the server's account in place, in one step.
func (s *Server) write(path, content string) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.WriteString(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.owner.Chown(tmp)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Init makes an empty cluster. What an attempt before left is removed.
func (s *Server) Init(ctx context.Context, spec Spec) error {
	if err := s.Prepare(ctx); err != nil {
		return err
	}
	if err := s.instance().Init(ctx, postgres.InitOptions{Superuser: Admin, Locale: locale(), Checksums: true}); err != nil {
		return err
	}
	if err := s.include(); err != nil {
		return err
	}
	_, err := s.Configure(ctx, spec)
	return err
}

// locale is what text sorts by: by code points, with every letter of Unicode known as one.
func locale() string { return "C.UTF-8" }

// Start starts the server and waits until it takes queries.
func (s *Server) Start(ctx context.Context) error {
	if err := s.makeSocketDir(); err != nil { // gone with the host's temporary files
		return err
	}
	if up, err := s.Running(); err != nil || up {
		return err
	}
	return s.instance().Start(ctx, postgres.StartOptions{})
}

// stopPatience is how long a fast shutdown may take before the server is stopped at once.
const stopPatience = 2 * time.Minute

// Stop ends the server's sessions and stops it. One that does not come to an end is
// stopped at once: it recovers when it starts.
func (s *Server) Stop(ctx context.Context) error {
	gentle, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	in := s.instance()
	if err := in.Stop(gentle, postgres.StopFast); err == nil || ctx.Err() != nil {
		return err
	}
	return in.Stop(ctx, postgres.StopImmediate)
}

// Restart stops the server and starts it again.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Promote makes a standby a primary.
func (s *Server) Promote(ctx context.Context) error { return s.instance().Promote(ctx) }

// Remove stops the server and removes its folder. A folder that Pileus did not make is refused.
func (s *Server) Remove(ctx context.Context) error {
	gone := s.dir + goneSuffix
	if _, err := os.Lstat(s.dir); err == nil {
		if err := s.setAside(ctx, gone); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, dir := range []string{gone, s.socketDir()} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove the server's folder: %w", err)
		}
	}
	return nil
}

// setAside stops the server and gives its folder the name of one that is being removed: what still
// runs there then finds nothing at the old place, and a new server can begin there.
func (s *Server) setAside(ctx context.Context, gone string) error {
	if _, err := os.Lstat(filepath.Join(s.dir, markerName)); err != nil {
		if os.Remove(s.dir) == nil {
			return nil // an empty one is no loss
		}
		return fmt.Errorf("the folder %s was not made by Pileus and is not removed: move it away", s.dir)
	}
	if err := s.instance().Stop(ctx, postgres.StopImmediate); err != nil {
		return fmt.Errorf("stop the server on %s: %w", s.DataDir(), err)
	}
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("remove the server's folder: %w", err)
	}
	return os.Rename(s.dir, gone)
}
