package terraform

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	tfjson "github.com/hashicorp/terraform-json"
)

// judgeDatabase: what holds data is never destroyed, whatever anybody allows.
func (g *guard) judgeDatabase(c *change) {
	switch {
	case c.does(tfjson.ActionDelete) && c.does(tfjson.ActionCreate):
		g.say(c, Verdict{Level: Refused, Reason: fmt.Sprintf("The %s would be destroyed and a new one created in its place.", c.kind.noun()), Do: keep(c)})
	case c.does(tfjson.ActionDelete):
		g.say(c, Verdict{Level: Refused, Reason: fmt.Sprintf("The %s would be destroyed.", c.kind.noun()), Do: keep(c)})
	case c.destroys():
		g.say(c, Verdict{Level: Refused, Reason: fmt.Sprintf("Terraform would let go of the %s and create a new one in its place.", c.kind.noun()), Do: keep(c)})
	case c.does(tfjson.ActionForget):
		g.say(c, Verdict{Level: Unexpected, Reason: fmt.Sprintf("Terraform would let go of the %s: it goes on running, but nothing manages it.", c.kind.noun())})
	case c.does(tfjson.ActionCreate):
		g.judgeNewDatabase(c)
	default:
		g.judgeChangedDatabase(c)
	}
}

func (g *guard) judgeNewDatabase(c *change) {
	if c.kind == instance || c.kind == snapshot {
		g.say(c, Verdict{Level: Expected, Reason: fmt.Sprintf("A new %s takes nothing away.", c.kind.noun())})
		return
	}
	v := Verdict{Level: Unexpected, Reason: "The new database would be empty.",
		Do: "If there is a database already, import it first: `terraform import " + quoted(c.Address) + " IDENTIFIER`. If this is a first deployment, allow it with --allow " + quoted(c.Address)}
	for _, name := range origins() {
		if a := c.attribute(name); !empty(a.after) && !a.unknown {
			v = Verdict{Level: Expected, Attributes: []string{a.String()}, Reason: "A new database made from an existing one takes nothing away."}
		} else if a.unknown && c.configured(g.plan, name) {
			v.Attributes = append(v.Attributes, name)
			v.Reason = "What the new database would be made from is not known before apply."
		}
	}
	if protection := c.attribute("deletion_protection"); c.kind == cluster && (protection.unknown || protection.after == false) {
		v.Level = Unexpected
		v.Reason, v.Do = "The new database would not be protected against deletion.", ""
		v.Attributes = append(v.Attributes, protection.String())
	}
	g.say(c, v)
}

// configured tells whether the configuration sets an attribute, as opposed to the provider.
func (c *change) configured(p *Plan, name string) bool {
	r, _ := p.config.resource(c.ModuleAddress, c.Mode, c.Type, c.Name)
	return r == nil || r.Expressions[name] != nil
}

// judgeChangedDatabase judges an update in place, and also "no change": that is the
// provider's opinion.
func (g *guard) judgeChangedDatabase(c *change) {
	if c.does(tfjson.ActionUpdate) && (c.before == nil || c.after == nil) {
		g.say(c, Verdict{Level: Refused, Reason: "The plan does not show what changes.", Do: "Plan again, and give the output of `terraform show -json PLAN` as it is."})
		return
	}
	if c.refuseReplacing(g) || c.refuseUnprotecting(g) || g.pendingSnapshot(c) {
		return
	}
	if c.idle() {
		g.idle(c)
		return
	}
	v := Verdict{Level: Expected, Attributes: c.describe(c.changing()), Reason: fmt.Sprintf("The %s is updated in place.", c.kind.noun())}
	if version := c.attribute("engine_version"); version.changes() && (version.unknown || major(version.before) != major(version.after)) {
		v.Level, v.Attributes = Unexpected, []string{version.String()}
		v.Reason = "The major version of the server would change, which cannot be taken back."
	}
	if a := c.attribute("delete_automated_backups"); a.before == false && (a.after == true || a.unknown) {
		v.Level, v.Attributes = Unexpected, []string{a.String()}
		v.Reason = "Automated backups would no longer outlive the database."
	}
	if retention := c.attribute("backup_retention_period"); falls(retention) {
		v.Notes = append(v.Notes, fmt.Sprintf("backups are kept for %s days instead of %s: older ones are deleted at once", display(retention.after), display(retention.before)))
	}
	if c.kind == cluster && c.attribute("deletion_protection").after == false {
		v.Notes = append(v.Notes, "deletion protection is off")
	}
	g.say(c, v)
}

// refuseReplacing: one provider updates in place, another replaces.
func (c *change) refuseReplacing(g *guard) bool {
	var causes []string
	for _, name := range replacing(c.Type) {
		if c.attribute(name).changes() {
			causes = append(causes, name)
		}
	}
	attributes := c.describe(causes)
	for _, cause := range c.causes() {
		if !slices.Contains(attributes, cause) {
			attributes = append(attributes, cause)
		}
	}
	if len(attributes) == 0 {
		return false
	}
	do := keep(c)
	if slices.Contains(causes, "snapshot_identifier") {
		do = "Remove snapshot_identifier from terraform.tfvars: it is for creating a cluster, and this one exists. Then plan again."
	}
	g.say(c, Verdict{Level: Refused, Attributes: attributes, Do: do,
		Reason: fmt.Sprintf("The %s exists, and this argument replaces it: if not with this version of the provider, then with another.", c.kind.noun())})
	return true
}

// refuseUnprotecting: an existing database keeps what stands between it and a mistake.
func (c *change) refuseUnprotecting(g *guard) bool {
	var causes []string
	if a := c.attribute("deletion_protection"); a.unknown || a.after != true && (a.before == true || a.after == false && a.before == nil && c.before != nil) {
		causes = append(causes, a.name)
	}
	if a := c.attribute("skip_final_snapshot"); a.unknown || a.after == true && a.before != true {
		causes = append(causes, a.name)
	}
	if a := c.attribute("backup_retention_period"); a.unknown || falls(a) && (empty(a.after) || a.after == json.Number("0")) {
		causes = append(causes, a.name)
	}
	if len(causes) == 0 {
		return false
	}
	g.say(c, Verdict{Level: Refused, Attributes: c.describe(causes),
		Reason: fmt.Sprintf("The %s would lose what protects it: deletion protection, the final snapshot or automated backups.", c.kind.noun()),
		Do:     fmt.Sprintf("Set %s back to what the existing database has, and plan again.", strings.Join(causes, " and "))})
	return true
}

// pendingSnapshot finds the argument that this version of the provider keeps quiet about:
// it is configured, the cluster was not made with it, and the plan does not show it.
// It may be under ignore_changes, which a plan does not tell, so it can be allowed.
func (g *guard) pendingSnapshot(c *change) bool {
	if c.kind != cluster || c.before == nil || !empty(c.before["snapshot_identifier"]) {
		return false
	}
	value, known := g.plan.config.value(c.ModuleAddress, c.Mode, c.Type, c.Name, "snapshot_identifier")
	if !known || empty(value) {
		return false
	}
	g.say(c, Verdict{Level: Unexpected, Attributes: []string{"snapshot_identifier"},
		Reason: "The configuration has a snapshot_identifier that this cluster was not created with; a later plan may replace the cluster.",
		Do:     "Remove snapshot_identifier from terraform.tfvars. If it is under ignore_changes, allow it with --allow " + quoted(c.Address)})
	return true
}

// major is the part of a PostgreSQL version that only an upgrade changes.
func major(version any) string {
	text, _ := version.(string)
	number, _, _ := strings.Cut(text, ".")
	return number
}

// falls tells whether a number gets smaller, or is no longer given.
func falls(a attribute) bool {
	before, isNumber := a.before.(json.Number)
	was, err := before.Float64()
	if !isNumber || err != nil || was <= 0 {
		return false
	}
	after, isNumber := a.after.(json.Number)
	will, err := after.Float64()
	return !isNumber || err != nil || will < was
}
