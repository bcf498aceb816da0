package cumulus

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// DisableRules makes every rule of a restored database disabled, before anything is pointed at it: those rows say what was
// enabled at the moment that was restored, while AWS is halted, and sqs rules go live by themselves. It returns how many
// were enabled. As the API does it, an sns rule also loses the ARN of its subscription, which is gone: the API refuses to
// enable one that has it.
func DisableRules(ctx context.Context, conn *pgx.Conn) (int64, error) {
	tag, err := conn.Exec(ctx, "UPDATE public.rules SET enabled = false, arn = CASE type WHEN 'sns' THEN NULL ELSE arn END WHERE enabled")
	if err != nil {
		return 0, fmt.Errorf("disable the rules of the restored database: %w", err)
	}
	return tag.RowsAffected(), nil
}

// EnableKinesis sets the kinesis rules of a restored database as they were recorded: enabled, and with the mappings that
// the stream has now. It is the part of resuming that the API cannot do: it ends every PATCH of a kinesis rule by deleting
// the mappings of the row before, unless another rule has the same. Rules that are not there, or read another stream, are
// left alone, for Resume to report. It must come before any mapping is enabled, for what a mapping reads while its rule is
// disabled is lost. It returns how many rows it changed; done twice it changes nothing.
func EnableKinesis(ctx context.Context, conn *pgx.Conn, kept []Record) (int64, error) {
	var n int64
	for _, k := range kept {
		if !k.On() || k.Rule.Rule.Type != Kinesis {
			continue
		}
		tag, err := conn.Exec(ctx, `UPDATE public.rules SET enabled = true, arn = NULLIF($3, ''), log_event_arn = NULLIF($4, '') WHERE name = $1 AND type = 'kinesis' AND value = $2
			AND (NOT enabled OR (arn, log_event_arn) IS DISTINCT FROM (NULLIF($3, ''), NULLIF($4, '')))`,
			k.Rule.Name, k.Rule.Rule.Value, k.Rule.Rule.ARN, k.Rule.Rule.LogARN)
		if err != nil {
			return n, fmt.Errorf("enable the kinesis rule %s in the database: %w", k.Rule.Name, err)
		}
		n += tag.RowsAffected()
	}
	return n, nil
}

// Finding is one thing that is expected of a Cumulus database, and what there is.
type Finding struct {
	Name     string `json:"name"`
	Expected string `json:"expected"`
	Found    string `json:"found"`
	OK       bool   `json:"ok"`
}

// Counts are how many rows tables have.
type Counts map[string]int64

// tables that every version has.
var tables = []string{"async_operations", "collections", "executions", "files", "granules", "granules_executions", "pdrs", "providers", "rules", "knex_migrations", "knex_migrations_lock"}

// Inspect looks at a database of either shape: 21 and before, or partitioned from 22 on. The catalog says which it is.
func Inspect(ctx context.Context, conn *pgx.Conn, target time.Time) ([]Finding, error) {
	i := &inspector{ctx: ctx, conn: conn}
	i.tables()
	if i.err != nil || len(i.out) > 0 && !i.out[len(i.out)-1].OK {
		return i.out, i.err
	}
	i.equal("migration lock", "0", "SELECT coalesce(max(is_locked), 0)::text FROM public.knex_migrations_lock")
	i.atLeast("migrations", 1, "SELECT count(*) FROM public.knex_migrations")
	i.equal("foreign keys that are not valid", "0", "SELECT count(*)::text FROM pg_constraint WHERE contype = 'f' AND NOT convalidated")
	i.orphans()
	i.sequences()
	i.unique()
	if !target.IsZero() {
		i.newest(target)
	}
	return i.out, i.err
}

// Count counts the rows of the tables that people think in.
func Count(ctx context.Context, conn *pgx.Conn) (Counts, error) {
	out := Counts{}
	for _, t := range []string{"collections", "providers", "rules", "granules", "executions", "files", "pdrs"} {
		var n int64
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM public."+t).Scan(&n); err != nil {
			return nil, fmt.Errorf("count %s: %w", t, err)
		}
		out[t] = n
	}
	return out, nil
}

type inspector struct {
	ctx  context.Context
	conn *pgx.Conn
	out  []Finding
	err  error
}

func (i *inspector) add(name, expected, found string, ok bool) {
	i.out = append(i.out, Finding{name, expected, found, ok})
}

func (i *inspector) text(query string, args ...any) (string, bool) {
	if i.err != nil {
		return "", false
	}
	var s string
	if err := i.conn.QueryRow(i.ctx, query, args...).Scan(&s); err != nil {
		i.err = fmt.Errorf("inspect the database: %w", err)
		return "", false
	}
	return s, true
}

func (i *inspector) equal(name, want, query string) {
	if got, ok := i.text(query); ok {
		i.add(name, want, got, got == want)
	}
}

func (i *inspector) atLeast(name string, least int64, query string) {
	if i.err != nil {
		return
	}
	var n int64
	if err := i.conn.QueryRow(i.ctx, query).Scan(&n); err != nil {
		i.err = fmt.Errorf("inspect the database: %w", err)
		return
	}
	i.add(name, fmt.Sprintf("%d or more", least), fmt.Sprint(n), n >= least)
}

func (i *inspector) tables() {
	got, ok := i.text("SELECT coalesce(string_agg(x, ', '), 'all there') FROM unnest($1::text[]) x WHERE to_regclass('public.' || x) IS NULL", tables)
	if ok {
		found := got
		if got != "all there" {
			found = "missing: " + got
		}
		i.add("tables", "all there", found, got == "all there")
	}
}

// mostJoined is how many rows a table may have for each of them to be looked up in another.
const mostJoined = 50_000_000

// orphans tries the foreign keys themselves: they may be valid in the catalog of a database whose rows were damaged.
func (i *inspector) orphans() {
	for _, k := range [][4]string{
		{"files", "granule_cumulus_id", "granules", "cumulus_id"},
		{"granules", "collection_cumulus_id", "collections", "cumulus_id"},
		{"granules_executions", "granule_cumulus_id", "granules", "cumulus_id"},
		{"granules_executions", "execution_cumulus_id", "executions", "cumulus_id"},
	} {
		rows, ok := i.text("SELECT greatest(sum(reltuples), 0)::bigint::text FROM pg_class WHERE oid IN (SELECT relid FROM pg_partition_tree(('public.' || $1)::regclass) UNION SELECT ('public.' || $1)::regclass)", k[0])
		if n, err := strconv.ParseInt(rows, 10, 64); ok && err == nil && n > mostJoined {
			i.add(k[0]+" without their "+strings.TrimSuffix(k[2], "s"), "0", fmt.Sprintf("not looked for among about %d rows, which would take hours", n), true)
			continue
		}
		i.equal(k[0]+" without their "+strings.TrimSuffix(k[2], "s"), "0", fmt.Sprintf(
			"SELECT count(*)::text FROM public.%s a WHERE a.%s IS NOT NULL AND NOT EXISTS (SELECT 1 FROM public.%s b WHERE b.%s = a.%[2]s)", k[0], k[1], k[2], k[3]))
	}
}

// sequences must be ahead of what they gave out.
func (i *inspector) sequences() {
	if i.err != nil {
		return
	}
	rows, err := i.conn.Query(i.ctx, `SELECT c.relname, a.attname, s.oid::regclass::text FROM pg_class s JOIN pg_depend d ON d.objid = s.oid AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
		JOIN pg_class c ON c.oid = d.refobjid JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
		WHERE s.relkind = 'S' AND c.relnamespace = 'public'::regnamespace AND NOT c.relispartition ORDER BY 1`)
	if err != nil {
		i.err = fmt.Errorf("inspect the sequences: %w", err)
		return
	}
	type owned struct{ Table, Column, Sequence string }
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[owned])
	if err != nil {
		i.err = fmt.Errorf("inspect the sequences: %w", err)
		return
	}
	var behind []string
	for _, o := range all {
		got, ok := i.text(fmt.Sprintf("SELECT (coalesce((SELECT max(%s) FROM public.%s), 0) <= (SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM %s))::text",
			pgx.Identifier{o.Column}.Sanitize(), pgx.Identifier{o.Table}.Sanitize(), o.Sequence))
		if ok && got != "true" {
			behind = append(behind, o.Sequence)
		}
	}
	found := "all ahead of their tables"
	if len(behind) > 0 {
		found = "behind: " + strings.Join(behind, ", ")
	}
	i.add("sequences", "all ahead of their tables", found, len(behind) == 0)
}

// unique compares the tables that stand for uniqueness across partitions with what they stand for.
func (i *inspector) unique() {
	if i.err != nil {
		return
	}
	rows, err := i.conn.Query(i.ctx, "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname LIKE '%\\_global\\_unique' ORDER BY 1")
	if err != nil {
		i.err = fmt.Errorf("inspect the tables of uniqueness: %w", err)
		return
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		i.err = fmt.Errorf("inspect the tables of uniqueness: %w", err)
		return
	}
	for _, n := range names {
		base := strings.TrimSuffix(n, "_global_unique")
		i.equal(n+" beside "+base, "the same number of rows", fmt.Sprintf(
			"SELECT CASE WHEN (SELECT count(*) FROM public.%s) = (SELECT count(*) FROM public.%s) THEN 'the same number of rows' ELSE 'not the same' END", pgx.Identifier{n}.Sanitize(), pgx.Identifier{base}.Sanitize()))
	}
	if got, ok := i.text("SELECT coalesce(to_regclass('public.executions_default')::text, '')"); ok && got != "" {
		i.equal("rows in executions_default", "0", "SELECT count(*)::text FROM public.executions_default")
	}
}

// newest tells that no row is younger than the moment that was restored.
func (i *inspector) newest(target time.Time) {
	for _, t := range []string{"granules", "executions"} {
		if i.err != nil {
			return
		}
		var at *time.Time
		if err := i.conn.QueryRow(i.ctx, "SELECT max(created_at) FROM public."+t).Scan(&at); err != nil {
			i.err = fmt.Errorf("inspect %s: %w", t, err)
			return
		}
		if at == nil {
			i.add("newest of "+t, "none after "+target.UTC().Format(time.RFC3339), "no rows", true)
			continue
		}
		i.add("newest of "+t, "none after "+target.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339), !at.After(target))
	}
}
