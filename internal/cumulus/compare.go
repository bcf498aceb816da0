package cumulus

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

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
		if n.Rule.Rule.Type == Kinesis {
			add("mapping in its row", w.Rule.Rule.ARN, n.Rule.Rule.ARN)
		}
		add("mappings", mappingsText(w.Mappings), mappingsText(n.Mappings))
		add("subscriptions", subscriptionsText(w.Subscribed), subscriptionsText(n.Subscribed))
		add("EventBridge rule", w.Schedule, n.Schedule)
		add("target of its EventBridge rule", strings.Join(w.Targets, ", "), strings.Join(n.Targets, ", "))
		add("queue", w.Queue, n.Queue)
		if other := settings(w.Rule, n.Rule); len(other) > 0 {
			out = append(out, fmt.Sprintf("rule %s: %s not as at the halt", w.Rule.Name, isAre(other)))
		}
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
		text := s.Endpoint
		if !s.Permitted {
			text += " (which the topic is not permitted to call)"
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), ", ")
}

// apart are the parts of a rule that are compared by themselves, or change by themselves.
var apart = []string{"name", "state", "rule", "createdAt", "updatedAt"}

// settings names what else of a rule is another: its workflow, collection, provider, meta and so on. A rule that was
// recorded without all of it has nothing to compare.
func settings(a, b Rule) []string {
	var x, y map[string]any
	if json.Unmarshal(a.Raw, &x) != nil || json.Unmarshal(b.Raw, &y) != nil {
		return nil
	}
	all := map[string]bool{}
	for k := range x {
		all[k] = true
	}
	for k := range y {
		all[k] = true
	}
	return slices.DeleteFunc(slices.Sorted(maps.Keys(all)), func(k string) bool {
		return slices.Contains(apart, k) || reflect.DeepEqual(x[k], y[k])
	})
}

func isAre(names []string) string {
	if len(names) == 1 {
		return names[0] + " is"
	}
	return strings.Join(names, ", ") + " are"
}
