package damage

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"pileus/internal/pg"
	"pileus/internal/wal"
)

// merger puts together what lanes found, in the order of the WAL.
type merger struct {
	filter   Filter
	names    *names
	open     map[uint32]*part    // what transactions that have not ended did so far
	touched  map[uint32]*touched // and what they did to pg_class
	drops    map[uint32][]pg.OID // and the databases that they dropped
	prepared map[uint32]bool
	// before is the number from which on every transaction began within the WAL that is read; 0: not known
	// yet, and every transaction may have begun before. early were under way then.
	before   uint32
	early    map[uint32]bool
	interval time.Duration // of the buckets; 0: none

	commits int64
	lastLSN pg.LSN
	top     top
	report  Report
	buckets map[int64]*Bucket
}

func newMerger(f Filter, n *names, keep int, interval time.Duration) *merger {
	return &merger{filter: f, names: n, open: map[uint32]*part{}, touched: map[uint32]*touched{}, drops: map[uint32][]pg.OID{}, early: map[uint32]bool{},
		prepared: map[uint32]bool{}, interval: interval, top: top{keep: keep}, buckets: map[int64]*Bucket{}}
}

// lane takes one lane.
func (m *merger) lane(l *lane) {
	m.report.Records += l.records
	for xid, p := range l.parts {
		have, ok := m.open[xid]
		if !ok {
			m.open[xid] = p
			continue
		}
		have.bytes += p.bytes
		for f, c := range p.files {
			if to, ok := have.files[f]; ok {
				to.add(*c)
			} else {
				have.files[f] = c
			}
		}
	}
	for i := range l.steps {
		m.step(&l.steps[i])
	}
	if l.until != 0 {
		m.report.EndLSN = l.until
	}
}

func (m *merger) step(s *step) {
	switch {
	case s.commit != nil:
		m.ended(s)
	case s.running != nil:
		m.running(s.running)
	case s.page != nil:
		m.names.page(s.page)
	case s.catalog != nil:
		m.catalog(s)
	case s.copied != nil:
		m.names.copied(s.copied)
	case s.gone != nil:
		m.drops[s.xid] = append(m.drops[s.xid], s.gone.Database)
	case s.mapped != nil:
		m.names.mapped(s.mapped)
	}
}

// catalog takes a change of a file whose number is a catalog's in some database. In this one it may be a table like
// any other.
func (m *merger) catalog(s *step) {
	h := s.catalog
	if h.File.Database != 0 && m.names.database(h.File.Database).files[h.File.Relation] == 0 {
		p, ok := m.open[s.xid]
		if !ok {
			p = &part{files: map[pg.RelFile]*counts{}, first: s.lsn}
			m.open[s.xid] = p
		}
		c, ok := p.files[h.File]
		if !ok {
			c = &counts{}
			p.files[h.File] = c
		}
		count(c, h.Kind, int64(h.Rows))
		return
	}
	t, ok := m.touched[s.xid]
	if !ok {
		t = &touched{}
		m.touched[s.xid] = t
	}
	m.names.change(h, s.xid, t)
}

// running takes the first list of running transactions: those in it, and none that begins later, may have done
// things before the WAL that is read.
func (m *merger) running(v *wal.Running) {
	if m.before != 0 {
		return
	}
	m.before = v.Next
	for _, x := range v.Xids {
		m.early[x] = true
	}
	if v.Overflow { // subtransactions are not listed
		for x := range m.open {
			if int32(x-v.Next) < 0 {
				m.early[x] = true
			}
		}
	}
}

// partial tells whether a transaction may have begun before the WAL that is read.
func (m *merger) partial(xids map[uint32]bool) bool {
	for x := range xids {
		if m.before == 0 || m.early[x] {
			return true
		}
	}
	return false
}

// ended takes the end of a transaction.
func (m *merger) ended(s *step) {
	c := s.commit
	xids := map[uint32]bool{c.Xid: true}
	for _, x := range c.SubXids {
		xids[x] = true
	}
	if c.Kind == wal.KindPrepare {
		return // its changes wait for what becomes of it
	}
	if c.Kind.Committed() {
		m.committed(s, xids)
	}
	for x := range xids {
		if t := m.touched[x]; t != nil {
			for db := range m.names.databases {
				m.names.ended(db, t.made, xids, c.Kind.Committed())
			}
		}
		delete(m.open, x)
		delete(m.touched, x)
		delete(m.drops, x)
		delete(m.early, x)
	}
}

func (m *merger) committed(s *step, xids map[uint32]bool) {
	c := s.commit
	m.commits++
	bytes := int64(s.end - m.lastLSN)
	if m.lastLSN == 0 {
		bytes = 0
	}
	m.lastLSN = s.end
	if !m.filter.From.IsZero() && c.Time.Before(m.filter.From) || !m.filter.To.IsZero() && c.Time.After(m.filter.To) {
		return
	}
	t := Transaction{XID: c.Xid, Time: c.Time, LSN: s.lsn, End: s.end, GID: c.GID, ordinal: m.commits, Partial: m.partial(xids)}
	m.tables(&t, c, xids)
	for x := range xids {
		for _, db := range m.drops[x] {
			t.Dropped = append(t.Dropped, m.databaseName(db))
		}
		if p := m.open[x]; p != nil {
			t.Bytes += p.bytes
		}
	}
	for i := range t.Tables {
		t.Inserted += t.Tables[i].Inserted
		t.Updated += t.Tables[i].Updated
		t.Deleted += t.Tables[i].Deleted
	}
	m.report.Commits++
	m.bucket(&t, bytes)
	if score, ok := m.filter.matches(&t); ok {
		t.score = score
		m.report.Matched++
		m.top.add(t)
	}
}

func (m *merger) bucket(t *Transaction, bytes int64) {
	if m.interval == 0 {
		return
	}
	at := t.Time.Truncate(m.interval)
	b, ok := m.buckets[at.UnixNano()]
	if !ok {
		b = &Bucket{From: at.UTC()}
		m.buckets[at.UnixNano()] = b
	}
	b.Commits++
	b.Inserted += t.Inserted
	b.Updated += t.Updated
	b.Deleted += t.Deleted
	b.Bytes += bytes
}

func (m *merger) databaseName(db pg.OID) string {
	if name, ok := m.names.called[db]; ok {
		return name
	}
	return fmt.Sprint(db)
}

// key tells tables apart: by the relation where it is known, otherwise by the file.
type key struct {
	database pg.OID
	relation pg.OID
	file     pg.RelFile
}

// tables works out what a transaction did to each table.
func (m *merger) tables(t *Transaction, c *wal.Commit, xids map[uint32]bool) {
	rewrites := m.rewrites(xids)
	all := map[key]*Table{}
	table := func(f pg.RelFile, by map[uint32]bool) *Table {
		r, known := m.names.file(f, by)
		if known && !r.user() {
			return nil // a catalog, an index, a TOAST table: its owner's rows tell
		}
		if !known && f.Relation < firstUserOID {
			return nil
		}
		k := key{database: f.Database, file: f}
		if known {
			k = key{database: f.Database, relation: r.oid}
		}
		v, ok := all[k]
		if !ok {
			v = &Table{Database: m.databaseName(f.Database)}
			if known {
				v.Name, v.Parent = m.names.qualified(f.Database, r, xids)
			} else {
				v.File = f.String()
			}
			all[k] = v
		}
		return v
	}
	for x := range xids {
		p := m.open[x]
		if p == nil {
			continue
		}
		for f, n := range p.files {
			if rewrites.files[f.Relation] {
				continue // the same rows in a new file
			}
			if v := table(f, xids); v != nil {
				v.Inserted += n.inserted
				v.Updated += n.updated
				v.Deleted += n.deleted
				v.moved += n.moved
			}
		}
	}
	for _, f := range c.Dropped {
		m.removed(f, xids, rewrites, table)
	}
	for _, v := range all {
		if *v != (Table{Database: v.Database, Name: v.Name, Parent: v.Parent, File: v.File}) {
			t.Tables = append(t.Tables, *v)
		}
	}
	t.Tables = settleMoves(t.Tables)
	slices.SortFunc(t.Tables, func(a, b Table) int {
		return cmp.Or(cmp.Compare(b.lost(), a.lost()), cmp.Compare(b.Inserted, a.Inserted), cmp.Compare(a.Database+"."+a.Name+a.File, b.Database+"."+b.Name+b.File))
	})
}

// settleMoves makes of rows that an update moved between partitions what they are: updated rows, not a deletion and an insertion.
func settleMoves(tables []Table) []Table {
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
	return slices.DeleteFunc(tables, func(t Table) bool {
		return t.Inserted == 0 && t.lost() == 0 && !t.Rewritten
	})
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
func (m *merger) removed(f pg.RelFile, xids map[uint32]bool, r rewrites, table func(pg.RelFile, map[uint32]bool) *Table) {
	rel, known := m.names.file(f, nil) // as it was before
	if !known {
		if own, ok := m.names.file(f, xids); ok || f.Relation < firstUserOID {
			_ = own
			return // made and removed by the same transaction
		}
		// Indexes and TOAST tables have numbers, too: without a name it cannot be told.
		if v := table(f, nil); v != nil {
			v.Removed, v.Estimate = true, -1
		}
		return
	}
	if !rel.user() {
		return
	}
	v := table(f, nil)
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

// finish completes the report.
func (m *merger) finish() Report {
	r := m.report
	r.Transactions = m.top.sorted()
	for i := range r.Transactions {
		r.Transactions[i].Later = m.commits - r.Transactions[i].ordinal
	}
	if r.Transactions == nil {
		r.Transactions = []Transaction{}
	}
	for _, b := range m.buckets {
		r.Buckets = append(r.Buckets, *b)
	}
	slices.SortFunc(r.Buckets, func(a, b Bucket) int { return a.From.Compare(b.From) })
	return r
}
