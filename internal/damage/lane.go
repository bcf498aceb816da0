package damage

import (
	"context"
	"iter"
	"sync"

	"pileus/internal/archive"
	"pileus/internal/pg"
	"pileus/internal/wal"
)

// laneBytes is how much one worker decodes in a row, in whole segments and at least one. What a lane found waits in memory
// until it is merged: some 350 bytes for each transaction, which is 26 MiB where a lane has 75,000.
const laneBytes = 32 << 20

// tailBytes is how far behind the end of a lane its last record is looked for at first: far less than
// what the reader would otherwise expand in advance.
const tailBytes = 64 << 10

// step is a record whose place in the order matters. One of its pointers is set.
type step struct {
	lsn, end pg.LSN
	xid      uint32
	commit   *wal.Commit
	part     *part // what the transaction that ends did in this lane, with its subtransactions; nil: nothing
	running  *wal.Running
	catalog  *wal.HeapChange // of a catalog, its slices its own
	page     *catalogPage
	copied   *wal.DatabaseCreate
	gone     *wal.DatabaseDrop
	mapped   *wal.RelationMap
}

// catalogPage are the rows on the image of a catalog's page.
type catalogPage struct {
	file pg.RelFile
	rows []wal.Version
}

// lane is WAL in which records start that one worker decodes.
type lane struct {
	from, end, to pg.LSN

	*memory
	records    int64
	prev, last pg.LSN // start of the record before the first, and of the last
	until      pg.LSN // end of the last record
	err        error  // where it stopped early
}

// memory is what a lane fills, and another one after it.
type memory struct {
	parts   *parts // of transactions that do not end in the lane
	steps   []step
	commits [][]wal.Commit // of steps, in pieces of commitsAtOnce: none of them moves
	ended   int            // how many of them are in use
}

// commitsAtOnce is how many ends of transactions a lane gets memory for in one go.
const commitsAtOnce = 512

func newMemory() *memory { return &memory{parts: newParts()} }

// commit is a place for one.
func (m *memory) commit() *wal.Commit {
	if m.ended == len(m.commits)*commitsAtOnce {
		m.commits = append(m.commits, make([]wal.Commit, commitsAtOnce))
	}
	c := &m.commits[m.ended/commitsAtOnce][m.ended%commitsAtOnce]
	m.ended++
	return c
}

// source is how a lane reads.
type source struct {
	pieces   func(ctx context.Context, from, to pg.LSN) iter.Seq2[archive.Piece, error]
	decoder  wal.Config
	catalogs map[pg.OID]bool // file numbers of the catalogs to follow
	moved    bool            // one of them is not below firstUserOID
	images   *wal.Images
	pool     sync.Pool // of *memory
}

// follows tells whether a file may be a catalog to follow.
func (s *source) follows(file pg.OID) bool {
	return (file < firstUserOID || s.moved) && s.catalogs[file]
}

// decode reads the lane. Where it cannot go on, l.err says so, and what was read before counts.
func (s *source) decode(ctx context.Context, l *lane) {
	if l.memory, _ = s.pool.Get().(*memory); l.memory == nil {
		l.memory = newMemory()
	}
	d, err := wal.NewDecoder(s.decoder)
	if err != nil {
		l.err = err
		return
	}
	tail := min(l.end+tailBytes, l.to)
	for _, stretch := range [][2]pg.LSN{{l.from, l.end}, {l.end, tail}, {tail, l.to}} {
		for p, err := range s.pieces(ctx, stretch[0], stretch[1]) {
			if err == nil {
				err = d.Feed(p.LSN, p.Data)
			}
			done := false
			if err == nil {
				done, err = s.take(d, l)
			}
			if done || err != nil {
				l.err = err
				return
			}
		}
		if !d.Pending() {
			break
		}
	}
	l.err = ctx.Err()
}

func (s *source) take(d *wal.Decoder, l *lane) (done bool, err error) {
	for {
		r, ok, err := d.Next()
		if err != nil || !ok {
			return false, err
		}
		if r.LSN >= l.end {
			return true, nil
		}
		if l.records == 0 {
			l.prev = r.Prev
		}
		l.records++
		l.last, l.until = r.LSN, r.End
		if err := s.record(r, l); err != nil {
			return false, err
		}
	}
}

// done takes back a lane's memory once it was merged.
func (s *source) done(l *lane) {
	for i := range l.steps {
		l.parts.again(l.steps[i].part)
	}
	clear(l.steps)
	l.steps, l.memory.ended = l.steps[:0], 0
	s.pool.Put(l.memory)
	l.memory = nil
}

// record adds one record.
func (s *source) record(r *wal.Record, l *lane) error {
	var p *part
	if r.Xid != 0 {
		p = l.parts.of(r.Xid)
		p.bytes += int64(r.TotalLen)
	}
	switch r.Rmgr {
	case wal.RmgrHeap, wal.RmgrHeap2:
		h, ok, err := wal.ParseHeap(r)
		if err != nil {
			return err
		}
		if ok && s.follows(h.File.Relation) {
			return s.catalog(r, &h, l)
		}
		if ok && p != nil {
			c, _ := p.files.at(h.File)
			c.count(h.Kind, int64(h.Rows))
		}
		if !ok {
			s.imagesOf(r, l)
		}
		return nil
	case wal.RmgrTransaction:
		c, ok, err := wal.ParseCommit(r)
		if err == nil && ok {
			l.finish(r, c)
		}
		return err
	case wal.RmgrStandby:
		v, ok, err := wal.ParseRunning(r)
		if err == nil && ok {
			l.add(r, step{running: &v})
		}
		return err
	case wal.RmgrDatabase:
		return l.database(r)
	case wal.RmgrRelMap:
		m, ok, err := wal.ParseRelationMap(r)
		if err == nil && ok {
			l.add(r, step{mapped: &m})
		}
		return err
	case wal.RmgrXLOG:
		s.imagesOf(r, l)
	}
	return nil
}

func (l *lane) add(r *wal.Record, s step) {
	s.lsn, s.end, s.xid = r.LSN, r.End, r.Xid
	l.steps = append(l.steps, s)
}

func (l *lane) database(r *wal.Record) error {
	if c, ok, err := wal.ParseDatabaseCreate(r); err != nil {
		return err
	} else if ok {
		l.add(r, step{copied: &c})
		return nil
	}
	d, ok, err := wal.ParseDatabaseDrop(r)
	if err == nil && ok {
		l.add(r, step{gone: &d})
	}
	return err
}

// finish keeps the end of a transaction, together with what it and its subtransactions did in this lane.
func (l *lane) finish(r *wal.Record, c wal.Commit) {
	end := step{commit: l.commit()}
	*end.commit = c
	if c.Kind != wal.KindPrepare { // what a prepared one did waits for what becomes of it
		end.part = l.parts.take(c.Xid)
		for _, x := range c.SubXids {
			switch sub := l.parts.take(x); {
			case sub == nil:
			case end.part == nil:
				end.part = sub
			default:
				end.part.join(sub)
				l.parts.again(sub)
			}
		}
	}
	l.add(r, end)
}

// catalog keeps a change of a catalog for when its turn comes.
func (s *source) catalog(r *wal.Record, h *wal.HeapChange, l *lane) error {
	s.imagesOf(r, l)
	own := h.Clone()
	l.add(r, step{catalog: &own})
	return nil
}

// imagesOf keeps the rows on the images of catalogs' pages that a record has. An image that cannot be expanded is
// passed over: it only costs names.
func (s *source) imagesOf(r *wal.Record, l *lane) {
	for i := range r.Blocks {
		b := &r.Blocks[i]
		if !b.HasImage || b.Fork != pg.ForkMain || !s.follows(b.File.Relation) {
			continue
		}
		page, err := s.images.Page(b)
		if err != nil {
			continue
		}
		l.add(r, step{page: &catalogPage{b.File, wal.Versions(page, b.Block)}})
	}
}
