package archive

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// PushOptions of Push.
type PushOptions struct {
	StateDir string
	// QueueMax is how much WAL may wait in pg_wal before a segment is given up so
	// that the database survives, in bytes; 0: never.
	QueueMax int64
	Log      *slog.Logger
}

// Lost says that segments were given up, and since when.
type Lost struct {
	Cluster string    `json:"cluster"`
	Since   time.Time `json:"since"`
	First   string    `json:"first_segment"`
	Last    string    `json:"last_segment"`
	Count   int64     `json:"count"`
	Reason  string    `json:"reason"`
}

// GiveUp decides what becomes of a file of pg_wal that could not be pushed because
// of cause. It returns cause, so that PostgreSQL keeps the file and tries again; or,
// once more than QueueMax waits in pg_wal, records the loss durably and returns nil:
// without that pg_wal would fill the disk and the database would stop. A file that is
// itself wrong, or contradicts the archive, is never given up that way.
// Push calls it; call it, too, when the repository cannot even be opened.
func GiveUp(cluster, path string, cause error, o PushOptions) error {
	var file *FileError
	var identity *repo.IdentityError
	if o.QueueMax <= 0 || errors.As(cause, &file) || errors.As(cause, &identity) || errors.Is(cause, repo.ErrConflict) || errors.Is(cause, context.Canceled) {
		return cause
	}
	if waiting, err := queued(path); err != nil || waiting <= o.QueueMax {
		return errors.Join(cause, err)
	}
	l, err := ReadLost(o.StateDir, cluster)
	if err != nil {
		return errors.Join(cause, err)
	}
	name := filepath.Base(path)
	if l == nil {
		l = &Lost{Cluster: cluster, Since: time.Now().UTC(), First: name}
	}
	l.Last, l.Reason = name, cause.Error()
	l.Count++
	// Without the record the loss would be silent: then the segment is not let go.
	if err := writeDurably(lostPath(o.StateDir, cluster), l); err != nil {
		return errors.Join(cause, err)
	}
	if o.Log != nil {
		o.Log.Error("a WAL segment was given up so that pg_wal does not fill the disk; moments from here to the next backup cannot be restored: when the repository is back, take a new backup",
			"cluster", cluster, "segment", name, "lost_so_far", l.Count, "since", l.Since, "error", cause)
	}
	return nil
}

// queued is how many bytes of segments wait in the pg_wal that holds path.
func queued(path string) (int64, error) {
	ready, err := filepath.Glob(filepath.Join(filepath.Dir(path), "archive_status", "*.ready"))
	if err != nil {
		return 0, err
	}
	total := int64(0)
	for _, mark := range ready {
		name := filepath.Base(mark[:len(mark)-len(".ready")])
		if !pg.IsSegmentName(name) {
			continue
		}
		if info, err := os.Stat(filepath.Join(filepath.Dir(path), name)); err == nil {
			total += info.Size()
		}
	}
	return total, nil
}

func lostPath(stateDir, cluster string) string {
	return filepath.Join(stateDir, "status", cluster+".lost.json")
}

// ReadLost tells whether segments were given up since the last backup; nil if none.
func ReadLost(stateDir, cluster string) (*Lost, error) {
	var l Lost
	ok, err := readState(lostPath(stateDir, cluster), &l)
	if !ok {
		return nil, err
	}
	return &l, nil
}

// ClearLost forgets the loss: a backup has been taken since.
func ClearLost(stateDir, cluster string) error {
	err := os.Remove(lostPath(stateDir, cluster))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
