package cumulus

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Deployment is one Cumulus: its archive API and its triggers.
type Deployment struct {
	API      *Client
	Triggers *Triggers
	Queues   []string // further queues that hold work, by name
	// Poll is the time between two looks at what changes slowly.
	Poll time.Duration
}

func (d *Deployment) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d.Poll):
		return nil
	}
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
		rec.ScheduleName, rec.Schedule, err = d.Triggers.schedule(ctx, r.Name)
	case OneTime, SQS:
	default:
		err = fmt.Errorf("its type %q is not one that can be stopped safely", r.Rule.Type)
	}
	return rec, err
}

// Halt stops one rule that was on, by its type's safe way. Done twice it changes nothing. The rule must be as it was
// recorded: one that was edited since is refused.
func (d *Deployment) Halt(ctx context.Context, was Record) error {
	if !was.On() {
		return nil
	}
	name := was.Rule.Name
	now, ok, err := d.API.Rule(ctx, name)
	if err != nil || !ok {
		return errors.Join(err, goneRule(err == nil, name))
	}
	if now.Rule.Type != was.Rule.Rule.Type || now.Rule.Value != was.Rule.Rule.Value {
		return fmt.Errorf("rule %s was %s of %s when the run recorded it, and is %s of %s now: somebody edits rules; stop that, abort, and begin again",
			name, was.Rule.Rule.Type, was.Rule.Rule.Value, now.Rule.Type, now.Rule.Value)
	}
	if now.Rule.Type == Kinesis {
		for _, m := range was.Mappings {
			if !m.Enabled {
				continue
			}
			if err := d.Triggers.setMapping(ctx, m.UUID, false, d.wait); err != nil {
				return fmt.Errorf("rule %s: %w", name, err)
			}
		}
		return nil
	}
	if now.State != Disabled {
		if _, err := d.API.setState(ctx, name, Disabled); err != nil {
			return err
		}
	}
	return nil
}

func goneRule(is bool, name string) error {
	if is {
		return fmt.Errorf("rule %s is gone", name)
	}
	return nil
}

// Quiet tells what still triggers work although every rule was halted; empty: nothing.
func (d *Deployment) Quiet(ctx context.Context, was []Record) ([]string, error) {
	var loud []string
	now, err := d.Record(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range now {
		name := r.Rule.Name
		known := slices.ContainsFunc(was, func(w Record) bool { return w.Rule.Name == name })
		switch {
		case r.Rule.Rule.Type == Kinesis:
			for _, m := range r.Mappings {
				if m.Enabled {
					loud = append(loud, fmt.Sprintf("rule %s: the event-source mapping %s is enabled", name, m.UUID))
				}
			}
		case r.On() && !known:
			loud = append(loud, fmt.Sprintf("rule %s is enabled; it was made or enabled after the run began", name))
		case r.On():
			loud = append(loud, fmt.Sprintf("rule %s is enabled", name))
		case r.Rule.Rule.Type == SNS && len(r.Subscribed) > 0:
			loud = append(loud, fmt.Sprintf("rule %s is disabled, and its topic %s still calls %s", name, r.Rule.Rule.Value, r.Subscribed[0].Endpoint))
		case r.Rule.Rule.Type == Scheduled && r.Schedule == Enabled:
			loud = append(loud, fmt.Sprintf("rule %s is disabled, and its EventBridge rule %s is not", name, r.ScheduleName))
		}
	}
	return loud, nil
}

// Resume starts one rule again as it was recorded. Done twice it changes nothing. human is what only a person can put right.
func (d *Deployment) Resume(ctx context.Context, was Record) (human string, err error) {
	if !was.On() {
		return "", nil
	}
	name := was.Rule.Name
	now, ok, err := d.API.Rule(ctx, name)
	if err != nil {
		return "", err
	}
	if !ok {
		return fmt.Sprintf("rule %s is not in the database (any more): create it again if it is wanted", name), nil
	}
	if now.Rule.Type != was.Rule.Rule.Type || now.Rule.Value != was.Rule.Rule.Value {
		return fmt.Sprintf("rule %s was %s of %s when ingest was halted, and is %s of %s in the recovered data: it stays disabled; decide which is right", name,
			was.Rule.Rule.Type, was.Rule.Rule.Value, now.Rule.Type, now.Rule.Value), nil
	}
	if now.State != Enabled { // an enabled one would lose its subscription by it
		if _, err := d.API.setState(ctx, name, Enabled); err != nil {
			return "", err
		}
	}
	if now.Rule.Type != Kinesis {
		return "", nil
	}
	for _, m := range was.Mappings {
		if !m.Enabled {
			continue
		}
		err := d.Triggers.setMapping(ctx, m.UUID, true, d.wait)
		if missing(err) {
			return fmt.Sprintf("rule %s has lost the event-source mapping %s of %s, and with it its place in the stream: create it by hand, from the time of the halt", name, m.UUID, m.Function), nil
		}
		if err != nil {
			return "", fmt.Errorf("rule %s: %w", name, err)
		}
	}
	if !slices.ContainsFunc(was.Mappings, func(m Mapping) bool { return m.Enabled }) {
		return fmt.Sprintf("rule %s was enabled, and had no enabled event-source mapping before the halt either: it is not triggered", name), nil
	}
	return "", nil
}

// Differences compares rules and triggers with what was recorded; empty: they agree. The ARN of a subscription is
// another one each time.
func (d *Deployment) Differences(ctx context.Context, was []Record) ([]string, error) {
	now, err := d.Record(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, w := range was {
		i := slices.IndexFunc(now, func(n Record) bool { return n.Rule.Name == w.Rule.Name })
		if i < 0 {
			out = append(out, fmt.Sprintf("rule %s is gone", w.Rule.Name))
			continue
		}
		n := now[i]
		add := func(what, a, b string) {
			if a != b {
				out = append(out, fmt.Sprintf("rule %s: %s was %s and is %s", w.Rule.Name, what, orNone(a), orNone(b)))
			}
		}
		add("state", w.Rule.State, n.Rule.State)
		add("type", w.Rule.Rule.Type, n.Rule.Rule.Type)
		add("value", w.Rule.Rule.Value, n.Rule.Rule.Value)
		add("mappings", mappingsText(w.Mappings), mappingsText(n.Mappings))
		add("subscriptions", subscriptionsText(w.Subscribed), subscriptionsText(n.Subscribed))
		add("EventBridge rule", w.Schedule, n.Schedule)
	}
	for _, n := range now {
		if n.On() && !slices.ContainsFunc(was, func(w Record) bool { return w.Rule.Name == n.Rule.Name }) {
			out = append(out, fmt.Sprintf("rule %s is enabled and was not there", n.Rule.Name))
		}
	}
	return out, nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func mappingsText(all []Mapping) string {
	var out []string
	for _, m := range all {
		state := "disabled"
		if m.Enabled {
			state = "enabled"
		}
		out = append(out, m.UUID+" "+state)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func subscriptionsText(all []Subscription) string {
	var out []string
	for _, s := range all {
		out = append(out, s.Endpoint)
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), ", ")
}

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
