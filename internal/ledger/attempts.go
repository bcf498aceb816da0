package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Attempt is how the last try of a scheduled job went.
type Attempt struct {
	At       time.Time
	Failures int    // one after another, this one included
	Err      string // of the last failure
}

// Attempt notes how a scheduled job went; err nil: well.
func (l *Ledger) Attempt(ctx context.Context, subject, kind string, at time.Time, err error) error {
	text, failed := "", 0
	if err != nil {
		text, failed = err.Error(), 1
	}
	_, derr := l.db.ExecContext(ctx, `INSERT INTO attempt (subject, kind, at, failures, error) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (subject, kind) DO UPDATE SET at = excluded.at, error = excluded.error, failures = CASE excluded.failures WHEN 0 THEN 0 ELSE failures + 1 END`,
		subject, kind, at.UnixMicro(), failed, text)
	if derr != nil {
		return fmt.Errorf("note an attempt: %w", derr)
	}
	return nil
}

// LastAttempt tells how the last try went; the zero Attempt: there was none.
func (l *Ledger) LastAttempt(ctx context.Context, subject, kind string) (Attempt, error) {
	var a Attempt
	var at int64
	err := l.db.QueryRowContext(ctx, "SELECT at, failures, error FROM attempt WHERE subject = ? AND kind = ?", subject, kind).Scan(&at, &a.Failures, &a.Err)
	if errors.Is(err, sql.ErrNoRows) {
		return Attempt{}, nil
	}
	if err != nil {
		return Attempt{}, fmt.Errorf("look up an attempt: %w", err)
	}
	a.At = time.UnixMicro(at).UTC()
	return a, nil
}
