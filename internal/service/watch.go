package service

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"pileus/internal/fleet"
)

// How often the fleet is looked at for metrics, status and health, and how old a look
// may be before the service counts as stuck.
const (
	lookEvery  = 2 * time.Second
	lookTime   = time.Minute
	firstLook  = 10 * time.Second // how long a question waits for the first one
	sizeEvery  = 10 * time.Minute // adding up the repository's objects takes a listing of it all
	stuckAfter = 3 * time.Minute
)

// Status is what `pileus status` shows.
type Status struct {
	Version   string          `json:"version"`
	Since     time.Time       `json:"since"`             // of this process
	Looked    *time.Time      `json:"looked,omitempty"`  // when what follows was seen
	Problem   string          `json:"problem,omitempty"` // why it may not be so any more
	Clusters  []ClusterStatus `json:"clusters"`
	Protected bool            `json:"protected"` // all that run, and there is no Problem
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

// watch looks at the fleet in the background, so that no question waits for the repository. One that
// does not answer at all, such as a network mount without its server, may hold a look for good: what
// was seen before is then old, and is not taken for how things are.
type watch struct {
	version string
	health  func(context.Context) []fleet.Health
	size    func(context.Context) (int64, error) // of the repository in bytes
	since   time.Time
	first   chan struct{} // closed when the first look is done

	mu     sync.Mutex
	looked time.Time
	seen   []fleet.Health
	bytes  int64 // of the repository; -1: not known
}

func newWatch(version string, health func(context.Context) []fleet.Health, size func(context.Context) (int64, error)) *watch {
	return &watch{version: version, health: health, size: size, since: time.Now().UTC(), first: make(chan struct{}), bytes: -1}
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
	bound, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	health := w.health(bound)
	if ctx.Err() != nil {
		return // the service ends, and half a look is none
	}
	// If the bound is over, the repository did not answer for so long, and health says that.
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.looked.IsZero() {
		close(w.first)
	}
	w.looked, w.seen = time.Now().UTC(), health
}

func (w *watch) measure(ctx context.Context) {
	n, err := w.size(ctx)
	if err != nil {
		n = -1
	}
	w.mu.Lock()
	w.bytes = n
	w.mu.Unlock()
}

// problem is why the newest look does not count; empty: it does. The caller holds mu.
func (w *watch) problem() string {
	switch {
	case w.looked.IsZero():
		return "the clusters could not be looked at since " + w.since.Format(time.RFC3339) + ": does the repository answer?"
	case time.Since(w.looked) > stuckAfter:
		return "the clusters were last looked at at " + w.looked.Format(time.RFC3339) + ": does the repository still answer?"
	}
	return ""
}

// report is the newest look.
func (w *watch) report() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := Status{Version: w.version, Since: w.since, Looked: known(w.looked), Problem: w.problem(), Clusters: []ClusterStatus{}}
	s.Protected = s.Problem == ""
	for _, h := range w.seen {
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

// status answers `pileus status`. Only at the very beginning it waits, for the first look.
func (w *watch) status(rw http.ResponseWriter, r *http.Request) {
	select {
	case <-w.first:
	case <-time.After(firstLook):
	case <-r.Context().Done():
	}
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(w.report()) // the client is gone: nobody to tell
}

// healthz answers load balancers and supervisors: does the service work? Whether each cluster is protected
// is in the metrics.
func (w *watch) healthz(rw http.ResponseWriter, _ *http.Request) {
	answer := struct {
		Status  string   `json:"status"`
		Reasons []string `json:"reasons,omitempty"`
	}{Status: "ok"}
	w.mu.Lock()
	problem := w.problem()
	starting := w.looked.IsZero() && time.Since(w.since) <= stuckAfter
	w.mu.Unlock()
	code := http.StatusOK
	if problem != "" && !starting {
		answer.Status, answer.Reasons, code = "failing", []string{problem}, http.StatusServiceUnavailable
	}
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(code)
	_ = json.NewEncoder(rw).Encode(answer) // the client is gone: nobody to tell
}
