package cli

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"pileus/internal/access"
	"pileus/internal/archive"
	"pileus/internal/control"
	"pileus/internal/repo"
	"pileus/internal/restore"
	"pileus/internal/terraform"
)

// TestExitCodes: scripts depend on them, however deep an error is wrapped.
func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, ExitOK},
		{errors.New("anything"), ExitFailed},
		{archive.ErrNoSuchFile, ExitFailed},
		{usageError{errors.New("flag")}, ExitUsage},
		{&control.ConfigError{Err: errors.New("key")}, ExitUsage},
		{&terraform.UnreadableError{Err: errors.New("no plan")}, ExitUsage},
		{repo.ErrNoRepository, ExitUsage},
		{repo.ErrLocked, ExitUsage},
		{repo.ErrWrongKey, ExitUsage},
		{&repo.FormatError{}, ExitUsage},
		{restore.ErrNotEmpty, ExitUsage},
		{restore.ErrIdentifier, ExitUsage},
		{restore.ErrTablespace, ExitUsage},
		{access.ErrUnknown, ExitUsage},
		{access.ErrConfigured, ExitUsage},
		{access.ErrExposed, ExitUsage},
		{codeError(ExitDamage), ExitDamage},
		{&restore.WindowError{}, ExitRefused},
		{&restore.GapError{}, ExitRefused},
		{&restore.AmbiguousError{}, ExitRefused},
		{&restore.TransactionError{}, ExitRefused},
		{restore.ErrNoBackup, ExitRefused},
		{codeError(ExitUnprotected), ExitUnprotected},
		{&repo.HeldError{}, ExitBusy},
		{context.Canceled, ExitInterrupted},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%T (%v): exit code %d, want %d", c.err, c.err, got, c.want)
		}
		if c.err == nil {
			continue
		}
		if got := exitCode(errors.Join(fmt.Errorf("while at it: %w", c.err))); got != c.want {
			t.Errorf("%T, wrapped: exit code %d, want %d", c.err, got, c.want)
		}
	}
}
