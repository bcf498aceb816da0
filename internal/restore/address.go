package restore

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"pileus/internal/postgres"
)

// socketDir is a usual folder for sockets that the account can write to.
func socketDir(o *postgres.Owner) string {
	for _, dir := range []string{"/var/run/postgresql", "/run/postgresql"} {
		var st unix.Stat_t
		if unix.Stat(dir, &st) != nil {
			continue
		}
		mode := uint32(st.Mode)
		if st.Uid == o.UID && mode&0o200 != 0 || containsGroup(o.Groups, st.Gid) && mode&0o020 != 0 || mode&0o002 != 0 {
			return dir
		}
	}
	return "/tmp"
}

// Ports that are tried for a new cluster, from PostgreSQL's own on.
const (
	firstPort = 5432
	lastPort  = 5999
)

// freePort finds a port on which nothing listens, neither by TCP nor by a socket.
func freePort(socketDir string) (int, error) {
	for port := firstPort; port <= lastPort; port++ {
		if _, err := os.Lstat(filepath.Join(socketDir, ".s.PGSQL."+strconv.Itoa(port))); err == nil {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return 0, fmt.Errorf("look for a free port: %w", err)
		}
		return port, nil
	}
	return 0, errors.New("no port from 5432 to 5999 is free: give one")
}
