package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"pileus/internal/pgtest"
	"pileus/internal/recovery"
)

// serve rehearses by itself, and its metrics tell of the proof.
func TestServeDrills(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.serve.stop()
	port := pgtest.FreePort(t)
	text := strings.Replace(s.configText(), "listen: 127.0.0.1:0", fmt.Sprintf("listen: 127.0.0.1:%d", port), 1)
	text = strings.Replace(text, "endpoint: http://"+s.at, fmt.Sprintf("endpoint: http://127.0.0.1:%d", port), 1)
	text = strings.Replace(text, "\n  database: cumulus\n", "\n  database: cumulus\n  drill_every: 1h\n  drill_clusters: shop\n", 1)
	s.write("pileus.yaml", text)
	s.up()
	var last string
	pgtest.WaitFor(t, "a recovery to be proven", func() bool {
		resp, err := http.Get("http://" + s.at + "/metrics")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		last = string(b)
		return err == nil && strings.Contains(last, `pileus_drill_last_success_timestamp_seconds{cluster="shop"}`)
	})
	if !strings.Contains(last, `pileus_drill_failed{cluster="shop"} 0`) || !strings.Contains(last, `pileus_drill_last_rto_seconds{cluster="shop"}`) {
		t.Errorf("%s", last)
	}
	var drills []recovery.Drill
	s.runJSON(&drills, "drill", "shop", "--list")
	if len(drills) != 1 || !drills[0].OK {
		t.Errorf("%+v", drills)
	}
}
