package damage

import (
	"bytes"
	"encoding/binary"
	"math"

	"pileus/internal/pg"
	"pileus/internal/wal"
)

// Catalogs that the scan follows, by their OIDs, which are their first file numbers, too.
const (
	oidClass     pg.OID = 1259
	oidNamespace pg.OID = 2615
	oidInherits  pg.OID = 2611
	oidDatabase  pg.OID = 1262

	catalogNamespace pg.OID = 11 // pg_catalog
	firstUserOID     pg.OID = 16384
)

// nameLength is that of the type name, padded with zeros.
const nameLength = 64

// relation is a row of pg_class.
type relation struct {
	oid, namespace, file, toast pg.OID
	name                        string
	kind                        byte // r, p, i, t, m, S, v ...
	partition                   bool
	tuples                      float32 // as ANALYZE or VACUUM counted; below zero: never
}

// user tells whether the relation belongs to users and holds rows of theirs.
func (r relation) user() bool { return r.oid >= firstUserOID && (r.kind == 'r' || r.kind == 'm') }

func oidAt(b []byte, at int) pg.OID { return pg.OID(binary.LittleEndian.Uint32(b[at:])) }

func nameAt(b []byte, at int) string {
	name := b[at : at+nameLength]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	return string(name)
}

// classRow reads a row of pg_class, whose first columns have fixed widths and are never null. Source: pg_class.h of
// PostgreSQL 13 to 18, the last of which put one column more before reltoastrelid.
func classRow(row wal.Row, major int) (r relation, ok bool) {
	const fixed = 128
	more := 0
	if major >= 18 {
		more = 4
	}
	b := row.Data
	if len(b) < fixed+more {
		return r, false
	}
	r = relation{oid: oidAt(b, 0), name: nameAt(b, 4), namespace: oidAt(b, 68), file: oidAt(b, 88), tuples: math.Float32frombits(binary.LittleEndian.Uint32(b[100:])),
		toast: oidAt(b, 108+more), kind: b[115+more], partition: b[127+more] != 0}
	return r, r.oid != 0 && r.name != ""
}

// namedRow reads a row that begins with an OID and a name: of pg_namespace and pg_database.
func namedRow(row wal.Row) (oid pg.OID, name string, ok bool) {
	if len(row.Data) < 4+nameLength {
		return 0, "", false
	}
	return oidAt(row.Data, 0), nameAt(row.Data, 4), true
}

// inheritsRow reads a row of pg_inherits.
func inheritsRow(row wal.Row) (child, parent pg.OID, ok bool) {
	if len(row.Data) < 12 {
		return 0, 0, false
	}
	return oidAt(row.Data, 0), oidAt(row.Data, 4), true
}

// parseMap reads a pg_filenode.map. Source: relmapper.c.
func parseMap(b []byte) (files map[pg.OID]pg.OID, ok bool) {
	const magic, header, entry = 0x592717, 8, 8
	if len(b) < header || binary.LittleEndian.Uint32(b) != magic {
		return nil, false
	}
	n := int(binary.LittleEndian.Uint32(b[4:]))
	if n < 0 || header+n*entry > len(b) {
		return nil, false
	}
	files = map[pg.OID]pg.OID{}
	for i := range n {
		files[oidAt(b, header+i*entry)] = oidAt(b, header+i*entry+4)
	}
	return files, true
}
