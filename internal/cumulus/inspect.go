package cumulus

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Finding is one thing that is expected of a Cumulus database, and what there is.
type Finding struct {
	Name     string `json:"name"`
	Expected string `json:"expected"`
	Found    string `json:"found"`
	OK       bool   `json:"ok"`
}

// Counts are how many rows tables have; of very large ones, about how many, by the statistics.
type Counts map[string]int64

// tables that every version has.
var tables = []string{"async_operations", "collections", "executions", "files", "granules", "granules_executions", "pdrs", "providers", "rules", "knex_migrations", "knex_migrations_lock"}

// counted are those that people think in, and the migrations: fewer of them than before mean older code.
var counted = []string{"collections", "providers", "rules", "granules", "executions", "files", "pdrs", "knex_migrations"}

// mostRead is how many rows a table may have for all of them to be read: archives have a thousand million files, and
// reading those would take hours of a recovery.
const mostRead = 50_000_000

// Inspect looks at a database of either shape: 21 and before, or partitioned from 22 on. It asks the catalog what there
// is and assumes neither. With a target, nothing may be younger than that; a zero one asks for no such thing.
func Inspect(ctx context.Context, conn *pgx.Conn, target time.Time) ([]Finding, error) {
	i := &inspector{ctx: ctx, conn: conn, most: mostRead}
	i.all(target)
	return i.out, i.err
}

// Count counts the rows of the tables that people think in.
func Count(ctx context.Context, conn *pgx.Conn) (Counts, error) {
	i := &inspector{ctx: ctx, conn: conn, most: mostRead}
	out := Counts{}
	for _, t := range counted {
		n := i.about(t)
		if n <= i.most {
			n = one[int64](i, "SELECT count(*) FROM "+table(t))
		}
		if i.err != nil {
			return nil, fmt.Errorf("count %s: %w", t, i.err)
		}
		out[t] = n
	}
	return out, nil
}

// inspector asks until something cannot be asked, which is err.
type inspector struct {
	ctx  context.Context
	conn *pgx.Conn
	most int64 // rows of a table that is read as a whole
	out  []Finding
	err  error
}

func (i *inspector) all(target time.Time) {
	missing := one[string](i, "SELECT coalesce(string_agg(x, ', '), '') FROM unnest($1::text[]) x WHERE to_regclass('public.' || x) IS NULL", tables)
	i.add("tables", "all there", either(missing == "", "all there", "missing: "+missing), missing == "")
	if missing != "" || i.err != nil {
		return
	}
	i.migrations()
	i.keys()
	i.sequences()
	i.rights()
	i.unique()
	if !target.IsZero() {
		i.newest(target)
	}
}

// one asks for one value.
func one[T any](i *inspector, query string, args ...any) (v T) {
	if i.err != nil {
		return v
	}
	if err := i.conn.QueryRow(i.ctx, query, args...).Scan(&v); err != nil {
		i.err = fmt.Errorf("inspect the database: %w", err)
	}
	return v
}

// many asks for rows of one struct each.
func many[T any](i *inspector, query string, args ...any) []T {
	if i.err != nil {
		return nil
	}
	rows, err := i.conn.Query(i.ctx, query, args...)
	var all []T
	if err == nil {
		all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[T])
	}
	if err != nil {
		i.err = fmt.Errorf("inspect the database: %w", err)
	}
	return all
}

// add notes a finding, unless it is of a question that was not answered.
func (i *inspector) add(name, expected, found string, ok bool) {
	if i.err == nil {
		i.out = append(i.out, Finding{name, expected, found, ok})
	}
}

func either(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}

func table(name string) string { return pgx.Identifier{"public", name}.Sanitize() }

// about is how many rows a table and its partitions have by the statistics; 0 if nothing is known.
func (i *inspector) about(name string) int64 {
	return one[int64](i, `SELECT coalesce(sum(greatest(reltuples, 0)), 0)::bigint FROM pg_class
		WHERE oid = $1::regclass OR oid IN (SELECT relid FROM pg_partition_tree($1::regclass))`, table(name))
}

// tooLarge notes that something was not looked at.
func (i *inspector) tooLarge(name, expected, of string, rows int64) {
	i.add(name, expected, fmt.Sprintf("not looked at: %s has about %d rows, and it would take hours", of, rows), true)
}

func (i *inspector) migrations() {
	locked := one[int64](i, "SELECT count(*) FROM public.knex_migrations_lock WHERE is_locked <> 0")
	i.add("migration lock", "free", either(locked == 0, "free",
		"held, as by a migration that ran at that moment; if none runs: UPDATE knex_migrations_lock SET is_locked = 0"), locked == 0)
	n := one[int64](i, "SELECT count(*) FROM public.knex_migrations")
	last := one[string](i, "SELECT coalesce((SELECT name FROM public.knex_migrations ORDER BY id DESC LIMIT 1), 'none')")
	i.add("migrations", "1 or more", fmt.Sprintf("%d, the last %s", n, last), n > 0)
}

// key is a foreign key of the catalog.
type key struct {
	Name, Table, Of string
	Columns, Refers []string
	Valid           bool
}

// keyless are tables that must refer to another in the shape of 21; what the partitioned one of them keeps is its own.
var keyless = []string{"executions", "files", "granules", "granules_executions", "pdrs", "rules"}

// keys tries the foreign keys themselves: they may be valid in the catalog although rows are missing.
func (i *inspector) keys() {
	all := many[key](i, `SELECT c.conname::text, t.relname::text, f.relname::text,
		(SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(c.conkey) WITH ORDINALITY k(num, n) JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.num),
		(SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(c.confkey) WITH ORDINALITY k(num, n) JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.num),
		c.convalidated
		FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_class f ON f.oid = c.confrelid
		WHERE c.contype = 'f' AND c.conparentid = 0 AND t.relnamespace = 'public'::regnamespace AND f.relnamespace = 'public'::regnamespace ORDER BY t.relname, c.conname`)
	partitioned := one[bool](i, "SELECT EXISTS (SELECT FROM pg_class WHERE oid = 'public.granules'::regclass AND relkind = 'p')")
	var without, invalid []string
	for _, t := range keyless {
		if !partitioned && !slices.ContainsFunc(all, func(k key) bool { return k.Table == t }) {
			without = append(without, t)
		}
	}
	for _, k := range all {
		if !k.Valid {
			invalid = append(invalid, k.Name)
		}
	}
	i.add("foreign keys", "of each table that had some", either(len(without) == 0, fmt.Sprint(len(all)), "none of "+strings.Join(without, ", ")), len(without) == 0)
	i.add("foreign keys that are not valid", "none", either(len(invalid) == 0, "none", strings.Join(invalid, ", ")), len(invalid) == 0)
	for _, k := range all {
		name, expected := fmt.Sprintf("%s without their %s (%s)", k.Table, k.Of, strings.Join(k.Columns, ", ")), "0"
		if n := i.about(k.Table); n > i.most {
			i.tooLarge(name, expected, k.Table, n)
			continue
		}
		var given, same []string
		for n, c := range k.Columns {
			mine, theirs := "a."+pgx.Identifier{c}.Sanitize(), "b."+pgx.Identifier{k.Refers[n]}.Sanitize()
			given, same = append(given, mine+" IS NOT NULL"), append(same, theirs+" = "+mine)
		}
		n := one[int64](i, fmt.Sprintf("SELECT count(*) FROM %s a WHERE %s AND NOT EXISTS (SELECT FROM %s b WHERE %s)",
			table(k.Table), strings.Join(given, " AND "), table(k.Of), strings.Join(same, " AND ")))
		i.add(name, expected, fmt.Sprint(n), n == 0)
	}
}

// sequence is one that a column owns.
type sequence struct {
	Table, Column, Name string
	Last, Most          int64
}

// mostUsed is how much of its numbers a sequence may have given out, in percent. One of type integer below a column of
// type bigint, as executions had, ends long before the column does.
const mostUsed = 90

// sequences must be ahead of what their columns have, and have numbers left.
func (i *inspector) sequences() {
	all := many[sequence](i, `SELECT c.relname::text, a.attname::text, s.oid::regclass::text, coalesce(pg_sequence_last_value(s.oid::regclass), 0), q.seqmax
		FROM pg_class s JOIN pg_sequence q ON q.seqrelid = s.oid JOIN pg_depend d ON d.objid = s.oid AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
		JOIN pg_class c ON c.oid = d.refobjid JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
		WHERE s.relkind = 'S' AND c.relnamespace = 'public'::regnamespace AND NOT c.relispartition ORDER BY 1`)
	var behind, full []string
	for _, q := range all {
		if most := one[int64](i, fmt.Sprintf("SELECT coalesce(max(%s), 0)::bigint FROM %s", pgx.Identifier{q.Column}.Sanitize(), table(q.Table))); most > q.Last {
			behind = append(behind, fmt.Sprintf("%s is at %d and its table at %d", q.Name, q.Last, most))
		}
		if q.Last > q.Most/100*mostUsed {
			full = append(full, fmt.Sprintf("%s is at %d of %d", q.Name, q.Last, q.Most))
		}
	}
	i.add("sequences", "ahead of their tables", either(len(behind) == 0, "ahead of their tables", strings.Join(behind, "; ")), len(behind) == 0)
	i.add("numbers left to sequences", fmt.Sprintf("%d %% or more", 100-mostUsed), either(len(full) == 0, "enough", strings.Join(full, "; ")), len(full) == 0)
}

// rights are what the role needs that migrates and writes; from PostgreSQL 15 on not every role has them.
func (i *inspector) rights() {
	for _, right := range []string{"USAGE", "CREATE"} {
		has := one[bool](i, "SELECT has_schema_privilege('public', $1)", right)
		who := one[string](i, "SELECT current_user::text")
		i.add(right+" on the schema public", "granted to "+who, either(has, "granted to "+who, "not granted"), has)
	}
}

// unique compares the tables that stand for uniqueness across partitions with what they stand for.
func (i *inspector) unique() {
	all := many[struct{ Name string }](i, "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND relname LIKE '%\\_global\\_unique' ORDER BY 1")
	for _, u := range all {
		base := strings.TrimSuffix(u.Name, "_global_unique")
		if !one[bool](i, "SELECT to_regclass($1) IS NOT NULL", table(base)) {
			i.add(u.Name, "beside "+base, "there is no "+base, false)
			continue
		}
		name, expected := u.Name+" beside "+base, "the same number of rows"
		if n := i.about(base); n > i.most {
			i.tooLarge(name, expected, base, n)
			continue
		}
		a, b := one[int64](i, "SELECT count(*) FROM "+table(u.Name)), one[int64](i, "SELECT count(*) FROM "+table(base))
		i.add(name, expected, fmt.Sprintf("%d and %d", a, b), a == b)
	}
	if one[bool](i, "SELECT to_regclass('public.executions_default') IS NOT NULL") {
		n := one[int64](i, "SELECT count(*) FROM public.executions_default")
		i.add("rows in executions_default", "0", fmt.Sprint(n), n == 0)
	}
}

// newest tells that no row is younger than the moment that was restored.
func (i *inspector) newest(target time.Time) {
	for _, t := range []string{"granules", "executions"} {
		query := "SELECT max(created_at) FROM " + table(t)
		if i.about(t) > i.most { // by the key, which is indexed: what was made last is the youngest
			query = "SELECT (SELECT created_at FROM " + table(t) + " ORDER BY cumulus_id DESC LIMIT 1)"
		}
		at := one[*time.Time](i, query)
		name, expected := "newest of "+t, "none after "+target.UTC().Format(time.RFC3339)
		if at == nil {
			i.add(name, expected, "no rows", true)
			continue
		}
		i.add(name, expected, at.UTC().Format(time.RFC3339), !at.After(target))
	}
}
