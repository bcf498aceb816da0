package damage

import (
	"pileus/internal/pg"
	"pileus/internal/wal"
)

// counts are rows of one file in one transaction.
type counts struct{ inserted, updated, deleted, moved int64 }

func (c *counts) add(o counts) {
	c.inserted += o.inserted
	c.updated += o.updated
	c.deleted += o.deleted
	c.moved += o.moved
}

func (c *counts) count(kind wal.HeapKind, rows int64) {
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

// part is what one transaction, or subtransaction, did in some stretch of WAL.
type part struct {
	files smallMap[pg.RelFile, counts]
	bytes int64
}

// join adds what o did.
func (p *part) join(o *part) {
	p.bytes += o.bytes
	for i := range o.files.entries {
		c, _ := p.files.at(o.files.entries[i].key)
		c.add(o.files.entries[i].value)
	}
}

func (p *part) reset() {
	p.files.reset()
	p.bytes = 0
}

// slots of parts, a power of two: transactions that run at the same time have numbers near each other.
const slots = 1 << 12

// parts holds the transactions of a lane that have not ended: each in the slot that its number gives, or, where another is
// there, in far. The zero value is not usable.
type parts struct {
	near [slots]slot
	far  map[uint32]*part
	free []*part // to be used again
}

type slot struct {
	xid  uint32
	part *part
}

func newParts() *parts { return &parts{far: map[uint32]*part{}} }

// of is a transaction's part.
func (s *parts) of(xid uint32) *part {
	n := &s.near[xid%slots]
	if n.part != nil && n.xid == xid {
		return n.part
	}
	if len(s.far) > 0 {
		if p := s.far[xid]; p != nil {
			return p
		}
	}
	p := s.fresh()
	if n.part == nil {
		n.xid, n.part = xid, p
	} else {
		s.far[xid] = p
	}
	return p
}

// take removes a transaction's part, and is nil where there is none.
func (s *parts) take(xid uint32) *part {
	if n := &s.near[xid%slots]; n.part != nil && n.xid == xid {
		p := n.part
		n.part = nil
		return p
	}
	p := s.far[xid]
	if p != nil {
		delete(s.far, xid)
	}
	return p
}

// all calls do for each part, and forgets it.
func (s *parts) all(do func(xid uint32, p *part)) {
	for i := range s.near {
		if n := &s.near[i]; n.part != nil {
			do(n.xid, n.part)
			n.part = nil
		}
	}
	for xid, p := range s.far {
		do(xid, p)
	}
	clear(s.far)
}

func (s *parts) fresh() *part {
	if last := len(s.free) - 1; last >= 0 {
		p := s.free[last]
		s.free = s.free[:last]
		return p
	}
	p := &part{}
	p.files.entries = make([]entry[pg.RelFile, counts], 0, 4) // a table, its index and what goes with them
	return p
}

// again takes a part back that nobody needs any more; nil is nothing.
func (s *parts) again(p *part) {
	if p != nil {
		p.reset()
		s.free = append(s.free, p)
	}
}
