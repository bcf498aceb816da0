package archive

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pileus/internal/pg"
	"pileus/internal/repo"
	"pileus/internal/store"
	"pileus/internal/wal"
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

// IdentifySegment reads which cluster a WAL segment belongs to, and the size of
// its segments, out of its first page's header (XLogLongPageHeaderData).
func IdentifySegment(path string) (systemID uint64, segmentSize int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, fmt.Errorf("read the segment: %w", err)
	}
	defer f.Close()
	var head [40]byte
	if _, err := io.ReadFull(f, head[:]); err != nil {
		return 0, 0, fmt.Errorf("%s is too short to be a WAL segment", path)
	}
	const longHeader = 2
	le := binary.LittleEndian
	segmentSize = int64(le.Uint32(head[32:]))
	if le.Uint16(head[2:])&longHeader == 0 || !pg.ValidSegmentSize(segmentSize) {
		return 0, 0, fmt.Errorf("%s does not start as a WAL segment does", path)
	}
	return le.Uint64(head[24:]), segmentSize, nil
}

// Push stores one file of pg_wal, for archive_command. nil means that it is durable in
// the repository, or that it is one nobody needs (a backup history file); save for
// QueueMax, whose loss is recorded and can be read with ReadLost. The same content again is
// fine, other content under the same name is repo.ErrConflict.
func Push(ctx context.Context, r *repo.Repository, c repo.Cluster, path string, o PushOptions) error {
	name := filepath.Base(path)
	var err error
	if tli, ok := pg.ParseHistoryName(name); ok {
		err = pushHistory(ctx, r, c, tli, path)
	} else if pg.IsSegmentName(name) {
		err = pushSegment(ctx, r, c, name, path)
	} else if whole, ok := strings.CutSuffix(name, ".partial"); ok && pg.IsSegmentName(whole) {
		err = pushPartial(ctx, r, c, whole, path)
	} else if !strings.HasSuffix(name, ".backup") {
		return fmt.Errorf("%s is not a file of pg_wal that is archived", name)
	}
	if errors.Is(err, store.ErrUnavailable) && o.QueueMax > 0 {
		return giveUp(c, path, err, o)
	}
	return err
}

func pushHistory(ctx context.Context, r *repo.Repository, c repo.Cluster, tli pg.TimelineID, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if _, err := pg.ParseHistory(tli, text); err != nil {
		return err
	}
	return r.PutHistory(ctx, c.Name, tli, text)
}

// pushSegment stores a complete segment after checking that it is one.
func pushSegment(ctx context.Context, r *repo.Repository, c repo.Cluster, name, path string) error {
	seg, err := pg.ParseSegmentName(name, c.SegmentSize)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read the segment: %w", err)
	}
	defer f.Close()
	if _, err := wal.CheckSegment(f, seg, c.SystemIdentifier); err != nil {
		return fmt.Errorf("%s is not a sound and complete segment of %s, and was not stored: %w", name, c.Name, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := r.PutSegment(ctx, c.Name, seg, f); err != nil {
		return err
	}
	parts, err := r.Parts(ctx, c.Name, seg)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err := r.DeletePart(ctx, c.Name, p); err != nil {
			return err
		}
	}
	return nil
}

// pushPartial stores the valid beginning of a segment that a promotion left
// unfinished: the tail of the old timeline.
func pushPartial(ctx context.Context, r *repo.Repository, c repo.Cluster, name, path string) error {
	seg, err := pg.ParseSegmentName(name, c.SegmentSize)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read the segment: %w", err)
	}
	defer f.Close()
	n, err := validLength(f, c, seg)
	if err != nil || n == 0 {
		return err
	}
	if n == seg.Size {
		return pushSegment(ctx, r, c, name, path)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, n), data); err != nil {
		return err
	}
	return r.PutPart(ctx, c.Name, repo.Part{Segment: seg, To: n}, data)
}

// giveUp lets a segment go if too much waits in pg_wal, and otherwise returns cause.
func giveUp(c repo.Cluster, path string, cause error, o PushOptions) error {
	ready, err := filepath.Glob(filepath.Join(filepath.Dir(path), "archive_status", "*.ready"))
	if err != nil || int64(len(ready))*c.SegmentSize <= o.QueueMax {
		return cause
	}
	l, err := ReadLost(o.StateDir, c.Name)
	if err != nil {
		return errors.Join(cause, err)
	}
	name := filepath.Base(path)
	if l == nil {
		l = &Lost{Cluster: c.Name, Since: time.Now().UTC(), First: name}
	}
	l.Last, l.Reason = name, cause.Error()
	l.Count++
	// Without the record the loss would be silent: then the segment is not let go.
	if err := writeState(lostPath(o.StateDir, c.Name), l); err != nil {
		return errors.Join(cause, err)
	}
	if o.Log != nil {
		o.Log.Error("a WAL segment was given up so that pg_wal does not fill the disk; moments from here to the next backup cannot be restored",
			"cluster", c.Name, "segment", name, "lost_so_far", l.Count, "since", l.Since, "error", cause)
	}
	return nil
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
