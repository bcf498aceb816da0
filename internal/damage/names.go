package damage

import (
	"maps"
	"slices"

	"pileus/internal/pg"
	"pileus/internal/wal"
)

// names follows the catalogs that say what files are called.
type names struct {
	major     int
	databases map[pg.OID]*database
	called    map[pg.OID]string // databases by OID
	global    map[place]wal.Row // rows of pg_database
}

// place is a row version of a catalog.
type place struct {
	file pg.OID
	at   wal.TupleID
}

// version is a row of pg_class and the transaction that made it.
type version struct {
	relation
	xmin      uint32
	committed bool // xmin is known to have committed
}

// database is one database's catalogs.
type database struct {
	files      map[pg.OID]pg.OID // catalogs' file numbers to their OIDs
	rows       map[place]wal.Row
	byFile     map[pg.OID][]version // pg_class by file number, oldest first
	byOID      map[pg.OID][]version
	namespaces map[pg.OID]string
	parents    map[pg.OID]pg.OID // of partitions
	owners     map[pg.OID]pg.OID // of TOAST tables, by their OIDs
}

func newDatabase() *database {
	return &database{files: map[pg.OID]pg.OID{oidClass: oidClass, oidNamespace: oidNamespace, oidInherits: oidInherits}, rows: map[place]wal.Row{},
		byFile: map[pg.OID][]version{}, byOID: map[pg.OID][]version{}, namespaces: map[pg.OID]string{}, parents: map[pg.OID]pg.OID{}, owners: map[pg.OID]pg.OID{}}
}

func newNames(major int) *names {
	return &names{major: major, databases: map[pg.OID]*database{}, called: map[pg.OID]string{}, global: map[place]wal.Row{}}
}

func (n *names) database(oid pg.OID) *database {
	d, ok := n.databases[oid]
	if !ok {
		d = newDatabase()
		n.databases[oid] = d
	}
	return d
}

// catalogs lists the file numbers to follow, in whatever database.
func (n *names) catalogs() map[pg.OID]bool {
	out := map[pg.OID]bool{oidClass: true, oidNamespace: true, oidInherits: true, oidDatabase: true}
	for _, d := range n.databases {
		for file := range d.files {
			out[file] = true
		}
	}
	return out
}

// touched is what a transaction did to pg_class.
type touched struct {
	made    []relation // new versions of rows
	deleted []pg.OID   // relations whose row is gone
}

// page takes the rows on a page.
func (n *names) page(p *catalogPage) {
	for i := range p.rows {
		v := &p.rows[i]
		committed, aborted := v.Made()
		n.keep(p.file, v.TupleID, v.Row)
		if _, gone := v.Replaced(); !gone && !aborted {
			n.learn(p.file, v.Row, v.Xmin, committed)
		}
	}
}

// change takes one change of a catalog, and says what it did to pg_class.
func (n *names) change(h *wal.HeapChange, xid uint32, to *touched) {
	d := n.database(h.File.Database)
	rows := d.rows
	if h.File.Database == 0 {
		rows = n.global
	}
	switch h.Kind {
	case wal.HeapDelete:
		if row, ok := rows[place{h.File.Relation, h.Old}]; ok && d.files[h.File.Relation] == oidClass {
			if r, ok := classRow(row, n.major); ok {
				to.deleted = append(to.deleted, r.oid)
			}
		}
		return
	case wal.HeapOverwrite:
		at := place{h.File.Relation, h.New}
		if row, ok := rows[at]; ok {
			row.Data = slices.Clone(h.Overwritten())
			rows[at] = row
		}
		return
	}
	row, ok := h.NewRow(func(id wal.TupleID) (wal.Row, bool) {
		row, ok := rows[place{h.File.Relation, id}]
		return row, ok
	})
	if !ok { // the page's image had it
		row, ok = rows[place{h.File.Relation, h.New}]
	}
	if !ok {
		return
	}
	n.keep(h.File, h.New, row)
	n.learn(h.File, row, xid, false)
	if d.files[h.File.Relation] == oidClass {
		if r, ok := classRow(row, n.major); ok {
			to.made = append(to.made, r)
		}
	}
}

// keep remembers where a row version is: a later one may say only in what it differs.
func (n *names) keep(f pg.RelFile, at wal.TupleID, row wal.Row) {
	rows := n.global
	if f.Database != 0 {
		rows = n.database(f.Database).rows
	}
	rows[place{f.Relation, at}] = row
}

// learn takes what a row version of a catalog says.
func (n *names) learn(f pg.RelFile, row wal.Row, xmin uint32, committed bool) {
	if f.Database == 0 {
		if oid, name, ok := namedRow(row); ok && f.Relation == oidDatabase {
			n.called[oid] = name
		}
		return
	}
	d := n.database(f.Database)
	switch d.files[f.Relation] {
	case oidClass:
		if r, ok := classRow(row, n.major); ok {
			d.learn(version{r, xmin, committed})
		}
	case oidNamespace:
		if oid, name, ok := namedRow(row); ok {
			d.namespaces[oid] = name
		}
	case oidInherits:
		if child, parent, ok := inheritsRow(row); ok {
			d.parents[child] = parent
		}
	}
}

func (d *database) learn(v version) {
	same := func(o version) bool { return o.xmin == v.xmin && o.relation == v.relation }
	for _, to := range []struct {
		all map[pg.OID][]version
		key pg.OID
	}{{d.byFile, v.file}, {d.byOID, v.oid}} {
		if i := slices.IndexFunc(to.all[to.key], same); i >= 0 {
			to.all[to.key][i].committed = to.all[to.key][i].committed || v.committed
		} else {
			to.all[to.key] = append(to.all[to.key], v)
		}
	}
	if v.toast != 0 {
		d.owners[v.toast] = v.oid
	}
	switch v.oid { // a catalog that moved to another file
	case oidNamespace, oidInherits:
		if v.file != 0 {
			d.files[v.file] = v.oid
		}
	}
}

// ended writes down that transactions committed, or forgets what they made.
func (n *names) ended(db pg.OID, made []relation, xids map[uint32]bool, committed bool) {
	d, ok := n.databases[db]
	if !ok {
		return
	}
	for _, r := range made {
		for _, to := range []struct {
			all map[pg.OID][]version
			key pg.OID
		}{{d.byFile, r.file}, {d.byOID, r.oid}} {
			list := to.all[to.key]
			if !committed {
				to.all[to.key] = slices.DeleteFunc(list, func(v version) bool { return xids[v.xmin] })
				continue
			}
			for i := range list {
				if xids[list[i].xmin] {
					list[i].committed = true
				}
			}
		}
	}
}

// latest is the newest version that is certain: committed, or made by one of the transactions.
func latest(all []version, by map[uint32]bool) (relation, bool) {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].committed || by[all[i].xmin] {
			return all[i].relation, true
		}
	}
	// None is marked as committed. Where there is one only, it must be: the file was written to by who committed.
	if len(all) == 1 {
		return all[0].relation, true
	}
	return relation{}, false
}

// file is the relation whose rows a file holds, as transactions see it.
func (n *names) file(f pg.RelFile, by map[uint32]bool) (relation, bool) {
	d, ok := n.databases[f.Database]
	if !ok {
		return relation{}, false
	}
	return latest(d.byFile[f.Relation], by)
}

// certain tells whether latest is the same for all transactions.
func certain(all []version) bool { return len(all) <= 1 || all[len(all)-1].committed }

// settled tells whether all transactions see a file under the same names.
func (n *names) settled(f pg.RelFile) bool {
	d, ok := n.databases[f.Database]
	if !ok {
		return true
	}
	list := d.byFile[f.Relation]
	for hops := 0; hops <= maxHops; hops++ {
		if !certain(list) {
			return false
		}
		r, ok := latest(list, nil)
		if !ok || !r.partition {
			break
		}
		list = d.byOID[d.parents[r.oid]]
	}
	return true
}

// maxHops is how deep partitions of partitions are followed.
const maxHops = 32

// qualified is a relation's name with its schema, and root the partitioned table that it is a part of, if it is one.
func (n *names) qualified(db pg.OID, r relation, by map[uint32]bool) (name, root string) {
	d := n.database(db)
	with := func(r relation) string {
		space, ok := d.namespaces[r.namespace]
		if !ok {
			return r.name
		}
		return space + "." + r.name
	}
	top := r
	for hops := 0; top.partition && hops < maxHops; hops++ {
		parent, ok := latest(d.byOID[d.parents[top.oid]], by)
		if !ok {
			break
		}
		top = parent
	}
	if top.oid != r.oid {
		root = with(top)
	}
	return with(r), root
}

// copied gives a new database what its template has.
func (n *names) copied(c *wal.DatabaseCreate) {
	from, ok := n.databases[c.SourceDatabase]
	if !ok {
		return
	}
	to := newDatabase()
	to.files, to.rows, to.namespaces, to.parents, to.owners = maps.Clone(from.files), maps.Clone(from.rows), maps.Clone(from.namespaces), maps.Clone(from.parents), maps.Clone(from.owners)
	for k, v := range from.byFile {
		to.byFile[k] = slices.Clone(v)
	}
	for k, v := range from.byOID {
		to.byOID[k] = slices.Clone(v)
	}
	n.databases[c.Database] = to
}

// mapped takes a new map of the catalogs that pg_class itself does not place. A pg_class that moved cannot be
// followed: its rows come from the next backup.
func (n *names) mapped(m *wal.RelationMap) {
	if m.Database == 0 {
		return
	}
	d := n.database(m.Database)
	for _, f := range m.Files {
		if f.Relation == oidClass {
			d.files[f.File] = oidClass
		}
	}
}
