package backup

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// niceness is what workers get at least: a tenth of an ordinary thread's share of a busy core.
const niceness = 10

// ioLowest is ioprio_set's best-effort class with its lowest level. The idle class would let a busy disk
// hold a backup up without end.
const (
	ioWhoThread = 1
	ioLowest    = 2<<13 | 7
)

// lowerPriority lowers the calling thread's share of CPU and disk.
func lowerPriority() error {
	// The kernel counts from 40 down to 1 here, so that an error is told from a value.
	now, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err == nil && 20-now < niceness {
		err = unix.Setpriority(unix.PRIO_PROCESS, 0, niceness)
	}
	if err != nil {
		return fmt.Errorf("lower the priority for CPU: %w", err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioWhoThread, 0, ioLowest); errno != 0 {
		return fmt.Errorf("lower the priority for disks: %w", errno)
	}
	return nil
}
