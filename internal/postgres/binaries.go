package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Binaries are the server programs of one installation.
type Binaries struct {
	Dir        string // holds postgres, initdb and the others
	VersionNum int    // server_version_num, for example 150013; a beta counts as minor 0
	Major      int
	Version    string // as the program prints it, for example 15.13 or 18beta1
}

// Path is the full path of a program, for example "initdb".
func (b Binaries) Path(program string) string { return filepath.Join(b.Dir, program) }

// NoBinariesError says that no installation of a major version was found.
type NoBinariesError struct {
	Major  int      // 0: any
	Looked []string // folders that were looked at
	Found  []int    // majors that were found instead
}

// Error names the version and where it was looked for.
func (e *NoBinariesError) Error() string {
	what := "PostgreSQL"
	if e.Major != 0 {
		what = fmt.Sprintf("PostgreSQL %d", e.Major)
	}
	msg := fmt.Sprintf("the server programs of %s (postgres, initdb) were not found in %s", what, strings.Join(e.Looked, ", "))
	if len(e.Found) > 0 {
		msg += fmt.Sprintf("; found instead: %s", strings.Trim(fmt.Sprint(e.Found), "[]"))
	}
	return msg + "; install the server package or configure the folder that holds them"
}

// wellKnownDirs are where packages for Debian, Red Hat, SUSE, source builds, Homebrew
// and Postgres.app put the programs of a major version.
func wellKnownDirs(major string) []string {
	return []string{
		"/usr/lib/postgresql/" + major + "/bin",
		"/usr/pgsql-" + major + "/bin",
		"/usr/lib/postgresql" + major + "/bin",
		"/usr/libexec/postgresql" + major,
		"/opt/homebrew/opt/postgresql@" + major + "/bin",
		"/usr/local/opt/postgresql@" + major + "/bin",
		"/Applications/Postgres.app/Contents/Versions/" + major + "/bin",
	}
}

// FindBinaries finds an installation of major, or the newest one when major is 0. It looks at hints
// (folders of programs, or of installations), then at PATH, then at the places that
// packages use. Error: *NoBinariesError.
func FindBinaries(ctx context.Context, major int, hints []string) (Binaries, error) {
	missing := &NoBinariesError{Major: major}
	var best Binaries
	for _, dir := range candidateDirs(ctx, major, hints) {
		missing.Looked = append(missing.Looked, dir)
		b, err := InspectBinaries(ctx, dir)
		if err != nil {
			if ctx.Err() != nil {
				return Binaries{}, ctx.Err()
			}
			continue
		}
		if major != 0 && b.Major == major {
			return b, nil
		}
		if !slices.Contains(missing.Found, b.Major) {
			missing.Found = append(missing.Found, b.Major)
		}
		if b.VersionNum > best.VersionNum {
			best = b
		}
	}
	if major == 0 && best.Dir != "" {
		return best, nil
	}
	slices.Sort(missing.Found)
	return Binaries{}, missing
}

func candidateDirs(ctx context.Context, major int, hints []string) []string {
	var dirs []string
	add := func(dir string) {
		if dir != "" && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, h := range hints {
		add(h)
		add(filepath.Join(h, "bin"))
	}
	if p, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			add(filepath.Dir(real))
		}
	}
	if p, err := exec.LookPath("pg_config"); err == nil {
		ctx, cancel := context.WithTimeout(ctx, programTimeout)
		defer cancel()
		if out, err := exec.CommandContext(ctx, p, "--bindir").Output(); err == nil {
			add(strings.TrimSpace(string(out)))
		}
	}
	if major != 0 {
		for _, d := range wellKnownDirs(strconv.Itoa(major)) {
			add(d)
		}
	} else {
		for _, pattern := range wellKnownDirs("[1-9]*") {
			found, _ := filepath.Glob(pattern) // the only error is a bad pattern
			for _, d := range found {
				add(d)
			}
		}
	}
	add("/usr/local/pgsql/bin")
	add("/usr/bin")
	add("/usr/local/bin")
	return dirs
}

const programTimeout = 10 * time.Second

// InspectBinaries looks at one folder, which must hold postgres and initdb.
func InspectBinaries(ctx context.Context, dir string) (Binaries, error) {
	b := Binaries{Dir: dir}
	for _, program := range []string{"postgres", "initdb"} {
		fi, err := os.Stat(b.Path(program))
		if err != nil {
			return b, fmt.Errorf("look for server programs: %w", err)
		}
		if fi.IsDir() || fi.Mode()&0o111 == 0 {
			return b, fmt.Errorf("look for server programs: %s is not a program", b.Path(program))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.Path("postgres"), "--version")
	cmd.Env = []string{"LC_ALL=C"}
	out, err := cmd.Output()
	if err != nil {
		return b, fmt.Errorf("ask %s for its version: %w", b.Path("postgres"), err)
	}
	if b.Version, b.VersionNum, err = parseVersion(string(out)); err != nil {
		return b, fmt.Errorf("ask %s for its version: %w", b.Path("postgres"), err)
	}
	b.Major = b.VersionNum / 10000
	return b, nil
}

var versionLine = regexp.MustCompile(`^postgres \(PostgreSQL\) ((\d{1,3})(?:\.(\d{1,4}))?(?:(?:beta|rc|devel)\d*)?)(?:\s|$)`)

// parseVersion reads "postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)".
func parseVersion(line string) (version string, num int, err error) {
	m := versionLine.FindStringSubmatch(line)
	if m == nil {
		return "", 0, fmt.Errorf("%q is not a PostgreSQL version", strings.TrimSpace(line))
	}
	major, err := strconv.Atoi(m[2])
	if err != nil {
		return "", 0, err
	}
	if major < 10 {
		return "", 0, errors.New("PostgreSQL " + m[1] + " is too old")
	}
	minor := 0
	if m[3] != "" {
		if minor, err = strconv.Atoi(m[3]); err != nil {
			return "", 0, err
		}
	}
	return m[1], major*10000 + minor, nil
}
