package damage

import (
	"cmp"
	"fmt"
	"slices"

	"pileus/internal/pg"
	"pileus/internal/wal"
)

// key tells tables apart: by the relation where it is known, otherwise by the file.
type key struct {
	database pg.OID
	relation pg.OID
	file     pg.RelFile
}

// resolved is where the rows of a file count.
type resolved struct {
	key  key
	none bool  // nowhere: a catalog, an index or a TOAST table, whose owner's rows tell
	head Table // its names
}

// resolve finds out where the rows of a file count, as transactions see it. by is xidsOf(c) or, for what was before, nil.
func (m *merger) resolve(f pg.RelFile, by map[uint32]bool) resolved {
	rel, known := m.names.file(f, by)
	if known && !rel.user() || !known && f.Relation < firstUserOID {
		return resolved{none: true}
	}
	v := resolved{key: key{database: f.Database, file: f}, head: Table{Database: m.databaseName(f.Database)}}
	if known {
		v.key = key{database: f.Database, relation: rel.oid}
		v.head.Name, v.head.Parent = m.names.qualified(f.Database, rel, by)
	} else {
		v.head.File = f.String()
	}
	return v
}

// table is what the transaction at hand did to the table whose rows a file holds; nil: nothing that counts.
func (m *merger) table(v *resolved) *Table {
	if v.none {
		return nil
	}
	t, there := m.tally.at(v.key)
	if !there {
		*t = v.head
	}
	return t
}

// tables works out what a transaction did to each table. The result lies in memory that the next one uses again.
func (m *merger) tables(t *Transaction, s *step) {
	m.tally.reset()
	var xids map[uint32]bool // only where the transaction may see other names than all the others do
	var rewrites rewrites
	if len(s.commit.Dropped) > 0 || concerns(s.commit, m.touched) {
		xids = xidsOf(s.commit)
		rewrites = m.rewrites(xids)
	}
	if s.part != nil {
		for i := range s.part.files.entries {
			e := &s.part.files.entries[i]
			if rewrites.files[e.key.Relation] {
				continue // the same rows in a new file
			}
			if v := m.table(m.lookup(e.key, s.commit, xids)); v != nil {
				v.Inserted += e.value.inserted
				v.Updated += e.value.updated
				v.Deleted += e.value.deleted
				v.moved += e.value.moved
			}
		}
	}
	for _, f := range s.commit.Dropped {
		m.removed(f, xids, rewrites)
	}
	found, moves := m.found[:0], false
	for i := range m.tally.entries {
		moves = moves || m.tally.entries[i].value.moved != 0
		found = append(found, m.tally.entries[i].value)
	}
	if moves {
		settleMoves(found)
	}
	found = slices.DeleteFunc(found, func(t Table) bool { return t.Inserted == 0 && t.lost() == 0 && !t.Rewritten })
	if len(found) > 1 {
		slices.SortFunc(found, func(a, b Table) int {
			if c := cmp.Compare(b.lost(), a.lost()); c != 0 {
				return c
			}
			if c := cmp.Compare(b.Inserted, a.Inserted); c != 0 {
				return c
			}
			return cmp.Or(cmp.Compare(a.Database, b.Database), cmp.Compare(a.Name, b.Name), cmp.Compare(a.File, b.File))
		})
	}
	m.found, t.Tables = found, found
}

// lookup is resolve, remembered where all transactions see the same. xids is xidsOf(c), or nil where nobody needed it yet.
func (m *merger) lookup(f pg.RelFile, c *wal.Commit, xids map[uint32]bool) *resolved {
	if v := m.resolved[f]; v != nil {
		return v
	}
	if !m.names.settled(f) {
		if xids == nil {
			xids = xidsOf(c)
		}
		v := m.resolve(f, xids)
		return &v
	}
	v := m.resolve(f, nil)
	if len(m.resolved) >= maxResolved {
		clear(m.resolved)
	}
	m.resolved[f] = &v
	return &v
}

// maxResolved bounds how many files' names are remembered.
const maxResolved = 1 << 16

// settleMoves makes of rows that an update moved between partitions what they are: updated rows, not a deletion and an insertion.
func settleMoves(tables []Table) {
	moved := map[string]int64{}
	for i := range tables {
		t := &tables[i]
		moved[t.Database+" "+t.Parent] += t.moved
		t.Updated += t.moved
		t.moved = 0
	}
	for i := range tables {
		t := &tables[i]
		if n := min(t.Inserted, moved[t.Database+" "+t.Parent]); t.Parent != "" && n > 0 {
			t.Inserted -= n
			moved[t.Database+" "+t.Parent] -= n
		}
	}
}

// rewrites are the tables that a transaction wrote anew: it made a transient one, pg_temp_OID, and exchanged their files.
type rewrites struct {
	tables map[pg.OID]bool // that were rewritten
	files  map[pg.OID]bool // that hold their rows now
	moved  map[pg.OID]bool // relations whose row got another file
	gone   map[pg.OID]bool // relations whose row was deleted
	made   map[pg.OID]bool // relations that the transaction made
}

func (m *merger) rewrites(xids map[uint32]bool) rewrites {
	r := rewrites{tables: map[pg.OID]bool{}, files: map[pg.OID]bool{}, moved: map[pg.OID]bool{}, gone: map[pg.OID]bool{}, made: map[pg.OID]bool{}}
	for x := range xids {
		t := m.touched[x]
		if t == nil {
			continue
		}
		for _, oid := range t.deleted {
			r.gone[oid] = true
		}
		for _, made := range t.made {
			var of pg.OID
			if _, err := fmt.Sscanf(made.name, "pg_temp_%d", &of); err == nil && made.kind == 'r' && made.oid >= firstUserOID {
				r.tables[of] = true
				r.files[made.file] = true
			}
			r.moved[made.oid] = true
		}
	}
	return r
}

// removed says of a file that a commit removes what became of its table.
func (m *merger) removed(f pg.RelFile, xids map[uint32]bool, r rewrites) {
	table := func() *Table {
		v := m.resolve(f, nil)
		return m.table(&v)
	}
	rel, known := m.names.file(f, nil) // as it was before
	if !known {
		if _, ok := m.names.file(f, xids); ok || f.Relation < firstUserOID {
			return // made and removed by the same transaction
		}
		// Indexes and TOAST tables have numbers, too: without a name it cannot be told.
		if v := table(); v != nil {
			v.Removed, v.Estimate = true, -1
		}
		return
	}
	if !rel.user() {
		return
	}
	v := table()
	if v == nil {
		return
	}
	switch {
	case r.tables[rel.oid]:
		v.Rewritten = true
		return
	case r.gone[rel.oid]:
		v.Dropped = true
	case r.moved[rel.oid]:
		v.Truncated = true
	default:
		v.Removed = true
	}
	v.Estimate = int64(rel.tuples)
	if rel.tuples < 0 {
		v.Estimate = -1
	}
}
