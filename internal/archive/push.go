package archive

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pileus/internal/pg"
	"pileus/internal/repo"
	"pileus/internal/wal"
)

// FileError: a file that was to be pushed cannot be read, or is not what its name
// says. It was not stored, and trying again will not help unless it changes.
type FileError struct {
	Name  string
	Cause error
}

func (e *FileError) Error() string { return fmt.Sprintf("%s was not stored: %v", e.Name, e.Cause) }

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Cause }

// IdentifySegment reads which cluster a WAL segment belongs to, and the size of
// its segments in bytes, out of its first page's header (XLogLongPageHeaderData). For
// a file of pg_wal that is no segment it looks at the newest segment beside it.
func IdentifySegment(path string) (systemID uint64, segmentSize int64, err error) {
	if name := filepath.Base(path); !pg.IsSegmentName(strings.TrimSuffix(name, ".partial")) {
		if path, err = newestBeside(path); err != nil {
			return 0, 0, &FileError{Name: name, Cause: err}
		}
	}
	return identify(path)
}

func newestBeside(path string) (string, error) {
	entries, err := os.ReadDir(filepath.Dir(path)) // sorted by name
	if err != nil {
		return "", err
	}
	// Recycled segments have the highest names, and what was written to them last
	// time: that names the cluster, too. One that is all zero does not.
	for _, e := range slices.Backward(entries) {
		beside := filepath.Join(filepath.Dir(path), e.Name())
		if pg.IsSegmentName(e.Name()) {
			if _, _, err := identify(beside); err == nil {
				return beside, nil
			}
		}
	}
	return "", errors.New("there is no WAL segment beside it that would tell which cluster it belongs to")
}

func identify(path string) (systemID uint64, segmentSize int64, err error) {
	name := filepath.Base(path)
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, &FileError{Name: name, Cause: err}
	}
	defer f.Close()
	var head [40]byte
	if _, err := io.ReadFull(f, head[:]); err != nil {
		return 0, 0, &FileError{Name: name, Cause: fmt.Errorf("it is too short to be a WAL segment: %w", err)}
	}
	const longHeader = 2
	le := binary.LittleEndian
	segmentSize = int64(le.Uint32(head[32:]))
	if le.Uint16(head[2:])&longHeader == 0 || !pg.ValidSegmentSize(segmentSize) {
		return 0, 0, &FileError{Name: name, Cause: errors.New("it does not start as a WAL segment does")}
	}
	return le.Uint64(head[24:]), segmentSize, nil
}

// Push stores one file of pg_wal, for archive_command. nil means that it is durable in
// the repository, or that it is one nobody needs (a backup history file); save for
// QueueMax, see GiveUp. The same content again is fine, other content under the
// same name is repo.ErrConflict, and a file that is not sound is *FileError.
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
		return &FileError{Name: name, Cause: errors.New("it is not a file that PostgreSQL archives")}
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	return GiveUp(c.Name, path, err, o)
}

func pushHistory(ctx context.Context, r *repo.Repository, c repo.Cluster, tli pg.TimelineID, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return &FileError{Name: filepath.Base(path), Cause: err}
	}
	h, err := pg.ParseHistory(tli, text)
	if err == nil && len(h.Entries) == 0 {
		err = errors.New("it names no earlier timeline: it is empty or cut off")
	}
	if err != nil {
		return &FileError{Name: filepath.Base(path), Cause: err}
	}
	return r.PutHistory(ctx, c.Name, tli, text)
}

// catchUpHistory stores the history of a segment's timeline if the repository lacks it and
// the server still has it: it may have been given up, or be older than the archive.
func catchUpHistory(ctx context.Context, r *repo.Repository, c repo.Cluster, tli pg.TimelineID, beside string) error {
	if tli <= 1 {
		return nil
	}
	if _, err := r.History(ctx, c.Name, tli); !errors.Is(err, repo.ErrNotFound) {
		return err
	}
	path := filepath.Join(filepath.Dir(beside), pg.HistoryName(tli))
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return pushHistory(ctx, r, c, tli, path)
}

// pushSegment stores a complete segment after checking that it is one.
func pushSegment(ctx context.Context, r *repo.Repository, c repo.Cluster, name, path string) error {
	f, seg, err := openSegment(c, name, path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := wal.CheckSegment(f, seg, c.SystemIdentifier); err != nil {
		return &FileError{Name: name, Cause: fmt.Errorf("it is not a sound and complete segment of %s: %w", c.Name, err)}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return &FileError{Name: name, Cause: err}
	}
	if err := catchUpHistory(ctx, r, c, seg.Timeline, path); err != nil {
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

func openSegment(c repo.Cluster, name, path string) (*os.File, pg.Segment, error) {
	seg, err := pg.ParseSegmentName(name, c.SegmentSize)
	if err != nil {
		return nil, seg, &FileError{Name: name, Cause: err}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, seg, &FileError{Name: name, Cause: err}
	}
	return f, seg, nil
}

// pushPartial stores the valid beginning of a segment that a promotion left
// unfinished: the tail of the old timeline.
func pushPartial(ctx context.Context, r *repo.Repository, c repo.Cluster, name, path string) error {
	f, seg, err := openSegment(c, name, path)
	if err != nil {
		return err
	}
	defer f.Close()
	if id, size, err := identify(path); err != nil {
		return err
	} else if id != c.SystemIdentifier || size != seg.Size {
		return &FileError{Name: name + ".partial", Cause: fmt.Errorf("it is of the cluster with system identifier %d, %s has %d", id, c.Name, c.SystemIdentifier)}
	}
	n, err := validLength(f, c, seg)
	if err != nil {
		return &FileError{Name: name + ".partial", Cause: err}
	}
	if n == 0 {
		n, err = carriedOver(f, seg)
	}
	if err != nil || n == 0 {
		return err
	}
	if n == seg.Size {
		return pushSegment(ctx, r, c, name, path)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, n), data); err != nil {
		return &FileError{Name: name + ".partial", Cause: err}
	}
	return r.PutPart(ctx, c.Name, repo.Part{Segment: seg, To: n}, data)
}

// carriedOver is how far the rest of a record goes that began in the segment
// before, in bytes. It may be all that an unfinished segment holds, and complete that
// record; its CRC is checked when the two are read together. 0: there is none.
func carriedOver(f *os.File, seg pg.Segment) (int64, error) {
	const page, short, long, continuation = 8192, 24, 40, 1
	head := make([]byte, long)
	if _, err := f.ReadAt(head, 0); err != nil {
		return 0, &FileError{Name: seg.Name(), Cause: err}
	}
	le := binary.LittleEndian
	rest := int64(le.Uint32(head[16:]))
	if le.Uint16(head[2:])&continuation == 0 || pg.LSN(le.Uint64(head[8:])) != seg.Start() {
		return 0, nil
	}
	n := int64(long)
	for at := int64(0); rest > page-(n-at); at += page {
		rest -= page - (n - at)
		if n = at + page + short; n >= seg.Size {
			return 0, nil // it does not end in this segment, so nothing of it counts
		}
	}
	return (n + rest + 7) &^ 7, nil
}
