package repo

import (
	"errors"
	"fmt"
)

var (
	// ErrNoRepository: there is no repository at this place.
	ErrNoRepository = errors.New("no repository here; `pileus init` creates one")
	// ErrRepositoryExists: Init found a repository and left it as it was.
	ErrRepositoryExists = errors.New("a repository is here already")
	// ErrLocked: the repository is encrypted and no key was given.
	ErrLocked = errors.New("the repository is encrypted and no key was given: set repository.key_file or repository.passphrase_file in pileus.yaml, or PILEUS_PASSPHRASE")
	// ErrWrongKey: a key was given, and it does not open this repository.
	ErrWrongKey = errors.New("the passphrase or key file does not open this repository")
	// ErrNotFound: the named backup, segment, cluster or snapshot is not in the repository.
	ErrNotFound = errors.New("not in the repository")
	// ErrConflict: something of that name is there with other content, and was left as it was.
	ErrConflict = errors.New("already in the repository with different content")
	// ErrDamaged: what was read back does not match its hash or form.
	ErrDamaged = errors.New("damaged in the repository")
)

// FormatError: the repository was written in a format this program does not read.
type FormatError struct{ Found int }

func (e *FormatError) Error() string {
	return fmt.Sprintf("the repository has format %d and this pileus reads format %d: use the newer pileus that wrote it", e.Found, Format)
}

func damaged(what, format string, args ...any) error {
	return fmt.Errorf("%s is %w: %s", what, ErrDamaged, fmt.Sprintf(format, args...))
}

func isAny(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}
