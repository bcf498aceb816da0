package terraform

import (
	"encoding/json"
	"strings"

	tfjson "github.com/hashicorp/terraform-json"
)

// Cumulus's provisioning function drops the application's database and creates it anew if
// its input has a dbRecreation that JavaScript takes for true. Its module invokes it as a
// data source that is read on every apply, with an input that is known only then.
const (
	recreationReason = "The provisioning function would drop the application's database and create an empty one."
	recreationDo     = "Set dbRecreation to false, in terraform.tfvars or where the provisioning module is called, and plan again."
)

// certainty is the answer to a question that may have none.
type certainty int

const (
	unsure certainty = iota
	no
	yes
)

// recreates asks an invocation's input, as JSON, whether it recreates the database. No means
// that the input says so; an input without the word is another function's, or an older one's.
func recreates(input string) certainty {
	var fields map[string]any
	if json.Unmarshal([]byte(input), &fields) != nil {
		return unsure
	}
	answer := unsure
	for name, v := range fields {
		if sameName(name, "dbRecreation") {
			if truthy(v) {
				return yes
			}
			answer = no
		}
	}
	return answer
}

// truthy is JavaScript's idea of true, in which the text "false" is.
func truthy(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case float64:
		return v != 0
	case json.Number:
		f, err := v.Float64()
		return err != nil || f != 0
	}
	return true
}

func (g *guard) judgeInvocation(c *change) {
	if c.Change.Actions.NoOp() {
		g.idle(c)
		return
	}
	invokes := c.does(tfjson.ActionCreate) || c.does(tfjson.ActionUpdate) || c.does(tfjson.ActionRead)
	answer := unsure
	if invokes {
		answer = g.nextInvocation(c)
	}
	// With this scope the function is invoked once more when the resource is destroyed.
	if c.does(tfjson.ActionDelete) && c.before["lifecycle_scope"] == "CRUD" {
		if text, _ := c.before["input"].(string); recreates(text) == yes {
			answer = yes
		}
	}
	switch answer {
	case yes:
		g.say(c, Verdict{Level: Refused, Attributes: []string{"input: dbRecreation"}, Reason: recreationReason, Do: recreationDo})
	case no:
		g.say(c, Verdict{Level: Expected, Attributes: []string{"input: dbRecreation"},
			Reason: "The provisioning function keeps the database, and sets the application's password and secret again."})
	default:
		g.say(c, Verdict{Level: Unexpected, Attributes: []string{"input"},
			Reason: "A function may be invoked, and the plan does not tell that it leaves the database alone.",
			Do:     "Make sure that it is not invoked with dbRecreation, and that it deletes nothing; then allow it with --allow " + quoted(c.Address)})
	}
}

// nextInvocation asks the input that the function will be invoked with.
func (g *guard) nextInvocation(c *change) certainty {
	input := c.attribute("input")
	if text, isText := input.after.(string); isText && !input.unknown {
		return recreates(text)
	}
	return g.configuredRecreation(c)
}

// configuredRecreation looks for the variable that the input is made from.
func (g *guard) configuredRecreation(c *change) certainty {
	r, calls := g.plan.config.resource(c.ModuleAddress, c.Mode, c.Type, c.Name)
	if r == nil || r.Expressions["input"] == nil || r.Expressions["input"].ExpressionData == nil {
		return unsure
	}
	for _, reference := range r.Expressions["input"].References {
		name, ok := strings.CutPrefix(reference, "var.")
		if !ok || !sameName(name, "dbRecreation") {
			continue
		}
		value, known := g.plan.config.variable(name, "dbRecreation", calls)
		switch {
		case !known:
			return unsure
		case truthy(value):
			return yes
		}
		return no
	}
	return unsure
}

// judgeInvoked finds a provisioning function that was invoked already: a data source whose
// input is known is read while planning, and is no change.
func (g *guard) judgeInvoked() {
	if g.plan.tf.PriorState == nil || g.plan.tf.PriorState.Values == nil {
		return
	}
	walkState(g.plan.tf.PriorState.Values.RootModule, func(_ string, r *tfjson.StateResource) {
		input, _ := r.AttributeValues["input"].(string)
		if r.Mode != tfjson.DataResourceMode || kindOf(r.Type) != lambdaInvocation || recreates(input) != yes {
			return
		}
		g.add(Verdict{Address: r.Address, Action: "read", Level: Refused, Attributes: []string{"input: dbRecreation"},
			Reason: "The provisioning function that drops the application's database runs while planning; for this plan it has run.",
			Do:     "Look at once what the database holds. " + recreationDo})
	})
}
