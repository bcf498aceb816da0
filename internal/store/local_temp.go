package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tempPrefix = "put-"
	tempSuffix = ".part"
	// minLeftoverAge keeps the cleaner off a file whose writer has created but
	// not yet locked it, and off hosts whose network file system hides locks.
	minLeftoverAge = time.Hour
	// maxWriteAge is when a file counts as left behind where locks do not work.
	maxWriteAge = 24 * time.Hour
)

// tempFile is an object that is being written. Its writer holds a lock on it
// (flock(2)), which the kernel drops when the process dies, however it dies. A
// lock says this across containers, where a process id would mean nothing.
type tempFile struct {
	name string // within the root
	file *os.File
}

func (l *Local) createTemp() (tempFile, error) {
	if err := l.makeDir(tmpDir); err != nil {
		return tempFile{}, err
	}
	random := make([]byte, 12)
	_, _ = rand.Read(random) // never fails, says its documentation
	name := path.Join(tmpDir, tempPrefix+hex.EncodeToString(random)+tempSuffix)
	f, err := l.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return tempFile{}, err
	}
	// Where locks are not supported, age alone tells leftovers.
	_ = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	return tempFile{name: name, file: f}, nil
}

// removeLeftovers deletes temporary files of our own format whose writer is dead.
// It reports nothing: a leftover costs space only, and a store that may merely be
// read is still a good store.
func (l *Local) removeLeftovers(now time.Time) {
	entries, err := fs.ReadDir(l.root.FS(), tmpDir)
	if err != nil {
		return
	}
	for _, entry := range entries {
		if l.isLeftover(entry, now) {
			_ = l.root.Remove(path.Join(tmpDir, entry.Name()))
		}
	}
}

func (l *Local) isLeftover(entry fs.DirEntry, now time.Time) bool {
	random, ok := strings.CutPrefix(entry.Name(), tempPrefix)
	random, ok2 := strings.CutSuffix(random, tempSuffix)
	if _, err := hex.DecodeString(random); !ok || !ok2 || err != nil || !entry.Type().IsRegular() {
		return false
	}
	info, err := entry.Info()
	if err != nil || now.Sub(info.ModTime()) < minLeftoverAge {
		return false
	}
	f, err := l.root.OpenFile(path.Join(tmpDir, entry.Name()), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close() // drops the lock; nothing was written
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false
	}
	return err == nil || now.Sub(info.ModTime()) >= maxWriteAge
}
