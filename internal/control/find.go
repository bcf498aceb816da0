package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pileus/internal/damage"
	"pileus/internal/progress"
	"pileus/internal/repo"
)

// FindRequest is what to look for in a cluster's WAL.
type FindRequest struct {
	Cluster  string // in the repository; it need not be configured
	Filter   damage.Filter
	Keep     int           // of the largest transactions
	Interval time.Duration // of the buckets; 0: none
}

// Find reads a cluster's archived WAL and says which transactions did damage.
func (d *Deployment) Find(ctx context.Context, q FindRequest, rep progress.Reporter) (damage.Report, error) {
	c, err := d.Repo.Cluster(ctx, q.Cluster)
	if errors.Is(err, repo.ErrNotFound) {
		return damage.Report{}, &ConfigError{fmt.Errorf("cluster %s is not in the repository", q.Cluster)}
	}
	if err != nil {
		return damage.Report{}, err
	}
	return damage.Scan(ctx, damage.Options{Repo: d.Repo, Cluster: c, Filter: q.Filter, Keep: q.Keep, Interval: q.Interval, Workers: d.Config.WorkerCount(), Progress: rep})
}
