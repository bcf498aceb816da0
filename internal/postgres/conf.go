package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxIncludeDepth is PostgreSQL's own limit (CONF_FILE_MAX_DEPTH).
const maxIncludeDepth = 10

// Include is an include directive and what it led to.
type Include struct {
	Setting          // the directive; Name is include, include_if_exists or include_dir
	Path    string   // what it names, made absolute
	Files   []string // the files read because of it
}

// Conf is a configuration: all files of it in the order in which the server reads them.
type Conf struct {
	Settings []Setting // in reading order; the last one of a name counts. Without directives
	Includes []Include
	Files    []string
	Problems []ConfProblem // a server with these would not start
}

// ReadConf reads a data directory's configuration: postgresql.conf with all that it includes, then
// postgresql.auto.conf, as the server does. Either file may be missing, as with
// packages that keep postgresql.conf elsewhere; then Files does not name it.
func ReadConf(dataDir string) (Conf, error) {
	var c Conf
	for _, name := range []string{"postgresql.conf", "postgresql.auto.conf"} {
		if err := c.read(filepath.Join(dataDir, name), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return c, fmt.Errorf("read configuration: %w", err)
		}
	}
	return c, nil
}

// ReadConfFile reads one configuration file with all that it includes.
func ReadConfFile(path string) (Conf, error) {
	var c Conf
	if err := c.read(path, 0); err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	return c, nil
}

// Effective gives, for each name, the setting that counts.
func (c Conf) Effective() map[string]Setting {
	m := make(map[string]Setting, len(c.Settings))
	for _, s := range c.Settings {
		m[s.Name] = s
	}
	return m
}

func (c *Conf) read(path string, depth int) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	c.Files = append(c.Files, path)
	settings, problems := ParseConf(path, string(b))
	c.Problems = append(c.Problems, problems...)
	for _, s := range settings {
		switch s.Name {
		case "include", "include_if_exists", "include_dir":
			c.include(s, depth)
		default:
			c.Settings = append(c.Settings, s)
		}
	}
	return nil
}

// include follows one directive. What cannot be read is a problem of the
// configuration, not an error: the caller wants to see the rest.
func (c *Conf) include(s Setting, depth int) {
	in := Include{Setting: s, Path: s.Value}
	if !filepath.IsAbs(in.Path) {
		in.Path = filepath.Join(filepath.Dir(s.File), in.Path)
	}
	problem := func(text string) {
		c.Problems = append(c.Problems, ConfProblem{File: s.File, Line: s.Line, Text: text})
	}
	at := len(c.Includes)
	c.Includes = append(c.Includes, in)
	if depth == maxIncludeDepth {
		problem("includes are nested too deeply, or in a circle")
		return
	}
	paths := []string{in.Path}
	if s.Name == "include_dir" {
		entries, err := os.ReadDir(in.Path) // sorted by name
		if err != nil {
			problem(err.Error())
			return
		}
		paths = nil
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".conf") && !strings.HasPrefix(e.Name(), ".") {
				paths = append(paths, filepath.Join(in.Path, e.Name()))
			}
		}
	}
	for _, p := range paths {
		if fi, err := os.Stat(p); err == nil && fi.IsDir() {
			if s.Name != "include_dir" {
				problem(p + " is a folder")
			}
			continue
		}
		err := c.read(p, depth+1)
		switch {
		case err == nil:
			c.Includes[at].Files = append(c.Includes[at].Files, p)
		case s.Name == "include_if_exists" && errors.Is(err, fs.ErrNotExist):
		default:
			problem(err.Error())
		}
	}
}
