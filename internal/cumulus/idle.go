package cumulus

import (
	"context"
	"net/url"
	"strings"
)

// Work is one kind of work that is under way.
type Work struct {
	What  string `json:"what"`
	Count int    `json:"count"`
}

// Busy counts all that may still write to the database. Zero everywhere is what idle means; what cannot be counted is an
// error, never zero.
func (d *Deployment) Busy(ctx context.Context) ([]Work, error) {
	var out []Work
	n, err := d.Triggers.running(ctx)
	if err != nil {
		return nil, err
	}
	out = append(out, Work{"Step Functions executions", n})
	for _, q := range workQueues {
		if n, err = d.Triggers.queued(ctx, d.Triggers.prefix+"-"+q); err != nil {
			return nil, err
		}
		out = append(out, Work{"messages in " + q, n})
	}
	for _, q := range d.Queues {
		if n, err = d.Triggers.queued(ctx, q); err != nil {
			return nil, err
		}
		out = append(out, Work{"messages in " + q, n})
	}
	for _, c := range []struct{ path, state string }{
		{"/executions", "running"}, {"/granules", "queued"}, {"/granules", "running"}, {"/pdrs", "running"}, {"/asyncOperations", "RUNNING"},
	} {
		if n, err = d.API.Count(ctx, c.path, url.Values{"status": {c.state}}); err != nil {
			return nil, err
		}
		out = append(out, Work{strings.ToLower(c.state) + " " + strings.TrimPrefix(c.path, "/"), n})
	}
	return out, nil
}
