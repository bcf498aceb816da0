package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"pileus/internal/pg"
	"pileus/internal/repo"
	"pileus/internal/wal"
)

// Window says which moments of a cluster can be restored. Its own fields describe
// the interval on the newest timeline that reaches furthest; Intervals are all.
type Window struct {
	Timeline    pg.TimelineID `json:"timeline,omitempty"`
	Earliest    time.Time     `json:"earliest,omitzero"` // the first backup was complete
	EarliestLSN pg.LSN        `json:"earliest_lsn,omitzero"`
	// Latest is the time up to which everything that was committed is durable in
	// the repository, without a gap; never later.
	Latest       time.Time  `json:"latest,omitzero"`
	LatestLSN    pg.LSN     `json:"latest_lsn,omitzero"`    // WAL is durable up to here
	LatestCommit time.Time  `json:"latest_commit,omitzero"` // of the last commit that was found in it
	Intervals    []Interval `json:"intervals,omitempty"`
	Gaps         []Range    `json:"gaps,omitempty"` // WAL that is missing between WAL that is there
	Problems     []string   `json:"problems,omitempty"`
}

// Interval is a stretch of restorable moments: from the end of its first backup to
// where the WAL that follows on it ends.
type Interval struct {
	Timeline pg.TimelineID `json:"timeline"` // newest one on its path
	Backup   string        `json:"backup"`   // its first
	From     time.Time     `json:"from"`
	FromLSN  pg.LSN        `json:"from_lsn"`
	To       time.Time     `json:"to"`
	ToLSN    pg.LSN        `json:"to_lsn"`
	path     pg.History
	start    pg.LSN // of the newest backup in it: where to stop looking for commits
}

// Restorable tells whether any moment can be restored.
func (w Window) Restorable() bool { return len(w.Intervals) > 0 }

// lookBack is how many segments are read at the most to find the last commit.
const lookBack = 64

// RestorableWindow works out the window from what the repository holds. It lists
// objects and decodes the last segments; a backup that cannot be read is a problem in
// the answer, not an error.
func RestorableWindow(ctx context.Context, r *repo.Repository, c repo.Cluster) (Window, error) {
	var w Window
	ranges, err := Coverage(ctx, r, c)
	if err != nil {
		return w, err
	}
	w.Gaps = gaps(ranges)
	newest, err := NewestTimeline(ctx, r, c.Name)
	if err != nil {
		return w, err
	}
	marks, err := r.Watermarks(ctx, c.Name)
	if err != nil {
		return w, err
	}
	var backups []repo.Backup
	for b, err := range r.Backups(ctx, c.Name) {
		if errors.Is(err, repo.ErrDamaged) {
			w.Problems = append(w.Problems, err.Error())
			continue
		} else if err != nil {
			return w, err
		}
		backups = append(backups, b)
	}
	paths := newPaths(r, c.Name)
	for _, b := range backups {
		path, err := paths.of(ctx, b, newest)
		if err != nil {
			w.Problems = append(w.Problems, fmt.Sprintf("backup %s: %v", b.ID, err))
			continue
		}
		end := covered(ranges, path, b.StartLSN, c.SegmentSize)
		if end < b.StopLSN {
			w.Problems = append(w.Problems, fmt.Sprintf("backup %s cannot be restored: it needs WAL to %s, and the repository has it to %s", b.ID, b.StopLSN, end))
			continue
		}
		w.join(b, path, end)
	}
	for i := range w.Intervals {
		if err := w.latest(ctx, r, c, &w.Intervals[i], backups, marks); err != nil {
			return w, err
		}
	}
	w.choose()
	return w, nil
}

// join adds a backup to the interval it continues, or begins a new one.
func (w *Window) join(b repo.Backup, path pg.History, end pg.LSN) {
	for i := range w.Intervals {
		if iv := &w.Intervals[i]; iv.ToLSN == end && iv.Timeline == path.Timeline {
			iv.start = max(iv.start, b.StartLSN)
			return
		}
	}
	w.Intervals = append(w.Intervals, Interval{Timeline: path.Timeline, Backup: b.ID, From: b.Stopped, FromLSN: b.StopLSN,
		ToLSN: end, path: path, start: b.StartLSN})
}

// choose copies the interval that reaches furthest into the window's own fields.
func (w *Window) choose() {
	for _, iv := range w.Intervals {
		if iv.Timeline > w.Timeline || (iv.Timeline == w.Timeline && iv.ToLSN > w.LatestLSN) {
			w.Timeline, w.Earliest, w.EarliestLSN, w.Latest, w.LatestLSN = iv.Timeline, iv.From, iv.FromLSN, iv.To, iv.ToLSN
		}
	}
}

// latest finds the time that the interval's WAL proves complete.
func (w *Window) latest(ctx context.Context, r *repo.Repository, c repo.Cluster, iv *Interval, backups []repo.Backup, marks []repo.Watermark) error {
	last, err := lastCommit(ctx, r, c, iv)
	if errors.Is(err, repo.ErrDamaged) {
		w.Problems = append(w.Problems, err.Error())
	} else if err != nil {
		return err
	}
	iv.To = last
	if last.After(w.LatestCommit) {
		w.LatestCommit = last
	}
	proof := func(t time.Time, tli pg.TimelineID, lsn pg.LSN) {
		if end, left := iv.path.End(tli); iv.path.Contains(tli) && lsn <= iv.ToLSN && (!left || lsn <= end) && t.After(iv.To) {
			iv.To = t
		}
	}
	for _, m := range marks {
		proof(m.Time, m.Timeline, m.LSN)
	}
	for _, b := range backups {
		if b.StartLSN >= iv.FromLSN || b.ID == iv.Backup {
			proof(b.CompleteTo, b.Timeline, b.StopLSN)
		}
	}
	if iv.To.Before(iv.From) {
		iv.To = iv.From // the backup itself is consistent then
	}
	return nil
}

// lastCommit is the time of the last commit in the interval's WAL; zero if none is near its end.
func lastCommit(ctx context.Context, r *repo.Repository, c repo.Cluster, iv *Interval) (time.Time, error) {
	if iv.ToLSN == 0 {
		return time.Time{}, nil
	}
	seg := pg.SegmentAt(iv.path.TimelineAt(iv.ToLSN-1), iv.ToLSN-1, c.SegmentSize)
	oldest := pg.SegmentAt(seg.Timeline, iv.start, c.SegmentSize).Number
	for i := 0; i < lookBack && seg.Number >= oldest; i++ {
		// From the second on the following segment is read once more: a commit
		// may begin in one and end in the other.
		t, err := commitIn(ctx, r, c, iv, seg, i > 0)
		if err != nil || !t.IsZero() || seg.Number == 0 {
			return t, err
		}
		seg.Number--
		seg.Timeline = iv.path.TimelineAt(seg.Start())
	}
	return time.Time{}, nil
}

func commitIn(ctx context.Context, r *repo.Repository, c repo.Cluster, iv *Interval, seg pg.Segment, andNext bool) (last time.Time, err error) {
	d, err := wal.NewDecoder(wal.Config{SystemID: c.SystemIdentifier, SegmentSize: c.SegmentSize, Timeline: iv.path.Timeline})
	if err != nil {
		return last, err
	}
	segs := []pg.Segment{seg}
	if andNext {
		next := seg.Next()
		next.Timeline = iv.path.TimelineAt(next.Start())
		segs = append(segs, next)
	}
	for _, s := range segs {
		err := feedSegment(ctx, r, c, s, iv.ToLSN, d, func(rec *wal.Record) {
			if commit, ok, err := wal.ParseCommit(rec); err == nil && ok && commit.Kind.Committed() {
				last = commit.Time
			}
		})
		var end *wal.EndOfWALError
		var bad *wal.DamageError
		switch {
		case errors.As(err, &end):
			return last, nil
		case errors.As(err, &bad):
			return last, fmt.Errorf("WAL of %s is %w: %w", c.Name, repo.ErrDamaged, bad)
		case err != nil:
			return last, err
		}
	}
	return last, nil
}

// feedSegment decodes what the repository holds of a segment, up to limit.
func feedSegment(ctx context.Context, r *repo.Repository, c repo.Cluster, s pg.Segment, limit pg.LSN, d *wal.Decoder, see func(*wal.Record)) error {
	src, err := openStored(ctx, r, c, s)
	if err != nil {
		return err
	}
	defer src.Close()
	buf := make([]byte, 1<<20)
	for at := s.Start(); at < limit; {
		n, err := io.ReadFull(src, buf[:min(int64(len(buf)), int64(limit-at))])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		if n == 0 {
			return nil
		}
		if err := d.Feed(at, buf[:n]); err != nil {
			return err
		}
		at += pg.LSN(n)
		for {
			rec, ok, err := d.Next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			see(rec)
		}
	}
	return nil
}

// gaps lists the holes between ranges of one timeline.
func gaps(ranges []Range) []Range {
	var out []Range
	for i := 1; i < len(ranges); i++ {
		if a, b := ranges[i-1], ranges[i]; a.Timeline == b.Timeline && a.End < b.Start {
			out = append(out, Range{Timeline: a.Timeline, Start: a.End, End: b.Start})
		}
	}
	return out
}

// paths remembers histories while a window is worked out.
type paths struct {
	r       *repo.Repository
	cluster string
	known   map[pg.TimelineID]pg.History
}

func newPaths(r *repo.Repository, cluster string) *paths {
	return &paths{r: r, cluster: cluster, known: map[pg.TimelineID]pg.History{}}
}

func (p *paths) history(ctx context.Context, tli pg.TimelineID) (pg.History, error) {
	if h, ok := p.known[tli]; ok {
		return h, nil
	}
	h, err := History(ctx, p.r, p.cluster, tli)
	if err == nil {
		p.known[tli] = h
	}
	return h, err
}

// of is the path that a backup's WAL goes on along: to the newest timeline that
// descends from it, or its own.
func (p *paths) of(ctx context.Context, b repo.Backup, newest pg.TimelineID) (pg.History, error) {
	for tli := newest; tli > b.Timeline; tli-- {
		h, err := p.history(ctx, tli)
		if errors.Is(err, repo.ErrNotFound) {
			continue
		} else if err != nil {
			return h, err
		}
		if end, ok := h.End(b.Timeline); ok && b.StopLSN <= end {
			return h, nil
		}
	}
	return p.history(ctx, b.Timeline)
}

// errUnstored: the repository has neither the segment nor parts of it.
var errUnstored = errors.New("no such segment in the repository")

// openStored opens a complete segment, or what there is of an unfinished one.
func openStored(ctx context.Context, r *repo.Repository, c repo.Cluster, s pg.Segment) (io.ReadCloser, error) {
	rc, err := r.OpenSegment(ctx, c.Name, s)
	if !errors.Is(err, repo.ErrNotFound) {
		return rc, err
	}
	data, err := r.ReadParts(ctx, c.Name, s)
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		// It may have become whole between the two looks.
		if rc, err := r.OpenSegment(ctx, c.Name, s); !errors.Is(err, repo.ErrNotFound) {
			return rc, err
		}
		return nil, fmt.Errorf("%s: %w", s, errUnstored)
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}
