package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pileus/internal/damage"
	"pileus/internal/pgtest"
)

// finds is what `pileus find --json` prints.
type finds struct {
	damage.Report
	Commands map[string]string `json:"recover_commands"`
}

// did is what one transaction did to a table, as its client knows.
type did struct{ inserted, updated, deleted int64 }

// oracle knows what each transaction of a workload did.
type oracle struct {
	t    *testing.T
	conn *pgx.Conn
	rng  *rand.Rand
	all  map[uint32]map[string]did
	now  map[string]did // of the transaction under way
	next int            // for keys
}

func (o *oracle) exec(sql string) int64 {
	o.t.Helper()
	tag, err := o.conn.Exec(o.t.Context(), sql)
	if err != nil {
		o.t.Fatalf("%s: %v", sql, err)
	}
	return tag.RowsAffected()
}

func (o *oracle) note(table string, d did) {
	table = strings.ReplaceAll(table, `"`, "")
	have := o.now[table]
	o.now[table] = did{have.inserted + d.inserted, have.updated + d.updated, have.deleted + d.deleted}
}

// row changes rows of a table that is no partition.
func (o *oracle) row(table string) {
	switch o.rng.IntN(5) {
	case 0, 1:
		n := 1 + o.rng.IntN(20)
		o.note(table, did{inserted: o.exec(fmt.Sprintf("INSERT INTO %s SELECT i, repeat(md5(i::text), %d) FROM generate_series(%d, %d) i", table, 1+o.rng.IntN(300), o.next, o.next+n-1))})
		o.next += n
	case 2:
		o.note(table, did{updated: o.exec(fmt.Sprintf("UPDATE %s SET v = v || 'x' WHERE k %% %d = 0", table, 2+o.rng.IntN(5)))})
	case 3:
		o.note(table, did{updated: o.exec(fmt.Sprintf("UPDATE %s SET k = k + 1000000 WHERE k %% %d = 1 AND k < 1000000", table, 3+o.rng.IntN(5)))})
	case 4:
		o.note(table, did{deleted: o.exec(fmt.Sprintf("DELETE FROM %s WHERE k %% %d = 0", table, 2+o.rng.IntN(5)))})
	}
}

// transaction runs one, and keeps what it did if it commits.
func (o *oracle) transaction() {
	o.t.Helper()
	o.now = map[string]did{}
	o.exec("BEGIN")
	var xid int64
	if err := o.conn.QueryRow(o.t.Context(), "SELECT txid_current()").Scan(&xid); err != nil {
		o.t.Fatal(err)
	}
	tables := []string{"public.plain", `s."Odd Name"`, "public.big"}
	for range 1 + o.rng.IntN(4) {
		table := tables[o.rng.IntN(len(tables))]
		switch o.rng.IntN(6) {
		case 0: // a savepoint that is rolled back leaves nothing
			before := map[string]did{}
			for k, v := range o.now {
				before[k] = v
			}
			o.exec("SAVEPOINT s")
			o.row(table)
			o.exec("ROLLBACK TO s")
			o.now = before
		case 1:
			o.exec("SAVEPOINT s")
			o.row(table)
			o.exec("RELEASE s")
		case 2: // a partition, and rows that change theirs
			n := o.exec(fmt.Sprintf("INSERT INTO public.parts SELECT i %% 200, i FROM generate_series(%d, %d) i", o.next, o.next+9))
			o.next += 10
			moved := o.exec("UPDATE public.parts SET k = k + 100 WHERE k BETWEEN 10 AND 19")
			o.note("public.parts", did{inserted: n, updated: moved})
		case 3: // ON CONFLICT: speculative insertions
			n := o.exec(fmt.Sprintf("INSERT INTO public.plain VALUES (%d, 'a') ON CONFLICT DO NOTHING", o.next))
			o.next++
			o.note("public.plain", did{inserted: n})
		default:
			o.row(table)
		}
	}
	switch o.rng.IntN(6) {
	case 0:
		o.exec("ROLLBACK")
		return
	case 1:
		name := fmt.Sprintf("p%d", xid)
		o.exec("PREPARE TRANSACTION '" + name + "'")
		if o.rng.IntN(3) == 0 {
			o.exec("ROLLBACK PREPARED '" + name + "'")
			return
		}
		o.exec("COMMIT PREPARED '" + name + "'")
	default:
		o.exec("COMMIT")
	}
	for table, d := range o.now {
		if d == (did{}) {
			delete(o.now, table)
		}
	}
	o.all[uint32(xid)] = o.now
}

// summed is what the finder says of a transaction, partitions under the table that they are parts of.
func summed(t damage.Transaction) map[string]did {
	out := map[string]did{}
	for _, table := range t.Tables {
		name := table.Name
		if table.Parent != "" {
			name = table.Parent
		}
		have := out[name]
		out[name] = did{have.inserted + table.Inserted, have.updated + table.Updated, have.deleted + table.Deleted}
	}
	return out
}

func TestFind(t *testing.T) {
	for _, v := range pgtest.Versions(t) {
		t.Run(v.Name(), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, v, flavour{})
			r.server.Exec(`CREATE SCHEMA s; CREATE TABLE public.plain (k int, v text); CREATE TABLE s."Odd Name" (k int, v text); CREATE TABLE public.big (k int, v text);
				CREATE UNIQUE INDEX ON public.plain (k) WHERE v = 'a'; ALTER TABLE public.big ALTER v SET STORAGE EXTERNAL;
				CREATE TABLE public.parts (k int, v int) PARTITION BY RANGE (k); CREATE TABLE public.parts_low PARTITION OF public.parts FOR VALUES FROM (0) TO (100);
				CREATE TABLE public.parts_high PARTITION OF public.parts FOR VALUES FROM (100) TO (400)`)
			receiver := r.receive()
			r.run("backup", "src")
			o := &oracle{t: t, rng: rand.New(rand.NewPCG(uint64(v.Major), 7)), all: map[uint32]map[string]did{}}
			var err error
			if o.conn, err = pgx.Connect(t.Context(), r.server.DSN()); err != nil {
				t.Fatal(err)
			}
			defer o.conn.Close(context.Background())
			for i := range 120 {
				o.transaction()
				switch i {
				case 30:
					r.server.Exec("VACUUM")
					r.server.Checkpoint()
				case 60: // names that the backup does not know
					r.server.Exec(`ALTER TABLE s."Odd Name" RENAME TO odd2; ALTER TABLE s.odd2 RENAME TO "Odd Name"`)
					r.server.Exec("VACUUM FULL public.plain")
				case 90:
					r.server.SwitchWAL()
				}
			}
			ddl := map[string]uint32{}
			for name, sql := range map[string]string{
				"truncate": "TRUNCATE public.big", "drop": `DROP TABLE s."Odd Name"`, "new": "CREATE TABLE public.fresh AS SELECT generate_series(1, 77) k",
				"rewrite": "ALTER TABLE public.plain ALTER k TYPE bigint", "all": "DELETE FROM public.parts"} {
				o.exec("BEGIN")
				var xid int64
				if err := o.conn.QueryRow(t.Context(), "SELECT txid_current()").Scan(&xid); err != nil {
					t.Fatal(err)
				}
				o.exec(sql)
				o.exec("COMMIT")
				ddl[name] = uint32(xid)
			}
			r.caughtUp()
			var f finds
			r.runJSON(&f, "find", "src", "--since", "1h", "--limit", "1000", "--kind", "delete,update,insert,truncate,drop")
			if f.Stopped != "" {
				t.Errorf("stopped: %s", f.Stopped)
			}
			seen := map[uint32]damage.Transaction{}
			for _, found := range f.Transactions {
				seen[found.XID] = found
			}
			for xid, want := range o.all {
				found, ok := seen[xid]
				if !ok && len(want) == 0 {
					continue
				}
				if got := summed(found); !ok || found.Partial || fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("transaction %d: found %v (%+v), did %v", xid, got, found, want)
				}
			}
			known := map[uint32]bool{}
			for _, xid := range ddl {
				known[xid] = true
			}
			for xid, found := range seen {
				if o.all[xid] == nil && !known[xid] {
					t.Errorf("nobody made transaction %d: %+v", xid, found)
				}
			}
			for name, check := range map[string]func(damage.Table) bool{
				"truncate": func(x damage.Table) bool { return x.Name == "public.big" && x.Truncated && !x.Dropped },
				"drop":     func(x damage.Table) bool { return x.Name == `s.Odd Name` && x.Dropped && !x.Truncated },
				"new":      func(x damage.Table) bool { return x.Name == "public.fresh" && x.Inserted == 77 },
				"all":      func(x damage.Table) bool { return x.Parent == "public.parts" && x.Deleted > 0 },
			} {
				if found := seen[ddl[name]]; len(found.Tables) == 0 || slices.ContainsFunc(found.Tables, func(x damage.Table) bool { return !check(x) }) {
					t.Errorf("%s: %+v", name, found)
				}
			}
			if found, ok := seen[ddl["rewrite"]]; ok {
				t.Errorf("a rewrite loses nothing: %+v", found)
			}
			receiver.stop()

			// The printed command restores what was there just before.
			drop := ddl["drop"]
			command := strings.Fields(f.Commands[fmt.Sprint(drop)])
			res := r.restore("before-drop", command[slices.Index(command, "--to-xid"):len(command)-1]...)
			if n := r.count(res, `SELECT count(*) FROM s."Odd Name"`); n < 0 {
				t.Error("the table is not there")
			}
			res.close(t)
		})
	}
}

// TestFindTellsWhereItStops damages the WAL in the middle.
func TestFindTellsWhereItStops(t *testing.T) {
	r := newRig(t, pgtest.Newest(t), flavour{})
	r.server.Exec("CREATE TABLE public.t AS SELECT generate_series(1, 1000) k")
	receiver := r.receive()
	r.run("backup", "src")
	r.server.Exec("DELETE FROM public.t WHERE k < 100")
	r.server.SwitchWAL()
	r.server.Exec("DELETE FROM public.t WHERE k < 200")
	r.server.SwitchWAL()
	gone := r.server.Query("SELECT pg_walfile_name(pg_current_wal_lsn())")
	r.server.Exec("DELETE FROM public.t WHERE k < 300")
	r.server.SwitchWAL()
	r.server.Exec("DELETE FROM public.t WHERE k < 400")
	r.caughtUp()
	receiver.stop()
	r.removeSegment(gone)
	stdout, _, exit := r.try("find", "src", "--table", "t")
	if exit != 3 || !strings.Contains(stdout, "NOT ALL WAS READ") || strings.Count(stdout, "100 rows deleted") != 1 || !strings.Contains(stdout, "99 rows deleted") {
		t.Errorf("exit %d:\n%s", exit, stdout)
	}
	if stdout, _, exit := r.try("find", "src", "--from", time.Now().Add(time.Hour).Format(time.RFC3339), "--to", time.Now().Format(time.RFC3339)); exit != 2 {
		t.Errorf("exit %d:\n%s", exit, stdout)
	}
	r.refused(2, []string{"not in the repository"}, "find", "nobody")
}

// removeSegment loses a WAL segment of the repository.
func (r *rig) removeSegment(name string) {
	r.t.Helper()
	removed := 0
	err := filepath.WalkDir(filepath.Join(r.dir, "repo", "clusters", "src"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.Contains(filepath.Base(path), name) {
			return err
		}
		removed++
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil || removed == 0 {
		r.t.Fatalf("remove segment %s: %d files, %v", name, removed, err)
	}
}
