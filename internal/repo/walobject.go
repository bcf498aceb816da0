package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"

	"pileus/internal/pg"
	"pileus/internal/store"
)

func timelinePrefix(cluster string, tli pg.TimelineID) string {
	return fmt.Sprintf("clusters/%s/wal/%08X/", cluster, uint32(tli))
}

func segmentKey(cluster string, s pg.Segment) string {
	name := s.Name()
	return timelinePrefix(cluster, s.Timeline) + name[8:16] + "/" + name
}

// PutSegment stores one complete WAL segment, read from body's current position.
// The same bytes being there already is success; other bytes are ErrConflict, and
// the repository stays as it was. The caller has checked the content.
func (r *Repository) PutSegment(ctx context.Context, cluster string, s pg.Segment, body io.ReadSeeker) error {
	start, err := body.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	key := segmentKey(cluster, s)
	err = r.putObject(ctx, key, KindSegment, func(w io.Writer) error {
		n, err := copyBuffer(w, body)
		if err == nil && n != s.Size {
			err = fmt.Errorf("it has %d bytes, a whole segment has %d", n, s.Size)
		}
		return err
	})
	if !errors.Is(err, store.ErrExists) {
		return err
	}
	if _, err := body.Seek(start, io.SeekStart); err != nil {
		return err
	}
	return r.sameContent(ctx, key, KindSegment, body)
}

// sameContent compares an object's content with what body holds.
func (r *Repository) sameContent(ctx context.Context, key string, kind Kind, body io.Reader) error {
	have, err := r.openObject(ctx, key, kind)
	if err != nil {
		return err
	}
	defer have.Close()
	a, b := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errA := io.ReadFull(have, a)
		m, errB := io.ReadFull(body, b)
		if errA != nil && !isAny(errA, io.EOF, io.ErrUnexpectedEOF) {
			return errA
		}
		if errB != nil && !isAny(errB, io.EOF, io.ErrUnexpectedEOF) {
			return errB
		}
		if !bytes.Equal(a[:n], b[:m]) {
			return fmt.Errorf("%s is %w", key, ErrConflict)
		}
		if errA != nil || errB != nil {
			return nil // both at their ends, or the lengths would have differed
		}
	}
}

// OpenSegment opens a complete segment. io.EOF from it means that all of it was
// read and is right. Absent: ErrNotFound.
func (r *Repository) OpenSegment(ctx context.Context, cluster string, s pg.Segment) (Frames, error) {
	return r.openObject(ctx, segmentKey(cluster, s), KindSegment)
}

// HasSegment tells whether the complete segment is in the repository.
func (r *Repository) HasSegment(ctx context.Context, cluster string, s pg.Segment) (bool, error) {
	_, err := r.store.Stat(ctx, segmentKey(cluster, s))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Segments yields the complete segments of a timeline in order, from the one that
// holds the byte at from. Other objects below the timeline are passed over.
func (r *Repository) Segments(ctx context.Context, cluster string, tli pg.TimelineID, size int64, from pg.LSN) iter.Seq2[pg.Segment, error] {
	first := pg.SegmentAt(tli, from, size)
	prefix := timelinePrefix(cluster, tli)
	return func(yield func(pg.Segment, error) bool) {
		for info, err := range r.store.List(ctx, prefix) {
			if err != nil {
				yield(pg.Segment{}, fmt.Errorf("list WAL of %s, timeline %d: %w", cluster, tli, err))
				return
			}
			s, err := pg.ParseSegmentName(info.Key[strings.LastIndexByte(info.Key, '/')+1:], size)
			if err != nil || s.Timeline != tli || s.Number < first.Number {
				continue
			}
			if !yield(s, nil) {
				return
			}
		}
	}
}

// DeleteSegment removes a complete segment; for pruning only.
func (r *Repository) DeleteSegment(ctx context.Context, cluster string, s pg.Segment) error {
	return r.store.Delete(ctx, segmentKey(cluster, s))
}

// Part is a piece of a segment that was not complete when it was stored.
type Part struct {
	Segment  pg.Segment
	From, To int64 // bytes of the segment, To exclusive
}

func partsPrefix(cluster string, s pg.Segment) string {
	return "clusters/" + cluster + "/parts/" + s.Name() + "/"
}

func (p Part) key(cluster string) string {
	return fmt.Sprintf("%s%08X-%08X", partsPrefix(cluster, p.Segment), p.From, p.To)
}

// PutPart stores bytes From to To of a segment that is still growing. The same
// bytes being there already is success, others are ErrConflict.
func (r *Repository) PutPart(ctx context.Context, cluster string, p Part, data []byte) error {
	if p.From < 0 || p.To > p.Segment.Size || p.To-p.From != int64(len(data)) || len(data) == 0 {
		return fmt.Errorf("part %d-%d of %s cannot hold %d bytes", p.From, p.To, p.Segment, len(data))
	}
	err := r.putObject(ctx, p.key(cluster), KindPart, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	if errors.Is(err, store.ErrExists) {
		return r.sameContent(ctx, p.key(cluster), KindPart, bytes.NewReader(data))
	}
	return err
}

// Parts lists the parts of one segment, by From, longest first where From is equal.
func (r *Repository) Parts(ctx context.Context, cluster string, s pg.Segment) ([]Part, error) {
	prefix := partsPrefix(cluster, s)
	var parts []Part
	for info, err := range r.store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list parts of %s: %w", s, err)
		}
		from, to, ok := strings.Cut(info.Key[len(prefix):], "-")
		a, err1 := strconv.ParseInt(from, 16, 64)
		b, err2 := strconv.ParseInt(to, 16, 64)
		if !ok || err1 != nil || err2 != nil || a < 0 || b <= a || b > s.Size {
			return nil, damaged(info.Key, "its name is not that of a part")
		}
		parts = append(parts, Part{Segment: s, From: a, To: b})
	}
	slices.SortFunc(parts, func(x, y Part) int {
		if x.From != y.From {
			return int(x.From - y.From)
		}
		return int(y.To - x.To)
	})
	return parts, nil
}

// PartSegments lists the segments that have parts, by name (timeline, then position).
func (r *Repository) PartSegments(ctx context.Context, cluster string, size int64) ([]pg.Segment, error) {
	prefix := "clusters/" + cluster + "/parts/"
	var out []pg.Segment
	for info, err := range r.store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list parts of %s: %w", cluster, err)
		}
		name, _, _ := strings.Cut(info.Key[len(prefix):], "/")
		s, err := pg.ParseSegmentName(name, size)
		if err != nil {
			return nil, damaged(info.Key, "%v", err)
		}
		if len(out) == 0 || out[len(out)-1] != s {
			out = append(out, s)
		}
	}
	return out, nil
}

// DeletePart removes a part that a complete segment or a longer part has replaced.
func (r *Repository) DeletePart(ctx context.Context, cluster string, p Part) error {
	return r.store.Delete(ctx, p.key(cluster))
}

// PartsEnd is how far the parts cover the segment without a hole from its start, in bytes.
func PartsEnd(parts []Part) int64 {
	end := int64(0)
	for _, p := range parts {
		if p.From > end {
			break
		}
		end = max(end, p.To)
	}
	return end
}

// ReadParts returns the beginning of an unfinished segment as far as its parts
// reach without a hole. No parts: no bytes and no error.
func (r *Repository) ReadParts(ctx context.Context, cluster string, s pg.Segment) ([]byte, error) {
	for attempt := 0; ; attempt++ {
		parts, err := r.Parts(ctx, cluster, s)
		if err != nil {
			return nil, err
		}
		data, err := r.joinParts(ctx, cluster, parts)
		// The receiver merges parts: one that was listed may be gone for a longer one.
		if errors.Is(err, ErrNotFound) && attempt < 5 {
			continue
		}
		return data, err
	}
}

func (r *Repository) joinParts(ctx context.Context, cluster string, parts []Part) ([]byte, error) {
	var data []byte
	for _, p := range parts {
		if p.To <= int64(len(data)) {
			continue
		}
		if p.From > int64(len(data)) {
			break
		}
		b, err := r.readObject(ctx, p.key(cluster), KindPart)
		if err != nil {
			return nil, err
		}
		if int64(len(b)) != p.To-p.From {
			return nil, damaged(p.key(cluster), "it holds %d bytes", len(b))
		}
		data = append(data, b[int64(len(data))-p.From:]...)
	}
	return data, nil
}

func historyKey(cluster string, tli pg.TimelineID) string {
	return "clusters/" + cluster + "/wal/" + pg.HistoryName(tli)
}

// PutHistory stores a timeline's history file. The same content being there
// already is success, other content is ErrConflict.
func (r *Repository) PutHistory(ctx context.Context, cluster string, tli pg.TimelineID, content []byte) error {
	key := historyKey(cluster, tli)
	err := r.putObject(ctx, key, KindHistory, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
	if errors.Is(err, store.ErrExists) {
		return r.sameContent(ctx, key, KindHistory, bytes.NewReader(content))
	}
	return err
}

// History reads a timeline's history file. Absent: ErrNotFound.
func (r *Repository) History(ctx context.Context, cluster string, tli pg.TimelineID) ([]byte, error) {
	return r.readObject(ctx, historyKey(cluster, tli), KindHistory)
}

// Timelines lists the timelines of which the repository holds WAL, parts or a history, ascending.
func (r *Repository) Timelines(ctx context.Context, cluster string) ([]pg.TimelineID, error) {
	seen := map[pg.TimelineID]bool{}
	for _, prefix := range []string{"clusters/" + cluster + "/wal/", "clusters/" + cluster + "/parts/"} {
		for info, err := range r.store.List(ctx, prefix) {
			if err != nil {
				return nil, fmt.Errorf("list timelines of %s: %w", cluster, err)
			}
			if rest := info.Key[len(prefix):]; len(rest) >= 8 {
				if tli, err := strconv.ParseUint(rest[:8], 16, 32); err == nil && tli > 0 {
					seen[pg.TimelineID(tli)] = true
				}
			}
		}
	}
	var out []pg.TimelineID
	for tli := range seen {
		out = append(out, tli)
	}
	slices.Sort(out)
	return out, nil
}
