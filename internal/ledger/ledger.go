// Package ledger keeps what happened and what was tried: events, the audit log and the schedule, in a
// SQLite file. It holds history only; losing it loses no backup and no cluster.
package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver named sqlite
)

// Ledger is one file. Its methods may be called concurrently.
type Ledger struct{ db *sql.DB }

// What the file says it is: PRAGMA application_id, the letters PILE, and PRAGMA user_version.
const (
	application   = 0x50494c45
	schemaVersion = 1
)

// The audit log takes entries and nothing else: triggers refuse to change or remove one. The one for
// INSERT is about REPLACE, which removes what is in its way without asking that for DELETE.
const schema = `
CREATE TABLE event (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, source_type TEXT NOT NULL, source TEXT NOT NULL, arn TEXT NOT NULL, categories TEXT NOT NULL, message TEXT NOT NULL);
CREATE INDEX event_at ON event (at);
CREATE TABLE audit (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, request TEXT NOT NULL, access_key TEXT NOT NULL, role TEXT NOT NULL, address TEXT NOT NULL, action TEXT NOT NULL, resource TEXT NOT NULL, parameters TEXT NOT NULL, result TEXT NOT NULL, status INTEGER NOT NULL);
CREATE INDEX audit_at ON audit (at);
CREATE TRIGGER audit_insert BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TABLE attempt (subject TEXT NOT NULL, kind TEXT NOT NULL, at INTEGER NOT NULL, failures INTEGER NOT NULL, error TEXT NOT NULL, PRIMARY KEY (subject, kind));
PRAGMA application_id = 0x50494c45;
PRAGMA user_version = 1;
`

// Open opens the file, or makes it, readable by this account only. A file that is damaged or
// not a ledger is moved aside and a new one begun; notice then says so.
func Open(ctx context.Context, path string) (l *Ledger, notice string, err error) {
	l, err = open(ctx, path)
	if err == nil || !unusable(err) {
		return l, "", err
	}
	aside := fmt.Sprintf("%s.damaged-%s", path, time.Now().UTC().Format("20060102T150405.000000000Z"))
	if rerr := os.Rename(path, aside); rerr != nil {
		return nil, "", errors.Join(err, rerr)
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if rerr := os.Rename(path+suffix, aside+suffix); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			return nil, "", errors.Join(err, rerr)
		}
	}
	notice = fmt.Sprintf("the ledger could not be used and was moved to %s; a new one is begun, and events and audit from before are in the old one: %v", aside, err)
	l, err = open(ctx, path)
	return l, notice, err
}

// errForeign is the error of a database that is no ledger.
var errForeign = errors.New("it is not a ledger of this version")

func unusable(err error) bool {
	text := err.Error()
	return errors.Is(err, errForeign) || strings.Contains(text, "SQLITE_NOTADB") || strings.Contains(text, "SQLITE_CORRUPT") ||
		strings.Contains(text, "file is not a database") || strings.Contains(text, "malformed")
}

func open(ctx context.Context, path string) (*Ledger, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the ledger: %w", err)
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return nil, fmt.Errorf("open the ledger: %w", err)
	}
	name := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, fmt.Errorf("open the ledger: %w", err)
	}
	db.SetMaxOpenConns(1) // writers would wait for each other anyway
	l := &Ledger{db}
	if err := l.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open the ledger %s: %w", path, err), db.Close())
	}
	return l, nil
}

// Read opens a ledger that another process may be writing, to look at it.
func Read(ctx context.Context, path string) (*Ledger, error) {
	name := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: "mode=ro&_pragma=busy_timeout(10000)&_pragma=query_only(1)"}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, fmt.Errorf("open the ledger: %w", err)
	}
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open the ledger %s: %w", path, err), db.Close())
	}
	return &Ledger{db}, nil
}

func (l *Ledger) prepare(ctx context.Context) error {
	var id, version, tables int
	if err := l.db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return err
	}
	if err := l.db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if err := l.db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master").Scan(&tables); err != nil {
		return err
	}
	switch {
	case id == 0 && version == 0 && tables == 0:
		tx, err := l.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, schema); err != nil {
			return errors.Join(err, tx.Rollback())
		}
		return tx.Commit()
	case id != application || version != schemaVersion:
		return errForeign
	}
	var check string
	if err := l.db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&check); err != nil {
		return err
	}
	if check != "ok" {
		return fmt.Errorf("malformed: %s", check)
	}
	return l.sweep(ctx)
}

// Close closes the file.
func (l *Ledger) Close() error { return l.db.Close() }
