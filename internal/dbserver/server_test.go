package dbserver_test

import (
	"context"
	"crypto/md5"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pileus/internal/dbserver"
	"pileus/internal/pgtest"
	"pileus/internal/postgres"
)

// lab is one server of its own.
type lab struct {
	*dbserver.Server
	t    *testing.T
	spec dbserver.Spec
}

func newLab(t *testing.T, v pgtest.Version) *lab {
	t.Helper()
	dir := filepath.Join(pgtest.TempDir(t), "server")
	l := &lab{Server: dbserver.New(dir, v.Binaries, pgtest.Owner(t)), t: t}
	l.spec = dbserver.Spec{Name: "lab", Port: pgtest.FreePort(t), Listen: []string{"127.0.0.1"}, Hosts: []string{"localhost", "127.0.0.1"},
		Access: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Settings: map[string]string{"work_mem": "5MB", "fsync": "off"}}
	t.Cleanup(func() {
		if err := l.Remove(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// ask runs a query as Pileus.
func (l *lab) ask(query string) string {
	l.t.Helper()
	conn, err := l.Connect(l.t.Context(), "postgres")
	l.must(err)
	defer conn.Close(context.WithoutCancel(l.t.Context()))
	var out string
	l.must(conn.SQL().QueryRow(l.t.Context(), query).Scan(&out))
	return out
}

// as connects as a user over TCP.
func (l *lab) as(user, password, extra string) (*postgres.Conn, error) {
	return postgres.Connect(l.t.Context(), fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=postgres %s", l.spec.Port, user, extra), postgres.Options{Password: password})
}

func each(t *testing.T, test func(t *testing.T, l *lab)) {
	for _, v := range pgtest.Versions(t) {
		t.Run(fmt.Sprint(v.Major), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, v)
			l.must(l.Init(t.Context(), l.spec))
			l.must(l.Start(t.Context()))
			test(t, l)
		})
	}
}

func TestMaster(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		verifier, err := dbserver.Verifier("correct-horse")
		l.must(err)
		l.must(l.SetMaster(t.Context(), "boss", verifier))
		l.must(l.CreateDatabase(t.Context(), "cumulus", "boss"))
		l.must(l.CreateDatabase(t.Context(), "cumulus", "boss"))

		boss, err := l.as("boss", "correct-horse", "sslmode=verify-full sslrootcert="+l.rootCert())
		l.must(err)
		defer boss.Close(t.Context())
		for sql, allowed := range map[string]bool{
			"CREATE DATABASE more":                            true,
			"CREATE ROLE app LOGIN":                           true,
			"CREATE TABLE public.t (x int)":                   true,
			"SELECT pg_stat_reset()":                          false,
			"ALTER ROLE boss SUPERUSER":                       false,
			"ALTER ROLE pileus_admin NOLOGIN":                 false,
			"SET ROLE pileus_admin":                           false,
			"SELECT rolpassword FROM pg_catalog.pg_authid":    false,
			"ALTER SYSTEM SET archive_command = 'rm -rf ~'":   false,
			"COPY (SELECT 1) TO PROGRAM 'cat'":                false,
			"SELECT pg_read_file('PG_VERSION')":               false,
			"ALTER DATABASE template1 CONNECTION LIMIT 0":     false,
			"GRANT pileus_admin TO boss":                      false,
			"SELECT pg_create_physical_replication_slot('s')": false,
		} {
			if _, err := boss.SQL().Exec(t.Context(), sql); (err == nil) != allowed {
				t.Errorf("%s: %v", sql, err)
			}
		}
		if got := l.ask("SHOW work_mem"); got != "5MB" {
			t.Errorf("work_mem of the parameter group is %s", got)
		}
		if got := l.ask("SHOW fsync"); got == "off" {
			t.Log("fsync is the caller's to refuse") // Ours says so
		}

		l.exec(fmt.Sprintf("CREATE ROLE old LOGIN PASSWORD 'md5%x'", md5.Sum([]byte("pluto-1930"+"old")))) // as of before SCRAM
		old, err := l.as("old", "pluto-1930", "sslmode=require")
		l.must(err)
		l.must(old.Close(t.Context()))
		if got := l.ask("SELECT string_agg(rolname, ' ') FROM pg_authid WHERE rolcanlogin AND rolpassword NOT LIKE 'SCRAM%'"); got != "old" {
			t.Errorf("%s have no SCRAM password", got)
		}

		for what, try := range map[string]struct{ user, password, extra string }{
			"no TLS":             {"boss", "correct-horse", "sslmode=disable"},
			"a wrong password":   {"boss", "wrong", "sslmode=require"},
			"no password":        {"boss", "", "sslmode=require"},
			"the admin over TCP": {dbserver.Admin, "", "sslmode=require"},
		} {
			if c, err := l.as(try.user, try.password, try.extra); err == nil {
				c.Close(t.Context())
				t.Errorf("%s was let in", what)
			}
		}
		l.spec.Access = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		_, err = l.Configure(t.Context(), l.spec)
		l.must(err)
		if c, err := l.as("boss", "correct-horse", "sslmode=require"); err == nil {
			c.Close(t.Context())
			t.Error("an address outside the security group was let in")
		}
	})
}

func (l *lab) rootCert() string {
	l.t.Helper()
	text, err := os.ReadFile(filepath.Join(filepath.Dir(l.DataDir()), "conf", "server.crt"))
	l.must(err)
	path := filepath.Join(l.t.TempDir(), "root.crt")
	l.must(os.WriteFile(path, text, 0o600))
	return path
}

func TestConfigureTellsOfARestart(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		l.spec.Settings = map[string]string{"work_mem": "6MB"}
		if restart, err := l.Configure(t.Context(), l.spec); err != nil || restart {
			t.Errorf("a dynamic setting: restart %v, %v", restart, err)
		}
		if got := l.ask("SHOW work_mem"); got != "6MB" {
			t.Errorf("work_mem %s", got)
		}
		l.spec.Settings["max_connections"] = "77"
		if restart, err := l.Configure(t.Context(), l.spec); err != nil || !restart {
			t.Errorf("a static setting: restart %v, %v", restart, err)
		}
		l.must(l.Restart(t.Context()))
		if got := l.ask("SHOW max_connections"); got != "77" {
			t.Errorf("max_connections %s", got)
		}
		l.spec.Settings["max_connections"] = "many"
		if _, err := l.Configure(t.Context(), l.spec); err == nil || !strings.Contains(err.Error(), "max_connections") {
			t.Errorf("a wrong setting: %v", err)
		}
		l.must(l.Restart(t.Context())) // with the settings before
	})
}

func TestSupervise(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		l.must(l.Stop(t.Context()))
		events := make(chan dbserver.Event, 100)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		supervise := func() { go func() { ended <- l.Supervise(ctx, func(e dbserver.Event) { events <- e }) }() }
		supervise()
		next := func(kind dbserver.EventKind) {
			t.Helper()
			select {
			case e := <-events:
				if e.Kind != kind {
					t.Fatalf("%+v, want %s", e, kind)
				}
			case <-time.After(time.Minute):
				t.Fatalf("no event %s", kind)
			}
		}
		next(dbserver.EventStarted)
		pid := l.ask("SELECT pg_postmaster_start_time()::text")

		stop() // the server goes on, and the next supervisor adopts it
		<-ended
		if up, err := l.Running(); err != nil || !up {
			t.Fatalf("up %v, %v", up, err)
		}
		ctx, stop = context.WithCancel(t.Context())
		supervise()
		in := postgres.Instance{DataDir: l.DataDir()}
		p, _, err := in.Running()
		l.must(err)
		if got := l.ask("SELECT pg_postmaster_start_time()::text"); got != pid {
			t.Error("it was restarted")
		}

		l.must(syscall.Kill(p.PID, syscall.SIGKILL))
		next(dbserver.EventCrashed)
		for e := range events {
			if e.Kind == dbserver.EventRestarted {
				break
			} else if e.Kind != dbserver.EventFailed { // while processes of the old one end
				t.Fatalf("%+v", e)
			}
		}
		if l.ask("SELECT 1::text") != "1" {
			t.Error("it does not answer")
		}
		stop()
		<-ended
	})
}

func TestClone(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		space := filepath.Join(filepath.Dir(l.DataDir()), "tblspc", "outside")
		l.must(os.Mkdir(space, 0o700))
		l.must(pgtest.Owner(t).Chown(space))
		l.exec("CREATE TABLESPACE s LOCATION '" + space + "'")
		l.exec("CREATE TABLE public.t TABLESPACE s AS SELECT generate_series(1, 1000) x")

		bin, err := postgres.InspectBinaries(t.Context(), l.BinDir())
		l.must(err)
		reader := &lab{Server: dbserver.New(filepath.Join(pgtest.TempDir(t), "reader"), bin, pgtest.Owner(t)), t: t, spec: l.spec}
		reader.spec.Port, reader.spec.Name = pgtest.FreePort(t), "reader"
		reader.spec.Standby = &dbserver.Standby{Primary: l.DSN(""), Slot: "reader"}
		t.Cleanup(func() {
			if err := reader.Remove(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
		l.must(reader.Clone(t.Context(), l.Server, "reader", reader.spec))
		l.must(reader.Clone(t.Context(), l.Server, "reader", reader.spec)) // as after a kill
		l.must(reader.Start(t.Context()))
		l.exec("INSERT INTO public.t VALUES (1001)")
		pgtest.WaitFor(t, "the reader to follow", func() bool { return reader.ask("SELECT count(*)::text FROM public.t") == "1001" })
		if got := reader.ask("SELECT pg_is_in_recovery()::text"); got != "true" {
			t.Error("the reader is no standby")
		}
		if got := l.ask("SELECT active::text FROM pg_replication_slots WHERE slot_name = 'reader'"); got != "true" {
			t.Errorf("slot active: %s", got)
		}
		l.must(reader.Promote(t.Context()))
		reader.exec("INSERT INTO public.t VALUES (1002)")
		l.must(reader.Stop(t.Context()))
		l.must(l.DropSlot(t.Context(), "reader"))
		l.must(l.DropSlot(t.Context(), "reader"))
	})
}

func (l *lab) exec(sql string) {
	l.t.Helper()
	conn, err := l.Connect(l.t.Context(), "postgres")
	l.must(err)
	defer conn.Close(context.WithoutCancel(l.t.Context()))
	_, err = conn.SQL().Exec(l.t.Context(), sql)
	l.must(err)
}

// TestAdopt takes over a cluster of somebody else, whose superuser has another name.
func TestAdopt(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		l.must(l.Prepare(t.Context()))
		bin, err := postgres.InspectBinaries(t.Context(), l.BinDir())
		l.must(err)
		theirs := &postgres.Instance{Binaries: bin, DataDir: l.DataDir(), RunAs: pgtest.Owner(t), Port: l.spec.Port, SocketDir: pgtest.TempDir(t)}
		l.must(theirs.Init(t.Context(), postgres.InitOptions{Superuser: "somebody", Auth: "trust"}))
		l.must(theirs.Start(t.Context(), postgres.StartOptions{}))
		conn, err := postgres.Connect(t.Context(), theirs.DSN("somebody", "postgres"), postgres.Options{})
		l.must(err)
		for _, sql := range []string{"CREATE ROLE pileus_admin LOGIN CONNECTION LIMIT 0", "ALTER SYSTEM SET work_mem = '9MB'", "ALTER SYSTEM SET listen_addresses = '*'",
			"ALTER SYSTEM SET statement_timeout = '7s'"} {
			_, err := conn.SQL().Exec(t.Context(), sql)
			l.must(err)
		}
		conn.Close(t.Context())
		l.must(theirs.Stop(t.Context(), postgres.StopFast))

		l.must(l.Adopt(t.Context(), l.spec))
		l.must(l.Start(t.Context()))
		for setting, want := range map[string]string{"work_mem": "5MB", "listen_addresses": "127.0.0.1", "port": fmt.Sprint(l.spec.Port)} {
			if got := l.ask("SHOW " + setting); got != want {
				t.Errorf("%s is %s, want %s", setting, got, want)
			}
		}
		if got := l.ask("SELECT reset_val FROM pg_settings WHERE name = 'statement_timeout'"); got == "" {
			t.Error("no statement_timeout")
		}
		if got := l.ask("SELECT sourcefile FROM pg_settings WHERE name = 'work_mem'"); !strings.HasSuffix(got, "pileus.conf") {
			t.Errorf("work_mem comes from %s", got)
		}
		if got := l.ask("SELECT rolsuper::text FROM pg_roles WHERE rolname = 'pileus_admin'"); got != "true" {
			t.Error("no superuser")
		}
	})
}

func TestRemoveRefusesWhatIsNotOurs(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := dbserver.New(dir, postgres.Binaries{}, nil)
	if err := s.Remove(t.Context()); err == nil {
		t.Error("removed")
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}

// TestClosedFolder: a folder above that the server's account may not pass is told before anything is made of it.
// Only root, which passes everywhere, can come to that; others are the server's account.
func TestClosedFolder(t *testing.T) {
	closed := t.TempDir()
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	s := dbserver.New(filepath.Join(closed, "servers", "one"), postgres.Binaries{}, pgtest.Owner(t))
	err := s.Prepare(t.Context())
	if root := os.Geteuid() == 0; root != (err != nil) || root && !strings.Contains(err.Error(), "serve.data_root") {
		t.Errorf("as root %v: %v", root, err)
	}
	if err := s.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOurs(t *testing.T) {
	for name, want := range map[string]bool{"fsync": true, "port": true, "archive_command": true, "ssl_key_file": true, "work_mem": false, "max_connections": false, "shared_preload_libraries": false} {
		if got := dbserver.Ours(name); got != want {
			t.Errorf("Ours(%s) = %v", name, got)
		}
	}
}
