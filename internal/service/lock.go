package service

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// BusyError: another process serves the same state folder.
type BusyError struct {
	Path string
	PID  string // of the other; empty: not known
}

func (e *BusyError) Error() string {
	who := "another `pileus serve`"
	if e.PID != "" {
		who += " (process " + e.PID + ")"
	}
	return fmt.Sprintf("%s holds %s: stop that one, or give this one another state_dir", who, e.Path)
}

// lock takes the state folder for this process. The kernel gives it up when the process
// ends, however that happens.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		b, _ := io.ReadAll(io.LimitReader(f, 20)) // best effort: it is for the message
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &BusyError{Path: path, PID: strings.TrimSpace(string(b))}
		}
		return nil, fmt.Errorf("lock the state folder: %w", err)
	}
	if err := f.Truncate(0); err == nil {
		fmt.Fprintln(f, os.Getpid())
	}
	return func() { f.Close() }, nil
}
