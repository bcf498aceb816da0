package fence

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"pileus/internal/pgtest"
)

const password = "a password"

// lab is a database of an application, with roles of every sort, and an administrator who is no superuser.
type lab struct {
	t      *testing.T
	server *pgtest.Server
	admin  *pgx.Conn
	target Target
}

func newLab(t *testing.T, v pgtest.Version) *lab {
	l := &lab{t: t, server: pgtest.Start(t, v, pgtest.Scram(password), pgtest.With("password_encryption", "scram-sha-256"), pgtest.With("max_prepared_transactions", "5")), target: Target{Database: "shop", Exempt: []string{"monitor"}}}
	for _, sql := range []string{
		"CREATE ROLE boss LOGIN CREATEDB CREATEROLE PASSWORD '" + password + "'",
		"CREATE ROLE owner LOGIN PASSWORD '" + password + "'",
		"CREATE ROLE reader LOGIN PASSWORD '" + password + "'",
		"CREATE ROLE team",
		"CREATE ROLE member LOGIN PASSWORD '" + password + "' IN ROLE team",
		"CREATE ROLE deputy LOGIN PASSWORD '" + password + "' IN ROLE boss",
		"CREATE ROLE monitor LOGIN PASSWORD '" + password + "'",
		"CREATE ROLE idle PASSWORD '" + password + "'",
		"CREATE DATABASE shop OWNER owner",
		"REVOKE ALL ON DATABASE shop FROM PUBLIC",
		"GRANT CONNECT, TEMPORARY ON DATABASE shop TO reader WITH GRANT OPTION",
		"GRANT CONNECT ON DATABASE shop TO team, monitor, boss",
	} {
		l.server.Exec(sql)
	}
	l.admin = l.connect("boss", "postgres")
	return l
}

func (l *lab) config(user, database string) *pgx.ConnConfig {
	l.t.Helper()
	c, err := pgx.ParseConfig(l.server.TCP(user, database))
	if err != nil {
		l.t.Fatal(err)
	}
	c.Password = password
	return c
}

func (l *lab) connect(user, database string) *pgx.Conn {
	l.t.Helper()
	conn, err := pgx.ConnectConfig(l.t.Context(), l.config(user, database))
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (l *lab) observe() State {
	l.t.Helper()
	s, err := Observe(l.t.Context(), l.admin, l.target)
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

// everything is what a fence could change.
func (l *lab) everything() string {
	l.t.Helper()
	return l.server.Query(`SELECT concat_ws(' ', (SELECT string_agg(concat_ws('/', a.grantee::regrole, a.privilege_type, a.is_grantable), ',' ORDER BY a.grantee, a.privilege_type)
		FROM pg_database d, aclexplode(d.datacl) a WHERE datname = 'shop'), (SELECT string_agg(rolname || rolcanlogin || rolconnlimit, ',' ORDER BY rolname) FROM pg_roles WHERE rolname !~ '^pg_'),
		(SELECT datconnlimit FROM pg_database WHERE datname = 'shop'))`)
}

// permit runs what Permitted asks for.
func (l *lab) permit() {
	l.t.Helper()
	lacks, err := Permitted(l.t.Context(), l.admin, l.observe())
	if err != nil {
		l.t.Fatal(err)
	}
	if len(lacks) == 0 {
		l.t.Error("an administrator who may do nothing lacks nothing")
	}
	for _, sql := range lacks {
		l.server.Exec(sql)
	}
	if lacks, err = Permitted(l.t.Context(), l.admin, l.observe()); err != nil || len(lacks) > 0 {
		l.t.Fatalf("after that he lacks %v, %v", lacks, err)
	}
}

func TestFence(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		l := newLab(t, v)
		l.permit()
		s := l.observe()
		before := l.everything()
		roles := []string{"owner", "reader", "member"}
		if v.Major < 16 { // from then on an administrator has no right over who belongs to him
			roles = append(roles, "deputy")
			if !slices.Contains(s.Roles, "deputy") {
				t.Errorf("who belongs to the administrator could connect all the same: %v", s.Roles)
			}
		}
		var working []*pgx.Conn
		for _, role := range roles {
			working = append(working, l.connect(role, "shop"))
		}
		stays := l.connect("monitor", "shop")
		for range 2 { // a fence that is put up again after a crash
			if err := Close(t.Context(), l.admin, l.target, s); err != nil {
				t.Fatal(err)
			}
		}
		if closed, err := Closed(t.Context(), l.admin, l.target, s); closed || err != nil {
			t.Errorf("it is closed although sessions are left: %v %v", closed, err)
		}
		ended, err := EndSessions(t.Context(), l.admin, l.target, s.Admin, RefusePrepared, nil)
		if err != nil || len(ended) != len(working) {
			t.Fatalf("ended %+v, %v", ended, err)
		}
		for _, c := range working {
			if err := c.Ping(t.Context()); err == nil {
				t.Error("a session was left")
			}
		}
		if err := stays.Ping(t.Context()); err != nil {
			t.Errorf("an exempt role's session was ended: %v", err)
		}
		for _, role := range append(roles, "deputy") {
			if said, err := Probe(t.Context(), l.config(role, "shop")); err != nil || said == "" {
				t.Errorf("%s: %q, %v", role, said, err)
			}
		}
		l.connect("boss", "shop").Close(t.Context())
		l.connect("monitor", "shop").Close(t.Context())
		if closed, err := Closed(t.Context(), l.admin, l.target, s); !closed || err != nil {
			t.Errorf("closed: %v %v", closed, err)
		}
		if restored, err := Restored(t.Context(), l.admin, l.target, s); !restored || err != nil {
			t.Errorf("a fenced cluster is not taken for one: %v %v", restored, err)
		}
		for range 2 {
			if err := Lift(t.Context(), l.admin, s); err != nil {
				t.Fatal(err)
			}
		}
		if after := l.everything(); after != before {
			t.Errorf("after the fence\n%s\nand before\n%s", after, before)
		}
		if restored, err := Restored(t.Context(), l.admin, l.target, s); restored || err != nil {
			t.Errorf("an open cluster is taken for a fenced one: %v %v", restored, err)
		}
	})
}

// A probe proves something only if the server knows the role and refuses it.
func TestProbe(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	if _, err := Probe(t.Context(), l.config("reader", "shop")); !errors.Is(err, errOpen) {
		t.Errorf("it got in: %v", err)
	}
	for name, change := range map[string]func(*pgx.ConnConfig){
		"wrong password":   func(c *pgx.ConnConfig) { c.Password = "wrong" },
		"unknown role":     func(c *pgx.ConnConfig) { c.User = "nobody" },
		"unknown database": func(c *pgx.ConnConfig) { c.Database = "nowhere" },
		"nobody listens":   func(c *pgx.ConnConfig) { c.Port = uint16(pgtest.FreePort(t)) },
	} {
		c := l.config("reader", "shop")
		change(c)
		if said, err := Probe(t.Context(), c); err == nil {
			t.Errorf("%s proves that %q", name, said)
		}
	}
}

func TestPreparedTransactions(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	l.permit()
	s := l.observe()
	app := l.connect("owner", "shop")
	for _, sql := range []string{"CREATE TABLE t (x int)", "BEGIN", "INSERT INTO t VALUES (1)", "PREPARE TRANSACTION 'it''s one'"} {
		if _, err := app.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := Close(t.Context(), l.admin, l.target, s); err != nil {
		t.Fatal(err)
	}
	_, err := EndSessions(t.Context(), l.admin, l.target, s.Admin, RefusePrepared, nil)
	var prepared *PreparedError
	if !errors.As(err, &prepared) || len(prepared.Transactions) != 1 || !strings.Contains(err.Error(), "it's one") {
		t.Fatalf("%v", err)
	}
	l.server.Exec("GRANT owner TO boss")
	// Only a superuser or whoever prepared it may roll it back.
	_, err = EndSessions(t.Context(), l.admin, l.target, s.Admin, RollbackPrepared, func(ctx context.Context) (*pgx.Conn, error) {
		return pgx.ConnectConfig(ctx, l.config("boss", "shop"))
	})
	if err == nil {
		t.Error("boss rolled back what is not his, and PostgreSQL let him")
	}
	l.server.Exec("ALTER ROLE boss SUPERUSER")
	_, err = EndSessions(t.Context(), l.admin, l.target, s.Admin, RollbackPrepared, func(ctx context.Context) (*pgx.Conn, error) {
		return pgx.ConnectConfig(ctx, l.config("boss", "shop"))
	})
	if err != nil {
		t.Errorf("%v", err)
	}
}

func TestObserveRefuses(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	if _, err := Observe(t.Context(), l.admin, Target{Database: "nowhere"}); err == nil || !strings.Contains(err.Error(), "recovery.database") {
		t.Errorf("a database that is not there: %v", err)
	}
	if _, err := Observe(t.Context(), l.admin, Target{Database: "postgres"}); err == nil || !strings.Contains(err.Error(), "maintenance_database") {
		t.Errorf("the administrator's own: %v", err)
	}
	// An administrator who may not: nothing is changed.
	before := l.everything()
	if err := Close(t.Context(), l.admin, l.target, l.observe()); err == nil {
		t.Error("he may not, and could")
	}
	if after := l.everything(); after != before {
		t.Errorf("a fence that failed changed\n%s\ninto\n%s", before, after)
	}
}

func TestStore(t *testing.T) {
	s := &Store{Dir: t.TempDir() + "/fences"}
	if _, err := s.Load("prod"); !errors.Is(err, ErrNone) {
		t.Errorf("%v", err)
	}
	first := State{Database: "shop", Admin: "boss", Grants: []Grant{{"", "CONNECT", false}}}
	if err := s.Save("prod", first); err != nil {
		t.Fatal(err)
	}
	if err := s.Save("prod", State{Database: "shop", Admin: "boss"}); err != nil { // of the fence itself
		t.Fatal(err)
	}
	got, err := s.Load("prod")
	if err != nil || len(got.Grants) != 1 {
		t.Errorf("%+v, %v: what was kept first has to stay", got, err)
	}
	for range 2 {
		if err := s.Remove("prod"); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Load("prod"); !errors.Is(err, ErrNone) {
		t.Errorf("%v", err)
	}
}
