package damage

import (
	"cmp"
	"container/heap"
	"path"
	"slices"
	"strings"
	"time"

	"pileus/internal/pg"
)

// Kind is a way of doing damage.
type Kind string

// The kinds.
const (
	KindDelete   Kind = "delete"
	KindUpdate   Kind = "update"
	KindTruncate Kind = "truncate"
	KindDrop     Kind = "drop"
	KindInsert   Kind = "insert"
)

// Kinds lists them all.
func Kinds() []Kind { return []Kind{KindDelete, KindUpdate, KindTruncate, KindDrop, KindInsert} }

// Table is what a transaction did to one table.
type Table struct {
	Name      string `json:"name,omitempty"` // schema.table; empty: not known
	Parent    string `json:"partition_of,omitempty"`
	Database  string `json:"database"`       // name, or its OID where that is not known
	File      string `json:"file,omitempty"` // tablespace/database/file number, where the name is not known
	Inserted  int64  `json:"inserted"`       // rows
	Updated   int64  `json:"updated"`
	Deleted   int64  `json:"deleted"`
	Truncated bool   `json:"truncated,omitempty"`
	Dropped   bool   `json:"dropped,omitempty"`
	Rewritten bool   `json:"rewritten,omitempty"` // by VACUUM FULL, CLUSTER or ALTER TABLE; no row is lost
	// Removed: a file of it was removed, and whether by TRUNCATE, DROP or a rewrite is not known.
	Removed bool `json:"removed,omitempty"`
	// Estimate is how many rows a truncated or dropped table had, as the server's statistics said; -1: they say nothing.
	Estimate int64 `json:"estimated_rows_lost,omitempty"`

	moved int64 // away, by updates that changed the partition
}

// lost is how many rows the table lost or had changed, by the best that is known.
func (t *Table) lost() int64 {
	n := t.Deleted + t.Updated
	if t.Truncated || t.Dropped || t.Removed {
		n += max(1, t.Estimate)
	}
	return n
}

func (t *Table) did(kind Kind) bool {
	switch kind {
	case KindDelete:
		return t.Deleted > 0
	case KindUpdate:
		return t.Updated > 0
	case KindTruncate:
		return t.Truncated || t.Removed
	case KindDrop:
		return t.Dropped || t.Removed
	case KindInsert:
		return t.Inserted > 0
	}
	return false
}

// Transaction is one that committed.
type Transaction struct {
	XID      uint32    `json:"xid"`
	Time     time.Time `json:"committed"` // server's clock
	LSN      pg.LSN    `json:"lsn"`       // of its commit
	End      pg.LSN    `json:"end_lsn"`   // of the commit record
	GID      string    `json:"prepared_as,omitempty"`
	Tables   []Table   `json:"tables"`
	Dropped  []string  `json:"databases_dropped,omitempty"`
	Inserted int64     `json:"inserted"` // rows, in all tables
	Updated  int64     `json:"updated"`
	Deleted  int64     `json:"deleted"`
	Bytes    int64     `json:"wal_bytes"`
	// Partial: it began before the WAL that was read, so that it did at least what is said.
	Partial bool `json:"partial,omitempty"`
	// Later counts the transactions that committed after it, and that a recovery to just before it would undo.
	Later int64 `json:"later_commits"`

	ordinal int64
	score   int64
}

// Bucket is what happened in one interval of time.
type Bucket struct {
	From     time.Time `json:"from"`
	Commits  int64     `json:"commits"`
	Inserted int64     `json:"inserted"`
	Updated  int64     `json:"updated"`
	Deleted  int64     `json:"deleted"`
	Bytes    int64     `json:"wal_bytes"`
}

// Report is what a scan found.
type Report struct {
	From         time.Time     `json:"from"` // commits of this time and later were looked for
	To           time.Time     `json:"to"`
	StartLSN     pg.LSN        `json:"start_lsn"` // WAL was read from here
	EndLSN       pg.LSN        `json:"end_lsn"`   // to here
	Records      int64         `json:"records"`
	Commits      int64         `json:"commits"` // between From and To
	Matched      int64         `json:"matched"` // transactions that meet the filter; the largest are in Transactions
	Transactions []Transaction `json:"transactions"`
	Buckets      []Bucket      `json:"buckets,omitempty"`
	// Stopped is why not all of the range could be read; empty: it was.
	Stopped string `json:"stopped,omitempty"`
}

// Filter says which transactions are looked for.
type Filter struct {
	From, To time.Time // of the commit, both included; zero: no bound
	Table    string    // name, schema.name, or a pattern of either with * and ?; empty: any
	Kinds    []Kind    // any of them; empty: all
	MinRows  int64     // at least so many rows lost or changed in tables that match
}

// matches tells whether a transaction is looked for, and how large its damage is in the tables that match.
func (f *Filter) matches(t *Transaction) (score int64, ok bool) {
	if len(t.Dropped) > 0 && f.Table == "" && (len(f.Kinds) == 0 || slices.Contains(f.Kinds, KindDrop)) {
		return 1 << 60, true
	}
	for i := range t.Tables {
		table := &t.Tables[i]
		if !f.table(table) {
			continue
		}
		if len(f.Kinds) > 0 && !slices.ContainsFunc(f.Kinds, table.did) {
			continue
		}
		score += table.lost()
		if slices.Contains(f.Kinds, KindInsert) {
			score += table.Inserted
		}
		ok = true
	}
	if len(f.Kinds) == 0 && score == 0 {
		return 0, false // it only inserted
	}
	return score, ok && score >= f.MinRows
}

// table tells whether a name matches the pattern, with its schema or without.
func (f *Filter) table(t *Table) bool {
	if f.Table == "" {
		return true
	}
	for _, name := range []string{t.Name, t.Parent, t.File} {
		if name == "" {
			continue
		}
		_, bare, _ := strings.Cut(name, ".")
		for _, n := range []string{name, bare} {
			if ok, err := path.Match(f.Table, n); ok && err == nil {
				return true
			}
		}
	}
	return false
}

// top keeps the largest transactions. It is a heap with the smallest first.
type top struct {
	keep int
	all  []Transaction
}

func (t *top) Len() int           { return len(t.all) }
func (t *top) Less(i, j int) bool { return less(&t.all[i], &t.all[j]) }
func (t *top) Swap(i, j int)      { t.all[i], t.all[j] = t.all[j], t.all[i] }
func (t *top) Push(v any)         { t.all = append(t.all, v.(Transaction)) }
func (t *top) Pop() any {
	last := t.all[len(t.all)-1]
	t.all = t.all[:len(t.all)-1]
	return last
}

func less(a, b *Transaction) bool {
	return cmp.Or(cmp.Compare(a.score, b.score), cmp.Compare(b.LSN, a.LSN)) < 0
}

// add takes a transaction, of which it copies what it keeps.
func (t *top) add(v *Transaction) {
	if len(t.all) == t.keep && less(v, &t.all[0]) {
		return
	}
	own := *v
	own.Tables = slices.Clone(v.Tables)
	heap.Push(t, own)
	if len(t.all) > t.keep {
		heap.Pop(t)
	}
}

// sorted is the largest first.
func (t *top) sorted() []Transaction {
	slices.SortFunc(t.all, func(a, b Transaction) int {
		if less(&b, &a) {
			return -1
		}
		return 1
	})
	return t.all
}
