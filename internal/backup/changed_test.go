package backup

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"pileus/internal/pg"
	"pileus/internal/pgtest"
	"pileus/internal/postgres"
	"pileus/internal/repo"
	"pileus/internal/wal"
)

// kept makes the server keep all WAL of a test.
var kept = pgtest.With("wal_keep_size", "2GB")

// everything changes pages in every way there is; the statements after "\c" go to another database.
const everything = `
	UPDATE points SET v = v + 1 WHERE id % 97 = 0;
	DELETE FROM points WHERE id % 101 = 0;
	INSERT INTO points SELECT 1000000 + i, point(i, i), tsvector('b' || i), i, 'n' || i FROM generate_series(1, 40) i;
	SELECT count(*) FROM hinted;
	VACUUM points;
	UPDATE heaped SET i = 0 WHERE i % 2000 = 7;
	VACUUM (FREEZE) frozen;
	SELECT nextval('numbers');
	SELECT lo_put(1001, 3000, 'changed'::bytea);
	VACUUM (DISABLE_PAGE_SKIPPING) emptied;
	COPY emptied FROM PROGRAM 'seq 1 15000';
	ALTER DATABASE wanders SET TABLESPACE elsewhere;
	\c wanders
	UPDATE w SET i = i + 1 WHERE i = 5;
	\c postgres
	ALTER DATABASE wanders SET TABLESPACE pg_default`

const setUp = `
	CREATE TABLE points (id int PRIMARY KEY, p point, t tsvector, v int, n text);
	INSERT INTO points SELECT i, point(i, i), tsvector('a' || i), i, 'n' || i FROM generate_series(1, 20000) i;
	CREATE INDEX points_v ON points (v); CREATE INDEX points_hash ON points USING hash (n);
	CREATE INDEX points_gin ON points USING gin (t) WITH (fastupdate = off); CREATE INDEX points_gist ON points USING gist (p);
	CREATE INDEX points_spgist ON points USING spgist (p); CREATE INDEX points_brin ON points USING brin (id) WITH (pages_per_range = 4);
	CREATE TABLE hinted AS SELECT i FROM generate_series(1, 50000) i;
	CREATE TABLE heaped AS SELECT i FROM generate_series(1, 50000) i; VACUUM heaped;
	CREATE TABLE frozen AS SELECT i FROM generate_series(1, 50000) i; SELECT count(*) FROM frozen;
	CREATE TABLE emptied AS SELECT generate_series(1, 60000) AS i;
	DELETE FROM emptied; VACUUM (TRUNCATE off) emptied;
	CREATE UNLOGGED TABLE fleeting AS SELECT i FROM generate_series(1, 1000) i;
	CREATE SEQUENCE numbers;
	SELECT lo_from_bytea(1001, convert_to(repeat('large object ', 60000), 'UTF8'));
	CREATE DATABASE wanders;
	\c wanders
	CREATE TABLE w AS SELECT generate_series(1, 5000) i; VACUUM w`

// script runs SQL, in turn on the databases that lines with \c name.
func (l *lab) script(sql string) {
	l.t.Helper()
	for i, part := range strings.Split("\\c postgres\n"+sql, "\\c ") {
		if i == 0 {
			continue
		}
		db, sql, _ := strings.Cut(part, "\n")
		for s := range strings.SplitSeq(sql, ";") { // one by one: VACUUM and its like run in no transaction
			if s = strings.TrimSpace(s); s != "" {
				l.execIn(strings.TrimSpace(db), s)
			}
		}
	}
}

func (l *lab) execIn(db, sql string) {
	l.t.Helper()
	conn, err := pgx.Connect(l.t.Context(), postgres.DSN(l.server.Dir, l.server.Port, "postgres", db))
	l.check(err)
	defer conn.Close(l.t.Context())
	if _, err := conn.PgConn().Exec(l.t.Context(), sql).ReadAll(); err != nil {
		l.t.Fatalf("%s: %v", sql, err)
	}
}

// since takes a backup of what changed since parent, without what ignore hides.
func (l *lab) since(parent repo.Backup, ignore func(*wal.Record) bool) repo.Backup {
	l.t.Helper()
	o := l.options(ModeFiles)
	o.Parent = &parent
	b, err := start(l.t.Context(), &run{Options: o, ignore: ignore})
	l.check(err)
	if !b.Incremental || b.WhyFull != "" || b.Parent != parent.ID {
		l.t.Fatalf("the backup is not incremental: %s", b.WhyFull)
	}
	return b
}

func (l *lab) full() repo.Backup {
	l.t.Helper()
	o := l.options(ModeFiles)
	o.Full = true
	return l.run(o)
}

// entries lists a backup's files.
func (l *lab) entries(b repo.Backup) map[string]repo.Entry {
	l.t.Helper()
	m, err := l.repo.OpenManifest(l.t.Context(), b.Cluster, b.ID)
	l.check(err)
	defer m.Close()
	found := map[string]repo.Entry{}
	for e, err := range m.Entries() {
		l.check(err)
		found[e.Path] = e
	}
	return found
}

// differences compares the relations of two backups between which nobody wrote. Pages may differ only
// where the later backup saw a change that the earlier one's WAL replays: the server itself
// sets hint bits as somebody connects, and writes whole pages to WAL for it, as it has checksums.
func (l *lab) differences(b, later repo.Backup) (found []string) {
	l.t.Helper()
	mine, theirs := l.entries(b), l.entries(later)
	for path, want := range theirs {
		rel, ok := pg.ParseRelationPath(path)
		if !ok || want.Type != repo.TypeFile {
			continue
		}
		got, ok := mine[path]
		if !ok {
			found = append(found, path+" is missing")
			continue
		}
		delete(mine, path)
		if got.Size == want.Size && got.Size > 0 && got.Chunk != nil && want.Chunk != nil && got.Chunk.Hash == want.Chunk.Hash {
			continue
		}
		x, y := content(l.t, l.repo, got), content(l.t, l.repo, want)
		if len(x) != len(y) {
			found = append(found, fmt.Sprintf("%s has %d bytes, not %d", path, len(x), len(y)))
			continue
		}
		for at := 0; at < len(y); at += pg.PageSize {
			page := y[at:min(at+pg.PageSize, len(y))]
			replayed := rel.Fork != pg.ForkFSM && len(page) == pg.PageSize && pg.PageHeader(page).LSN() > b.StartLSN
			if !replayed && !bytes.Equal(x[at:at+len(page)], page) {
				found = append(found, fmt.Sprintf("%s page %d", path, at/pg.PageSize))
			}
		}
	}
	for path, e := range mine {
		if _, ok := pg.ParseRelationPath(path); ok && e.Type == repo.TypeFile {
			found = append(found, path+" is left over")
		}
	}
	slices.Sort(found)
	return found
}

func (l *lab) same(b, later repo.Backup) {
	l.t.Helper()
	if d := l.differences(b, later); len(d) > 0 {
		l.t.Errorf("%d differences to a full backup, such as %v", len(d), d[:min(len(d), 10)])
	}
}

// kinds of records, without which an incremental backup is wrong. Those that tell of new and
// dropped files matter only once file numbers come again after 4 billion others: package changes
// tests these.
var kinds = map[string]func(*wal.Record) bool{
	"heap":            func(r *wal.Record) bool { return r.Rmgr == wal.RmgrHeap },
	"heap2":           func(r *wal.Record) bool { return r.Rmgr == wal.RmgrHeap2 },
	"btree":           func(r *wal.Record) bool { return r.Rmgr == wal.RmgrBtree },
	"hash":            func(r *wal.Record) bool { return r.Rmgr == wal.RmgrHash },
	"gin":             func(r *wal.Record) bool { return r.Rmgr == wal.RmgrGin },
	"gist":            func(r *wal.Record) bool { return r.Rmgr == wal.RmgrGist },
	"spgist":          func(r *wal.Record) bool { return r.Rmgr == wal.RmgrSPGist },
	"brin":            func(r *wal.Record) bool { return r.Rmgr == wal.RmgrBRIN },
	"sequence":        func(r *wal.Record) bool { return r.Rmgr == wal.RmgrSequence },
	"full-page image": func(r *wal.Record) bool { return r.IsFullPageImages() },
	"database":        func(r *wal.Record) bool { return r.Rmgr == wal.RmgrDatabase },
	"truncation":      func(r *wal.Record) bool { _, ok, _ := wal.ParseStorageTruncate(r); return ok },
}

func TestOnlyWhatChangedIsReadAndNoKindOfChangeIsMissed(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		l := newLab(t, v, kept)
		l.server.CreateTablespace("elsewhere")
		l.script(setUp)
		l.server.Checkpoint()
		first := l.full()
		idle := l.since(first, nil)
		l.same(idle, l.full())
		if idle.Read > first.Read/5 {
			t.Errorf("nothing changed, but %d of %d bytes were read", idle.Read, first.Read)
		}
		l.script(everything)
		changed := l.since(idle, nil)
		full := l.full()
		l.same(changed, full)
		for name, ignore := range kinds {
			if name == "truncation" && v.Major < 16 {
				continue // only from 16 on does a file that grows get pages that no record tells of
			}
			if len(l.differences(l.since(idle, ignore), full)) == 0 {
				t.Errorf("without its %s records the WAL leads to the same backup, so the test is too weak", name)
			}
		}
		if changed.Read > full.Read*6/10 || changed.Stored > full.Stored*6/10 {
			t.Errorf("%d bytes were read and %d stored, %d and %d for a full backup", changed.Read, changed.Stored, full.Read, full.Stored)
		}
	})
}

// A workload is a sequence of random statements.
type workload struct {
	l      *lab
	rng    *rand.Rand
	tables []string
	dbs    []string
	serial int
}

func newWorkload(t *testing.T, v pgtest.Version, seed rand.Source, opts ...pgtest.Option) *workload {
	t.Helper()
	l := newLab(t, v, append(opts, kept, pgtest.With("autovacuum", "off"))...)
	l.server.CreateTablespace("elsewhere")
	l.script("CREATE TABLE t0 (a int, b text, c text); CREATE INDEX ON t0 (a); INSERT INTO t0 SELECT i, 'x' || i, 'y' FROM generate_series(1, 50000) i")
	return &workload{l: l, rng: rand.New(seed), tables: []string{"t0"}}
}

func (w *workload) table() string { return w.tables[w.rng.IntN(len(w.tables))] }

// step does one thing, of every sort that PostgreSQL can do to files.
func (w *workload) step() {
	l, n := w.l, w.rng.IntN(3000)
	w.serial++
	switch w.rng.IntN(20) {
	case 0, 1, 2:
		l.script(fmt.Sprintf("INSERT INTO %s SELECT i, 'x' || i, repeat('y', %d) FROM generate_series(1, %d) i", w.table(), n%100, n))
	case 3, 4:
		l.script(fmt.Sprintf("UPDATE %s SET b = 'u%d' WHERE a %% 50 = %d", w.table(), n, n%50))
	case 5:
		l.script(fmt.Sprintf("DELETE FROM %s WHERE a > %d", w.table(), n))
	case 6:
		l.script("VACUUM " + w.table())
	case 7:
		l.script("VACUUM FULL " + w.table())
	case 8:
		l.script("TRUNCATE " + w.table())
	case 9:
		name := fmt.Sprintf("t%d", w.serial)
		l.script(fmt.Sprintf("CREATE TABLE %s (a int, b text, c text); CREATE INDEX ON %s (a); INSERT INTO %s VALUES (1, 'a', 'b')", name, name, name))
		w.tables = append(w.tables, name)
	case 10:
		if len(w.tables) > 2 {
			i := w.rng.IntN(len(w.tables))
			l.script("DROP TABLE " + w.tables[i])
			w.tables = slices.Delete(w.tables, i, i+1)
		}
	case 11:
		l.script(fmt.Sprintf("ALTER TABLE %s SET TABLESPACE %s", w.table(), []string{"elsewhere", "pg_default"}[n%2]))
	case 12:
		name := fmt.Sprintf("d%d", w.serial)
		strategy := ""
		if l.server.Version.Major >= 15 {
			strategy = " STRATEGY " + []string{"file_copy", "wal_log"}[n%2]
		}
		l.script(fmt.Sprintf("CREATE DATABASE %s%s\n\\c %s\nCREATE TABLE inner_table AS SELECT generate_series(1, %d) a", name, strategy, name, n))
		w.dbs = append(w.dbs, name)
	case 13:
		if len(w.dbs) > 0 {
			l.script("DROP DATABASE " + w.dbs[0])
			w.dbs = w.dbs[1:]
		}
	case 14:
		if len(w.dbs) > 0 {
			db := w.dbs[w.rng.IntN(len(w.dbs))]
			l.script(fmt.Sprintf("ALTER DATABASE %s SET TABLESPACE elsewhere\n\\c %s\nDELETE FROM inner_table WHERE a %% 7 = 1\n\\c postgres\nALTER DATABASE %s SET TABLESPACE pg_default", db, db, db))
		}
	case 15:
		l.script(fmt.Sprintf("SELECT lo_from_bytea(0, convert_to(repeat('%d', 20000), 'UTF8')); SELECT lo_unlink(min(oid)) FROM pg_largeobject_metadata HAVING count(*) > 3", n))
	case 16:
		l.script(fmt.Sprintf("REINDEX TABLE %s", w.table()))
	case 17:
		l.execIn("postgres", fmt.Sprintf("BEGIN; CREATE TABLE rolled AS SELECT generate_series(1, %d); UPDATE %s SET c = 'z'; ROLLBACK", n, w.table()))
	case 18:
		l.server.Kill()
		l.server.Restart()
	case 19:
		l.execIn("postgres", fmt.Sprintf("BEGIN; TRUNCATE %s; SAVEPOINT a; INSERT INTO %s SELECT i, 's', 's' FROM generate_series(1, %d) i; COMMIT", w.tables[0], w.tables[0], n))
	}
}

// rounds is how many of them a test has, unless PILEUS_ROUNDS says otherwise.
func rounds(t *testing.T, n int) int {
	t.Helper()
	if env := os.Getenv("PILEUS_ROUNDS"); env != "" {
		if _, err := fmt.Sscan(env, &n); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func TestRandomWorkloads(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		w := newWorkload(t, v, rand.NewPCG(seed, 1))
		l := w.l
		last := l.full()
		for range rounds(t, 6) {
			for range 12 {
				w.step()
			}
			b := l.since(last, nil)
			l.same(b, l.full())
			last = b
		}
		l.server.Exec("CREATE EXTENSION amcheck")
		last = l.since(last, nil)
		l.server.Stop()
		l.passes(last, append(w.dbs, "postgres"))
	})
}

// Without checksums hint bits leave no trace in WAL, so files may differ by them, and torn pages cannot be told.
// What counts is that the recovered backup is sound and has the same rows.
func TestRandomWorkloadWithoutChecksums(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := newWorkload(t, pgtest.Newest(t), rand.NewPCG(seed, 2), pgtest.NoChecksums())
	last := w.l.full()
	for range 4 {
		for range 12 {
			w.step()
		}
		last = w.l.since(last, nil)
	}
	w.l.server.Exec("CREATE EXTENSION amcheck")
	rows := "SELECT coalesce(sum(hashtext(t::text)::bigint), 0)::text || ' of ' || count(*) FROM public." + w.tables[0] + " t"
	want := w.l.server.Query(rows)
	last = w.l.since(last, nil)
	w.l.server.Stop()
	w.l.passes(last, append(w.dbs, "postgres"))
	if got := w.l.rows(last, rows); got != want {
		t.Errorf("%s in the recovered backup, want %s", got, want)
	}
}

// rows asks the recovered backup.
func (l *lab) rows(b repo.Backup, sql string) (answer string) {
	l.t.Helper()
	in := l.raise(b)
	defer func() { l.check(in.Stop(l.t.Context(), postgres.StopFast)) }()
	conn, err := pgx.Connect(l.t.Context(), postgres.DSN(in.SocketDir, in.Port, "postgres", "postgres"))
	l.check(err)
	defer conn.Close(l.t.Context())
	l.check(conn.QueryRow(l.t.Context(), sql).Scan(&answer))
	return answer
}

// passes brings a backup up, with the server's WAL, and looks whether heap and indexes are sound.
func (l *lab) passes(b repo.Backup, dbs []string) {
	l.t.Helper()
	in := l.raise(b)
	defer func() { l.check(in.Stop(l.t.Context(), postgres.StopFast)) }()
	for _, db := range dbs {
		conn, err := pgx.Connect(l.t.Context(), postgres.DSN(in.SocketDir, in.Port, "postgres", db))
		l.check(err)
		defer conn.Close(l.t.Context())
		sql := `CREATE EXTENSION IF NOT EXISTS amcheck;
			SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p'`
		if l.server.Version.Major >= 14 {
			sql += `; SELECT 1 / (count(*) = 0)::int FROM pg_class c, verify_heapam(c.oid) WHERE c.relkind IN ('r', 't', 'm') AND c.relpersistence = 'p'`
		}
		if _, err := conn.PgConn().Exec(l.t.Context(), sql).ReadAll(); err != nil {
			l.t.Errorf("database %s of the recovered backup %s: %v", db, b.ID, err)
		}
	}
}
