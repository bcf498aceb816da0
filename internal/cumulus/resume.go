package cumulus

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Resume starts one rule again as it was recorded. Done twice it changes nothing. human is what only a person can put
// right. For kinesis rules of a restored database EnableKinesis comes first.
func (d *Deployment) Resume(ctx context.Context, was Record) (human string, err error) {
	if !was.Live() {
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
	if now.Rule.Type == Kinesis {
		return d.resumeMappings(ctx, was, now)
	}
	if now.Rule.Type == SQS && now.State != Enabled {
		there, err := d.Triggers.queue(ctx, now.Rule.Value)
		if err != nil {
			return "", fmt.Errorf("rule %s: %w", name, err)
		}
		if there != QueueThere {
			return fmt.Sprintf("rule %s cannot be enabled: its queue %s is %s", name, now.Rule.Value, there), nil
		}
	}
	return "", d.enable(ctx, was, now)
}

// resumeMappings enables those that a stream had. The row is not changed through the API, see EnableKinesis.
func (d *Deployment) resumeMappings(ctx context.Context, was Record, now Rule) (human string, err error) {
	name := now.Name
	if was.On() && now.State != Enabled {
		return fmt.Sprintf("rule %s is disabled in the database; enable it there (UPDATE rules SET enabled = true), not through the API or the dashboard, "+
			"which would delete its event-source mappings and with them its place in the stream; then enable those", name), nil
	}
	lost, err := d.Triggers.setMappings(ctx, was, true, d.Poll)
	if err != nil {
		return "", fmt.Errorf("rule %s: %w", name, err)
	}
	if len(lost) > 0 {
		return fmt.Sprintf("rule %s has lost the event-source mapping %s, and with it its place in the stream: create it by hand, from the time of the halt", name, strings.Join(lost, ", ")), nil
	}
	if !slices.ContainsFunc(was.Mappings, func(m Mapping) bool { return m.Enabled }) {
		return fmt.Sprintf("rule %s was enabled, and had no enabled event-source mapping before the halt either: it is not triggered", name), nil
	}
	return "", nil
}

// tries is how often a rule is enabled: the first may find what an interruption left, the second puts it right, and may
// fail half-way itself.
const tries = 3

// enable makes a rule enabled and looks whether AWS has its trigger; if not it puts that right, for the row and the
// trigger are changed one after the other, and either may fail. A trigger that a rule did not have before is not missed,
// and one that stays away is for Differences to tell.
func (d *Deployment) enable(ctx context.Context, was Record, now Rule) error {
	for try := 1; ; try++ {
		if now.State != Enabled { // an enabled one of a topic would lose its subscription by it
			var err error
			if now, err = d.API.setState(ctx, was.Rule.Name, Enabled); err != nil {
				if try == tries || ctx.Err() != nil {
					return err
				}
				continue // a topic may be subscribed already, which is then found
			}
		}
		is, err := d.trigger(ctx, now)
		if err == nil && (try == tries || triggered(is) || !triggered(was)) {
			return nil
		}
		if err == nil {
			now, err = d.mend(ctx, is)
		}
		if err != nil {
			return fmt.Errorf("rule %s: %w", was.Rule.Name, err)
		}
	}
}

// triggered tells whether what should start a rule's work reaches a function.
func triggered(r Record) bool {
	switch r.Rule.Rule.Type {
	case SNS:
		return slices.ContainsFunc(r.Subscribed, func(s Subscription) bool { return s.Permitted })
	case Scheduled:
		return r.Schedule == Enabled && len(r.Targets) > 0
	}
	return true
}

// mend prepares a rule whose row is enabled, and whose trigger is missing, for being enabled again.
func (d *Deployment) mend(ctx context.Context, is Record) (Rule, error) {
	if is.Rule.Rule.Type == Scheduled { // each PATCH writes the EventBridge rule and its target
		return d.API.setState(ctx, is.Rule.Name, Enabled)
	}
	// Only a disabled rule, of a topic that is not subscribed, gets a subscription with its permission. One without is
	// dead, so that nothing is lost with it.
	for _, s := range is.Subscribed {
		if err := d.Triggers.unsubscribe(ctx, s.ARN); err != nil {
			return is.Rule, err
		}
	}
	return d.API.setState(ctx, is.Rule.Name, Disabled)
}
