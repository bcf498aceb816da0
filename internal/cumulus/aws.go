package cumulus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sfn"
	sfntypes "github.com/aws/aws-sdk-go-v2/service/sfn/types"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	"golang.org/x/sync/errgroup"
)

// The functions of a deployment that consume streams and topics, behind its prefix.
var consumers = []string{"messageConsumer", "KinesisInboundEventLogger"}

// Triggers looks at, stops and starts what triggers rules in AWS.
type Triggers struct {
	prefix string
	lambda *lambda.Client
	sns    *sns.Client
	events *eventbridge.Client
	sqs    *sqs.Client
	sfn    *sfn.Client
}

// NewTriggers makes one for the deployment of that prefix (stackName).
func NewTriggers(c aws.Config, prefix string) *Triggers {
	return &Triggers{prefix: prefix, lambda: lambda.NewFromConfig(c), sns: sns.NewFromConfig(c), events: eventbridge.NewFromConfig(c), sqs: sqs.NewFromConfig(c), sfn: sfn.NewFromConfig(c)}
}

// missing tells whether AWS says that there is no such thing.
func missing(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	code := api.ErrorCode()
	return strings.HasPrefix(code, "ResourceNotFound") || strings.HasPrefix(code, "NotFound") || strings.Contains(code, "NonExistentQueue") || strings.Contains(code, "QueueDoesNotExist")
}

// ours tells whether a function, named or by its ARN, is one of this deployment's consumers.
func (t *Triggers) ours(function string) bool {
	name := function
	if i := strings.LastIndex(function, ":function:"); i >= 0 {
		name, _, _ = strings.Cut(function[i+len(":function:"):], ":")
	}
	for _, c := range consumers {
		if name == t.prefix+"-"+c {
			return true
		}
	}
	return false
}

// mappings lists those of a stream to this deployment's functions. Others that read the stream are not ours to stop.
func (t *Triggers) mappings(ctx context.Context, stream string) ([]Mapping, error) {
	var out []Mapping
	pages := lambda.NewListEventSourceMappingsPaginator(t.lambda, &lambda.ListEventSourceMappingsInput{EventSourceArn: &stream})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list the event-source mappings of %s: %w", stream, err)
		}
		for _, m := range page.EventSourceMappings {
			function := aws.ToString(m.FunctionArn)
			if function == "" {
				continue
			}
			if t.ours(function) {
				out = append(out, Mapping{aws.ToString(m.UUID), function, stream, running(aws.ToString(m.State))})
			}
		}
	}
	return out, nil
}

// running tells whether a mapping in this state reads its stream, now or soon.
func running(state string) bool {
	return state == "Enabled" || state == "Enabling" || state == "Creating" || state == "Updating"
}

// settled tells whether a state is not on its way to another.
func settled(state string) bool { return state == "Enabled" || state == "Disabled" }

// mostUnmoved is how often a mapping may be seen as it was, after AWS was asked to change it.
const mostUnmoved = 5

// setMapping enables or disables a mapping, and looks until AWS says that it is. Looks are at most poll apart.
func (t *Triggers) setMapping(ctx context.Context, uuid string, on bool, poll time.Duration) error {
	const first = 10 // part of poll
	pause := poll / first
	for unmoved := 0; ; {
		m, err := t.lambda.GetEventSourceMapping(ctx, &lambda.GetEventSourceMappingInput{UUID: &uuid})
		if err != nil {
			return fmt.Errorf("look at the event-source mapping %s: %w", uuid, err)
		}
		state := aws.ToString(m.State)
		switch {
		case settled(state) && running(state) == on:
			return nil
		case unmoved > mostUnmoved:
			return fmt.Errorf("the event-source mapping %s stays %s", uuid, state)
		case settled(state) && unmoved == 0:
			if _, err := t.lambda.UpdateEventSourceMapping(ctx, &lambda.UpdateEventSourceMappingInput{UUID: &uuid, Enabled: &on}); err != nil {
				return fmt.Errorf("change the event-source mapping %s: %w", uuid, err)
			}
			unmoved++
		case settled(state):
			unmoved++ // AWS may tell for a moment what was
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, poll)
	}
}

// setMappings does so for those of a record that were enabled, at once, for each may take a minute. lost are those that
// are not there any more.
func (t *Triggers) setMappings(ctx context.Context, was Record, on bool, poll time.Duration) (lost []string, err error) {
	var g errgroup.Group // one that fails does not keep the others from being changed
	gone := make([]bool, len(was.Mappings))
	for i, m := range was.Mappings {
		if !m.Enabled {
			continue
		}
		g.Go(func() error {
			err := t.setMapping(ctx, m.UUID, on, poll)
			if gone[i] = missing(err); gone[i] {
				return nil
			}
			return err
		})
	}
	err = g.Wait()
	for i, m := range was.Mappings {
		if gone[i] {
			lost = append(lost, m.UUID+" of "+m.Function)
		}
	}
	return lost, err
}

// subscriptions lists those of a topic to this deployment's functions.
func (t *Triggers) subscriptions(ctx context.Context, topic string) ([]Subscription, error) {
	var out []Subscription
	pages := sns.NewListSubscriptionsByTopicPaginator(t.sns, &sns.ListSubscriptionsByTopicInput{TopicArn: &topic})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if missing(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list the subscriptions of %s: %w", topic, err)
		}
		for _, s := range page.Subscriptions {
			if aws.ToString(s.Protocol) != "lambda" || !t.ours(aws.ToString(s.Endpoint)) {
				continue
			}
			permitted, err := t.permitted(ctx, aws.ToString(s.Endpoint), topic)
			if err != nil {
				return nil, err
			}
			out = append(out, Subscription{aws.ToString(s.SubscriptionArn), topic, aws.ToString(s.Endpoint), permitted})
		}
	}
	return out, nil
}

func (t *Triggers) unsubscribe(ctx context.Context, arn string) error {
	if _, err := t.sns.Unsubscribe(ctx, &sns.UnsubscribeInput{SubscriptionArn: &arn}); err != nil && !missing(err) {
		return fmt.Errorf("end the subscription %s: %w", arn, err)
	}
	return nil
}

// permitted tells whether a function's policy has a statement about a topic.
func (t *Triggers) permitted(ctx context.Context, function, topic string) (bool, error) {
	out, err := t.lambda.GetPolicy(ctx, &lambda.GetPolicyInput{FunctionName: &function})
	if missing(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the policy of %s: %w", function, err)
	}
	ok, err := permits(aws.ToString(out.Policy), topic)
	if err != nil {
		return false, fmt.Errorf("read the policy of %s: %w", function, err)
	}
	return ok, nil
}

// permits tells whether a policy allows something to a topic by its ARN.
func permits(policy, topic string) (bool, error) {
	var p struct {
		Statement []struct {
			Effect    string
			Condition map[string]map[string]any
		}
	}
	if err := json.Unmarshal([]byte(policy), &p); err != nil {
		return false, err
	}
	for _, s := range p.Statement {
		for _, operator := range s.Condition {
			for key, value := range operator {
				several, _ := value.([]any)
				if s.Effect == "Allow" && strings.EqualFold(key, "aws:SourceArn") && (value == any(topic) || slices.Contains(several, any(topic))) {
					return true, nil
				}
			}
		}
	}
	return false, nil
}

// schedule finds the EventBridge rule of a scheduled rule, which not every version of Cumulus names alike, and tells its
// state and what it calls; all are empty if there is none.
func (t *Triggers) schedule(ctx context.Context, rule string) (name, state string, targets []string, err error) {
	for _, name := range []string{t.prefix + "-" + rule, t.prefix + "-custom-" + rule} {
		out, err := t.events.DescribeRule(ctx, &eventbridge.DescribeRuleInput{Name: &name})
		if missing(err) {
			continue
		}
		if err != nil {
			return "", "", nil, fmt.Errorf("look at the EventBridge rule %s: %w", name, err)
		}
		listed, err := t.events.ListTargetsByRule(ctx, &eventbridge.ListTargetsByRuleInput{Rule: &name}) // one rule has at most five
		if err != nil {
			return "", "", nil, fmt.Errorf("list the targets of the EventBridge rule %s: %w", name, err)
		}
		for _, x := range listed.Targets {
			targets = append(targets, aws.ToString(x.Arn))
		}
		slices.Sort(targets)
		return name, string(out.State), targets, nil
	}
	return "", "", nil, nil
}

// queue tells what there is of the queue of an sqs rule: one of the Queue… constants.
func (t *Triggers) queue(ctx context.Context, address string) (string, error) {
	out, err := t.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &address, AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameAll}})
	switch {
	case missing(err):
		return QueueMissing, nil
	case err != nil:
		return "", fmt.Errorf("look at the queue %s: %w", address, err)
	case out.Attributes[string(sqstypes.QueueAttributeNameRedrivePolicy)] == "":
		return QueueBare, nil
	}
	return QueueThere, nil
}

// Queues of a deployment, behind its prefix, that hold work under way. Not every deployment has all of them.
var workQueues = []string{"startSF", "backgroundProcessing", "sfEventSqsToDbRecordsInputQueue"}

// queued counts the messages of a queue, waiting, in flight and delayed. ok is false if there is no such queue.
func (t *Triggers) queued(ctx context.Context, name string) (total int, ok bool, err error) {
	u, err := t.sqs.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	if missing(err) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("look for the queue %s: %w", name, err)
	}
	names := []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameApproximateNumberOfMessages, sqstypes.QueueAttributeNameApproximateNumberOfMessagesNotVisible, sqstypes.QueueAttributeNameApproximateNumberOfMessagesDelayed}
	out, err := t.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: u.QueueUrl, AttributeNames: names})
	if err != nil {
		return 0, false, fmt.Errorf("look into the queue %s: %w", name, err)
	}
	for i, n := range names {
		text, given := out.Attributes[string(n)]
		if !given && i == 0 {
			return 0, false, fmt.Errorf("the queue %s does not say how many messages it has", name)
		}
		if !given {
			continue
		}
		v, err := strconv.Atoi(text)
		if err != nil {
			return 0, false, fmt.Errorf("the queue %s has %q messages", name, text)
		}
		total += v
	}
	return total, true, nil
}

// running counts the executions of the deployment's state machines that are running.
func (t *Triggers) running(ctx context.Context) (int, error) {
	total, found := 0, 0
	machines := sfn.NewListStateMachinesPaginator(t.sfn, &sfn.ListStateMachinesInput{})
	for machines.HasMorePages() {
		page, err := machines.NextPage(ctx)
		if err != nil {
			return 0, fmt.Errorf("list the state machines: %w", err)
		}
		for _, m := range page.StateMachines {
			if !strings.HasPrefix(aws.ToString(m.Name), t.prefix+"-") || m.Type == sfntypes.StateMachineTypeExpress {
				continue
			}
			found++
			runs := sfn.NewListExecutionsPaginator(t.sfn, &sfn.ListExecutionsInput{StateMachineArn: m.StateMachineArn, StatusFilter: sfntypes.ExecutionStatusRunning})
			for runs.HasMorePages() {
				page, err := runs.NextPage(ctx)
				if err != nil {
					return 0, fmt.Errorf("list the running executions of %s: %w", aws.ToString(m.Name), err)
				}
				total += len(page.Executions)
			}
		}
	}
	if found == 0 {
		return 0, fmt.Errorf("there is no state machine %s-…: is the prefix that of the deployment, and are region and account?", t.prefix)
	}
	return total, nil
}
