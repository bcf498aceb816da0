package fleet

import (
	"context"
	"errors"
	"sync"
	"time"

	"pileus/internal/control"
)

// How old a look into the repository may be before another is taken: for who asks, and for
// what goes on in the background. A window that is too old is only ever too small.
const (
	fresh   = time.Second
	settled = 10 * time.Second
)

// catalog remembers what the repository says about each cluster in it, as clients poll.
type catalog struct {
	d   *control.Deployment
	now func() time.Time

	mu      sync.Mutex
	entries map[string]*catalogEntry
	names   []string // of the clusters in the repository
	listed  time.Time
}

// catalogEntry is one cluster; its lock makes callers at the same time share one look.
type catalogEntry struct {
	mu   sync.Mutex
	at   time.Time
	view control.ClusterView
}

func newCatalog(d *control.Deployment, now func() time.Time) *catalog {
	return &catalog{d: d.Remembering(), now: now, entries: map[string]*catalogEntry{}}
}

// get is what the repository says about a cluster now; nothing, if it does not have it.
func (c *catalog) get(ctx context.Context, archive string) (control.ClusterView, error) {
	return c.within(ctx, archive, fresh)
}

// within is what the repository said no longer ago than age.
func (c *catalog) within(ctx context.Context, archive string, age time.Duration) (control.ClusterView, error) {
	c.mu.Lock()
	e, ok := c.entries[archive]
	if !ok {
		e = &catalogEntry{}
		c.entries[archive] = e
	}
	c.mu.Unlock()

	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.at.IsZero() && c.now().Sub(e.at) < age {
		return e.view, nil
	}
	views, err := c.d.View(ctx, archive)
	var unknown *control.ConfigError
	if errors.As(err, &unknown) { // neither in the repository nor configured
		views, err = []control.ClusterView{{Name: archive}}, nil
	}
	if err != nil {
		return control.ClusterView{Name: archive}, err
	}
	e.view, e.at = views[0], c.now()
	return e.view, nil
}

// forget makes the next look a new one.
func (c *catalog) forget(archive string) {
	c.mu.Lock()
	delete(c.entries, archive)
	c.listed = time.Time{}
	c.mu.Unlock()
}

// all names the clusters that the repository has.
func (c *catalog) all(ctx context.Context) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.listed.IsZero() && c.now().Sub(c.listed) < fresh {
		return c.names, nil
	}
	var names []string
	for cl, err := range c.d.Repo.Clusters(ctx) {
		if err != nil && cl.Name == "" {
			return nil, err
		}
		names = append(names, cl.Name)
	}
	c.names, c.listed = names, c.now()
	return names, nil
}
