package archive

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"pileus/internal/pg"
	"pileus/internal/repo"
	"pileus/internal/store"
	"pileus/internal/store/storetest"
)

// inMemory is a lab that is quick, and cannot fail.
func inMemory(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t}
	var err error
	l.repo, err = repo.Init(t.Context(), storetest.NewMem(t), nil, repo.Options{})
	l.check(err)
	return l
}

// holed is branched's WAL with pieces left out, and what that must mean.
type holed struct {
	*branched
	has map[pg.TimelineID]map[uint64]int64 // bytes that are there of a segment
}

func (h *holed) wal(tli pg.TimelineID) *kitWAL {
	if tli == 1 {
		return h.one
	}
	return h.two
}

// store stores n bytes of a segment, cut into parts if it is not whole.
func (h *holed) store(tli pg.TimelineID, number uint64, n int64) {
	h.t.Helper()
	seg := pg.Segment{Timeline: tli, Number: number, Size: kitSize}
	b := h.wal(tli).segment(number)
	if n < 2 {
		n = 0 // parts are never empty, and it is stored as two
	}
	h.has[tli][number] = n
	if n == kitSize {
		h.check(h.repo.PutSegment(h.t.Context(), h.c.Name, seg, bytes.NewReader(b)))
	} else if n > 0 {
		h.check(h.repo.PutPart(h.t.Context(), h.c.Name, repo.Part{Segment: seg, To: n / 2}, b[:n/2]))
		h.check(h.repo.PutPart(h.t.Context(), h.c.Name, repo.Part{Segment: seg, From: n / 2, To: n}, b[n/2:n]))
	}
}

// there tells whether the byte at at of the path is stored, byte by byte: the
// plain meaning of what covered works out from ranges.
func (h *holed) there(path pg.History, at pg.LSN) bool {
	number, off := uint64(at)/uint64(kitSize), int64(at)%kitSize
	if tli := path.TimelineAt(at); h.has[tli][number] > off {
		return true
	}
	// Timeline 2's copy of the segment in which it began.
	return path.Timeline == 2 && at < h.left && uint64(h.left)/uint64(kitSize) == number && h.has[2][number] > off
}

// end is how far the path's WAL goes on from at, in steps in which nothing changes.
func (h *holed) end(path pg.History, at pg.LSN) pg.LSN {
	for _, edge := range h.edges() {
		if edge > at {
			if !h.there(path, at) {
				return at
			}
			at = edge
		}
	}
	return at
}

// edges are the only places where there can change, in order.
func (h *holed) edges() []pg.LSN {
	out := []pg.LSN{h.left, 10 << 20}
	for _, segs := range h.has {
		for n, k := range segs {
			out = append(out, pg.LSN(n)*pg.LSN(kitSize), pg.LSN(n)*pg.LSN(kitSize)+pg.LSN(k))
		}
	}
	slices.Sort(out)
	return out
}

var kitPaths = []pg.TimelineID{1, 2}

// Whatever is missing: nothing is promised that a hole lies before, and nothing
// that is there is concealed.
func TestWindowWithHoles(t *testing.T) {
	base := branch(inMemory(t))
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		h := &holed{branched: base, has: map[pg.TimelineID]map[uint64]int64{1: {}, 2: {}}}
		h.c = h.register(fmt.Sprintf("holes%d", round))
		defer func() { h.c = base.c }()
		h.check(h.repo.PutHistory(t.Context(), h.c.Name, 2, []byte("1\t"+h.left.String()+"\tx\n")))
		for _, tli := range kitPaths {
			for n := uint64(4 + 2*(tli-1)); n <= uint64(6+2*(tli-1)); n++ {
				k := kitSize
				switch rapid.IntRange(0, 5).Draw(rt, fmt.Sprintf("segment %d of %d", n, tli)) {
				case 0:
					k = 0
				case 1:
					k = rapid.Int64Range(0, kitSize-1).Draw(rt, "bytes")
				}
				if tli == 1 && n == 6 { // its file does not go further
					k = min(k, int64(h.one.last-6<<20))
				}
				h.store(tli, n, k)
			}
		}
		type point struct {
			tli         pg.TimelineID
			start, stop pg.LSN
		}
		backups := map[string]point{}
		for i := range rapid.IntRange(0, 3).Draw(rt, "backups") {
			tli := rapid.SampledFrom(kitPaths).Draw(rt, "timeline")
			commits := h.wal(tli).commits
			if tli == 2 {
				commits = commits[len(h.one.commits):]
			}
			a := rapid.IntRange(0, len(commits)-2).Draw(rt, "start")
			b := rapid.IntRange(a+1, min(a+20, len(commits)-1)).Draw(rt, "stop")
			id := fmt.Sprintf("b%d", i)
			backups[id] = point{tli, commits[a].end, commits[b].end}
			h.check(h.repo.WriteManifest(t.Context(), repo.Backup{ID: id, Cluster: h.c.Name, Timeline: tli, StartLSN: commits[a].end, StopLSN: commits[b].end,
				SegmentSize: kitSize, Stopped: commits[b].time, CompleteTo: commits[b].time.Add(-time.Second)}, nil, nil))
		}

		w, err := RestorableWindow(t.Context(), h.repo, h.c)
		if err != nil {
			rt.Fatal(err)
		}
		paths := map[pg.TimelineID]pg.History{1: {Timeline: 1}}
		if paths[2], err = History(t.Context(), h.repo, h.c.Name, 2); err != nil {
			rt.Fatal(err)
		}
		for _, iv := range w.Intervals {
			b, path := backups[iv.Backup], paths[iv.Timeline]
			stored := h.end(path, b.start)
			if iv.ToLSN > stored || iv.FromLSN != b.stop || iv.ToLSN < b.stop {
				rt.Errorf("interval %+v: stored to %s", iv, stored)
			}
			last := h.wal(iv.Timeline).lastCommit(stored)
			if iv.ToLSN < last.end || !iv.To.Equal(last.time) || !iv.LastCommit.IsZero() && !iv.LastCommit.Equal(last.time) {
				rt.Errorf("interval %+v: the last commit is %v", iv, last)
			}
		}
		for id, b := range backups {
			for _, tli := range kitPaths[b.tli-1:] {
				path := paths[tli]
				end := h.end(path, b.start)
				if left, ok := path.End(b.tli); end < b.stop || ok && b.stop > left || path.TimelineAt(end-1) != tli {
					continue
				}
				found := slices.ContainsFunc(w.Intervals, func(iv Interval) bool {
					p := paths[iv.Timeline]
					left, old := p.End(tli)
					return (iv.Timeline == tli || old && end <= left) && iv.FromLSN <= b.stop && iv.ToLSN >= h.wal(tli).lastCommit(end).end
				})
				if !found {
					rt.Errorf("backup %s %+v can be rolled forward to %s on timeline %d, and the window is %+v", id, b, end, tli, w)
				}
			}
		}
		for _, tli := range kitPaths {
			from := pg.LSN(rapid.Int64Range(4<<20, 8<<20).Draw(rt, "from"))
			to := from + pg.LSN(rapid.Int64Range(1, 3<<20).Draw(rt, "length"))
			h.checkRange(rt, paths[tli], from, to)
		}
	})
}

// checkRange compares Covered and Reader with the plain meaning.
func (h *holed) checkRange(rt *rapid.T, path pg.History, from, to pg.LSN) {
	end := h.end(path, from)
	ok, got, err := Covered(rt.Context(), h.repo, h.c, path, from, to)
	if err != nil || ok != (end >= to) || !ok && got != end {
		rt.Errorf("covered from %s to %s on timeline %d: %v to %s (%v), want to %s", from, to, path.Timeline, ok, got, err, end)
	}
	ranges, err := Coverage(rt.Context(), h.repo, h.c)
	if err != nil {
		rt.Fatal(err)
	}
	if got := covered(ranges, path, from, kitSize); got != end {
		rt.Errorf("from %s on timeline %d the ranges %v reach %s, want %s", from, path.Timeline, ranges, got, end)
	}
	for _, stop := range []pg.LSN{to, 0} {
		r := Reader{Repo: h.repo, Cluster: h.c, Path: path}
		at := from
		var err error
		for p, perr := range r.Pieces(rt.Context(), from, stop) {
			if err = perr; err != nil {
				break
			}
			w := h.wal(path.Timeline)
			if p.LSN != at || !bytes.Equal(p.Data, w.bytes[p.LSN-w.start:][:len(p.Data)]) {
				rt.Fatalf("a piece at %s of timeline %d, read to %s, is wrong", p.LSN, path.Timeline, at)
			}
			at += pg.LSN(len(p.Data))
		}
		want := end
		if stop != 0 {
			want = min(stop, end)
		}
		later := slices.ContainsFunc(h.edges(), func(e pg.LSN) bool { return e > end && h.there(path, e) })
		gap := (stop == 0 && later) || (stop != 0 && end < stop)
		var ge *GapError
		if at != want || errors.As(err, &ge) != gap || err != nil && !gap || gap && ge.From != end {
			rt.Errorf("read from %s to %s (asked for %s) on timeline %d, then %v; want to %s, gap: %v", from, at, stop, path.Timeline, err, want, gap)
		}
	}
}

func TestWindowEvidence(t *testing.T) {
	b := newBranched(t)
	b.put(b.one, 1, 4, 5)
	b.check(b.backup(b.c, "b", 1, b.one.start, b.one.commits[3].end))
	window := func() Window {
		t.Helper()
		w, err := RestorableWindow(t.Context(), b.repo, b.c)
		b.check(err)
		return w
	}
	last := b.one.lastCommit(6 << 20)
	w := window()
	if w.Timeline != 1 || !w.Latest.Equal(last.time) || !w.Earliest.Equal(kitTime) || len(w.Gaps)+len(w.Problems) > 0 {
		t.Fatalf("%+v", w)
	}
	quiet := last.time.Add(time.Hour)
	b.check(b.repo.PutWatermark(t.Context(), b.c.Name, repo.Watermark{Timeline: 1, LSN: 6 << 20, Time: quiet}))
	if w = window(); !w.Latest.Equal(quiet) || !w.LatestCommit.Equal(last.time) {
		t.Errorf("with a watermark: %+v", w)
	}
	b.check(b.repo.PutWatermark(t.Context(), b.c.Name, repo.Watermark{Timeline: 1, LSN: 6<<20 + 8, Time: quiet.Add(time.Hour)}))
	b.check(b.repo.PutWatermark(t.Context(), b.c.Name, repo.Watermark{Timeline: 2, LSN: 5 << 20, Time: quiet.Add(time.Hour)}))
	if w = window(); !w.Latest.Equal(quiet) {
		t.Errorf("with watermarks behind the WAL and of another timeline: %+v", w)
	}
	b.put(b.two, 2, 7, 8)
	if w = window(); w.Timeline != 1 || len(w.Gaps) != 1 || w.Gaps[0] != (Range{Timeline: 1, Start: 6 << 20, End: 7 << 20}) {
		t.Errorf("with a gap before the new timeline goes on: %+v", w)
	}
	b.put(b.two, 2, 6)
	if w = window(); w.Timeline != 2 || len(w.Gaps) > 0 || len(w.Intervals) != 1 || !w.LatestCommit.Equal(b.two.lastCommit(9<<20).time) {
		t.Errorf("across the switch: %+v", w)
	}
	b.store.SetDown(true)
	if _, err := RestorableWindow(t.Context(), b.repo, b.c); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("while the store is away: %v", err)
	}
}

// WAL that turns out to be damaged is not promised.
func TestWindowEndsWhereWALIsDamaged(t *testing.T) {
	b := newBranched(t)
	b.put(b.one, 1, 4)
	bad := flipped(b.one.segment(5), 600_000)
	b.check(b.repo.PutSegment(t.Context(), b.c.Name, pg.Segment{Timeline: 1, Number: 5, Size: kitSize}, bytes.NewReader(bad)))
	b.check(b.backup(b.c, "b", 1, b.one.start, b.one.commits[3].end))
	w, err := RestorableWindow(t.Context(), b.repo, b.c)
	b.check(err)
	last := b.one.lastCommit(5<<20 + 600_000)
	if w.LatestLSN > 5<<20+600_000 || !w.LatestCommit.Equal(last.time) || !w.Latest.Equal(last.time) || len(w.Problems) != 1 {
		t.Fatalf("%+v, want %s at %s", w, last.time, last.end)
	}
}
