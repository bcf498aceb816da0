package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// DiskFree is the number of bytes that an ordinary user can still write on the
// file system of path. A path that does not exist yet counts as its nearest
// existing parent.
func DiskFree(path string) (int64, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return 0, fmt.Errorf("free space of %s: %w", path, err)
	}
	for {
		var st unix.Statfs_t
		err := unix.Statfs(abs, &st)
		if err == nil {
			return int64(st.Bavail) * int64(st.Bsize), nil
		}
		parent := filepath.Dir(abs)
		if !errors.Is(err, fs.ErrNotExist) || parent == abs {
			return 0, fmt.Errorf("free space of %s: %w", path, err)
		}
		abs = parent
	}
}
