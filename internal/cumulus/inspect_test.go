package cumulus

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pileus/internal/pgtest"
)

// common is what both shapes have, in short.
const common = `
CREATE TABLE knex_migrations (id serial PRIMARY KEY, name text, batch int, migration_time timestamptz);
CREATE TABLE knex_migrations_lock ("index" serial PRIMARY KEY, is_locked int);
INSERT INTO knex_migrations (name) VALUES ('20201014105024_create_rules_table.js'); INSERT INTO knex_migrations_lock (is_locked) VALUES (0);
CREATE TABLE collections (cumulus_id serial PRIMARY KEY, name text);
CREATE TABLE providers (cumulus_id serial PRIMARY KEY, name text);
CREATE TABLE async_operations (cumulus_id serial PRIMARY KEY, status text);
CREATE TABLE rules (cumulus_id serial PRIMARY KEY, name text, type text, value text, arn text, log_event_arn text, enabled bool,
	collection_cumulus_id int REFERENCES collections, provider_cumulus_id int REFERENCES providers);
INSERT INTO collections (name) VALUES ('MOD09GQ'); INSERT INTO providers (name) VALUES ('prov1');
INSERT INTO rules (name, type, value, arn, enabled, collection_cumulus_id) VALUES ('t', 'sns', 'topic', 'sub', true, 1), ('k', 'kinesis', 'stream', 'uuid', true, 1), ('off', 'sqs', 'queue', NULL, false, 1);
`

// shapes are those of 21, and of 22 with its partitions.
var shapes = map[string]string{
	"21": common + `
CREATE SEQUENCE executions_cumulus_id_seq AS integer;
CREATE TABLE executions (cumulus_id bigint PRIMARY KEY DEFAULT nextval('executions_cumulus_id_seq'), created_at timestamptz, parent_cumulus_id bigint REFERENCES executions ON DELETE SET NULL);
ALTER SEQUENCE executions_cumulus_id_seq OWNED BY executions.cumulus_id;
CREATE TABLE pdrs (cumulus_id bigserial PRIMARY KEY, execution_cumulus_id bigint REFERENCES executions);
CREATE TABLE granules (cumulus_id bigserial PRIMARY KEY, created_at timestamptz, collection_cumulus_id int NOT NULL REFERENCES collections);
CREATE TABLE files (cumulus_id bigserial PRIMARY KEY, granule_cumulus_id bigint REFERENCES granules);
CREATE TABLE granules_executions (granule_cumulus_id bigint REFERENCES granules ON DELETE CASCADE, execution_cumulus_id bigint REFERENCES executions ON DELETE CASCADE, UNIQUE (granule_cumulus_id, execution_cumulus_id));
INSERT INTO executions (created_at) SELECT '2026-01-01Z' FROM generate_series(1, 20);
INSERT INTO granules (created_at, collection_cumulus_id) SELECT '2026-01-01Z', 1 FROM generate_series(1, 20);
INSERT INTO files (granule_cumulus_id) SELECT i FROM generate_series(1, 20) i;
INSERT INTO granules_executions SELECT i, i FROM generate_series(1, 20) i;
`,
	"22": common + `
CREATE TABLE executions (cumulus_id bigserial, created_at timestamptz, PRIMARY KEY (cumulus_id, created_at)) PARTITION BY RANGE (created_at);
CREATE TABLE executions_2026_q1 PARTITION OF executions FOR VALUES FROM ('2026-01-01') TO ('2026-04-01');
CREATE TABLE executions_default PARTITION OF executions DEFAULT;
CREATE TABLE executions_global_unique (cumulus_id bigint PRIMARY KEY);
CREATE TABLE pdrs (cumulus_id bigserial PRIMARY KEY, execution_cumulus_id bigint);
CREATE TABLE granules (cumulus_id bigserial, created_at timestamptz, collection_cumulus_id int NOT NULL REFERENCES collections, PRIMARY KEY (collection_cumulus_id, cumulus_id)) PARTITION BY HASH (collection_cumulus_id);
CREATE TABLE granules_0 PARTITION OF granules FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE granules_1 PARTITION OF granules FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE granules_global_unique (granule_id bigint PRIMARY KEY);
CREATE TABLE files (cumulus_id bigserial, granule_cumulus_id bigint, collection_cumulus_id int NOT NULL,
	FOREIGN KEY (collection_cumulus_id, granule_cumulus_id) REFERENCES granules (collection_cumulus_id, cumulus_id)) PARTITION BY HASH (collection_cumulus_id);
CREATE TABLE files_0 PARTITION OF files FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE granules_executions (granule_cumulus_id bigint, execution_cumulus_id bigint);
INSERT INTO executions (created_at) SELECT '2026-01-02Z' FROM generate_series(1, 20);
INSERT INTO executions_global_unique SELECT cumulus_id FROM executions;
INSERT INTO granules (created_at, collection_cumulus_id) SELECT '2026-01-01Z', 1 FROM generate_series(1, 20);
INSERT INTO granules_global_unique SELECT cumulus_id FROM granules;
INSERT INTO files (granule_cumulus_id, collection_cumulus_id) SELECT i, 1 FROM generate_series(1, 20) i;
`,
}

// damages are what may be wrong with a restored database, and the finding that says so. An empty shape means both.
var damages = []struct{ shape, sql, finding string }{
	{"", "DROP TABLE granules_executions", "tables"},
	{"", "UPDATE knex_migrations_lock SET is_locked = 1", "migration lock"},
	{"", "DELETE FROM knex_migrations", "migrations"},
	{"", "SELECT setval('granules_cumulus_id_seq', 5)", "sequences"},
	{"", "UPDATE granules SET created_at = '2026-02-01Z' WHERE cumulus_id = 7", "newest of granules"},
	{"", "SET LOCAL session_replication_role = replica; DELETE FROM collections", "granules without their collections (collection_cumulus_id)"},
	{"", "SET LOCAL session_replication_role = replica; DELETE FROM collections", "rules without their collections (collection_cumulus_id)"},
	{"", "ALTER TABLE rules DROP CONSTRAINT rules_provider_cumulus_id_fkey, ADD FOREIGN KEY (provider_cumulus_id) REFERENCES providers NOT VALID", "foreign keys that are not valid"},
	{"", "SET LOCAL ROLE reader", "CREATE on the schema public"},
	{"21", "ALTER TABLE files DROP CONSTRAINT files_granule_cumulus_id_fkey", "foreign keys"},
	{"21", "SET LOCAL session_replication_role = replica; DELETE FROM granules WHERE cumulus_id = 3", "files without their granules (granule_cumulus_id)"},
	{"21", "SET LOCAL session_replication_role = replica; DELETE FROM executions WHERE cumulus_id = 3", "granules_executions without their executions (execution_cumulus_id)"},
	{"21", "SELECT setval('executions_cumulus_id_seq', 2100000000)", "numbers left to sequences"},
	{"22", "SET LOCAL session_replication_role = replica; DELETE FROM granules WHERE cumulus_id = 3", "files without their granules (collection_cumulus_id, granule_cumulus_id)"},
	{"22", "DELETE FROM executions_global_unique WHERE cumulus_id = 3", "executions_global_unique beside executions"},
	{"22", "DELETE FROM granules_global_unique", "granules_global_unique beside granules"},
	{"22", "INSERT INTO executions (created_at) VALUES ('2025-01-01Z')", "rows in executions_default"},
	{"22", "CREATE TABLE ghosts_global_unique ()", "ghosts_global_unique"},
}

func failed(all []Finding) (names []string) {
	for _, f := range all {
		if !f.OK {
			names = append(names, f.Name)
		}
	}
	return names
}

// Each damage is found, by name, in either shape; without damage nothing is.
func TestInspect(t *testing.T) {
	target := time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC)
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		s := pgtest.Start(t, v)
		for shape, ddl := range shapes {
			s.Exec("CREATE DATABASE shape" + shape)
			conn, err := pgx.Connect(t.Context(), s.TCP("postgres", "shape"+shape))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.Background())
			for _, sql := range []string{ddl, `DO 'BEGIN CREATE ROLE reader; EXCEPTION WHEN duplicate_object THEN NULL; END'`,
				"REVOKE CREATE ON SCHEMA public FROM public; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader; GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO reader; ANALYZE"} {
				if _, err := conn.Exec(t.Context(), sql); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
			found, err := Inspect(t.Context(), conn, target)
			if err != nil || len(failed(found)) > 0 || len(found) < 12 {
				t.Fatalf("%s: %v %v", shape, err, found)
			}
			for _, d := range damages {
				if d.shape != "" && d.shape != shape {
					continue
				}
				tx, err := conn.Begin(t.Context())
				if err == nil {
					_, err = tx.Exec(t.Context(), d.sql)
				}
				if err != nil {
					t.Fatalf("%s: %v", d.sql, err)
				}
				found, err := Inspect(t.Context(), conn, target)
				if err != nil || !strings.Contains("|"+strings.Join(failed(found), "|")+"|", "|"+d.finding+"|") {
					t.Errorf("%s, %s: found %q, want %q (%v)", shape, d.sql, failed(found), d.finding, err)
				}
				if err := tx.Rollback(t.Context()); err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Exec(t.Context(), "SELECT setval('granules_cumulus_id_seq', 20)"); err != nil { // no rollback takes that back
					t.Fatal(err)
				}
				if shape == "21" {
					if _, err := conn.Exec(t.Context(), "SELECT setval('executions_cumulus_id_seq', 20)"); err != nil {
						t.Fatal(err)
					}
				}
			}
			large(t, conn, target)
			disabled(t, conn)
		}
	})
}

// large tables are not read as a whole, and what was not looked at says so.
func large(t *testing.T, conn *pgx.Conn, target time.Time) {
	i := &inspector{ctx: t.Context(), conn: conn, most: 10}
	i.all(target)
	unread := 0
	for _, f := range i.out {
		if strings.Contains(f.Found, "not looked at") {
			unread++
		}
	}
	if i.err != nil || unread < 2 || len(failed(i.out)) > 0 {
		t.Errorf("%d are not looked at: %v %v", unread, i.out, i.err)
	}
	counts, err := Count(t.Context(), conn)
	if err != nil || counts["granules"] != 20 || counts["files"] != 20 || counts["knex_migrations"] != 1 {
		t.Errorf("%v %v", counts, err)
	}
}

// disabled are all rules after DisableRules, and only what was recorded comes back by EnableKinesis.
func disabled(t *testing.T, conn *pgx.Conn) {
	rows := func() string {
		var s string
		if err := conn.QueryRow(t.Context(), "SELECT string_agg(concat_ws(' ', name, enabled, arn, log_event_arn), ', ' ORDER BY name) FROM rules").Scan(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, want := range []int64{2, 0} {
		if n, err := DisableRules(t.Context(), conn); err != nil || n != want || rows() != "k f uuid, off f, t f" {
			t.Errorf("%d, %v: %s", n, err, rows())
		}
	}
	record := func(name, kind, value string) (r Record) {
		r.Rule.Name, r.Rule.State, r.Rule.Rule.Type, r.Rule.Rule.Value, r.Rule.Rule.ARN, r.Rule.Rule.LogARN = name, Enabled, kind, value, "now", "log"
		return r
	}
	others := []Record{record("t", SNS, "topic"), record("k", Kinesis, "another stream"), record("gone", Kinesis, "stream"), {Rule: Rule{Name: "k", State: Disabled}}}
	if n, err := EnableKinesis(t.Context(), conn, others); err != nil || n != 0 {
		t.Errorf("%d rules that nobody may enable so: %v: %s", n, err, rows())
	}
	for _, want := range []int64{1, 0} {
		if n, err := EnableKinesis(t.Context(), conn, append(others, record("k", Kinesis, "stream"))); err != nil || n != want || rows() != "k t now log, off f, t f" {
			t.Errorf("%d, %v: %s", n, err, rows())
		}
	}
}
