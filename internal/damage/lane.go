package damage

import (
	"context"
	"iter"

	"pileus/internal/archive"
	"pileus/internal/pg"
	"pileus/internal/wal"
)

// laneSegments is how many segments one worker decodes in a row, and the end of a lane what lies behind
// it is read as far as its last record reaches.
const laneSegments = 4

// counts are rows of one file in one transaction.
type counts struct{ inserted, updated, deleted, moved int64 }

func (c *counts) add(o counts) {
	c.inserted += o.inserted
	c.updated += o.updated
	c.deleted += o.deleted
	c.moved += o.moved
}

// part is what one transaction, or subtransaction, did in a lane.
type part struct {
	files map[pg.RelFile]*counts
	bytes int64
	first pg.LSN
}

// step is a record whose place in the order matters. One of its pointers is set.
type step struct {
	lsn, end pg.LSN
	xid      uint32
	commit   *wal.Commit
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

	parts       map[uint32]*part
	steps       []step
	records     int64
	prev, last  pg.LSN // start of the record before the first, and of the last
	until       pg.LSN // end of the last record
	err         error  // where it stopped early
	recent      *part  // of xid, the last one asked for
	xid         uint32
	recentFile  pg.RelFile
	recentCount *counts
}

// source is how a lane reads.
type source struct {
	pieces   func(ctx context.Context, from, to pg.LSN) iter.Seq2[archive.Piece, error]
	decoder  wal.Config
	catalogs map[pg.OID]bool // file numbers of the catalogs to follow
	images   *wal.Images
}

// decode reads the lane. Where it cannot go on, l.err says so, and what was read before counts.
func (s *source) decode(ctx context.Context, l *lane) {
	l.parts = map[uint32]*part{}
	d, err := wal.NewDecoder(s.decoder)
	if err != nil {
		l.err = err
		return
	}
	for _, stretch := range [][2]pg.LSN{{l.from, l.end}, {l.end, l.to}} {
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

// of is what a transaction did in this lane.
func (l *lane) of(xid uint32, at pg.LSN) *part {
	if l.recent != nil && l.xid == xid {
		return l.recent
	}
	p, ok := l.parts[xid]
	if !ok {
		p = &part{files: map[pg.RelFile]*counts{}, first: at}
		l.parts[xid] = p
	}
	l.recent, l.xid, l.recentCount = p, xid, nil
	return p
}

func (l *lane) rows(p *part, f pg.RelFile) *counts {
	if l.recentCount != nil && l.recentFile == f {
		return l.recentCount
	}
	c, ok := p.files[f]
	if !ok {
		c = &counts{}
		p.files[f] = c
	}
	l.recentFile, l.recentCount = f, c
	return c
}

// record adds one record.
func (s *source) record(r *wal.Record, l *lane) error {
	if r.Xid != 0 {
		l.of(r.Xid, r.LSN).bytes += int64(r.TotalLen)
	}
	switch r.Rmgr {
	case wal.RmgrHeap, wal.RmgrHeap2:
		h, ok, err := wal.ParseHeap(r)
		if err != nil {
			return err
		}
		if ok && s.catalogs[h.File.Relation] {
			return s.catalog(r, &h, l)
		}
		if ok && r.Xid != 0 {
			count(l.rows(l.of(r.Xid, r.LSN), h.File), h.Kind, int64(h.Rows))
		}
		if !ok {
			s.imagesOf(r, l)
		}
		return nil
	case wal.RmgrTransaction:
		c, ok, err := wal.ParseCommit(r)
		if err == nil && ok {
			l.add(r, step{commit: &c})
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

func count(c *counts, kind wal.HeapKind, rows int64) {
	switch kind {
	case wal.HeapInsert:
		c.inserted += rows
	case wal.HeapUpdate:
		c.updated += rows
	case wal.HeapDelete:
		c.deleted += rows
	case wal.HeapMove:
		c.moved += rows
	case wal.HeapUnmake:
		c.inserted -= rows
	}
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
		if !b.HasImage || b.Fork != pg.ForkMain || !s.catalogs[b.File.Relation] {
			continue
		}
		page, err := s.images.Page(b)
		if err != nil {
			continue
		}
		l.add(r, step{page: &catalogPage{b.File, wal.Versions(page, b.Block)}})
	}
}
