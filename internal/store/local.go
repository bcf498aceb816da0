package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"
)

// tmpDir holds objects while they are written. Its name is no valid key segment,
// so no object can be there and List passes it by.
const tmpDir = "~tmp"

// LocalOptions say how to open a local folder.
type LocalOptions struct {
	// Create makes the folder, with mode 0700, where it is absent. Leave it
	// false to open a repository that must be there: a file system that is not
	// mounted is then an error and not an empty store.
	Create bool
}

// Local keeps objects as files of one folder. A file is written beside the
// objects, fsynced, then moved to its key without ever replacing what is there;
// then every folder on the way is fsynced. Its files have mode 0600, its folders
// 0700. No key may be the folder of another ("a" and "a/b").
//
// Errors of a disk that is full, failing, read-only or gone wrap ErrUnavailable.
type Local struct {
	dir  string
	root *os.Root // all access goes through it: no symbolic link leads out of dir

	syncFile func(*os.File) error // (*os.File).Sync; tests watch and break it

	mu      sync.Mutex
	durable map[string]bool // folders known to be fsynced into their parents
}

var _ Store = (*Local)(nil)

// OpenLocal opens the folder dir, which must be absolute, and removes what
// killed writers left behind. Close it after use.
func OpenLocal(dir string, opts LocalOptions) (*Local, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("open local store %q: the path must be absolute", dir)
	}
	dir = filepath.Clean(dir)
	if opts.Create {
		if err := createDurably(dir); err != nil {
			return nil, localError("create folder", dir, err)
		}
	}
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open local store: folder %s is not there; mount its file system, or create the repository first: %w", dir, ErrUnavailable)
	}
	if err != nil {
		return nil, localError("open folder", dir, err)
	}
	l := &Local{dir: dir, root: root, syncFile: (*os.File).Sync, durable: map[string]bool{".": true}}
	l.removeLeftovers(time.Now())
	return l, nil
}

// Close releases the folder. Readers that are open stay usable.
func (l *Local) Close() error { return l.root.Close() }

// createDurably makes dir and its missing parents, each fsynced into its own.
func createDurably(dir string) error {
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := createDurably(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.Open(parent)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Get implements Store.
func (l *Local) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := checkGet(ctx, key, offset); err != nil {
		return nil, err
	}
	f, err := l.root.Open(key)
	if err != nil {
		return nil, l.absent("read", key, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist // a folder on the way to objects is itself none
	}
	if err != nil {
		f.Close()
		return nil, l.absent("read", key, err)
	}
	if length < 0 {
		length = info.Size() - offset
	}
	if length < 0 || offset+length < 0 || offset+length > info.Size() {
		f.Close()
		return nil, shortObject(key, offset, length, info.Size())
	}
	section := io.NewSectionReader(f, offset, length)
	return &exactReader{ReadCloser: &localReader{ctx: ctx, Reader: section, file: f}, key: key, want: length}, nil
}

// localReader maps the errors of a failing disk and ends with its context.
type localReader struct {
	ctx context.Context
	io.Reader
	file *os.File
}

func (r *localReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = localError("read", r.file.Name(), err)
	}
	return n, err
}

func (r *localReader) Close() error { return r.file.Close() }

// Stat implements Store.
func (l *Local) Stat(ctx context.Context, key string) (Info, error) {
	if err := checkGet(ctx, key, 0); err != nil {
		return Info{}, err
	}
	info, err := l.root.Lstat(key)
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return Info{}, l.absent("look up", key, err)
	}
	return Info{Key: key, Size: info.Size(), Modified: info.ModTime()}, nil
}

// Delete implements Store. The folder stays: a Put may be about to use it.
func (l *Local) Delete(ctx context.Context, key string) error {
	if err := checkGet(ctx, key, 0); err != nil {
		return err
	}
	if _, err := l.Stat(ctx, key); err != nil {
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	}
	if err := l.root.Remove(key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return localError("delete", l.path(key), err)
	}
	if err := l.syncDir(path.Dir(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return localError("fsync the folder after deleting", l.path(key), err)
	}
	return nil
}

// absent turns a failed look-up into ErrNotFound, but only while the folder is
// really there: an unmounted or removed store must never look like one in which
// the object does not exist.
func (l *Local) absent(what, key string, err error) error {
	if !isAbsent(err) {
		return localError(what, l.path(key), err)
	}
	if err := l.present(); err != nil {
		return err
	}
	return fmt.Errorf("%s %s: %w", what, l.path(key), ErrNotFound)
}

// present checks that the folder that was opened is still the one at its path.
func (l *Local) present() error {
	opened, err := l.root.Stat(".")
	if err != nil {
		return localError("look at folder", l.dir, err)
	}
	now, err := os.Stat(l.dir)
	if err != nil || !os.SameFile(opened, now) {
		return fmt.Errorf("folder %s was removed, moved or mounted over since it was opened; bring it back: %w", l.dir, ErrUnavailable)
	}
	return nil
}

func (l *Local) path(key string) string { return filepath.Join(l.dir, filepath.FromSlash(key)) }

// checkGet is what every call checks before it touches the store.
func checkGet(ctx context.Context, key string, offset int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if offset < 0 {
		return fmt.Errorf("read %s: negative offset %d", key, offset)
	}
	return CheckKey(key)
}

func shortObject(key string, offset, length, size int64) error {
	return fmt.Errorf("read %d bytes at %d of object %s, which has %d bytes: %w", max(length, 0), offset, key, size, io.ErrUnexpectedEOF)
}
