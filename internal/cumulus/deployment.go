package cumulus

import (
	"context"
	"fmt"
	"time"
)

// Deployment is one Cumulus: its archive API and its triggers.
type Deployment struct {
	API      *Client
	Triggers *Triggers
	Queues   []string // further queues that hold work, by name
	// Poll is the longest time between two looks at a trigger that changes.
	Poll time.Duration
}

// Record reads all rules and what triggers them in AWS.
func (d *Deployment) Record(ctx context.Context) ([]Record, error) {
	rules, err := d.API.Rules(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Record, 0, len(rules))
	for _, r := range rules {
		rec, err := d.trigger(ctx, r)
		if err != nil {
			return nil, fmt.Errorf("rule %s: %w", r.Name, err)
		}
		out = append(out, rec)
	}
	return out, nil
}

// trigger looks up what AWS has for a rule.
func (d *Deployment) trigger(ctx context.Context, r Rule) (rec Record, err error) {
	rec.Rule = r
	switch r.Rule.Type {
	case Kinesis:
		rec.Mappings, err = d.Triggers.mappings(ctx, r.Rule.Value)
	case SNS:
		rec.Subscribed, err = d.Triggers.subscriptions(ctx, r.Rule.Value)
	case Scheduled:
		rec.ScheduleName, rec.Schedule, rec.Targets, err = d.Triggers.schedule(ctx, r.Name)
	case SQS:
		rec.Queue, err = d.Triggers.queue(ctx, r.Rule.Value)
	case OneTime:
	default:
		err = fmt.Errorf("its type %q is not one that can be stopped safely", r.Rule.Type)
	}
	return rec, err
}
