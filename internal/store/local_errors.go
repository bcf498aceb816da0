package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// localError says what failed on which path and what to do about it.
func localError(what, path string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s %s: %w", what, path, err)
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s %s: %w; give the user that Pileus runs as read, write and search permission on the folder", what, path, err)
	}
	for _, known := range []struct {
		code error
		hint string
	}{
		{unix.ENOSPC, "the disk is full (space or inodes): free some, or run a prune"},
		{unix.EDQUOT, "the disk quota is used up: raise it, or run a prune"},
		{unix.EIO, "the disk reports an I/O error: look at the kernel log and at the disk's health"},
		{unix.EROFS, "the file system is read-only: it may have been remounted after an error; look at the kernel log"},
		{unix.ESTALE, "the network file system was replaced: mount it again"},
		{unix.ETIMEDOUT, "the network file system does not answer"},
		{unix.ENODEV, "the device is gone: attach and mount it again"},
		{unix.ENXIO, "the device is gone: attach and mount it again"},
		{unix.EMFILE, "too many open files: raise the limit (ulimit -n)"},
		{unix.ENFILE, "too many open files on this machine: raise fs.file-max"},
		{unix.ENOENT, "a folder vanished meanwhile: is something else cleaning up there?"},
	} {
		if errors.Is(err, known.code) {
			return fmt.Errorf("%s %s: %w: %w; %s", what, path, ErrUnavailable, err, known.hint)
		}
	}
	return fmt.Errorf("%s %s: %w", what, path, err)
}

// isAbsent: the path leads to nothing, perhaps because a file is in the way.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}
