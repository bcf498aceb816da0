package changes

import (
	"fmt"

	"pileus/internal/pg"
	"pileus/internal/wal"
)

// Reason says why WAL cannot tell what changed.
type Reason struct {
	LSN  pg.LSN // of the record
	Text string
}

// Error gives the reason and the position.
func (e *Reason) Error() string { return fmt.Sprintf("%s at %s", e.Text, e.LSN) }

// Apply adds what one record changes. The error is a *Reason or a *wal.DamageError.
func (s *Set) Apply(r *wal.Record) error {
	for i := range r.Blocks {
		if b := &r.Blocks[i]; b.Fork == pg.ForkMain {
			s.relation(b.File).pages.add(b.Block)
		}
	}
	switch r.Rmgr {
	case wal.RmgrStorage:
		return s.storage(r)
	case wal.RmgrDatabase:
		return s.database(r)
	case wal.RmgrTransaction:
		return s.transaction(r)
	case wal.RmgrXLOG:
		return s.parameters(r)
	}
	if r.SpecialRelUpdate() {
		return &Reason{r.LSN, fmt.Sprintf("a record of %s changes relation files in a way that is not known", r.Rmgr)}
	}
	return nil
}

func (s *Set) storage(r *wal.Record) error {
	if c, ok, err := wal.ParseStorageCreate(r); err != nil {
		return err
	} else if ok {
		if c.Fork == pg.ForkMain {
			s.cut(c.File, 0)
		}
		return nil
	}
	t, ok, err := wal.ParseStorageTruncate(r)
	if err != nil {
		return err
	}
	if !ok {
		return unknown(r)
	}
	if t.Main {
		s.cut(t.File, t.Blocks)
	}
	return nil
}

func (s *Set) database(r *wal.Record) error {
	if c, ok, err := wal.ParseDatabaseCreate(r); err != nil {
		return err
	} else if ok {
		s.databases[place{c.Tablespace, c.Database}] = true
		return nil
	}
	d, ok, err := wal.ParseDatabaseDrop(r)
	if err != nil {
		return err
	}
	if !ok {
		return unknown(r)
	}
	for _, tablespace := range d.Tablespaces {
		s.databases[place{tablespace, d.Database}] = true
	}
	return nil
}

// transaction marks the files that a transaction's end removes: another relation may get their
// numbers, though only when all numbers have been used up.
func (s *Set) transaction(r *wal.Record) error {
	if !r.SpecialRelUpdate() {
		return nil
	}
	c, ok, err := wal.ParseCommit(r)
	if err != nil {
		return err
	}
	if !ok {
		return unknown(r)
	}
	for _, f := range c.Dropped {
		s.cut(f, 0)
	}
	return nil
}

// parameters stops where the server began to leave changes out of WAL.
func (s *Set) parameters(r *wal.Record) error {
	p, ok, err := wal.ParseParameterChange(r)
	if err == nil && ok && p.WALLevel == pg.WALLevelMinimal {
		err = &Reason{r.LSN, "wal_level was set to minimal"}
	}
	return err
}

func unknown(r *wal.Record) error {
	return &Reason{r.LSN, fmt.Sprintf("a record of %s is of a kind that is not known, %#02x", r.Rmgr, r.Op())}
}
