package cumulus

import (
	"context"
	"fmt"
	"net/url"
	"strings"
)

// Work is one kind of work that is under way.
type Work struct {
	What  string `json:"what"`
	Count int    `json:"count"`
}

// Busy counts all that may still write to the database: what runs, what is queued or in flight, and what the archive
// believes is under way. Zero everywhere is what idle means; what cannot be counted is an error, never zero, and so is a
// deployment of which AWS knows nothing. Express state machines are left out: Cumulus learns of the executions of
// standard ones only.
func (d *Deployment) Busy(ctx context.Context) ([]Work, error) {
	var out []Work
	n, err := d.Triggers.running(ctx)
	if err != nil {
		return nil, err
	}
	out = append(out, Work{"Step Functions executions", n})
	there := 0
	for _, q := range workQueues {
		n, ok, err := d.Triggers.queued(ctx, d.Triggers.prefix+"-"+q)
		if err != nil {
			return nil, err
		}
		if ok {
			there++
		}
		out = append(out, Work{"messages in " + q, n})
	}
	if there == 0 {
		return nil, fmt.Errorf("there is none of the queues %s-%s: is the prefix that of the deployment, and are region and account?",
			d.Triggers.prefix, strings.Join(workQueues, ", "+d.Triggers.prefix+"-"))
	}
	for _, q := range d.Queues {
		n, ok, err := d.Triggers.queued(ctx, q)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("there is no queue %s, of which the configuration says that it holds work", q)
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
