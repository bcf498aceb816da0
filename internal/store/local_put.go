package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// copyStep is how much Put writes between two looks at its context, in bytes.
const copyStep = 1 << 20

// Put implements Store.
func (l *Local) Put(ctx context.Context, key string, body io.ReadSeeker) (err error) {
	if err := checkGet(ctx, key, 0); err != nil {
		return err
	}
	if err := l.present(); err != nil {
		return err
	}
	loan, err := lendBody(body)
	if err != nil {
		return fmt.Errorf("write object %s: %w", key, err)
	}
	dir := path.Dir(key)
	if err := l.makeDir(dir); err != nil {
		return localError("create the folder of", l.path(key), err)
	}
	// Cheap, and spares writing it all when the answer is already known. What
	// decides is publish.
	if info, err := l.root.Lstat(key); err == nil {
		return l.occupied(key, info)
	}
	tmp, err := l.createTemp()
	if err != nil {
		return localError("create a temporary file for", l.path(key), err)
	}
	published := false
	defer func() {
		err = errors.Join(err, tmp.file.Close()) // it was fsynced: closing can no more lose data
		if !published {
			// A leftover is removed by a later opening anyway.
			_ = l.root.Remove(tmp.name)
		}
	}()
	if err := writeAll(ctx, tmp.file, loan); err != nil {
		if bodyErr := loan.take(); bodyErr != nil {
			return fmt.Errorf("write object %s: read its body: %w", key, bodyErr)
		}
		return localError("write", l.path(key), err)
	}
	if err := l.syncFile(tmp.file); err != nil {
		return localError("fsync", l.path(key), err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err = l.publish(tmp.name, key)
	if errors.Is(err, fs.ErrExist) {
		info, statErr := l.root.Lstat(key)
		if statErr != nil {
			return localError("look at the object that won over", l.path(key), statErr)
		}
		return l.occupied(key, info)
	}
	if err != nil {
		return localError("publish", l.path(key), err)
	}
	published = true
	if err := l.syncDir(dir); err != nil {
		return localError("fsync the folder of", l.path(key), err)
	}
	return nil
}

// occupied answers a Put whose key is taken. The other writer may not have come
// to its own fsync yet, and our caller may rely on the object from now on: so it
// is made durable here too.
func (l *Local) occupied(key string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("write object %s: %s is no regular file (%s); remove it, nothing but Pileus may write there", key, l.path(key), info.Mode().Type())
	}
	if err := l.syncDir(path.Dir(key)); err != nil {
		return localError("fsync the folder of", l.path(key), err)
	}
	return fmt.Errorf("write object %s: %w", key, ErrExists)
}

// writeAll copies the whole body in one pass.
func writeAll(ctx context.Context, f *os.File, body *attemptBody) error {
	// Reserving the space first finds a full disk before the work, and lets the
	// file system lay the object out in one piece.
	if err := reserve(f, body.size); err != nil {
		return err
	}
	buf := make([]byte, min(copyStep, max(body.size, 1)))
	var written int64
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := body.Read(buf)
		if n > 0 {
			written += int64(n)
			if _, err := f.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if written != body.size {
		return fmt.Errorf("the body gave %d bytes after announcing %d", written, body.size)
	}
	return nil
}

// makeDir creates dir and its parents and fsyncs each into the one above. A
// folder that another process made is fsynced as well, once: that process may
// not have come to it.
func (l *Local) makeDir(dir string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.durable[dir] {
		if _, err := l.root.Lstat(dir); err == nil {
			return nil
		}
		clear(l.durable) // somebody removed folders: trust none of them
		l.durable["."] = true
	}
	return l.makeDirLocked(dir)
}

func (l *Local) makeDirLocked(dir string) error {
	if l.durable[dir] {
		return nil
	}
	parent := path.Dir(dir)
	if err := l.makeDirLocked(parent); err != nil {
		return err
	}
	if err := l.root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := l.syncDir(parent); err != nil {
		return err
	}
	l.durable[dir] = true
	return nil
}

func (l *Local) syncDir(dir string) error {
	f, err := l.root.Open(dir)
	if err != nil {
		return err
	}
	err = l.syncFile(f)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		err = nil // this file system has no fsync for folders (SMB, some FUSE): its renames are synchronous
	}
	return errors.Join(err, f.Close())
}

// publish moves the finished temporary file to its key, in one step that fails
// with fs.ErrExist where the key is taken.
func (l *Local) publish(tmpName, key string) error {
	from, err := l.root.Open(tmpDir)
	if err != nil {
		return err
	}
	defer from.Close() // opened for its descriptor only
	to, err := l.root.Open(path.Dir(key))
	if err != nil {
		return err
	}
	defer to.Close() // opened for its descriptor only
	err = renameNoReplace(from, path.Base(tmpName), to, path.Base(key))
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	// A hard link never replaces either; it only leaves the old name to remove.
	if err := l.root.Link(tmpName, key); err != nil {
		return err
	}
	_ = l.root.Remove(tmpName) // a leftover second name is removed by a later opening
	return nil
}
