package cli

import (
	"context"
	"errors"

	"pileus/internal/access"
	"pileus/internal/archive"
	"pileus/internal/control"
	"pileus/internal/recovery"
	"pileus/internal/repo"
	"pileus/internal/restore"
	"pileus/internal/service"
	"pileus/internal/terraform"
)

// Exit codes.
const (
	ExitOK          = 0
	ExitFailed      = 1   // also: wal fetch found no such file
	ExitUsage       = 2   // flags, arguments or configuration are wrong; nothing was changed
	ExitDamage      = 3   // the work is done, and it found damage: a bad page, a damaged object
	ExitRefused     = 4   // the target cannot be restored; nothing was written
	ExitUnprotected = 5   // check or list: a cluster is not protected
	ExitBusy        = 6   // another pileus is at the same work
	ExitStopped     = 7   // a recovery run stopped and waits for an operator
	ExitInterrupted = 130 // ended by a signal
)

// exitHelp is the table that every long help ends with, see complete.
const exitHelp = `Exit codes:
  0  done                      4  the target cannot be restored; nothing was written
  1  failed                    5  a cluster is not protected
  2  wrong usage or settings   6  another pileus is at the same work
  3  done, and damage found    7  a recovery run stopped and waits for you
  130  interrupted`

// usageError marks what the user can mend on the command line.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// codeError carries an exit code for work that is done but not all well. Its
// text has been shown already.
type codeError int

func (codeError) Error() string { return "" }

// exitCode maps an error to the exit code.
func exitCode(err error) int {
	var (
		usage  usageError
		code   codeError
		held   *repo.HeldError
		format *repo.FormatError
		conf   *control.ConfigError
		busy   *service.BusyError
		plan   *terraform.UnreadableError
		other  *recovery.BusyError
	)
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &code):
		return int(code)
	case errors.Is(err, repo.ErrNoRepository), errors.Is(err, repo.ErrLocked), errors.Is(err, repo.ErrWrongKey), errors.As(err, &format):
		return ExitUsage
	case errors.As(err, &usage), errors.As(err, &conf), errors.As(err, &plan), errors.Is(err, restore.ErrNotEmpty), errors.Is(err, restore.ErrIdentifier), errors.Is(err, restore.ErrTablespace), errors.Is(err, recovery.ErrNotConfigured), errors.Is(err, recovery.ErrNoRun):
		return ExitUsage
	case errors.Is(err, access.ErrUnknown), errors.Is(err, access.ErrConfigured), errors.Is(err, access.ErrExposed):
		return ExitUsage
	case errors.As(err, &held), errors.As(err, &busy), errors.As(err, &other):
		return ExitBusy
	case stopped(err):
		return ExitStopped
	case refused(err):
		return ExitRefused
	case errors.Is(err, archive.ErrNoSuchFile):
		return ExitFailed
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	}
	return ExitFailed
}

// refused tells whether a restore was turned down because of its target.
func refused(err error) bool {
	var (
		window *restore.WindowError
		gap    *restore.GapError
		many   *restore.AmbiguousError
		xid    *restore.TransactionError
	)
	return errors.As(err, &window) || errors.As(err, &gap) || errors.As(err, &many) || errors.As(err, &xid) || errors.Is(err, restore.ErrNoBackup)
}

// stopped tells whether a recovery run waits for an operator.
func stopped(err error) bool {
	var (
		failed *recovery.StoppedError
		needs  *recovery.NeedsApproval
		paused *recovery.PausedError
	)
	return errors.As(err, &failed) || errors.As(err, &needs) || errors.As(err, &paused)
}
