package wal

import "pileus/internal/pg"

// Kinds of records of RmgrDatabase, which 15 numbered anew, and of RmgrTablespace
// (dbcommands_xlog.h, tablespace.h).
const (
	databaseCreateCopy   = 0x00
	databaseDrop14       = 0x10 // up to 14
	databaseCreateLogged = 0x10 // from 15 on
	databaseDrop         = 0x20 // from 15 on
	tablespaceCreate     = 0x00
	tablespaceDrop       = 0x10
)

// DatabaseCreate says that the part of a database in one tablespace came to be;
// a database in several has as many records.
type DatabaseCreate struct {
	Database, Tablespace pg.OID
	// Copied: replay copies the source's files as they are at that moment; no other record tells
	// what is in them. Otherwise the folder is created, and each page follows in records of its own.
	Copied                           bool
	SourceDatabase, SourceTablespace pg.OID // zero unless Copied
}

// ParseDatabaseCreate reads the creation of a database; ok is false for every
// other record.
func ParseDatabaseCreate(r *Record) (c DatabaseCreate, ok bool, err error) {
	if r.Rmgr != RmgrDatabase {
		return c, false, nil
	}
	c.Copied = r.Op() == databaseCreateCopy
	if !c.Copied && (r.Major < 15 || r.Op() != databaseCreateLogged) {
		return DatabaseCreate{}, false, nil
	}
	f := fields{b: r.MainData}
	c.Database, c.Tablespace = f.oid(), f.oid()
	if c.Copied {
		c.SourceDatabase, c.SourceTablespace = f.oid(), f.oid()
	}
	return c, true, finish(r, &f, "database creation")
}

// DatabaseDrop says that a database's files were removed from tablespaces: all
// it had, or one that it was moved out of.
type DatabaseDrop struct {
	Database    pg.OID
	Tablespaces []pg.OID
}

// ParseDatabaseDrop reads the removal of a database's files; ok is false for
// every other record.
func ParseDatabaseDrop(r *Record) (d DatabaseDrop, ok bool, err error) {
	op := uint8(databaseDrop)
	if r.Major < 15 {
		op = databaseDrop14
	}
	if r.Rmgr != RmgrDatabase || r.Op() != op {
		return d, false, nil
	}
	f := fields{b: r.MainData}
	d.Database = f.oid()
	d.Tablespaces = make([]pg.OID, f.count(4))
	for i := range d.Tablespaces {
		d.Tablespaces[i] = f.oid()
	}
	return d, true, finish(r, &f, "database removal")
}

// TablespaceCreate says that a tablespace was created.
type TablespaceCreate struct {
	Tablespace pg.OID
	Location   string // folder on the server; empty where it was made in the data directory
}

// ParseTablespaceCreate reads the creation of a tablespace; ok is false for every
// other record.
func ParseTablespaceCreate(r *Record) (c TablespaceCreate, ok bool, err error) {
	if r.Rmgr != RmgrTablespace || r.Op() != tablespaceCreate {
		return c, false, nil
	}
	f := fields{b: r.MainData}
	c.Tablespace, c.Location = f.oid(), f.text()
	return c, true, finish(r, &f, "tablespace creation")
}

// ParseTablespaceDrop reads the removal of a tablespace, which is empty then; ok
// is false for every other record.
func ParseTablespaceDrop(r *Record) (tablespace pg.OID, ok bool, err error) {
	if r.Rmgr != RmgrTablespace || r.Op() != tablespaceDrop {
		return 0, false, nil
	}
	f := fields{b: r.MainData}
	tablespace = f.oid()
	return tablespace, true, finish(r, &f, "tablespace removal")
}

// RelationMap is the new content of a pg_filenode.map: which files the catalogs
// have that cannot be looked up in pg_class.
type RelationMap struct {
	Database   pg.OID // zero: of the catalogs that all databases share
	Tablespace pg.OID
	Files      []MappedFile
}

// MappedFile is the file number of one catalog.
type MappedFile struct{ Relation, File pg.OID }

// ParseRelationMap reads a change of a relation map; ok is false for every other
// record. The error is a *DamageError, as of all of these. Source: relmapper.c.
func ParseRelationMap(r *Record) (m RelationMap, ok bool, err error) {
	const update, magic = 0x00, 0x592717
	if r.Rmgr != RmgrRelMap || r.Op() != update {
		return m, false, nil
	}
	f := fields{b: r.MainData}
	m.Database, m.Tablespace = f.oid(), f.oid()
	f = fields{b: f.next(f.count(1)), short: f.short}
	found := f.u32()
	n := f.count(8)
	for range n {
		m.Files = append(m.Files, MappedFile{Relation: f.oid(), File: f.oid()})
	}
	if err := finish(r, &f, "relation map"); err != nil {
		return m, true, err
	}
	if found != magic {
		return m, true, damage(r.LSN, "relation map begins with %#x, not %#x", found, magic)
	}
	return m, true, nil
}
