package changes

import (
	"math"

	"pileus/internal/pg"
)

// Set is what changed. It is for one goroutine.
type Set struct {
	relations map[pg.RelFile]*relation
	databases map[place]bool

	last     pg.RelFile // that was looked up last, as records of one relation come in a row
	lastSeen *relation
}

// place is one database's folder in one tablespace.
type place struct{ tablespace, database pg.OID }

type relation struct {
	limit uint32 // blocks from here on changed
	pages pages
}

// NewSet makes an empty set.
func NewSet() *Set {
	return &Set{relations: map[pg.RelFile]*relation{}, databases: map[place]bool{}}
}

func (s *Set) relation(f pg.RelFile) *relation {
	if s.lastSeen != nil && s.last == f {
		return s.lastSeen
	}
	r := s.relations[f]
	if r == nil {
		r = &relation{limit: math.MaxUint32}
		s.relations[f] = r
	}
	s.last, s.lastSeen = f, r
	return r
}

func (s *Set) cut(f pg.RelFile, blocks uint32) {
	r := s.relation(f)
	r.limit = min(r.limit, blocks)
}

// Join adds what another set holds, which must not be used any more.
func (s *Set) Join(other *Set) {
	for p := range other.databases {
		s.databases[p] = true
	}
	for f, r := range other.relations {
		mine := s.relations[f]
		if mine == nil {
			s.relations[f] = r
			continue
		}
		mine.limit = min(mine.limit, r.limit)
		mine.pages.join(&r.pages)
	}
}

// Whole tells whether everything in the file may have changed.
func (s *Set) Whole(p pg.RelationPath) bool {
	if p.Fork != pg.ForkMain || p.Temp || s.databases[place{p.Tablespace, p.Database}] {
		return true
	}
	r := s.relations[p.RelFile]
	return r != nil && r.limit <= p.FirstBlock()
}

// Pages lists the pages of a file of the given length that have to be read, where
// an older copy had the length before: what changed, and what is new. Lengths
// are in blocks; the pages are counted from the file's start, ascending. It must not be Whole.
func (s *Set) Pages(p pg.RelationPath, length, before uint32) []uint32 {
	var out []uint32
	known := min(length, before)
	if r := s.relations[p.RelFile]; r != nil {
		first := p.FirstBlock()
		known = min(known, r.limit-first)
		out = r.pages.between(nil, first, first+known)
	}
	for page := known; page < length; page++ {
		out = append(out, page)
	}
	return out
}
