package archive

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"pileus/internal/pg"
)

// Status is how a receiver stands. It is written to a file of the state folder,
// for whoever wants to look.
type Status struct {
	Cluster                string        `json:"cluster"`
	Updated                time.Time     `json:"updated"`
	Host                   string        `json:"host"`
	PID                    int           `json:"pid"`
	Timeline               pg.TimelineID `json:"timeline"`
	Received               pg.LSN        `json:"received"`
	Durable                pg.LSN        `json:"durable"`    // in the repository up to here
	ServerEnd              pg.LSN        `json:"server_end"` // as far as the server said
	LagBytes               int64         `json:"lag_bytes"`  // ServerEnd less Durable
	LastCommit             time.Time     `json:"last_commit,omitzero"`
	Synchronous            bool          `json:"synchronous"` // commits wait for the repository
	SpoolBytes             int64         `json:"spool_bytes"`
	RepositoryFailingSince *time.Time    `json:"repository_failing_since,omitempty"`
	RepositoryError        string        `json:"repository_error,omitempty"`
	ConnectionFailingSince *time.Time    `json:"connection_failing_since,omitempty"`
	ConnectionError        string        `json:"connection_error,omitempty"`
	Gap                    *GapInfo      `json:"gap,omitempty"` // the last one
}

// GapInfo is WAL that was lost for good.
type GapInfo struct {
	Since  time.Time `json:"since"`
	From   pg.LSN    `json:"from"`
	To     pg.LSN    `json:"to"`
	Reason string    `json:"reason"`
}

func newStatus(cluster string) Status {
	host, _ := os.Hostname()
	return Status{Cluster: cluster, Host: host, PID: os.Getpid()}
}

func statusPath(stateDir, cluster string) string {
	return filepath.Join(stateDir, "status", cluster+".receive.json")
}

// WriteStatus replaces the status file of the cluster.
func WriteStatus(stateDir string, s Status) error {
	return writeState(statusPath(stateDir, s.Cluster), s)
}

// ReadStatus reads the status file of the cluster; nil if there is none.
func ReadStatus(stateDir, cluster string) (*Status, error) {
	var s Status
	ok, err := readState(statusPath(stateDir, cluster), &s)
	if !ok {
		return nil, err
	}
	return &s, nil
}

// writeState replaces a small JSON file at once and whole.
func writeState(path string, v any) error {
	return replaceState(path, v, func(*os.File) error { return nil })
}

// writeDurably does so, and returns only when a crash cannot undo it.
func writeDurably(path string, v any) error {
	if err := replaceState(path, v, (*os.File).Sync); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return fmt.Errorf("make %s durable: %w", path, err)
	}
	return nil
}

func replaceState(path string, v any, sync func(*os.File) error) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the state folder: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = tmp.Write(text)
	if err == nil {
		err = sync(tmp)
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}

func readState(path string, v any) (ok bool, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	return true, nil
}
