package restore

import (
	"context"
	"os"
	"path/filepath"
	"pileus/internal/postgres"
	"pileus/internal/repo"
	"strconv"
	"strings"
	"testing"
	"time"

	"pileus/internal/pg"
	"pileus/internal/pgtest"
)

func TestRestoreToTargets(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		l := newLab(t, v)
		l.server.Exec("CREATE TABLE ledger (n int PRIMARY KEY)")
		l.steps(1, 10)
		b := l.backup(func() { l.steps(11, 12) })
		known := l.steps(13, 25)
		l.server.Exec("SELECT pg_create_restore_point('half')")
		for n, s := range l.steps(26, 30) {
			known[n] = s
		}
		l.server.SwitchWAL()
		for n, s := range l.steps(31, 40) {
			known[n] = s
		}
		l.archive()
		// The server idles; a watermark is all that says how far its silence reaches.
		mark := repo.Watermark{Timeline: 1, LSN: l.server.LSN(), Time: known[40].time.Add(time.Minute)}
		l.check(l.repo.PutWatermark(t.Context(), source, mark))
		l.check(l.repo.PutSnapshot(t.Context(), repo.Snapshot{Name: "kept", Cluster: source, Backup: b.ID, LSN: b.StopLSN}))

		tests := []struct {
			name   string
			target Target
			rows   int
		}{
			{"time", Target{Kind: ToTime, Time: known[20].time}, 20},
			{"xid", Target{Kind: ToXID, XID: known[33].xid}, 33},
			{"xid-exclusive", Target{Kind: ToXID, XID: known[28].xid, Exclusive: true}, 27},
			{"lsn", Target{Kind: ToLSN, LSN: known[17].after, Exclusive: true}, 17},
			{"lsn-end", Target{Kind: ToLSN, LSN: known[40].after}, 40},
			{"name", Target{Kind: ToName, Name: "half"}, 25},
			{"latest", Target{Kind: ToLatest}, 40},
			{"idle", Target{Kind: ToTime, Time: mark.Time}, 40},
			{"snapshot", Target{Kind: ToSnapshot, Name: "kept"}, 12},
			{"backup", Target{Kind: ToBackup, Name: b.ID}, 12},
		}
		for i, tt := range tests {
			if v.Major != 15 && i >= 1 && tt.name != "latest" && i != v.Major%len(tests) {
				continue // every version has two or three; one has them all
			}
			t.Run(tt.name, func(t *testing.T) {
				l := *l
				l.t = t
				res, err := l.restore(l.request("new-"+tt.name, tt.target))
				if err != nil {
					t.Fatal(err)
				}
				if got := l.ask(res, "SELECT count(*) || ' to ' || max(n) FROM ledger"); got != strconv.Itoa(tt.rows)+" to "+strconv.Itoa(tt.rows) {
					t.Errorf("rows: %s, want 1 to %d", got, tt.rows)
				}
				if res.Timeline <= b.Timeline {
					t.Errorf("timeline %d, want one of its own", res.Timeline)
				}
				for _, set := range []struct{ name, want string }{{"archive_mode", "off"}, {"restore_command", ""}, {"recovery_target_lsn", ""}, {"cluster_name", "new-" + tt.name}} {
					if got := l.ask(res, "SHOW "+set.name); got != set.want {
						t.Errorf("%s is %q, want %q", set.name, got, set.want)
					}
				}
				c, err := l.repo.Cluster(t.Context(), "new-"+tt.name)
				if err != nil || c.Parent == nil || c.Parent.LSN != res.EndLSN {
					t.Errorf("registered %+v, %v", c.Parent, err)
				}
				if _, err := os.Stat(filepath.Join(res.Plan.DataDir, markerName)); err == nil {
					t.Error("the marker is still there")
				}
				t.Logf("stages %v", res.Stages)
			})
		}
	})
}

func TestRestoreTablespaces(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	old := l.server.CreateTablespace("fast")
	l.server.Exec("CREATE TABLE ledger (n int PRIMARY KEY) TABLESPACE fast")
	l.steps(1, 5)
	l.backup(nil)
	l.steps(6, 9)
	l.archive()
	r := l.request("moved", Target{Kind: ToLatest})
	if _, err := l.restore(r); err == nil || !strings.Contains(err.Error(), "--tablespace "+old+"=NEW") {
		t.Fatalf("error %v, want the flag that is missing", err)
	}
	r.Tablespaces = []TablespaceMap{{Old: "fast", New: old}}
	if _, err := l.restore(r); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Fatalf("error %v, want the tablespace in use refused", err)
	}
	r.Tablespaces[0].New = filepath.Join(l.home, "fast")
	res, err := l.restore(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.ask(res, "SELECT count(*) FROM ledger"); got != "9" {
		t.Errorf("%s rows, want 9", got)
	}
	if got := l.ask(res, "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'"); got != r.Tablespaces[0].New {
		t.Errorf("tablespace at %s, want %s", got, r.Tablespaces[0].New)
	}
	l.server.Exec("INSERT INTO ledger VALUES (100)") // the source's own files are as they were
	if got := l.server.Query("SELECT count(*) FROM ledger"); got != "10" {
		t.Errorf("the source has %s rows, want 10", got)
	}
}

func TestRestoreNeutralisesSettings(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		if v.Major != pgtest.OldestMajor && v.Major != 15 && v.Major != pgtest.NewestMajor {
			return // settings changed in these
		}
		l := newLab(t, v)
		data := l.server.Instance.DataDir
		conf, err := os.ReadFile(filepath.Join(data, mainConf))
		l.check(err)
		l.server.WriteFile("extra.conf", "log_directory = '/var/log/of-the-source'\n")
		l.server.WriteFile(mainConf, string(conf)+`
archive_mode = on
archive_command = 'touch `+filepath.Join(l.folder, "harm")+`'
synchronous_standby_names = 'far'
primary_conninfo = 'host=elsewhere'
restore_command = 'false'
recovery_target_xid = '7'
external_pid_file = '/var/run/source.pid'
include = 'extra.conf'
include_dir = '/etc/postgresql-of-the-source'
ssl = on
work_mem = '7MB'
`)
		l.backup(nil)
		l.archive()
		r := l.request("tame", Target{Kind: ToLatest})
		p, err := NewPlan(t.Context(), r)
		l.check(err)
		for _, name := range []string{"archive_mode", "archive_command", "synchronous_standby_names", "primary_conninfo", "include_dir", "external_pid_file", "log_directory", "ssl"} {
			found := false
			for _, c := range p.Settings {
				found = found || c.Name == name && c.Reason != ""
			}
			if !found {
				t.Errorf("the plan does not list %s: %+v", name, p.Settings)
			}
		}
		res, err := l.restore(r)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"archive_mode": "off", "synchronous_standby_names": "", "primary_conninfo": "", "restore_command": "",
			"recovery_target_xid": "", "external_pid_file": "", "log_directory": "log", "ssl": "off", "work_mem": "7MB", "port": strconv.Itoa(r.Port),
			"unix_socket_directories": l.home, "listen_addresses": "localhost"} {
			if got := l.ask(res, "SHOW "+name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		l.ask(res, "CREATE TABLE t AS SELECT 1; SELECT pg_switch_wal()")
		if _, err := os.Stat(filepath.Join(l.folder, "harm")); err == nil {
			t.Error("the new cluster ran the source's archive_command")
		}
	})
}

func TestPreparedDirectoryRecoversWhenStarted(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	l.server.Exec("CREATE TABLE ledger (n int PRIMARY KEY)")
	l.backup(nil)
	known := l.steps(1, 9)
	l.archive()
	r := l.request("prepared", Target{Kind: ToTime, Time: known[5].time})
	r.Start = false
	res, err := l.restore(r)
	l.check(err)
	if len(res.Next) == 0 || !strings.Contains(res.Next[0], "pg_ctl -D "+r.DataDir) {
		t.Errorf("what to do next: %q", res.Next)
	}
	in := postgres.Instance{Binaries: l.server.Version.Binaries, DataDir: r.DataDir, RunAs: pgtest.Owner(t), LogFile: filepath.Join(r.DataDir, "log")}
	l.check(in.Start(t.Context(), postgres.StartOptions{}))
	t.Cleanup(func() {
		if err := in.Stop(context.Background(), postgres.StopImmediate); err != nil {
			t.Error(err)
		}
	})
	l.check(in.WaitRecovered(t.Context()))
	if got := l.ask(res, "SELECT count(*) FROM ledger"); got != "5" {
		t.Errorf("%s rows, want 5", got)
	}
}

// TestRestoreAcrossTimelines promotes the source by restoring it in place of itself:
// the archive then holds two timelines, and the newest one is followed.
func TestRestoreAcrossTimelines(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	l.server.Exec("CREATE TABLE ledger (n int PRIMARY KEY)")
	l.backup(nil)
	first := l.steps(1, 5)
	l.archive()
	l.server.Stop()
	l.server.WriteFile("standby.signal", "")
	l.check(l.server.Instance.Start(t.Context(), postgres.StartOptions{}))
	l.check(l.server.Instance.Promote(t.Context()))
	second := l.steps(6, 9)
	l.archive()
	for _, tt := range []struct {
		name   string
		target Target
		rows   string
		follow pg.TimelineID
	}{
		{"latest", Target{Kind: ToLatest}, "9", 2},
		{"old", Target{Kind: ToTime, Time: first[3].time}, "3", 1},
		{"new", Target{Kind: ToXID, XID: second[7].xid}, "7", 2},
	} {
		res, err := l.restore(l.request(tt.name, tt.target))
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if res.Plan.Resolution.Timeline != tt.follow || res.Timeline != 3 {
			t.Errorf("%s: follows timeline %d and is on %d, want %d and 3", tt.name, res.Plan.Resolution.Timeline, res.Timeline, tt.follow)
		}
		if got := l.ask(res, "SELECT count(*) FROM ledger"); got != tt.rows {
			t.Errorf("%s: %s rows, want %s", tt.name, got, tt.rows)
		}
	}

	// Often only the successor's copy of the segment in which a timeline was left is archived.
	last := pg.SegmentAt(1, first[5].after, 16<<20)
	l.check(l.repo.DeleteSegment(t.Context(), source, last))
	parts, err := l.repo.Parts(t.Context(), source, last)
	l.check(err)
	for _, part := range parts {
		l.check(l.repo.DeletePart(t.Context(), source, part))
	}
	if err := os.Remove(filepath.Join(l.folder, last.Name())); err != nil {
		t.Fatal(err)
	}
	res, err := l.restore(l.request("copy", Target{Kind: ToTime, Time: first[4].time}))
	l.check(err)
	if got := l.ask(res, "SELECT count(*) FROM ledger"); got != "4" || res.Plan.Resolution.Timeline != 2 {
		t.Errorf("%s rows following timeline %d, want 4 following 2", got, res.Plan.Resolution.Timeline)
	}
}

func TestRestorePreparedTransaction(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	l.server.Exec("CREATE TABLE ledger (n int PRIMARY KEY)")
	l.backup(nil)
	l.server.Exec("BEGIN; INSERT INTO ledger VALUES (1); PREPARE TRANSACTION 'p'")
	between, err := time.Parse("2006-01-02 15:04:05.999999-07", l.server.Query("SELECT clock_timestamp()"))
	l.check(err)
	l.server.Exec("COMMIT PREPARED 'p'")
	l.steps(2, 3)
	l.archive()
	res, err := l.restore(l.request("undecided", Target{Kind: ToTime, Time: between}))
	l.check(err)
	if got := l.ask(res, "SELECT (SELECT count(*) FROM ledger) || ' rows, prepared: ' || (SELECT string_agg(gid, ',') FROM pg_prepared_xacts)"); got != "0 rows, prepared: p" {
		t.Errorf("%s", got)
	}
}
