package service

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pileus/internal/fleet"
)

// ask sends a request to a handler.
func ask(h http.HandlerFunc) (code int, body string) {
	rw := httptest.NewRecorder()
	h(rw, httptest.NewRequest(http.MethodGet, "/", nil))
	return rw.Code, rw.Body.String()
}

func noSize(context.Context) (int64, error) { return 0, errors.New("away") }

func cluster(id string, protected bool, why ...string) fleet.Health {
	return fleet.Health{Cluster: fleet.Cluster{Identifier: id, Status: fleet.StatusAvailable}, Protected: protected, Why: why, WALLagBytes: -1, SlotBytes: -1}
}

// TestNeverLooked: a repository that hangs from the start must not look like one without clusters.
func TestNeverLooked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch("v", func(context.Context) []fleet.Health { select {} }, noSize)
		began := time.Now()
		if code, body := ask(w.status); code != http.StatusOK || !strings.Contains(body, `"protected":false`) || !strings.Contains(body, `"problem":`) || !strings.Contains(body, `"clusters":[]`) {
			t.Errorf("status: %d %s", code, body)
		}
		if waited := time.Since(began); waited != firstLook {
			t.Errorf("the answer took %s", waited)
		}
		if code, body := ask(w.healthz); code != http.StatusOK {
			t.Errorf("healthz while it begins: %d %s", code, body)
		}
		time.Sleep(stuckAfter)
		if code, body := ask(w.healthz); code != http.StatusServiceUnavailable || !strings.Contains(body, "does the repository answer?") {
			t.Errorf("healthz: %d %s", code, body)
		}
	})
}

// TestOldLook: when a look hangs for good, what was seen before does not count any more.
func TestOldLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		looks := 0
		w := newWatch("v", func(context.Context) []fleet.Health {
			if looks++; looks > 1 {
				<-hang // whatever the context says, as a dead network mount does
			}
			return []fleet.Health{cluster("a", true)}
		}, noSize)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); w.run(ctx) }()
		synctest.Wait()
		metrics := w.metrics().ServeHTTP
		if _, body := ask(metrics); !strings.Contains(body, `pileus_cluster_protected{cluster="a"} 1`) || strings.Contains(body, "pileus_repository_bytes ") {
			t.Errorf("at first: %s", body)
		}
		if s := w.report(); !s.Protected || s.Problem != "" || len(s.Clusters) != 1 {
			t.Errorf("at first: %+v", s)
		}
		time.Sleep(stuckAfter + time.Second)
		if _, body := ask(metrics); !strings.Contains(body, `pileus_cluster_protected{cluster="a"} 0`) {
			t.Errorf("later: %s", body)
		}
		if s := w.report(); s.Protected || !strings.Contains(s.Problem, "last looked at") || len(s.Clusters) != 1 {
			t.Errorf("later: %+v", s)
		}
		if code, _ := ask(w.healthz); code != http.StatusServiceUnavailable {
			t.Errorf("healthz: %d", code)
		}
		close(hang)
		synctest.Wait()
		if s := w.report(); !s.Protected {
			t.Errorf("after it: %+v", s)
		}
		cancel()
		<-ended
	})
}

// TestSlowRepository: what a look found out when its time was over counts.
func TestSlowRepository(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch("v", func(ctx context.Context) []fleet.Health {
			<-ctx.Done()
			return []fleet.Health{cluster("a", false, "the repository cannot be read: "+ctx.Err().Error())}
		}, noSize)
		w.look(t.Context())
		if s := w.report(); s.Protected || s.Problem != "" || len(s.Clusters) != 1 || !strings.Contains(s.Clusters[0].Why[0], "cannot be read") {
			t.Errorf("%+v", s)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		w.health = func(context.Context) []fleet.Health { return nil }
		w.look(ended)
		if s := w.report(); len(s.Clusters) != 1 {
			t.Errorf("half a look counts: %+v", s)
		}
	})
}

// TestReport: a stopped cluster does not make the whole unprotected; any other does.
func TestReport(t *testing.T) {
	stopped := cluster("stopped", false, "it is stopped")
	stopped.Cluster.Status = fleet.StatusStopped
	for name, c := range map[string]struct {
		seen []fleet.Health
		want bool
	}{
		"none":    {nil, true},
		"well":    {[]fleet.Health{cluster("a", true)}, true},
		"stopped": {[]fleet.Health{stopped, cluster("a", true)}, true},
		"one not": {[]fleet.Health{cluster("a", true), cluster("b", false, "x")}, false},
	} {
		w := newWatch("v", func(context.Context) []fleet.Health { return c.seen }, noSize)
		w.look(t.Context())
		if s := w.report(); s.Protected != c.want || len(s.Clusters) != len(c.seen) {
			t.Errorf("%s: %+v", name, s)
		}
	}
}
