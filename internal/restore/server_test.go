package restore

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

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
