package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"pileus/internal/postgres"
)

// The engines that a cluster may be said to have. Both are the same PostgreSQL; the
// name is kept for the clients' sake.
const (
	engineAurora   = "aurora-postgresql"
	enginePostgres = "postgres"
)

// The majors that Pileus knows.
const firstMajor, lastMajor = 13, 18

// installed is how long it is believed which PostgreSQL is installed.
const installedFor = time.Minute

// engines finds the installed versions of PostgreSQL.
type engines struct {
	hints []string
	now   func() time.Time

	mu    sync.Mutex
	at    time.Time
	found map[int]postgres.Binaries
}

func newEngines(hints []string, now func() time.Time) *engines {
	return &engines{hints: hints, now: now}
}

// all lists the installations by major.
func (e *engines) all(ctx context.Context) (map[int]postgres.Binaries, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.found != nil && e.now().Sub(e.at) < installedFor {
		return e.found, nil
	}
	found := map[int]postgres.Binaries{}
	for major := firstMajor; major <= lastMajor; major++ {
		b, err := postgres.FindBinaries(ctx, major, e.hints)
		var none *postgres.NoBinariesError
		if errors.As(err, &none) {
			continue
		} else if err != nil {
			return nil, err
		}
		found[major] = b
	}
	e.found, e.at = found, e.now()
	return found, nil
}

// major finds one installation.
func (e *engines) major(ctx context.Context, major int) (postgres.Binaries, error) {
	all, err := e.all(ctx)
	if err != nil {
		return postgres.Binaries{}, err
	}
	b, ok := all[major]
	if !ok {
		return b, fmt.Errorf("PostgreSQL %d is not installed on this host: install it, or name its folder in `serve.bin_dirs`", major)
	}
	return b, nil
}

// EngineVersions lists what clusters can be made of here.
func (f *Fleet) EngineVersions(ctx context.Context) ([]EngineVersion, error) {
	all, err := f.engines.all(ctx)
	if err != nil {
		return nil, err
	}
	var out []EngineVersion
	for _, engine := range []string{engineAurora, enginePostgres} {
		first := len(out)
		for major := firstMajor; major <= lastMajor; major++ {
			if b, ok := all[major]; ok {
				out = append(out, EngineVersion{Engine: engine, Version: b.Version, Major: major, Family: family(engine, major)})
			}
		}
		if len(out) > first {
			out[len(out)-1].Default = true
		}
	}
	return out, nil
}

// resolveVersion finds the installed version that a client asks for: a major, an exact
// version, or the newest for "".
func (f *Fleet) resolveVersion(ctx context.Context, engine, version string) (EngineVersion, error) {
	if engine == "" {
		return EngineVersion{}, fault(CodeMissingParameter, "The request must contain the parameter Engine.")
	}
	if engine != engineAurora && engine != enginePostgres {
		return EngineVersion{}, fault(CodeInvalidParameter, "Invalid DB engine: %s. Pileus has %s and %s.", engine, engineAurora, enginePostgres)
	}
	all, err := f.EngineVersions(ctx)
	if err != nil {
		return EngineVersion{}, err
	}
	var names []string
	for _, v := range all {
		if v.Engine != engine {
			continue
		}
		if v.Version == version || strconv.Itoa(v.Major) == version || version == "" && v.Default {
			return v, nil
		}
		names = append(names, v.Version)
	}
	if len(names) == 0 {
		return EngineVersion{}, fault(CodeInvalidCombination, "No PostgreSQL is installed on this host: install one, or name its folder in serve.bin_dirs.")
	}
	return EngineVersion{}, fault(CodeInvalidCombination, "Cannot find version %s for %s. Installed: %s.", version, engine, strings.Join(names, ", "))
}

func family(engine string, major int) string { return engine + strconv.Itoa(major) }

// majorOf reads the major from a version.
func majorOf(version string) int {
	digits := version
	if i := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		digits = version[:i]
	}
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}

// defaultGroup is the parameter group that a cluster has unless it is given one.
func defaultGroup(engine string, major int) string { return "default." + family(engine, major) }

// families lists every family there can be.
func families() []string {
	var out []string
	for _, e := range []string{engineAurora, enginePostgres} {
		for m := firstMajor; m <= lastMajor; m++ {
			out = append(out, family(e, m))
		}
	}
	return slices.Clip(out)
}
