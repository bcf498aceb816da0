package postgres_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pileus/internal/pgtest"
	"pileus/internal/postgres"
)

const secret = "p@ss 'word\\ %41"

func timeout(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func connect(t *testing.T, dsn string, o postgres.Options) *postgres.Conn {
	t.Helper()
	c, err := postgres.Connect(timeout(t), dsn, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func connectReplication(t *testing.T, dsn string) *postgres.ReplConn {
	t.Helper()
	c, err := postgres.ConnectReplication(timeout(t), dsn, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func TestConnectFailuresSayWhatToDo(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		s := pgtest.Start(t, v, pgtest.Scram(secret))
		s.Exec("CREATE ROLE plain LOGIN PASSWORD 'plain'")
		s.Exec("CREATE DATABASE closed")
		s.Exec("REVOKE CONNECT ON DATABASE closed FROM public")
		s.SetHBA("local all all trust", "host all barred 127.0.0.1/32 reject", "host all plain 127.0.0.1/32 trust",
			"host replication plain 127.0.0.1/32 trust", "host all postgres 127.0.0.1/32 scram-sha-256", "host all ghost 127.0.0.1/32 trust")
		for _, c := range []struct {
			name, dsn, password string
			replication         bool
			kind                postgres.ConnectKind
			next                string
		}{
			{"wrong password", s.TCP("postgres", "postgres"), "wrong-" + secret, false, postgres.ConnectPassword, "check the password"},
			{"no password", s.TCP("postgres", "postgres"), "", false, postgres.ConnectPassword, "check the password"},
			{"rejected", s.TCP("barred", "postgres"), "", false, postgres.ConnectNoHBA, "pg_hba.conf"},
			{"no line", s.TCP("other", "postgres"), "", false, postgres.ConnectNoHBA, "pg_hba.conf"},
			{"no line for replication", s.TCP("postgres", "postgres"), secret, true, postgres.ConnectNoHBA, "host replication postgres"},
			{"no role", s.TCP("ghost", "postgres"), "", false, postgres.ConnectNoRole, "CREATE ROLE"},
			{"no database", s.TCP("plain", "absent"), "", false, postgres.ConnectNoDatabase, "dbname=postgres"},
			{"no replication", s.TCP("plain", "postgres"), "", true, postgres.ConnectReplicationPrivilege, `ALTER ROLE "plain" REPLICATION`},
			{"no connect", s.TCP("plain", "closed"), "", false, postgres.ConnectPrivilege, "GRANT CONNECT"},
			{"tls", strings.Replace(s.TCP("postgres", "postgres"), "disable", "require", 1), secret, false, postgres.ConnectTLS, "sslmode"},
			{"refused", postgres.DSN("127.0.0.1", pgtest.FreePort(t), "postgres", "postgres"), secret, false, postgres.ConnectRefused, "listen_addresses"},
			{"no socket", postgres.DSN(filepath.Join(s.Dir, "none"), 5432, "postgres", "postgres"), secret, false, postgres.ConnectNoSocket, "unix_socket_directories"},
			{"dns", postgres.DSN("no-such-host.invalid", 5432, "postgres", "postgres"), secret, false, postgres.ConnectDNS, "host name"},
		} {
			t.Run(c.name, func(t *testing.T) {
				o := postgres.Options{Password: c.password}
				var err error
				if c.replication {
					_, err = postgres.ConnectReplication(timeout(t), c.dsn, o)
				} else {
					_, err = postgres.Connect(timeout(t), c.dsn, o)
				}
				var ce *postgres.ConnectError
				if !errors.As(err, &ce) {
					t.Fatalf("error %v is no ConnectError", err)
				}
				if ce.Kind != c.kind {
					t.Errorf("kind %q instead of %q: %v", ce.Kind, c.kind, err)
				}
				if !strings.Contains(err.Error(), c.next) {
					t.Errorf("%q does not say %q", err, c.next)
				}
				if c.password != "" && strings.Contains(err.Error(), c.password) {
					t.Errorf("%q holds the password", err)
				}
			})
		}
		t.Run("right password", func(t *testing.T) {
			conn := connect(t, s.TCP("postgres", "postgres"), postgres.Options{Password: secret})
			if conn.Major() != v.Major {
				t.Errorf("major %d", conn.Major())
			}
		})
	})
}

func TestUnreadableConnectionStringsKeepTheirSecret(t *testing.T) {
	for _, dsn := range []string{
		"host=x password=topsecret port=banana",
		"host=x password='topsecret' sslmode=perhaps",
		"host=x password = topsecret port",
		"postgres://u:topsecret@host:port/db",
		"postgres://u:topsecret@h%zz/db",
		"postgres://u@h/db?password=topsecret&sslmode=perhaps",
	} {
		_, err := postgres.Connect(timeout(t), dsn, postgres.Options{})
		if err == nil {
			t.Errorf("%s was taken", dsn)
		} else if strings.Contains(err.Error(), "topsecret") {
			t.Errorf("the error holds the password: %v", err)
		}
	}
}

func TestInfo(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		s := pgtest.Start(t, v, pgtest.With("synchronous_standby_names", ""), pgtest.With("max_slot_wal_keep_size", "1GB"), pgtest.WALSegmentSize(1<<20))
		dir := s.CreateTablespace("fast disk")
		in, err := connect(t, s.DSN(), postgres.Options{}).Info(timeout(t))
		if err != nil {
			t.Fatal(err)
		}
		if in.Major != v.Major || in.Timeline != 1 || in.InRecovery || in.SystemIdentifier == 0 || in.LSN == 0 || in.FlushLSN == 0 {
			t.Errorf("identity: %+v", in)
		}
		if in.WALSegmentSize != 1<<20 || in.BlockSize != 8192 || !in.DataChecksums || !in.FullPageWrites || in.Fsync || in.MaxSlotWALKeepSize != 1<<30 {
			t.Errorf("settings: %+v", in)
		}
		if in.DataDirectory != s.Instance.DataDir || in.Port != s.Port || in.WALLevel != "replica" || in.MaxWALSenders != 10 {
			t.Errorf("settings: %+v", in)
		}
		if len(in.Tablespaces) != 1 || in.Tablespaces[0].Name != "fast disk" || in.Tablespaces[0].Location != dir {
			t.Errorf("tablespaces: %+v", in.Tablespaces)
		}
		if !in.Superuser || in.User != "postgres" || in.ClockSkew.Abs() > 10*time.Second {
			t.Errorf("user %q, superuser %v, skew %v", in.User, in.Superuser, in.ClockSkew)
		}
		if p := in.Privileges; !p.BackupStart || !p.BackupStop || !p.SwitchWAL || !p.CreateRestorePoint || !p.Checkpoint || !p.ReadAllSettings {
			t.Errorf("privileges: %+v", p)
		}
	})
}

// A role with nothing but grants is what a careful administrator gives us.
func TestOrdinaryRoleWithGrants(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		s := pgtest.Start(t, v)
		s.Exec("CREATE ROLE pileus LOGIN REPLICATION; ALTER ROLE pileus SET statement_timeout = '1ms'; ALTER ROLE pileus SET search_path = 'nowhere'")
		dsn := postgres.DSN(s.Dir, s.Port, "pileus", "postgres")
		c := connect(t, dsn, postgres.Options{})
		in, err := c.Info(timeout(t))
		if err != nil {
			t.Fatal(err)
		}
		if in.Superuser || !in.Replication || in.DataDirectory != "" || in.Privileges != (postgres.Privileges{}) {
			t.Errorf("before any grant: %+v", in)
		}
		if in.SystemIdentifier == 0 || in.WALSegmentSize == 0 || in.Timeline != 1 {
			t.Errorf("what every role may see is missing: %+v", in)
		}
		if _, err := c.StartBackup(timeout(t), "x", true); !errors.Is(err, postgres.ErrNotPrivileged) {
			t.Errorf("a backup without a grant gave %v", err)
		}
		start, stop := "pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"
		if v.Major < 15 {
			start, stop = "pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)"
		}
		s.Exec("GRANT pg_read_all_settings TO pileus; GRANT EXECUTE ON FUNCTION " + start + ", " + stop + ", pg_switch_wal(), pg_create_restore_point(text) TO pileus")
		if in, err = c.Info(timeout(t)); err != nil {
			t.Fatal(err)
		}
		p := in.Privileges
		if !p.BackupStart || !p.BackupStop || !p.SwitchWAL || !p.CreateRestorePoint || !p.ReadAllSettings || in.DataDirectory != s.Instance.DataDir {
			t.Errorf("after the grants: %+v", in)
		}
		if len(in.Roles) != 1 || in.Roles[0] != "pg_read_all_settings" {
			t.Errorf("roles: %v", in.Roles)
		}
		backupBySQL(t, c)
	})
}

func backupBySQL(t *testing.T, c *postgres.Conn) {
	t.Helper()
	start, err := c.StartBackup(timeout(t), "nightly 'x'", true)
	if err != nil {
		t.Fatal(err)
	}
	point, err := c.CreateRestorePoint(timeout(t), "here")
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.StopBackup(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	if start == 0 || point < start || res.LSN < point {
		t.Errorf("start %s, restore point %s, stop %s", start, point, res.LSN)
	}
	label := string(res.Label)
	if !strings.Contains(label, "LABEL: nightly 'x'\n") || !strings.Contains(label, "START WAL LOCATION: "+start.String()) {
		t.Errorf("label:\n%s", label)
	}
	if _, err := c.SwitchWAL(timeout(t)); err != nil {
		t.Error(err)
	}
	if now, err := c.CurrentLSN(timeout(t)); err != nil || now < res.LSN {
		t.Errorf("now at %s: %v", now, err)
	}
}

func TestStopBackupHandsOverTheTablespaceMap(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		s := pgtest.Start(t, v)
		dir := s.CreateTablespace("other")
		c := connect(t, s.DSN(), postgres.Options{})
		if _, err := c.StartBackup(timeout(t), "with tablespaces", true); err != nil {
			t.Fatal(err)
		}
		res, err := c.StopBackup(timeout(t))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(res.TablespaceMap), " "+dir) {
			t.Errorf("tablespace map: %q", res.TablespaceMap)
		}
	})
}
