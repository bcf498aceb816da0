package pgtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pileus/internal/postgres"
)

// The majors that are supported, and so tested.
const (
	OldestMajor = 13
	NewestMajor = 18
)

// Version is an installation to test on.
type Version struct {
	Major    int
	Binaries postgres.Binaries
}

// Name is the name of its subtests, for example pg15.
func (v Version) Name() string { return fmt.Sprintf("pg%d", v.Major) }

// ToolsDir is where `make tools` puts the servers and other test programs.
func ToolsDir() string {
	if d := os.Getenv("PILEUS_TOOLS"); d != "" {
		return d
	}
	return fmt.Sprintf("/var/tmp/pileus-tools-%d", os.Getuid())
}

// Versions lists the majors to test on, oldest first: all of them in `make test`
// (PILEUS_E2E=1), the oldest and the newest otherwise, those that PILEUS_PG names,
// or with -short the newest that is installed. A missing one fails the test.
func Versions(t testing.TB) []Version {
	t.Helper()
	only := selected(t)
	var found []Version
	var missing []string
	for major := OldestMajor; major <= NewestMajor; major++ {
		if only != nil && !slices.Contains(only, major) {
			continue
		}
		v, err := find(t.Context(), major)
		if err != nil {
			missing = append(missing, err.Error())
			continue
		}
		found = append(found, v)
	}
	if testing.Short() && len(found) > 0 {
		return found[len(found)-1:]
	}
	if len(missing) > 0 {
		t.Fatalf("PostgreSQL servers for tests are missing; run `make tools`:\n%s", strings.Join(missing, "\n"))
	}
	return found
}

// Newest is the newest major that is installed.
func Newest(t testing.TB) Version {
	t.Helper()
	v := Versions(t)
	return v[len(v)-1]
}

// Each runs f as a subtest for each version, one after the other.
func Each(t *testing.T, f func(t *testing.T, v Version)) {
	t.Helper()
	for _, v := range Versions(t) {
		t.Run(v.Name(), func(t *testing.T) { f(t, v) })
	}
}

func selected(t testing.TB) []int {
	t.Helper()
	env := os.Getenv("PILEUS_PG")
	if env == "" && os.Getenv("PILEUS_E2E") == "" && !testing.Short() {
		t.Logf("on PostgreSQL %d and %d only; `make test` runs on all majors", OldestMajor, NewestMajor)
		return []int{OldestMajor, NewestMajor}
	}
	if env == "" {
		return nil
	}
	var only []int
	for s := range strings.SplitSeq(env, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil {
			t.Fatalf("PILEUS_PG=%s: %v", env, err)
		}
		only = append(only, n)
	}
	return only
}

func find(ctx context.Context, major int) (Version, error) {
	dirs := []string{
		filepath.Join(ToolsDir(), "pg", strconv.Itoa(major), "bin"),
		fmt.Sprintf("/usr/lib/postgresql/%d/bin", major),
	}
	for _, dir := range dirs {
		b, err := postgres.InspectBinaries(ctx, dir)
		if err == nil && b.Major == major {
			return Version{Major: major, Binaries: b}, nil
		}
	}
	return Version{}, fmt.Errorf("PostgreSQL %d: no server in %s", major, strings.Join(dirs, " or "))
}
