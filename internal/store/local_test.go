package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pileus/internal/store"
)

// writerEnv tells the test binary to be the writer that TestKilledWriter kills.
const writerEnv = "PILEUS_TEST_STORE_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerEnv); dir != "" {
		os.Exit(writeUntilKilled(dir))
	}
	os.Exit(m.Run())
}

// endlessBody announces a mebibyte, gives half of it, and then blocks.
type endlessBody struct {
	*bytes.Reader
	given int
	half  func()
}

func (b *endlessBody) Read(p []byte) (int, error) {
	if b.given >= 512<<10 {
		b.half()
		select {} // until the kill
	}
	n, err := b.Reader.Read(p[:min(len(p), 64<<10)])
	b.given += n
	return n, err
}

func writeUntilKilled(dir string) int {
	l, err := store.OpenLocal(dir, store.LocalOptions{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// The clock keeps Go from taking the blocked body for a deadlock.
	keep := time.NewTicker(time.Hour)
	defer keep.Stop()
	go func() { <-keep.C }()
	body := &endlessBody{Reader: bytes.NewReader(make([]byte, 1<<20)), half: func() { fmt.Println("half") }}
	fmt.Fprintln(os.Stderr, l.Put(context.Background(), "killed/object", body))
	return 1
}

// TestKilledWriter: kill -9 in the middle of a Put leaves nothing visible, and the
// next one succeeds; the leftover goes once it is old, never while its writer lives.
func TestKilledWriter(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), writerEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("half"))); err != nil {
		t.Fatalf("the writer never came to the middle: %v", err)
	}
	leftovers := func() []string {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(dir, "~tmp", "put-*.part"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	reopen := func() *store.Local {
		t.Helper()
		l, err := store.OpenLocal(dir, store.LocalOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	old := time.Now().Add(-2 * time.Hour)
	names := leftovers()
	if len(names) != 1 {
		t.Fatalf("temporary files of a live writer: %q", names)
	}
	if err := os.Chtimes(names[0], old, old); err != nil {
		t.Fatal(err)
	}
	reopen()
	if len(leftovers()) != 1 {
		t.Fatal("the file of a live writer was cleaned away")
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // says that it was killed
	l := reopen()
	for info, err := range l.List(t.Context(), "") {
		t.Errorf("a killed writer left %+v, %v", info, err)
	}
	if len(leftovers()) != 0 {
		t.Errorf("left behind: %q", leftovers())
	}
	if err := l.Put(t.Context(), "killed/object", strings.NewReader("whole")); err != nil {
		t.Fatal(err)
	}
}

func TestLocalKeepsForeignTemporaryFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "~tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-48 * time.Hour)
	for _, name := range []string{"notes.txt", "put-zz.part", "put-00", "put-0011.part"} {
		path := filepath.Join(dir, "~tmp", name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	l, err := store.OpenLocal(dir, store.LocalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	entries, err := os.ReadDir(filepath.Join(dir, "~tmp"))
	if err != nil || len(entries) != 3 {
		t.Errorf("left of 3 foreign files and 1 own: %v, %v", entries, err)
	}
}

func TestLocalModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "root")
	l, err := store.OpenLocal(dir, store.LocalOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Put(t.Context(), "packs/ab/x", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{"": 0o700, "packs": 0o700, "packs/ab": 0o700, "packs/ab/x": 0o600, "~tmp": 0o700} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != mode {
			t.Errorf("%q has mode %o, want %o", path, info.Mode().Perm(), mode)
		}
	}
}

// TestVanishedFolder: a store whose folder is gone does not look like an empty one.
func TestVanishedFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "root")
	if _, err := store.OpenLocal(dir, store.LocalOptions{}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("open an absent folder: %v, want ErrUnavailable", err)
	}
	l, err := store.OpenLocal(dir, store.LocalOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	_, getErr := l.Get(t.Context(), "wal/x", 0, -1)
	_, statErr := l.Stat(t.Context(), "wal/x")
	var listErr error
	for _, err := range l.List(t.Context(), "") {
		listErr = err
	}
	for i, err := range []error{getErr, statErr, listErr, l.Put(t.Context(), "a", strings.NewReader("x"))} {
		if !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrNotFound) {
			t.Errorf("call %d on a vanished folder: %v, want ErrUnavailable", i, err)
		}
	}
}

func TestPutAgainAfterFoldersWereRemoved(t *testing.T) {
	dir := t.TempDir()
	l, err := store.OpenLocal(dir, store.LocalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 2 {
		if err := l.Put(t.Context(), "a/b/c", strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "~tmp"} {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func BenchmarkLocalPut16MiB(b *testing.B) {
	l := openLocal(b)
	body := bytes.NewReader(bytes.Repeat([]byte("0123456789abcdef"), 1<<20))
	b.SetBytes(body.Size())
	for i := 0; b.Loop(); i++ {
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			b.Fatal(err)
		}
		if err := l.Put(b.Context(), fmt.Sprintf("packs/%02x/%d", i%256, i), body); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPlainWrite16MiB is the disk's own speed: write and fsync, nothing else.
func BenchmarkPlainWrite16MiB(b *testing.B) {
	dir, content := b.TempDir(), bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	b.SetBytes(int64(len(content)))
	for i := 0; b.Loop(); i++ {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			b.Fatal(err)
		}
		_, err = f.Write(content)
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			b.Fatal(err)
		}
	}
}
