//go:build unix && !linux

package store

import (
	"errors"
	"os"
)

// renameNoReplace: no portable call renames without replacing; a link does it.
func renameNoReplace(_ *os.File, _ string, _ *os.File, _ string) error {
	return errors.ErrUnsupported
}

// reserve: no portable call allocates space; a full disk shows while writing.
func reserve(*os.File, int64) error { return nil }
