package backup

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"pileus/internal/pg"
	"pileus/internal/pgtest"
	"pileus/internal/postgres"
	"pileus/internal/repo"
	"pileus/internal/store/storetest"
)

// each runs f on every version in both modes.
func each(t *testing.T, f func(t *testing.T, v pgtest.Version, mode Mode)) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		for _, mode := range []Mode{ModeFiles, ModeStream} {
			t.Run(string(mode), func(t *testing.T) { f(t, v, mode) })
		}
	})
}

func TestAnIdleServerComesBackByteForByte(t *testing.T) {
	each(t, func(t *testing.T, v pgtest.Version, mode Mode) {
		l := newLab(t, v)
		where := l.server.CreateTablespace("Fast one")
		l.server.Exec(`CREATE TABLE a AS SELECT i, repeat(i::text, 20) AS t FROM generate_series(1, 30000) i; CREATE INDEX ON a (i);
			CREATE TABLE moved TABLESPACE "Fast one" AS SELECT i FROM generate_series(1, 5000) i;
			CREATE UNLOGGED TABLE fleeting AS SELECT i FROM generate_series(1, 1000) i`)
		l.server.Exec("VACUUM a")
		l.server.Checkpoint()
		b := l.run(l.options(mode))
		l.server.Stop()
		dir := materialise(t, l.repo, b)
		if n := l.sameRelations(dir); n < 100 {
			t.Errorf("only %d relation files were compared", n)
		}
		method := map[Mode]string{ModeFiles: repo.MethodFiles, ModeStream: repo.MethodStream}[mode]
		label, err := pg.ParseBackupLabel([]byte(b.Label))
		l.check(err)
		switch {
		case b.Method != method, b.DamagedPages != 0, b.Timeline != 1, b.StartLSN >= b.StopLSN, b.Size == 0, b.Stored == 0, b.Files == 0:
			t.Errorf("head: %+v", b)
		case label.Start != b.StartLSN:
			t.Errorf("the label starts at %s, the head at %s", label.Start, b.StartLSN)
		case len(b.Tablespaces) != 1 || b.Tablespaces[0].Name != "Fast one" || b.Tablespaces[0].Location != where:
			t.Errorf("tablespaces: %+v", b.Tablespaces)
		case b.CompleteTo.Before(b.Started) || b.Stopped.Before(b.CompleteTo):
			t.Errorf("started %s, complete to %s, stopped %s", b.Started, b.CompleteTo, b.Stopped)
		}
		for _, name := range []string{"PG_VERSION", "postgresql.conf", "pg_hba.conf", "global/pg_control", "pg_xact/0000", "pg_wal/archive_status"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Errorf("not in the backup: %v", err)
			}
		}
		for _, name := range []string{"postmaster.pid", "backup_label", "tablespace_map"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				t.Errorf("%s is in the backup", name)
			}
		}
		if m, err := l.repo.OpenManifest(t.Context(), "lab", b.ID); err != nil {
			t.Error(err)
		} else {
			if m.Size != b.Size || m.Files != b.Files || m.StopLSN != b.StopLSN {
				t.Errorf("the head that was returned (%+v) is not the one that was stored (%+v)", b, m.Backup)
			}
			m.Close()
		}
	})
}

// load runs pgbench until the test is done with it.
func (l *lab) load() (stop func()) {
	l.t.Helper()
	ctx, cancel := context.WithCancel(l.t.Context())
	cmd := l.server.PgbenchCommand(ctx, "-n", "-c", "4", "-T", "600")
	l.check(cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	return func() {
		l.t.Helper()
		cancel()
		var exit *exec.ExitError
		if err := <-done; err != nil && !errors.As(err, &exit) && !errors.Is(err, context.Canceled) {
			l.t.Fatal(err)
		}
	}
}

// A server started from the backup, with the WAL of the other, must see every
// index agree with its table and pages sound; and no healthy page is called damaged.
func TestUnderLoadNothingIsCalledDamagedAndTheBackupRecovers(t *testing.T) {
	each(t, func(t *testing.T, v pgtest.Version, mode Mode) {
		l := newLab(t, v, pgtest.With("wal_keep_size", "1GB"), pgtest.With("max_wal_size", "1GB"))
		l.server.Pgbench("-i", "-s", "5", "-q")
		stop := l.load()
		pgtest.WaitFor(t, "load", func() bool { return l.server.Query("SELECT count(*) > 50 FROM pgbench_history") == "t" })
		b := l.run(l.options(mode))
		second := l.options(mode)
		second.Parent = &b
		c := l.run(second)
		stop()
		if c.Incremental != (mode == ModeFiles) {
			t.Errorf("in mode %s the second backup is incremental: %v, %s", mode, c.Incremental, c.WhyFull)
		}
		if b.DamagedPages != 0 || c.DamagedPages != 0 {
			t.Errorf("healthy pages are called damaged: %v %v", b.Damage, c.Damage)
		}
		l.server.Stop()
		for _, b := range []repo.Backup{b, c} {
			l.recovers(b)
		}
	})
}

// recovers starts a server from the backup and the WAL that the stopped source still has.
func (l *lab) recovers(b repo.Backup) {
	t := l.t
	t.Helper()
	in := l.raise(b)
	defer func() { l.check(in.Stop(context.Background(), postgres.StopFast)) }()
	conn, err := postgres.Connect(t.Context(), postgres.DSN(in.SocketDir, in.Port, "postgres", "postgres"), postgres.Options{})
	l.check(err)
	defer conn.Close(t.Context())
	var sound bool
	l.check(conn.SQL().QueryRow(t.Context(), `SELECT (SELECT sum(abalance) FROM public.pgbench_accounts) = (SELECT coalesce(sum(delta), 0) FROM public.pgbench_history)
		AND (SELECT sum(bbalance) FROM public.pgbench_branches) = (SELECT coalesce(sum(delta), 0) FROM public.pgbench_history)`).Scan(&sound))
	if !sound {
		t.Errorf("backup %s recovers to balances that do not agree with the history", b.ID)
	}
}

// raise starts a server from a backup, with the WAL that the lab's stopped server has.
func (l *lab) raise(b repo.Backup) *postgres.Instance {
	t := l.t
	t.Helper()
	from := materialise(t, l.repo, b)
	dir := filepath.Join(pgtest.TempDir(t), "data")
	if out, err := exec.Command("cp", "-a", from, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	wal := filepath.Join(l.server.Instance.DataDir, "pg_wal")
	if out, err := exec.Command("sh", "-c", "cp "+wal+"/0* "+dir+"/pg_wal/").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	l.check(os.WriteFile(filepath.Join(dir, pg.BackupLabelFile), []byte(b.Label), 0o600))
	l.check(os.WriteFile(filepath.Join(dir, "postgresql.conf"), []byte("fsync = off\nautovacuum = off\n"), 0o600))
	l.check(os.Chmod(dir, 0o700))
	l.linkTablespaces(dir)
	owner := pgtest.Owner(t)
	l.check(filepath.WalkDir(filepath.Dir(dir), func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, owner.Chown(path))
	}))
	in := postgres.Instance{Binaries: l.server.Version.Binaries, DataDir: dir, RunAs: owner, SocketDir: filepath.Dir(dir),
		LogFile: filepath.Join(filepath.Dir(dir), "log"), Port: pgtest.FreePort(t)}
	l.check(in.Start(t.Context(), postgres.StartOptions{}))
	return &in
}

// linkTablespaces moves tablespaces out of a data directory.
func (l *lab) linkTablespaces(dir string) {
	l.t.Helper()
	spaces, err := os.ReadDir(filepath.Join(dir, "pg_tblspc"))
	l.check(err)
	for _, s := range spaces {
		from, to := filepath.Join(dir, "pg_tblspc", s.Name()), filepath.Join(filepath.Dir(dir), s.Name())
		l.check(os.Rename(from, to))
		l.check(os.Symlink(to, from))
	}
}

func TestDamageOnDiskIsReportedAndTheBackupCompletes(t *testing.T) {
	each(t, func(t *testing.T, v pgtest.Version, mode Mode) {
		l := newLab(t, v)
		l.server.Exec("CREATE TABLE hurt AS SELECT i, repeat('x', 100) FROM generate_series(1, 20000) i; CHECKPOINT")
		path := l.server.Query("SELECT pg_relation_filepath('hurt')")
		l.server.Stop()
		full := filepath.Join(l.server.Instance.DataDir, path)
		b, err := os.ReadFile(full)
		l.check(err)
		for _, block := range []int{3, 40} {
			b[block*pg.PageSize+5000] ^= 0xFF
		}
		lsn := pg.PageHeader(b[3*pg.PageSize:]).LSN()
		l.check(os.WriteFile(full, b, 0o600))
		l.server.Restart()
		got := l.run(l.options(mode))
		if got.DamagedPages != 2 || len(got.Damage) != 2 {
			t.Fatalf("%d damaged pages: %+v", got.DamagedPages, got.Damage)
		}
		if d := got.Damage[0]; d.Path != path || d.Block != 3 || d.LSN != lsn || d.Expected == d.Found {
			t.Errorf("damage %+v; expected block 3 of %s with LSN %s", d, path, lsn)
		}
		if d := got.Damage[1]; d.Block != 40 {
			t.Errorf("damage %+v", d)
		}
		l.server.Stop()
		l.sameRelations(materialise(t, l.repo, got)) // stored as they are
	})
}

func TestAnotherDatabaseUnderTheNameIsRefused(t *testing.T) {
	v := pgtest.Newest(t)
	l, other := newLab(t, v), newLab(t, v)
	l.run(l.options(ModeFiles))
	before := l.count("")
	for _, mode := range []Mode{ModeFiles, ModeStream} {
		o := other.options(mode)
		o.Repo = l.repo
		_, err := Run(t.Context(), o)
		var identity *repo.IdentityError
		if !errors.As(err, &identity) {
			t.Errorf("%s: %v", mode, err)
		}
	}
	if n := l.count(""); n != before {
		t.Errorf("%d objects were stored for the other database", n-before)
	}
}

func TestPrivilegesAreAskedForByName(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		l := newLab(t, v)
		l.server.Exec(`CREATE ROLE "Plain" LOGIN`)
		_, err := Run(t.Context(), l.optionsAs(ModeFiles, "Plain"))
		if !errors.Is(err, postgres.ErrNotPrivileged) {
			t.Fatalf("a role without privileges: %v", err)
		}
		l.server.Exec(grant(t, err))
		_, err = Run(t.Context(), l.optionsAs(ModeFiles, "Plain"))
		if !errors.Is(err, postgres.ErrNotPrivileged) {
			t.Fatalf("a role that may not see the data directory: %v", err)
		}
		l.server.Exec(grant(t, err))
		l.run(l.optionsAs(ModeFiles, "Plain"))

		_, err = Run(t.Context(), l.optionsAs(ModeStream, "Plain"))
		var refused *postgres.ConnectError
		if !errors.As(err, &refused) || refused.Kind != postgres.ConnectReplicationPrivilege {
			t.Fatalf("a role without REPLICATION: %v", err)
		}
		l.server.Exec(`CREATE ROLE sender LOGIN REPLICATION`)
		l.run(l.optionsAs(ModeStream, "sender"))
		if b := l.run(l.optionsAs(ModeAuto, "sender")); b.Method != repo.MethodStream {
			t.Errorf("auto chose %s for a role that may only stream", b.Method)
		}
		if said := l.notes.lines.String(); !strings.Contains(said, "GRANT EXECUTE") {
			t.Errorf("nobody is told why files are not read directly: %s", said)
		}
		if b := l.run(l.optionsAs(ModeAuto, "postgres")); b.Method != repo.MethodFiles {
			t.Errorf("auto chose %s for a superuser on the same host", b.Method)
		}
	})
}

// grant takes the statement out of a message.
func grant(t *testing.T, err error) string {
	t.Helper()
	at := strings.LastIndex(err.Error(), "GRANT ")
	if at < 0 {
		t.Fatalf("no statement in %q", err)
	}
	statement, _, _ := strings.Cut(err.Error()[at:], " (or ")
	return statement
}

func TestADirectoryOfAnotherServerIsNotRead(t *testing.T) {
	v := pgtest.Newest(t)
	l, other := newLab(t, v), newLab(t, v)
	l.server.Exec("CREATE TABLE a AS SELECT 1")
	clone := filepath.Join(pgtest.TempDir(t), "clone")
	if out, err := exec.Command("cp", "-a", l.server.Instance.DataDir, clone).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, dir := range map[string]string{"another cluster": other.server.Instance.DataDir, "a copy": clone, "nothing": "/nowhere/at/all"} {
		t.Run(name, func(t *testing.T) {
			o := l.options(ModeFiles)
			o.DataDir = dir
			if _, err := Run(t.Context(), o); !errors.Is(err, ErrOtherHost) {
				t.Errorf("files: %v", err)
			}
			o.Mode = ModeAuto
			b, err := Run(t.Context(), o)
			if err != nil || b.Method != repo.MethodStream {
				t.Errorf("auto: %s, %v", b.Method, err)
			}
		})
	}
	l.wantNoBackupOnServer()
}

// wantNoBackupOnServer waits until the server has forgotten an aborted backup.
func (l *lab) wantNoBackupOnServer() {
	l.t.Helper()
	pgtest.WaitFor(l.t, "the end of the backup on the server", func() bool {
		return l.server.Query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pileus'") == "0" &&
			l.server.Query("SELECT count(*) FROM pg_stat_progress_basebackup") == "0"
	})
	if l.server.Version.Major < 15 && l.server.Query("SELECT pg_is_in_backup()") != "f" {
		l.t.Error("the server is still in an exclusive backup")
	}
}

// holding is what a process holds on to.
type holding struct{ goroutines, files int }

// held counts; open files only where the system tells.
func held() holding {
	fds, _ := os.ReadDir("/proc/self/fd") // none elsewhere than on Linux
	return holding{runtime.NumGoroutine(), len(fds)}
}

func (h holding) within(o holding) bool { return h.goroutines <= o.goroutines && h.files <= o.files }

func TestACancelledBackupLeavesNothingRunning(t *testing.T) {
	each(t, func(t *testing.T, v pgtest.Version, mode Mode) {
		l := newLab(t, v)
		l.server.Pgbench("-i", "-s", "2", "-q")
		began := time.Now()
		first := l.run(l.options(mode))
		whole := time.Since(began)
		idle := held()
		for range 6 {
			n, err := rand.Int(rand.Reader, big.NewInt(int64(whole)))
			l.check(err)
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Duration(n.Int64()), errors.New("a person said stop"))
			b, err := Run(ctx, l.options(mode))
			cancel()
			if err == nil {
				if _, err := l.repo.Backup(t.Context(), "lab", b.ID); err != nil {
					t.Errorf("a backup succeeded and is not there: %v", err)
				}
				l.check(l.store.Delete(t.Context(), "clusters/lab/backups/"+b.ID))
			}
			if n := l.count("clusters/lab/backups/"); n != 1 {
				t.Fatalf("%d manifests after a backup was cancelled", n)
			}
		}
		l.wantNoBackupOnServer()
		pgtest.WaitFor(t, "goroutines and files to be let go", func() bool { return held().within(idle) })
		l.check(func() error { _, err := l.repo.Backup(t.Context(), "lab", first.ID); return err }())
	})
}

func TestAFailingStoreFailsTheBackupOnce(t *testing.T) {
	each(t, func(t *testing.T, v pgtest.Version, mode Mode) {
		l := newLab(t, v)
		l.server.Pgbench("-i", "-s", "2", "-q")
		full := errors.New("no space left")
		l.store.Inject(storetest.Fault{Op: storetest.Put, Prefix: "packs/", Skip: 2, Before: full})
		idle := held()
		_, err := Run(t.Context(), l.options(mode))
		if !errors.Is(err, full) {
			t.Fatalf("the cause is lost: %v", err)
		}
		if n := l.count("clusters/lab/backups/"); n != 0 {
			t.Errorf("%d manifests after a failure", n)
		}
		if n := l.store.Calls(storetest.Put); n > 8 {
			t.Errorf("%d writes although the third pack failed", n)
		}
		l.wantNoBackupOnServer()
		pgtest.WaitFor(t, "goroutines and files to be let go", func() bool { return held().within(idle) })
	})
}

func TestWALThatNeverArrivesFailsTheBackup(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	o := l.options(ModeFiles)
	lost := errors.New("the archive is away")
	o.WaitForWAL = func(_ context.Context, tli pg.TimelineID, start, stop pg.LSN) error {
		if tli != 1 || start >= stop {
			t.Errorf("asked for WAL of timeline %d from %s to %s", tli, start, stop)
		}
		return lost
	}
	if _, err := Run(t.Context(), o); !errors.Is(err, lost) || l.count("clusters/lab/backups/") != 0 {
		t.Fatalf("%v", err)
	}
}

func TestASecondBackupStoresLittle(t *testing.T) {
	each(t, func(t *testing.T, v pgtest.Version, mode Mode) {
		l := newLab(t, v)
		l.server.Pgbench("-i", "-s", "2", "-q")
		l.server.Checkpoint()
		first := l.run(l.options(mode))
		o := l.options(mode)
		o.Parent = &first
		second := l.run(o)
		if second.Parent != first.ID || second.Stored > first.Stored/10 {
			t.Errorf("the first stored %d bytes, the second, of parent %q, %d", first.Stored, second.Parent, second.Stored)
		}
		l.server.Stop()
		l.sameRelations(materialise(t, l.repo, second))
	})
}

// A parent that cannot be read costs space, not the backup.
func TestADamagedParentCostsOnlySpace(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	o := l.options(ModeFiles)
	o.Parent = &repo.Backup{ID: "20010101T000000Z-000000", Cluster: "lab"}
	if b := l.run(o); b.Parent != "" {
		t.Errorf("parent %q", b.Parent)
	}
	if said := l.notes.lines.String(); !strings.Contains(said, "parent") {
		t.Errorf("nobody is told: %q", said)
	}
}

// A standby's clock says nothing of what the primary has committed.
func TestAStandbyIsBackedUp(t *testing.T) {
	each(t, func(t *testing.T, v pgtest.Version, mode Mode) {
		l := newLab(t, v)
		l.server.Pgbench("-i", "-s", "1", "-q")
		primary := l.server
		l.server = pgtest.Standby(t, primary)
		pgtest.WaitFor(t, "the standby", func() bool { return l.server.LSN() >= primary.LSN() })
		b := l.run(l.options(mode))
		label, err := pg.ParseBackupLabel([]byte(b.Label))
		l.check(err)
		if !b.CompleteTo.IsZero() || b.Stopped.IsZero() || b.Timeline != 1 || b.DamagedPages != 0 || label.Start != b.StartLSN {
			t.Errorf("head: %+v", b)
		}
		o := l.options(ModeFiles)
		o.DataDir = primary.Instance.DataDir
		if _, err := Run(t.Context(), o); !errors.Is(err, ErrOtherHost) {
			t.Errorf("the primary's directory was read for the standby's: %v", err)
		}
	})
}

func TestATablespaceWithinTheDataDirectoryIsKept(t *testing.T) {
	each(t, func(t *testing.T, v pgtest.Version, mode Mode) {
		if v.Major < 15 {
			return // it has none
		}
		l := newLab(t, v)
		l.server.Exec("ALTER ROLE postgres SET allow_in_place_tablespaces = on")
		l.server.Exec("CREATE TABLESPACE inner_one LOCATION ''")
		l.server.Exec("CREATE TABLE inside TABLESPACE inner_one AS SELECT i FROM generate_series(1, 5000) i; CHECKPOINT")
		if v.Major == 15 && mode == ModeStream {
			// Its BASE_BACKUP leaves the content out, so a backup would lack data.
			if _, err := Run(t.Context(), l.options(mode)); err == nil || !strings.Contains(err.Error(), "inner_one") {
				t.Errorf("the backup was taken: %v", err)
			}
			return
		}
		b := l.run(l.options(mode))
		if len(b.Tablespaces) != 1 || b.Tablespaces[0].Name != "inner_one" || filepath.IsAbs(b.Tablespaces[0].Location) {
			t.Errorf("tablespaces: %+v", b.Tablespaces)
		}
		path := l.server.Query("SELECT pg_relation_filepath('inside')")
		want, err := os.ReadFile(filepath.Join(l.server.Instance.DataDir, path))
		l.check(err)
		dir := materialise(t, l.repo, b)
		got, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s came back with %d bytes of %d: %v", path, len(got), len(want), err)
		}
	})
}
