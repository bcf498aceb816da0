package wal

import (
	"fmt"

	"pileus/internal/pg"
)

// EndOfWALError says that valid WAL ends: what follows was never written, or is
// left over from a recycled segment. In the newest segment of a running or
// crashed server that is normal; inside a segment that counts as complete it is
// a loss.
type EndOfWALError struct {
	LSN    pg.LSN // just past the last complete record
	Reason string
}

// Error names the position and the reason.
func (e *EndOfWALError) Error() string { return fmt.Sprintf("WAL ends at %s: %s", e.LSN, e.Reason) }

// DamageError says that WAL cannot be what the server wrote.
type DamageError struct {
	LSN    pg.LSN // of the record or page that is wrong
	Reason string
}

// Error names the position and what is wrong there.
func (e *DamageError) Error() string {
	return fmt.Sprintf("WAL is damaged at %s: %s", e.LSN, e.Reason)
}

func damage(lsn pg.LSN, format string, args ...any) error {
	return &DamageError{LSN: lsn, Reason: fmt.Sprintf(format, args...)}
}
