package cumulus

import (
	"context"
	"fmt"
	"slices"
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

// enable makes a rule enabled and looks whether AWS has its trigger, once more if not: the row and the trigger are
// changed one after the other, and either may fail. A subscription without which a rule was enabled before is not missed.
func (d *Deployment) enable(ctx context.Context, was Record, now Rule) (err error) {
	name := was.Rule.Name
	for range 2 {
		if now.State != Enabled { // an enabled one of a topic would lose its subscription by it
			// The second time a topic is found subscribed by the first, and needs no permission, which there may be already.
			if now, err = d.API.setState(ctx, name, Enabled); err != nil {
				continue
			}
		}
		is, err := d.trigger(ctx, now)
		if err != nil {
			return fmt.Errorf("rule %s: %w", name, err)
		}
		switch {
		case now.Rule.Type == SNS && len(is.Subscribed) == 0 && len(was.Subscribed) > 0:
			now, err = d.API.setState(ctx, name, Disabled) // only a disabled one gets subscribed
		case now.Rule.Type == Scheduled && was.Schedule == Enabled && (is.Schedule != Enabled || len(is.Targets) < len(was.Targets)):
			_, err = d.API.setState(ctx, name, Enabled) // which writes the EventBridge rule and its target each time
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
	return err
}
