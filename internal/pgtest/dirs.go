package pgtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"pileus/internal/postgres"
)

// Owner is the account that servers run as: postgres when root runs the tests, otherwise the
// account that runs them.
func Owner(t testing.TB) *postgres.Owner {
	t.Helper()
	lookup := postgres.CurrentOwner
	if os.Geteuid() == 0 {
		lookup = func() (*postgres.Owner, error) { return postgres.LookupOwner("postgres") }
	}
	o, err := lookup()
	if err != nil {
		t.Fatalf("account for test servers: %v", err)
	}
	return o
}

// RunAs lets a test start a program as the account of the servers:
// cmd.SysProcAttr = &syscall.SysProcAttr{Credential: pgtest.RunAs(t)}. It is nil when the test runs as that account.
func RunAs(t testing.TB) *syscall.Credential {
	t.Helper()
	return Owner(t).Credential()
}

// TempDir is a new folder with a short name (a socket's path may have 107
// bytes), which all may enter and the servers' account may write. It is removed after the test.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(tempRoot(), "pl")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		err = Owner(t).Chown(dir)
	}
	if err != nil {
		t.Fatalf("temporary folder: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove temporary folder: %v", err)
		}
	})
	return dir
}

func tempRoot() string {
	if d := os.Getenv("PILEUS_TEST_TMP"); d != "" {
		return d
	}
	return "/tmp"
}

// cacheDir keeps freshly made clusters and the built program between tests and
// between runs. Others may read it, only we write it.
func cacheDir() (string, error) {
	dir := filepath.Join(tempRoot(), fmt.Sprintf("pileus-pgtest-%d", os.Getuid()))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Getuid() || !fi.IsDir() || fi.Mode().Perm()&0o022 != 0 {
		return "", fmt.Errorf("%s is not a folder of ours alone: remove it", dir)
	}
	return dir, nil
}

// buildPileus builds the program once in the life of the test process.
var buildPileus = sync.OnceValues(func() (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	sweep(cache)
	return buildProgram("cmd/pileus")
})

// buildProgram builds a program of this tree.
func buildProgram(pkg string) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "bin-"+strconv.Itoa(os.Getpid()), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", path, "pileus/"+pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build pileus/%s: %w\n%s", pkg, err, out)
	}
	// Whatever the umask: the servers' account has to run it.
	if err := errors.Join(os.Chmod(filepath.Dir(path), 0o755), os.Chmod(path, 0o755)); err != nil {
		return "", err
	}
	return path, nil
}

// sweep removes the programs of test processes that have ended.
func sweep(cache string) {
	old, _ := filepath.Glob(filepath.Join(cache, "bin-*")) // the only error is a bad pattern
	for _, dir := range old {
		pid, err := strconv.Atoi(filepath.Base(dir)[len("bin-"):])
		if err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			_ = os.RemoveAll(dir) // the next run tries again
		}
	}
}

// PileusBinary is the path of the program cmd/pileus, built from this tree, which every account may run.
func PileusBinary(t testing.TB) string {
	t.Helper()
	path, err := buildPileus()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Program is the path of a program of this tree that only tests run, such as internal/e2e/runkiller.
func Program(t testing.TB, pkg string) string {
	t.Helper()
	PileusBinary(t) // first, for it sweeps
	path, err := buildProgram(pkg)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
