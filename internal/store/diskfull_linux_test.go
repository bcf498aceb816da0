package store_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"pileus/internal/store"
)

const diskFullEnv = "PILEUS_TEST_STORE_FULL"

// TestDiskFull mounts a tiny file system in a mount namespace of its own, which
// an ordinary user may do where the kernel allows user namespaces.
func TestDiskFull(t *testing.T) {
	if dir := os.Getenv(diskFullEnv); dir != "" {
		fillDisk(t, dir)
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestDiskFull$", "-test.v")
	cmd.Env = append(os.Environ(), diskFullEnv+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = idMap(os.Getuid())
		cmd.SysProcAttr.GidMappings = idMap(os.Getgid())
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !bytes.Contains(out, []byte("PASS: TestDiskFull")) {
		t.Fatalf("the inner test did not run:\n%s", out)
	}
}

func fillDisk(t *testing.T, dir string) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	l, err := store.OpenLocal(dir, store.LocalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = l.Put(t.Context(), "packs/big", bytes.NewReader(make([]byte, 2<<20)))
	if !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "free some") {
		t.Errorf("put on a full disk: %v, want ErrUnavailable with what to do", err)
	}
	for info, err := range l.List(t.Context(), "") {
		t.Errorf("a full disk left %+v, %v", info, err)
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "~tmp")); err != nil || len(entries) != 0 {
		t.Errorf("a full disk left %v, %v", entries, err)
	}
	if err := l.Put(t.Context(), "packs/small", bytes.NewReader(make([]byte, 1<<10))); err != nil {
		t.Errorf("a small object no longer fits: %v", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := l.Put(t.Context(), "packs/other", strings.NewReader("x")); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("put on a read-only disk: %v, want ErrUnavailable", err)
	}
}

// idMap makes an ordinary user root of its own user namespace.
func idMap(id int) []syscall.SysProcIDMap {
	return []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
}
