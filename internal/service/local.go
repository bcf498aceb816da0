package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"pileus/internal/config"
)

// SocketPath is where a running service tells its status.
func SocketPath(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "serve", "serve.sock") }

// listenLocal opens the socket for this account. The caller holds the lock of the state folder, so
// that a socket which is there belongs to nobody.
func listenLocal(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("prepare the status socket: %w", err)
	}
	var l *net.UnixListener
	err := shortly(path, func(name string) (err error) {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open the status socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // by then its short name may be another folder's
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("protect the status socket: %w", err)
	}
	return l, nil
}

// shortly calls do with a name for the path of a socket that lives as long as the call. The
// kernel takes 107 bytes for such a path, and a state folder may be deeper.
func shortly(path string, do func(name string) error) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close() // it was only looked through
	return do(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}

// ErrNotServing: no service runs on this state folder.
var ErrNotServing = errors.New("`pileus serve` is not running here")

// statusTime bounds the question to a running service.
const statusTime = 30 * time.Second

// Ask reads the status of the service that runs on the configuration's state folder.
func Ask(ctx context.Context, cfg *config.Config) (Status, error) {
	path := SocketPath(cfg)
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	var s Status
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
		err = shortly(path, func(name string) (err error) {
			conn, err = (&net.Dialer{}).DialContext(ctx, "unix", name)
			return err
		})
		return conn, err
	}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://serve/status", nil)
	if err != nil {
		return s, err
	}
	resp, err := client.Do(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return s, fmt.Errorf("%w (no answer on %s)", ErrNotServing, path)
	}
	if errors.Is(err, fs.ErrPermission) {
		return s, fmt.Errorf("%s belongs to the account of `pileus serve`: ask as that account, or as root: %w", path, err)
	}
	if err != nil {
		return s, fmt.Errorf("ask `pileus serve`: %w", err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return s, fmt.Errorf("ask `pileus serve`: %w", err)
	}
	return s, nil
}

// notify tells systemd how far the service is, where it is run by that; see sd_notify(3).
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if path[0] == '@' {
		path = "\x00" + path[1:]
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		return // systemd then says that it did not start in time
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state)) // as above
}
