package damage

import (
	"fmt"
	"slices"
	"time"

	"pileus/internal/pg"
	"pileus/internal/wal"
)

// merger puts together what lanes found, in the order of the WAL.
type merger struct {
	filter  Filter
	names   *names
	open    map[uint32]*part    // what transactions that have not ended did so far
	touched map[uint32]*touched // and what they did to pg_class
	drops   map[uint32][]pg.OID // and the databases that they dropped
	// before is the number from which on every transaction began within the WAL that is read; 0: not known
	// yet, and every transaction may have begun before. early were under way then; unlisted: and their
	// subtransactions are not all among them.
	before   uint32
	early    map[uint32]bool
	unlisted bool
	interval time.Duration // of the buckets; 0: none

	commits int64
	lastLSN pg.LSN
	top     top
	report  Report
	buckets map[int64]*Bucket

	resolved map[pg.RelFile]*resolved // what files are called, as long as the catalogs stay as they are
	tally    smallMap[key, Table]     // of the transaction at hand
	found    []Table                  // and its result
}

func newMerger(f Filter, n *names, keep int, interval time.Duration) *merger {
	return &merger{filter: f, names: n, open: map[uint32]*part{}, touched: map[uint32]*touched{}, drops: map[uint32][]pg.OID{}, early: map[uint32]bool{},
		interval: interval, top: top{keep: keep}, buckets: map[int64]*Bucket{}, resolved: map[pg.RelFile]*resolved{}}
}

// lane takes one lane.
func (m *merger) lane(l *lane) {
	m.report.Records += l.records
	for i := range l.steps {
		m.step(&l.steps[i])
	}
	l.parts.all(func(xid uint32, p *part) {
		if have, ok := m.open[xid]; ok {
			have.join(p)
			l.parts.again(p)
		} else {
			m.open[xid] = p
		}
	})
	if l.until != 0 {
		m.report.EndLSN = l.until
	}
}

func (m *merger) step(s *step) {
	switch {
	case s.commit != nil:
		m.ended(s)
		return
	case s.running != nil:
		m.running(s.running)
		return
	}
	clear(m.resolved) // what follows may change names
	switch {
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
			p = &part{}
			m.open[s.xid] = p
		}
		c, _ := p.files.at(h.File)
		c.count(h.Kind, int64(h.Rows))
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
	m.unlisted = v.Overflow
}

// partial tells whether a transaction may have begun before the WAL that is read.
func (m *merger) partial(c *wal.Commit) bool {
	began := func(x uint32) bool { return m.before == 0 || m.early[x] || m.unlisted && int32(x-m.before) < 0 }
	return began(c.Xid) || slices.ContainsFunc(c.SubXids, began)
}

// ended takes the end of a transaction.
func (m *merger) ended(s *step) {
	c := s.commit
	if c.Kind == wal.KindPrepare {
		return // its changes wait for what becomes of it
	}
	m.gather(s, c.Xid)
	for _, x := range c.SubXids {
		m.gather(s, x)
	}
	if c.Kind.Committed() {
		m.committed(s)
	}
	if !concerns(c, m.touched) && !concerns(c, m.drops) && !concerns(c, m.early) {
		return
	}
	xids := xidsOf(c)
	for x := range xids {
		if t := m.touched[x]; t != nil {
			clear(m.resolved)
			for db := range m.names.databases {
				m.names.ended(db, t.made, xids, c.Kind.Committed())
			}
		}
		delete(m.touched, x)
		delete(m.drops, x)
		delete(m.early, x)
	}
}

// xidsOf are the transaction's number and those of its subtransactions.
func xidsOf(c *wal.Commit) map[uint32]bool {
	xids := make(map[uint32]bool, 1+len(c.SubXids))
	xids[c.Xid] = true
	for _, x := range c.SubXids {
		xids[x] = true
	}
	return xids
}

// concerns tells whether something is known of the transaction or one of its subtransactions.
func concerns[V any](c *wal.Commit, known map[uint32]V) bool {
	if len(known) == 0 {
		return false
	}
	is := func(x uint32) bool { _, ok := known[x]; return ok }
	return is(c.Xid) || slices.ContainsFunc(c.SubXids, is)
}

// gather adds to the end of a transaction what it, or its subtransaction x, did in earlier lanes.
func (m *merger) gather(s *step, x uint32) {
	p := m.open[x]
	if p == nil {
		return
	}
	delete(m.open, x)
	if s.part == nil {
		s.part = p
	} else {
		s.part.join(p)
	}
}

func (m *merger) committed(s *step) {
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
	t := Transaction{XID: c.Xid, Time: c.Time, LSN: s.lsn, End: s.end, GID: c.GID, ordinal: m.commits, Partial: m.partial(c)}
	m.tables(&t, s)
	if concerns(c, m.drops) {
		for x := range xidsOf(c) {
			for _, db := range m.drops[x] {
				t.Dropped = append(t.Dropped, m.databaseName(db))
			}
		}
	}
	if s.part != nil {
		t.Bytes = s.part.bytes
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
		m.top.add(&t)
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
