package e2e

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pileus/internal/pgtest"
)

// TestPeek looks at both sides of an accident, and leaves nothing behind.
func TestPeek(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.Newest(t), flavour{})
	r.server.Exec("CREATE TABLE public.granules AS SELECT generate_series(1, 500) k")
	receiver := r.receive()
	r.run("backup", "src")
	before := r.server.Query("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
	r.server.Exec("DELETE FROM public.granules WHERE k > 100")
	r.caughtUp()
	var f finds
	r.runJSON(&f, "find", "src", "--table", "public.granules", "--kind", "delete")
	if len(f.Transactions) != 1 || f.Transactions[0].Deleted != 400 {
		t.Fatalf("%+v", f)
	}
	xid := strings.Fields(f.Commands[firstKey(f.Commands)])
	id := xid[indexOf(xid, "--to-xid")+1]

	out := r.run("timeline", "src", "--since", "10m", "--interval", "10s")
	for _, want := range []string{"backup ", "400 rows deleted", "public.granules", "Restorable from"} {
		if !strings.Contains(out, want) {
			t.Errorf("the timeline does not say %q:\n%s", want, out)
		}
	}
	picture := filepath.Join(r.dir, "timeline.svg")
	r.run("timeline", "src", "--since", "10m", "--svg", picture)
	if text, err := os.ReadFile(picture); err != nil || !strings.Contains(string(text), "400 rows deleted") || xml.Unmarshal(text, new(struct{ XMLName xml.Name })) != nil {
		t.Errorf("%v\n%s", err, text)
	}

	tmp := filepath.Join(r.dir, "tmp")
	if err := os.Mkdir(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := pgtest.Owner(t).Chown(tmp); err != nil {
		t.Fatal(err)
	}
	bin := r.server.Version.Binaries.Dir
	var sides []struct {
		At   string
		Rows [][]string
	}
	r.runJSON(&sides, "peek", "src", "--dir", tmp, "--bin-dir", bin, "--before-xid", id, "--after-xid", id, "--", "SELECT count(*) FROM granules")
	if len(sides) != 2 || sides[0].Rows[0][0] != "500" || sides[1].Rows[0][0] != "100" {
		t.Errorf("%+v", sides)
	}
	if out = r.run("peek", "src", "--dir", tmp, "--bin-dir", bin, "--at", before, "--", "SELECT count(*) FROM granules"); !strings.Contains(out, "500") {
		t.Error(out)
	}
	if _, stderr, exit := r.try("peek", "src", "--dir", tmp, "--bin-dir", bin, "--at", before, "--", "DELETE FROM granules"); exit == 0 || !strings.Contains(stderr, "read-only") {
		t.Errorf("exit %d: %s", exit, stderr)
	}
	r.refused(2, []string{"--at"}, "peek", "src", "--", "SELECT 1")
	r.refused(4, []string{"restorable"}, "peek", "src", "--dir", tmp, "--bin-dir", bin, "--at", "2001-01-01T00:00:00Z", "--", "SELECT 1")
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if out := r.run("list"); strings.Contains(out, "peek") {
		t.Errorf("left in the repository:\n%s", out)
	}
	receiver.stop()
}

func firstKey(m map[string]string) string {
	for k := range m {
		return k
	}
	return ""
}

func indexOf(words []string, w string) int {
	for i, v := range words {
		if v == w {
			return i
		}
	}
	return -1
}
