package archive

import (
	"encoding/binary"
	"hash/crc32"
	"testing"
	"time"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// Synthetic WAL: the page and record formats are those of xlog_internal.h and
// xlogrecord.h, of PostgreSQL 15.
const (
	kitSize   = pg.MinSegmentSize
	kitSystem = 7123456789
	kitPage   = 8192
)

// kitTime is the time of the first commit; each later one is a second later.
var kitTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// kitCommit is a commit in synthetic WAL.
type kitCommit struct {
	end  pg.LSN
	time time.Time
}

// kitWAL writes WAL of one timeline from the start of a segment on.
type kitWAL struct {
	tli     pg.TimelineID
	start   pg.LSN
	bytes   []byte
	prev    pg.LSN
	last    pg.LSN // end of the last record
	commits []kitCommit
	count   *int // commits in all, over all timelines
}

func newKitWAL(start pg.LSN) *kitWAL { return &kitWAL{tli: 1, start: start, count: new(int)} }

func (w *kitWAL) at() pg.LSN { return w.start + pg.LSN(len(w.bytes)) }

// branch continues on another timeline from where w is, with w's WAL before it.
func (w *kitWAL) branch(tli pg.TimelineID) *kitWAL {
	b := *w
	b.bytes, b.commits, b.tli = append([]byte(nil), w.bytes...), append([]kitCommit(nil), w.commits...), tli
	return &b
}

// header begins a page, if one begins here.
func (w *kitWAL) header(rest int) {
	at := w.at()
	if at%kitPage != 0 {
		return
	}
	le := binary.LittleEndian
	h := le.AppendUint16(nil, 0xD110)
	flags := uint16(0)
	if rest > 0 {
		flags |= 1
	}
	if uint64(at)%uint64(kitSize) == 0 {
		flags |= 2
	}
	h = le.AppendUint16(h, flags)
	h = le.AppendUint32(h, uint32(w.tli))
	h = le.AppendUint64(h, uint64(at))
	h = le.AppendUint32(h, uint32(rest))
	h = le.AppendUint32(h, 0)
	if flags&2 != 0 {
		h = le.AppendUint64(h, kitSystem)
		h = le.AppendUint32(h, uint32(kitSize))
		h = le.AppendUint32(h, kitPage)
	}
	w.bytes = append(w.bytes, h...)
}

func (w *kitWAL) record(rmgr, info byte, main []byte) {
	le := binary.LittleEndian
	var body []byte
	if len(main) < 256 {
		body = append(body, 255, byte(len(main)))
	} else {
		body = le.AppendUint32(append(body, 254), uint32(len(main)))
	}
	body = append(body, main...)
	w.header(0)
	lsn := w.at()
	head := le.AppendUint32(nil, uint32(24+len(body)))
	head = le.AppendUint32(head, uint32(700+*w.count))
	head = le.AppendUint64(head, uint64(w.prev))
	head = append(head, info, rmgr, 0, 0)
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	rec := append(le.AppendUint32(head, crc32.Update(crc32.Checksum(body, castagnoli), castagnoli, head)), body...)
	for len(rec) > 0 {
		w.header(len(rec))
		n := min(len(rec), kitPage-len(w.bytes)%kitPage)
		w.bytes, rec = append(w.bytes, rec[:n]...), rec[n:]
	}
	for len(w.bytes)%8 != 0 {
		w.bytes = append(w.bytes, 0)
	}
	w.prev, w.last = lsn, w.at()
}

// noop writes a record that does nothing, of about n bytes.
func (w *kitWAL) noop(n int) { w.record(0, 0x20, make([]byte, n)) }

func (w *kitWAL) commit() {
	t := kitTime.Add(time.Duration(*w.count) * time.Second)
	*w.count++
	since2000 := t.Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).Microseconds()
	w.record(1, 0, binary.LittleEndian.AppendUint64(nil, uint64(since2000)))
	w.commits = append(w.commits, kitCommit{end: w.last, time: t})
}

// fill writes until at least to, with a commit about every step bytes.
func (w *kitWAL) fill(to pg.LSN, step int) {
	for w.at() < to {
		w.commit()
		w.noop(step)
	}
}

// segment is a whole segment's bytes, zero where nothing was written.
func (w *kitWAL) segment(number uint64) []byte {
	out := make([]byte, kitSize)
	from := int64(number)*kitSize - int64(w.start)
	if from < int64(len(w.bytes)) {
		copy(out, w.bytes[from:])
	}
	return out
}

// lastCommit is the newest commit up to end.
func (w *kitWAL) lastCommit(end pg.LSN) (last kitCommit) {
	for _, c := range w.commits {
		if c.end <= end {
			last = c
		}
	}
	return last
}

// register makes the synthetic cluster known under a name.
func (l *lab) register(name string) repo.Cluster {
	l.t.Helper()
	c := repo.Cluster{Name: name, SystemIdentifier: kitSystem, SegmentSize: kitSize, Major: 15}
	l.check(l.repo.CreateCluster(l.t.Context(), c))
	return c
}

func TestSyntheticWALIsSound(t *testing.T) {
	l := newRepository(t)
	c := l.register(theCluster)
	w := newKitWAL(4 << 20)
	w.fill(w.start+3*pg.LSN(kitSize), 30_000)
	dir := t.TempDir()
	for n := uint64(4); n < 7; n++ {
		l.check(l.push(c, dir, pg.Segment{Timeline: 1, Number: n, Size: kitSize}.Name(), w.segment(n)))
	}
	l.check(l.backup(c, "b", 1, w.start, w.commits[0].end))
	got, err := RestorableWindow(t.Context(), l.repo, c)
	l.check(err)
	last := w.lastCommit(7 << 20)
	if len(got.Problems) > 0 || !got.LatestCommit.Equal(last.time) || got.LatestLSN < last.end || got.LatestLSN > 7<<20 {
		t.Fatalf("%+v, want the last commit at %s (%s)", got, last.time, last.end)
	}
}
