package terraform

import (
	"fmt"
	"strings"

	tfjson "github.com/hashicorp/terraform-json"
)

// Check judges a plan. Each element of allow is the address of a resource instance, or of a
// resource for all its instances, whose unexpected changes are known to the caller and
// harmless. Nothing makes a refused change allowed.
func Check(p *Plan, allow []string) Report {
	g := &guard{plan: p, near: surroundings(p)}
	g.report = Report{TerraformVersion: printable(p.tf.TerraformVersion), Verdicts: []Verdict{}}
	g.wholePlan()
	for _, c := range p.tf.ResourceChanges {
		g.judge(newChange(c))
	}
	for _, d := range p.tf.DeferredChanges {
		g.judgeDeferred(newChange(d.ResourceChange), d.Reason)
	}
	for _, c := range p.tf.ResourceDrift {
		g.judgeDrift(newChange(c))
	}
	g.judgeActions()
	g.judgeInvoked()
	g.report.settle(allow)
	return g.report
}

// guard is one check in progress.
type guard struct {
	plan   *Plan
	near   neighbourhood
	report Report
}

func (g *guard) add(v Verdict) {
	v.Address = printable(v.Address)
	if v.Attributes == nil {
		v.Attributes = []string{}
	}
	g.report.Verdicts = append(g.report.Verdicts, v)
}

// say adds a verdict on a change, with what concerns every change.
func (g *guard) say(c *change, v Verdict) {
	v.Address = c.Address
	if v.Action == "" {
		v.Action = c.action()
	}
	if v.Attributes == nil {
		v.Attributes = c.causes()
	}
	if v.Level.blocks() && v.Do == "" {
		v.Do = look(c)
	}
	if c.moved() {
		v.Notes = append(v.Notes, "its address was "+printable(c.PreviousAddress))
	}
	if c.Change.Importing != nil {
		v.Notes = append(v.Notes, "imported by this plan")
	}
	if c.DeposedKey != "" {
		v.Notes = append(v.Notes, "a deposed object, left over from an earlier replacement")
	}
	g.add(v)
}

// wholePlan judges what concerns no single resource.
func (g *guard) wholePlan() {
	p := g.plan
	if p.errored {
		g.add(Verdict{Address: WholePlan, Action: "plan", Level: Refused, Attributes: []string{"errored"},
			Reason: "Planning ended with an error, so the plan does not show all that would happen.",
			Do:     "Mend what `terraform plan` complains about, and plan again."})
	}
	if p.tf.Complete != nil && !*p.tf.Complete && !p.errored {
		g.add(Verdict{Address: WholePlan, Action: "plan", Level: Refused, Attributes: []string{"complete"},
			Reason: "The plan is incomplete: it was limited with -target, or changes were deferred.",
			Do:     "Plan again without -target and -exclude. If changes were deferred, mend first what they wait for."})
	}
	if n := len(p.tf.ResourceChanges); n > 1 && g.destroysAll() {
		g.add(Verdict{Address: WholePlan, Action: "delete", Level: Refused,
			Reason: fmt.Sprintf("This plan destroys everything: all %d resources, a database among them.", n),
			Do:     "Do not apply it. Plan without -destroy, in the folder and workspace that you mean."})
	}
}

// destroysAll: a plan of -destroy, or for an empty configuration, with a database.
func (g *guard) destroysAll() bool {
	holdsData := false
	for _, r := range g.plan.tf.ResourceChanges {
		c := newChange(r)
		if c.Mode == tfjson.DataResourceMode {
			continue
		}
		if action := c.action(); action != "delete" {
			return false
		}
		holdsData = holdsData || c.kind.holdsData()
	}
	return holdsData
}

// judge sorts a change to the rules of its kind.
func (g *guard) judge(c *change) {
	harmlessRead := c.Mode == tfjson.DataResourceMode && !c.destroys() && c.understood() && c.kind != lambdaInvocation
	switch {
	case !c.understood():
		g.say(c, Verdict{Level: Refused, Reason: "The plan names an action that this version of Pileus does not know.",
			Do: "Use a later version of Pileus, or an earlier one of Terraform, and plan again."})
	case harmlessRead:
		g.report.Read++
	case c.kind.holdsData():
		g.judgeDatabase(c)
	case c.kind == lambdaInvocation:
		g.judgeInvocation(c)
	case c.idle():
		g.idle(c)
	case c.kind == secretVersion:
		g.judgeSecretVersion(c)
	case c.kind == logGroup:
		g.judgeLogGroup(c)
	case c.kind != other:
		g.judgeSurrounding(c)
	default:
		g.unexpected(c)
	}
}

// idle: the object itself stays as it is.
func (c *change) idle() bool {
	return len(c.Change.Actions) == 1 && (c.Change.Actions.NoOp() || c.Change.Actions.Read())
}

func (g *guard) idle(c *change) {
	switch c.action() {
	case "move", "import":
		g.say(c, Verdict{Level: Expected, Reason: "Only Terraform's state changes."})
	default:
		g.report.Unchanged++
	}
}

// unexpected is the verdict on everything that no rule knows.
func (g *guard) unexpected(c *change) {
	v := Verdict{Level: Unexpected, Reason: "This is no part of a cut-over that the guard knows of."}
	if len(c.Change.ReplacePaths) == 0 && c.does(tfjson.ActionUpdate) {
		v.Attributes = c.describe(c.changing())
	}
	g.say(c, v)
}

func (g *guard) judgeDeferred(c *change, reason string) {
	v := Verdict{Level: Unexpected, Attributes: []string{}, Reason: "This change was put off to a later plan, so what it will do is not known.",
		Do: "Apply what it waits for, or make it known, and plan again."}
	if c.kind.holdsData() || c.kind == subnetGroup || c.kind == secret || c.kind == lambdaInvocation {
		v.Level = Refused
	}
	if reason != "" {
		v.Attributes = append(v.Attributes, "deferred: "+printable(reason))
	}
	g.say(c, v)
}

// judgeDrift looks at what happened outside Terraform. What the plan does about it
// is among the changes; but a database that is gone has to be spoken of.
func (g *guard) judgeDrift(c *change) {
	if !c.kind.holdsData() || !c.does(tfjson.ActionDelete) || c.Mode == tfjson.DataResourceMode {
		return
	}
	g.say(c, Verdict{Action: "drift", Level: Unexpected,
		Reason: fmt.Sprintf("The %s that Terraform's state names does not exist any more.", c.kind.noun()),
		Do: "Find out who deleted it before anything else. If this is the recovery from that, allow it with --allow " + quoted(c.Address) +
			"; otherwise check region, account and workspace."})
}

// judgeActions looks at the actions of Terraform 1.14 and later, which do whatever their
// provider offers.
func (g *guard) judgeActions() {
	for _, a := range g.plan.tf.ActionInvocations {
		if a == nil {
			continue
		}
		v := Verdict{Address: a.Address, Action: "invoke", Level: Unexpected, Reason: "The guard does not know what this action does.",
			Do: "Read what it does. If it is harmless, allow it with --allow " + quoted(a.Address)}
		config, _ := a.ConfigValues.(map[string]any)
		if kindOf(a.Type) == lambdaInvocation {
			for _, name := range []string{"payload", "input"} {
				text, _ := config[name].(string)
				if recreates(text) == yes {
					v.Level, v.Attributes = Refused, []string{name + ": dbRecreation"}
					v.Reason, v.Do = recreationReason, recreationDo
				}
			}
		}
		g.add(v)
	}
}

// quoted is an address as an argument of a shell.
func quoted(address string) string {
	return "'" + strings.ReplaceAll(printable(address), "'", `'\''`) + "'"
}
