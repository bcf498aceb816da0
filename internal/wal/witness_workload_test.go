package wal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"pileus/internal/pg"
	"pileus/internal/wal"
)

// configure adds settings to a server that does not run yet.
func (s *server) configure(t *testing.T, settings ...string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(s.dir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintln(f, strings.Join(settings, "\n")); err != nil {
		t.Fatal(err)
	}
}

// everything makes WAL of all kinds that a finder has to tell apart, and of those that it passes over.
func everything(t *testing.T, c *pgx.Conn) {
	t.Helper()
	load := func(rows int) { // COPY, the only way by which all majors put many rows of a user into one record
		t.Helper()
		if _, err := c.CopyFrom(t.Context(), pgx.Identifier{"loaded"}, []string{"i"}, pgx.CopyFromSlice(rows, func(i int) ([]any, error) { return []any{i}, nil })); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Exec(t.Context(), "create table loaded (i int)"); err != nil {
		t.Fatal(err)
	}
	load(3000)
	load(7)
	for _, sql := range []string{
		"create table account (id int primary key, balance int, note text, at point, words tsvector) with (fillfactor=80)",
		"create index on account using hash (balance)",
		"create index on account using gin (words)",
		"create index on account using gist (at)",
		"create index on account using spgist (note)",
		"create index on account using brin (id)",
		"insert into account select i, i, 'n' || i, point(i, i), to_tsvector('w' || i) from generate_series(1, 1200) i", // one by one
		"create table copied as select i, i * 2 as j from generate_series(1, 5000) i",                                   // many at once
		"create table big (id serial, body text)",
		"alter table big alter body set storage external",
		"insert into big (body) select repeat(md5(i::text), 400) from generate_series(1, 30) i", // TOAST
		"update big set body = body || 'x' where id % 3 = 0",
		"delete from big where id % 5 = 0",
		"update account set note = note || 'h' where id % 7 = 0", // not HOT: an index has note
		"alter table copied add k int default 1",
		"update copied set j = j + 1 where i % 11 = 0", // HOT where the page has room
		"checkpoint", // page images follow
		"update account set balance = -balance where id % 13 = 0",
		"delete from account where id between 100 and 400",
		"vacuum account",
		"update copied set j = 0 where i % 100 = 1",
		"vacuum (freeze, analyze) copied",
		"update copied set j = 5 where i % 100 = 1",
		"begin; insert into copied values (-1); savepoint a; insert into copied values (-2); savepoint b; insert into copied values (-3); rollback to b; release a; commit",
		"begin; insert into copied values (-4); savepoint a; delete from copied where i = -1; rollback",
		"begin; insert into copied values (-5); savepoint a; insert into copied values (-6); prepare transaction 'kept'",
		"commit prepared 'kept'",
		"begin; create table never (i int); delete from copied where i < 100; prepare transaction 'lost'",
		"rollback prepared 'lost'",
		"create table area (k int, v text) partition by list (k)",
		"create table area1 partition of area for values in (1)",
		"create table area2 partition of area for values in (2)",
		"insert into area select i % 2 + 1, i from generate_series(1, 100) i",
		"update area set k = 3 - k where v::int % 10 = 0", // moves between partitions
		"insert into account (id, note) values (1, 'again') on conflict (id) do update set note = excluded.note",
		"insert into account (id, note) values (90001, 'anew') on conflict (id) do update set note = excluded.note", // speculative
		"begin; select * from account where id < 20 for update; commit",
		"begin; select * from account where id = 21 for share; savepoint a; update account set balance = 1 where id = 21; commit", // of two lockers at once
		"select pg_logical_emit_message(true, 'witness', 'a message')",
		"create table emptied as select generate_series(1, 500) i",
		"truncate emptied",
		"insert into emptied values (1)",
		"create table dropped as select generate_series(1, 500) i",
		"drop table dropped",
		"create database other",
		"drop database other",
		"vacuum full account",
		"vacuum full pg_class",
		"cluster account using account_pkey",
		"analyze",
		"delete from account where id % 2 = 0",
		"checkpoint",
	} {
		for _, one := range strings.Split(sql, "; ") { // what vacuum and the like need
			if _, err := c.Exec(t.Context(), one); err != nil {
				t.Fatalf("%s: %v", one, err)
			}
		}
	}
}

// change is what a heap record does to rows.
type change struct {
	kind wal.HeapKind
	rows int
	file pg.RelFile
}

// decoded is what logical decoding says at one position: how many rows of a table had something done to them.
type decoded struct {
	deed string
	rows int
}

var changed = regexp.MustCompile(`^table (\S+): (INSERT|UPDATE|DELETE):`)

// logical asks test_decoding for the changes of rows.
func logical(t *testing.T, c *pgx.Conn, to string) map[pg.LSN]decoded {
	t.Helper()
	rows, err := c.Query(t.Context(), "select lsn::text, data from pg_logical_slot_get_changes('witness', $1::text::pg_lsn, null, 'include-xids', '0')", to)
	if err != nil {
		t.Fatalf("the witness is missing: %v", err)
	}
	defer rows.Close()
	all := map[pg.LSN]decoded{}
	for rows.Next() {
		var lsn, data string
		if err := rows.Scan(&lsn, &data); err != nil {
			t.Fatal(err)
		}
		m := changed.FindStringSubmatch(data)
		if m == nil {
			continue
		}
		at := parseLSN(t, lsn)
		v := all[at]
		if v.deed != "" && v.deed != m[2] {
			t.Fatalf("test_decoding says at %s both %s and %s", lsn, v.deed, m[2])
		}
		all[at] = decoded{m[2], v.rows + 1}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// compareLogical wants of each change that logical decoding tells of the same from the decoder. What it does not tell of
// (TOAST, catalogs, what was rolled back or written anew) it cannot be witness of.
func compareLogical(t *testing.T, theirs map[pg.LSN]decoded, ours map[pg.LSN]change) {
	t.Helper()
	deeds := map[wal.HeapKind]string{wal.HeapInsert: "INSERT", wal.HeapUpdate: "UPDATE", wal.HeapDelete: "DELETE", wal.HeapMove: "DELETE"}
	seen := map[string]int{}
	for at, v := range theirs {
		h, ok := ours[at]
		if mine := (decoded{deeds[h.kind], h.rows}); !ok || mine != v {
			t.Errorf("%s: test_decoding %+v, decoded %+v (%v)", at, v, mine, ok)
		}
		seen[v.deed] += v.rows
	}
	for _, deed := range []string{"INSERT", "UPDATE", "DELETE"} {
		if seen[deed] < 100 {
			t.Errorf("test_decoding tells of %d rows only for %s", seen[deed], deed)
		}
	}
	t.Logf("test_decoding agrees on %d records: %v rows", len(theirs), seen)
}
