package wal_test

import (
	"os"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"pileus/internal/pg"
	"pileus/internal/wal"
)

// storage is what the records said that create, cut and remove files.
type storage struct {
	created          []wal.StorageCreate
	truncated        []wal.StorageTruncate
	databases        []wal.DatabaseCreate
	droppedDatabases []wal.DatabaseDrop
	tablespaces      []wal.TablespaceCreate
	droppedSpaces    []pg.OID
	maps             []wal.RelationMap
}

// gather adds what one parser read.
func gather[T any](t *testing.T, into *[]T, what T, ok bool, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if ok {
		*into = append(*into, what)
	}
}

func (s *storage) take(t *testing.T, r *wal.Record) {
	t.Helper()
	before := s.count()
	create, ok, err := wal.ParseStorageCreate(r)
	gather(t, &s.created, create, ok, err)
	truncate, ok, err := wal.ParseStorageTruncate(r)
	gather(t, &s.truncated, truncate, ok, err)
	database, ok, err := wal.ParseDatabaseCreate(r)
	gather(t, &s.databases, database, ok, err)
	dropped, ok, err := wal.ParseDatabaseDrop(r)
	gather(t, &s.droppedDatabases, dropped, ok, err)
	space, ok, err := wal.ParseTablespaceCreate(r)
	gather(t, &s.tablespaces, space, ok, err)
	gone, ok, err := wal.ParseTablespaceDrop(r)
	gather(t, &s.droppedSpaces, gone, ok, err)
	m, ok, err := wal.ParseRelationMap(r)
	gather(t, &s.maps, m, ok, err)
	switch r.Rmgr {
	case wal.RmgrStorage, wal.RmgrDatabase, wal.RmgrTablespace, wal.RmgrRelMap:
		if s.count() != before+1 {
			t.Errorf("record of %s at %s with info %#x was read by %d parsers", r.Rmgr, r.LSN, r.Info, s.count()-before)
		}
	default:
		if s.count() != before {
			t.Errorf("record of %s at %s was taken for one that changes files", r.Rmgr, r.LSN)
		}
	}
}

func (s *storage) count() int {
	return len(s.created) + len(s.truncated) + len(s.databases) + len(s.droppedDatabases) + len(s.tablespaces) + len(s.droppedSpaces) + len(s.maps)
}

// truth is what the server says of the same.
type truth struct {
	database, account, shrinks, shrinksBlocks, pgClass, copied pg.OID
}

func storageTruth(t *testing.T, c *pgx.Conn) truth {
	t.Helper()
	var w truth
	err := c.QueryRow(t.Context(), `select d.oid, pg_relation_filenode('account'), pg_relation_filenode('shrinks'), pg_relation_size('shrinks') / 8192,
		pg_relation_filenode('pg_class'), coalesce((select oid from pg_database where datname = 'copied'), 0) from pg_database d where datname = 'postgres'`).
		Scan(&w.database, &w.account, &w.shrinks, &w.shrinksBlocks, &w.pgClass, &w.copied)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (s *storage) check(t *testing.T, w truth, major int, elsewhere string) {
	t.Helper()
	const pgDefault, pgClass, firstNormalOID = 1663, 1259, 16384
	file := func(rel pg.OID) pg.RelFile {
		return pg.RelFile{Tablespace: pgDefault, Database: w.database, Relation: rel}
	}
	for _, want := range []wal.StorageCreate{{File: file(w.account)}, {File: file(w.shrinks)}, {File: file(w.pgClass)}} {
		if !slices.Contains(s.created, want) {
			t.Errorf("the creation of %v was not seen", want)
		}
	}
	if !slices.ContainsFunc(s.created, func(c wal.StorageCreate) bool { return c.Fork == pg.ForkInit }) {
		t.Error("the unlogged table's fork was not seen")
	}
	if want := (wal.StorageTruncate{File: file(w.shrinks), Blocks: uint32(w.shrinksBlocks), Main: true, VM: true, FSM: true}); !slices.Contains(s.truncated, want) || want.Blocks == 0 {
		t.Errorf("truncations %v, want %v among them", s.truncated, want)
	}
	made := slices.DeleteFunc(s.databases, func(d wal.DatabaseCreate) bool { return d.Database < firstNormalOID })
	logged := func(d wal.DatabaseCreate) bool { return !d.Copied && d.SourceDatabase == 0 }
	copied := func(d wal.DatabaseCreate) bool {
		return d.Copied && d.SourceDatabase == 1 && d.SourceTablespace == pgDefault && d.Tablespace == pgDefault
	}
	switch {
	case major < 15:
		if len(made) != 1 || !copied(made[0]) {
			t.Errorf("databases %+v", made)
		}
	case len(made) != 2 || !logged(made[0]) || !copied(made[1]) || made[1].Database != w.copied:
		t.Errorf("databases %+v", made)
	}
	if len(s.droppedDatabases) != 1 || s.droppedDatabases[0].Database != made[0].Database || !slices.Equal(s.droppedDatabases[0].Tablespaces, []pg.OID{pgDefault}) {
		t.Errorf("dropped databases %+v", s.droppedDatabases)
	}
	if len(s.tablespaces) != 1 || s.tablespaces[0].Location != elsewhere || len(s.droppedSpaces) != 1 || s.droppedSpaces[0] != s.tablespaces[0].Tablespace {
		t.Errorf("tablespaces %+v, dropped %v", s.tablespaces, s.droppedSpaces)
	}
	mapped := func(m wal.RelationMap) bool {
		return m.Database == w.database && m.Tablespace == pgDefault && slices.Contains(m.Files, wal.MappedFile{Relation: pgClass, File: w.pgClass})
	}
	if !slices.ContainsFunc(s.maps, mapped) {
		t.Errorf("relation maps %+v, want pg_class in %d", s.maps, w.pgClass)
	}
}

// mkdir makes a folder that the server owns.
func (s *server) mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if s.cred != nil {
		if err := os.Chown(dir, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}
