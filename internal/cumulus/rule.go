package cumulus

import (
	"encoding/json"
	"fmt"
	"slices"
)

// States of a rule.
const (
	Enabled  = "ENABLED"
	Disabled = "DISABLED"
)

// Types of rules.
const (
	OneTime   = "onetime"
	Scheduled = "scheduled"
	Kinesis   = "kinesis"
	SNS       = "sns"
	SQS       = "sqs"
)

// Rule is one rule, as the archive API tells it.
type Rule struct {
	Name     string `json:"name"`
	State    string `json:"state"`
	Workflow string `json:"workflow"`
	Rule     struct {
		Type  string `json:"type"`
		Value string `json:"value,omitempty"` // schedule, stream, topic or queue
		ARN   string `json:"arn,omitempty"`   // of the subscription; of a stream, the UUID of messageConsumer's mapping
		// LogARN is the UUID of the mapping to the function that logs what a stream brought.
		LogARN string `json:"logEventArn,omitempty"`
	} `json:"rule"`
	Raw json.RawMessage `json:"raw,omitempty"` // all of it, for people
}

func parseRule(raw json.RawMessage) (Rule, error) {
	var r Rule
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, fmt.Errorf("the archive API tells a rule that is none: %w", err)
	}
	if r.Name == "" || r.State != Enabled && r.State != Disabled {
		return r, fmt.Errorf("the archive API tells a rule without a name or with the state %q", r.State)
	}
	r.Raw = raw
	return r, nil
}

// Mapping is a Lambda event-source mapping.
type Mapping struct {
	UUID     string `json:"uuid"`
	Function string `json:"function"`
	Stream   string `json:"stream"`
	Enabled  bool   `json:"enabled"`
}

// Subscription is a Lambda's to a topic.
type Subscription struct {
	ARN      string `json:"arn"` // another one each time that somebody subscribes
	Topic    string `json:"topic"`
	Endpoint string `json:"endpoint"`
	// Permitted tells whether the function's policy lets the topic call it; without that a subscription is dead.
	Permitted bool `json:"permitted"`
}

// Record is a rule and its trigger in AWS as they were.
type Record struct {
	Rule         Rule           `json:"rule"`
	Mappings     []Mapping      `json:"mappings,omitempty"`      // of its stream, by Cumulus's functions
	Subscribed   []Subscription `json:"subscriptions,omitempty"` // of its topic, by Cumulus's functions
	Schedule     string         `json:"schedule,omitempty"`      // state of its EventBridge rule
	ScheduleName string         `json:"schedule_name,omitempty"`
	Targets      []string       `json:"targets,omitempty"` // ARNs that the EventBridge rule calls
	Queue        string         `json:"queue,omitempty"`   // one of the Queue… constants
}

// What there may be of the queue of an sqs rule.
const (
	QueueThere   = "there"
	QueueMissing = "missing"
	// QueueBare is one without a redrive policy, with which the API lets nobody change the rule's state.
	QueueBare = "there, without a redrive policy"
)

// On tells whether the rule was to work.
func (r Record) On() bool { return r.Rule.State == Enabled }

// Live tells whether there was something to halt: a disabled kinesis rule may have mappings that read its stream, and
// has them from the beginning if it was made disabled.
func (r Record) Live() bool {
	return r.On() || slices.ContainsFunc(r.Mappings, func(m Mapping) bool { return m.Enabled })
}
