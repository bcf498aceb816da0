package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPutSyncs: the file, the folder that it is moved to, and every folder made on
// the way into the one above; also for one who finds the key taken, since the
// winner may not have come to its fsync yet.
func TestPutSyncs(t *testing.T) {
	dir := t.TempDir()
	var synced []string
	open := func() *Local {
		t.Helper()
		l, err := OpenLocal(dir, LocalOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		l.syncFile = func(f *os.File) error {
			name, err := filepath.Rel(dir, f.Name())
			if err != nil {
				t.Error(err)
			}
			if strings.HasPrefix(name, tmpDir+"/") {
				name = "file"
			}
			synced = append(synced, name)
			return f.Sync()
		}
		return l
	}
	first := open()
	for _, step := range []struct {
		l    *Local
		key  string
		want []string
		err  error
	}{
		{first, "packs/ab/1", []string{".", "packs", ".", "file", "packs/ab"}, nil}, // the second "." is for tmpDir
		{first, "packs/ab/2", []string{"file", "packs/ab"}, nil},
		{first, "packs/ab/2", []string{"packs/ab"}, ErrExists},
		// Another process finds the folders there, but not that they are durable.
		{open(), "packs/ab/1", []string{".", "packs", "packs/ab"}, ErrExists},
	} {
		synced = nil
		if err := step.l.Put(t.Context(), step.key, strings.NewReader("x")); !errors.Is(err, step.err) {
			t.Fatalf("put %s: %v, want %v", step.key, err, step.err)
		}
		if !slices.Equal(synced, step.want) {
			t.Errorf("put %s synced %q, want %q", step.key, synced, step.want)
		}
	}
	synced = nil
	if err := first.Delete(t.Context(), "packs/ab/1"); err != nil || !slices.Equal(synced, []string{"packs/ab"}) {
		t.Errorf("delete synced %q, %v", synced, err)
	}
}

// TestFailedSync: an fsync that fails is a failed Put, and before the move it
// leaves nothing.
func TestFailedSync(t *testing.T) {
	for _, code := range []error{unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EROFS} {
		l, err := OpenLocal(t.TempDir(), LocalOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		l.syncFile = func(f *os.File) error {
			if strings.Contains(f.Name(), tempPrefix) {
				return &os.PathError{Op: "fsync", Path: f.Name(), Err: code}
			}
			return f.Sync()
		}
		if err := l.Put(t.Context(), "k", strings.NewReader("x")); !errors.Is(err, ErrUnavailable) || !errors.Is(err, code) {
			t.Errorf("put: %v, want ErrUnavailable and %v", err, code)
		}
		for info := range l.List(t.Context(), "") {
			t.Errorf("%v left %s", code, info.Key)
		}
	}
}
