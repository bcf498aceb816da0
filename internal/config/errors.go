package config

import (
	"errors"
	"fmt"
)

// ErrNoFile: there is no configuration file where one was looked for.
var ErrNoFile = errors.New("no configuration file")

// ErrUnknownCluster: the configuration has no cluster of that name.
var ErrUnknownCluster = errors.New("unknown cluster")

// Error is one fault at one place of a configuration file. Load joins all faults of
// a file, in the order of their lines.
type Error struct {
	Path string // of the file
	// Line and Column count from 1; both are 0 for a fault that has no place, such
	// as a missing key.
	Line, Column int
	// Key is the full key with dots, such as clusters.orders.retention; empty where
	// the file is not YAML at all.
	Key string
	// Problem says what is wrong and what to write instead.
	Problem string
}

// Error gives file, line, column, key and problem, the way compilers do.
func (e *Error) Error() string {
	place := e.Path
	if e.Line > 0 {
		place = fmt.Sprintf("%s:%d:%d", e.Path, e.Line, e.Column)
	}
	if e.Key == "" {
		return place + ": " + e.Problem
	}
	return place + ": " + e.Key + ": " + e.Problem
}
