package access

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxFile bounds a file with secrets, in bytes; thousands of keys need less.
const maxFile = 4 << 20

// readPrivate reads a file of ours that its owner alone may read, else ErrExposed.
func readPrivate(path string) ([]byte, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close() // read only: nothing can be lost
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, nil, err
	case !info.Mode().IsRegular():
		return nil, nil, fmt.Errorf("%s is not a file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, nil, fmt.Errorf("%w: %s has mode %04o; do chmod 600 %[2]s, and replace the secrets in it", ErrExposed, path, info.Mode().Perm())
	case info.Size() > maxFile:
		return nil, nil, fmt.Errorf("%s is larger than %d bytes; is it the right file?", path, maxFile)
	}
	text, err := io.ReadAll(f)
	return text, info, err
}

// readSecret reads a file that holds one secret and nothing else.
func readSecret(path string) (string, error) {
	text, _, err := readPrivate(path)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" || strings.ContainsAny(secret, "\r\n") {
		return "", fmt.Errorf("%s must hold the secret on one line, and nothing else", path)
	}
	return secret, nil
}

// replacePrivate puts text in the place of the file in one step: after a crash the old
// or the new content is there, whole.
func replacePrivate(path string, text []byte) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()                             // read only
	f, err := os.CreateTemp(dir.Name(), ".keys-") // readable by its owner only
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already if all went well
	err = giveToOwner(f, dir)
	if err == nil {
		_, err = f.Write(text)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return dir.Sync()
}

// giveToOwner gives a file that root makes to the owner of its folder: otherwise the
// pileus serve of that account could not read the key that an administrator made.
func giveToOwner(f, dir *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		return f.Chown(int(owner.Uid), int(owner.Gid))
	}
	return nil
}
