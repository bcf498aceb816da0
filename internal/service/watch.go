package service

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"pileus/internal/control"
	"pileus/internal/fleet"
)

// How often the fleet is looked at for metrics, status and health, and how old a look
// may be before the service counts as stuck.
const (
	lookEvery  = 2 * time.Second
	lookTime   = time.Minute
	sizeEvery  = 10 * time.Minute // adding up the repository's objects takes a listing of it all
	stuckAfter = 3 * time.Minute
)

// Status is what `pileus status` shows.
type Status struct {
	Version   string          `json:"version"`
	Since     time.Time       `json:"since"` // of this process
	Looked    time.Time       `json:"looked"`
	Clusters  []ClusterStatus `json:"clusters"`
	Protected bool            `json:"protected"` // all that run
}

// ClusterStatus is one cluster in it.
type ClusterStatus struct {
	Identifier  string     `json:"identifier"`
	Attached    bool       `json:"attached"`
	Status      string     `json:"status"`
	Protected   bool       `json:"protected"`
	Since       *time.Time `json:"since,omitempty"`
	Why         []string   `json:"why,omitempty"`
	Earliest    *time.Time `json:"earliest_restorable_time,omitempty"`
	Latest      *time.Time `json:"latest_restorable_time,omitempty"`
	LastBackup  *time.Time `json:"last_backup,omitempty"`
	WALLagBytes int64      `json:"wal_lag_bytes"` // -1: not known
	Endpoint    string     `json:"endpoint,omitempty"`
	Port        int        `json:"port,omitempty"`
}

// watch looks at the fleet in the background, so that no question waits for the repository.
type watch struct {
	fleet *fleet.Fleet
	d     *control.Deployment
	since time.Time

	mu     sync.Mutex
	looked time.Time
	health []fleet.Health
	size   int64 // of the repository in bytes; -1: not known
}

func newWatch(f *fleet.Fleet, d *control.Deployment) *watch {
	return &watch{fleet: f, d: d, since: time.Now().UTC(), size: -1}
}

// run looks until ctx ends.
func (w *watch) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { every(ctx, sizeEvery, w.measure) })
	every(ctx, lookEvery, w.look)
}

func every(ctx context.Context, pause time.Duration, do func(context.Context)) {
	for {
		do(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (w *watch) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	health := w.fleet.Health(ctx)
	if ctx.Err() != nil {
		return // half a look is none; healthz tells when there is none for long
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looked, w.health = time.Now().UTC(), health
}

func (w *watch) measure(ctx context.Context) {
	n, err := w.d.Repo.StoredBytes(ctx)
	if err != nil {
		n = -1
	}
	w.mu.Lock()
	w.size = n
	w.mu.Unlock()
}

// report is the newest look.
func (w *watch) report() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := Status{Version: w.d.Version, Since: w.since, Looked: w.looked, Clusters: []ClusterStatus{}, Protected: true}
	for _, h := range w.health {
		s.Clusters = append(s.Clusters, ClusterStatus{Identifier: h.Cluster.Identifier, Attached: h.Cluster.Attached, Status: string(h.Cluster.Status),
			Protected: h.Protected, Since: known(h.Since), Why: h.Why, Earliest: known(h.Cluster.Earliest), Latest: known(h.Cluster.Latest),
			LastBackup: known(h.LastBackup), WALLagBytes: h.WALLagBytes, Endpoint: h.Cluster.Endpoint, Port: h.Cluster.Port})
		s.Protected = s.Protected && (h.Protected || h.Cluster.Status == fleet.StatusStopped)
	}
	return s
}

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func (w *watch) status(rw http.ResponseWriter, r *http.Request) {
	w.look(r.Context()) // a person asks: the answer is of now
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(w.report()) // the client is gone: nobody to tell
}

// healthz answers load balancers and supervisors: does the service work? Whether each cluster is protected
// is in the metrics.
func (w *watch) healthz(rw http.ResponseWriter, _ *http.Request) {
	s := w.report()
	answer := struct {
		Status  string   `json:"status"`
		Reasons []string `json:"reasons,omitempty"`
	}{Status: "ok"}
	if since := time.Since(s.Looked); !s.Looked.IsZero() && since > stuckAfter || s.Looked.IsZero() && time.Since(w.since) > stuckAfter {
		answer.Reasons = append(answer.Reasons, "the clusters were not looked at for "+since.Round(time.Second).String())
	}
	code := http.StatusOK
	if len(answer.Reasons) > 0 {
		answer.Status, code = "failing", http.StatusServiceUnavailable
	}
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(code)
	_ = json.NewEncoder(rw).Encode(answer) // the client is gone: nobody to tell
}
