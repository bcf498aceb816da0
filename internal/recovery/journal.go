package recovery

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the driver named sqlite
)

// Kind says what an entry is about.
type Kind string

// The kinds of entries.
const (
	KindBegin   Kind = "begin"   // a step begins
	KindFound   Kind = "found"   // what was there before a change
	KindDid     Kind = "did"     // a part of a step is done
	KindNote    Kind = "note"    // for people
	KindDone    Kind = "done"    // a step is done
	KindFailed  Kind = "failed"  // a step stopped
	KindApprove Kind = "approve" // a person decided
	KindPause   Kind = "pause"   // the run stopped where it was told to
	KindUndone  Kind = "undone"  // a step was taken back
	KindEnd     Kind = "end"     // the run is over
)

// Entry is one line of a journal.
type Entry struct {
	Run  string          `json:"run"`
	Seq  int             `json:"seq"` // from 1, without gaps
	At   time.Time       `json:"at"`
	Step Step            `json:"step,omitempty"`
	Kind Kind            `json:"kind"`
	Key  string          `json:"key,omitempty"`  // of found and did
	Text string          `json:"text,omitempty"` // for people
	Data json.RawMessage `json:"data,omitempty"`
}

// Status is that of a run.
type Status string

// The states of a run. One that is running and whose process is gone was killed, and can be resumed.
const (
	Running  Status = "running"
	Stopped  Status = "stopped"
	Aborting Status = "aborting"
	Aborted  Status = "aborted"
	Done     Status = "done"
)

// Run is one execution of the runbook.
type Run struct {
	ID      string    `json:"id"`
	Cluster string    `json:"cluster"`
	New     string    `json:"new_cluster"`
	Target  Target    `json:"target"`
	Options Choices   `json:"options"`
	Created time.Time `json:"created"`
	By      string    `json:"by"` // the operator's account
	Status  Status    `json:"status"`
	Step    Step      `json:"step,omitempty"` // the last that began
	Problem string    `json:"problem,omitempty"`
}

// Over tells whether the run has ended.
func (r Run) Over() bool { return r.Status == Done || r.Status == Aborted }

// Mirror keeps a second copy of a journal elsewhere. It is told of every entry, in order, after that is durable here.
type Mirror interface {
	Put(ctx context.Context, run Run, e Entry) error
}

// Journal holds all runs of a state folder in SQLite. Its methods may be called concurrently, by several processes.
type Journal struct{ db *sql.DB }

const journalSchema = `
CREATE TABLE IF NOT EXISTS run (id TEXT PRIMARY KEY, created INTEGER NOT NULL, cluster TEXT NOT NULL, status TEXT NOT NULL, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS entry (run TEXT NOT NULL REFERENCES run, seq INTEGER NOT NULL, at INTEGER NOT NULL, step TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, text TEXT NOT NULL, data TEXT, PRIMARY KEY (run, seq));
CREATE TABLE IF NOT EXISTS drill (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, cluster TEXT NOT NULL, document TEXT NOT NULL);
CREATE TRIGGER IF NOT EXISTS entry_update BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'a journal is append-only'); END;
CREATE TRIGGER IF NOT EXISTS entry_delete BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'a journal is append-only'); END;
`

// OpenJournal opens the journal of a state folder, runs.db in it, and makes it if there is none.
func OpenJournal(ctx context.Context, stateDir string) (*Journal, error) {
	path := filepath.Join(stateDir, "runs.db")
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("prepare the state folder: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("open the journal of runs: %w: run this as the account that owns %s", err, stateDir)
	}
	if err != nil {
		return nil, fmt.Errorf("open the journal of runs: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open the journal of runs: %w", err)
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: "_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=foreign_keys(on)&_txlock=immediate"}
	db, err := sql.Open("sqlite", u.String())
	if err == nil {
		_, err = db.ExecContext(ctx, journalSchema)
	}
	if err != nil {
		return nil, fmt.Errorf("open the journal of runs %s: %w", path, err)
	}
	return &Journal{db}, nil
}

// Close closes the file.
func (j *Journal) Close() error { return j.db.Close() }

// Save writes the head of a run.
func (j *Journal) Save(ctx context.Context, r Run) error {
	doc, err := json.Marshal(r)
	if err == nil {
		_, err = j.db.ExecContext(ctx, `INSERT INTO run (id, created, cluster, status, document) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET status = excluded.status, document = excluded.document`, r.ID, r.Created.UnixMicro(), r.Cluster, string(r.Status), string(doc))
	}
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

// Append adds an entry, numbers it, and returns it. It is durable when Append returns.
func (j *Journal) Append(ctx context.Context, e Entry) (Entry, error) {
	e.At = time.Now().UTC().Truncate(time.Microsecond)
	var data any
	if e.Data != nil {
		data = string(e.Data)
	}
	err := j.db.QueryRowContext(ctx, `INSERT INTO entry (run, seq, at, step, kind, key, text, data)
		SELECT ?, coalesce(max(seq), 0) + 1, ?, ?, ?, ?, ?, ? FROM entry WHERE run = ? RETURNING seq`,
		e.Run, e.At.UnixMicro(), string(e.Step), string(e.Kind), e.Key, e.Text, data, e.Run).Scan(&e.Seq)
	if err != nil {
		return e, fmt.Errorf("write the journal: %w", err)
	}
	return e, nil
}

// ErrNoRun: there is no run of that name.
var ErrNoRun = errors.New("no such run; `pileus run list` shows those there are")

// Run reads one run. An ID may be shortened as long as it is clear.
func (j *Journal) Run(ctx context.Context, id string) (Run, error) {
	all, err := j.Runs(ctx)
	if err != nil {
		return Run{}, err
	}
	var found []Run
	for _, r := range all {
		if r.ID == id {
			return r, nil
		}
		if len(id) >= 4 && len(r.ID) > len(id) && (r.ID[:len(id)] == id || r.ID[len(r.ID)-len(id):] == id) {
			found = append(found, r)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	return Run{}, fmt.Errorf("run %q: %w", id, ErrNoRun)
}

// Runs lists all runs, newest first.
func (j *Journal) Runs(ctx context.Context) ([]Run, error) {
	out := []Run{}
	err := j.each(ctx, "SELECT document FROM run ORDER BY created DESC, id", nil, func(doc string) error {
		var r Run
		err := json.Unmarshal([]byte(doc), &r)
		out = append(out, r)
		return err
	})
	return out, err
}

func (j *Journal) each(ctx context.Context, query string, args []any, with func(string) error) error {
	rows, err := j.db.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var doc string
		if err := errors.Join(rows.Scan(&doc)); err != nil {
			return fmt.Errorf("read the journal: %w", err)
		}
		if err := with(doc); err != nil {
			return fmt.Errorf("read the journal: %w", err)
		}
	}
	return rows.Err()
}

// Entries lists a run's journal from the beginning.
func (j *Journal) Entries(ctx context.Context, run string) ([]Entry, error) {
	rows, err := j.db.QueryContext(ctx, "SELECT seq, at, step, kind, key, text, data FROM entry WHERE run = ? ORDER BY seq", run)
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	defer rows.Close()
	out := []Entry{}
	for rows.Next() {
		e := Entry{Run: run}
		var at int64
		var data sql.NullString
		if err := rows.Scan(&e.Seq, &at, &e.Step, &e.Kind, &e.Key, &e.Text, &data); err != nil {
			return nil, fmt.Errorf("read the journal: %w", err)
		}
		e.At = time.UnixMicro(at).UTC()
		if data.Valid {
			e.Data = json.RawMessage(data.String)
		}
		out = append(out, e)
	}
	return out, rows.Err()
}
