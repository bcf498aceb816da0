package cumulus

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Halt stops one recorded rule by its type's safe way, and the mappings that read a stream for it even where it was
// disabled. Done twice it changes nothing. The rule must be as it was recorded: one that was edited since is refused.
func (d *Deployment) Halt(ctx context.Context, was Record) error {
	if !was.Live() {
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
		// One that is gone reads nothing; Resume tells about it.
		if _, err := d.Triggers.setMappings(ctx, was, false, d.Poll); err != nil {
			return fmt.Errorf("rule %s: %w", name, err)
		}
		return nil
	}
	if now.State != Disabled {
		if _, err := d.API.setState(ctx, name, Disabled); err != nil {
			return err
		}
	}
	if now.Rule.Type == SNS {
		return d.unsubscribe(ctx, was)
	}
	return nil
}

// unsubscribe ends what a disabled sns rule may leave: the API takes the permission first, and stops if that fails, with
// the row already changed. While another rule of the topic is enabled the subscription is that one's.
func (d *Deployment) unsubscribe(ctx context.Context, was Record) error {
	left, err := d.Triggers.subscriptions(ctx, was.Rule.Rule.Value)
	if err != nil || len(left) == 0 {
		return err
	}
	rules, err := d.API.Rules(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(rules, func(r Rule) bool {
		return r.Rule.Type == SNS && r.Rule.Value == was.Rule.Rule.Value && r.State == Enabled
	}) {
		return nil
	}
	for _, s := range left {
		if err := d.Triggers.unsubscribe(ctx, s.ARN); err != nil {
			return fmt.Errorf("rule %s: %w", was.Rule.Name, err)
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

// Quiet tells what still triggers work although every rule was halted; empty: nothing. A subscription of a topic whose
// rules were all disabled before, too, triggers nothing.
func (d *Deployment) Quiet(ctx context.Context, was []Record) ([]string, error) {
	var loud []string
	now, err := d.Record(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range now {
		name := r.Rule.Name
		known := slices.ContainsFunc(was, func(w Record) bool { return w.Rule.Name == name })
		worked := slices.ContainsFunc(was, func(w Record) bool { return w.On() && w.Rule.Rule.Value == r.Rule.Rule.Value })
		switch {
		case r.Rule.Rule.Type == Kinesis:
			for _, m := range r.Mappings {
				if m.Enabled {
					loud = append(loud, fmt.Sprintf("rule %s: the event-source mapping %s is enabled", name, m.UUID))
				}
			}
		case r.On() && !known:
			loud = append(loud, fmt.Sprintf("rule %s is enabled; it was made after the run began", name))
		case r.On():
			loud = append(loud, fmt.Sprintf("rule %s is enabled", name))
		case r.Rule.Rule.Type == SNS && len(r.Subscribed) > 0 && worked:
			loud = append(loud, fmt.Sprintf("rule %s is disabled, and its topic %s still calls %s", name, r.Rule.Rule.Value, r.Subscribed[0].Endpoint))
		case r.Rule.Rule.Type == Scheduled && r.Schedule == Enabled:
			loud = append(loud, fmt.Sprintf("rule %s is disabled, and its EventBridge rule %s is not", name, r.ScheduleName))
		}
	}
	return loud, nil
}
