package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// maxFile bounds the file in bytes, well above what thousands of clusters need:
// a wrong path, such as one to a dump, is told at once.
const maxFile = 256 << 10

// Load reads the file at path, checks everything in it that can be checked without
// the network, and fills in the defaults. A missing file wraps ErrNoFile; faults in
// the file are *Error, all of them joined.
func Load(path string) (*Config, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find configuration %s: %w", path, err)
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w at %s; create one with `pileus init`", ErrNoFile, path)
	}
	if err != nil {
		return nil, fmt.Errorf("open configuration: %w", err)
	}
	defer file.Close() // read only: nothing can be lost
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at configuration: %w", err)
	}
	if info.IsDir() {
		return nil, fmt.Errorf("configuration %s is a folder; name the file in it", path)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("configuration %s is larger than %s; is it the right file?", path, formatSize(maxFile))
	}
	c, err := parse(path, filepath.Dir(absolute), text)
	if err != nil {
		return nil, err
	}
	c.Path = absolute
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		c.Warnings = append(c.Warnings, fmt.Sprintf(
			"%s may be written by others (mode %04o), who could so decide what Pileus runs; do: chmod go-w %s", absolute, mode, absolute))
	}
	return c, nil
}

// parse decodes text; path is for messages, and relative paths start at dir.
func parse(path, dir string, text []byte) (*Config, error) {
	d := &decoder{path: path, dir: dir}
	c := newConfig()
	d.document(text, c)
	if len(d.faults) > 0 {
		slices.SortStableFunc(d.faults, func(a, b *Error) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
		all := make([]error, len(d.faults))
		for i, fault := range d.faults {
			all[i] = fault
		}
		return nil, errors.Join(all...)
	}
	if c.StateDir == "" {
		stateDir, err := DefaultStateDir()
		if err != nil {
			return nil, fmt.Errorf("%s: set state_dir: %w", path, err)
		}
		c.StateDir = stateDir
	}
	if c.Serve.DataRoot == "" {
		c.Serve.DataRoot = filepath.Join(c.StateDir, "servers")
	}
	return c, nil
}
