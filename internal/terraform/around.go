package terraform

import (
	"fmt"
	"slices"

	tfjson "github.com/hashicorp/terraform-json"
)

// neighbourhood is what the databases of a plan, as they are and as they would be, live with.
type neighbourhood struct {
	modules []string // addresses of the modules that have a database; "" is the root
	// ids, ARNs and names that databases refer to, by what they are.
	references map[kind][]string
}

// surroundings gathers the neighbourhood from the plan's changes and from the prior state.
func surroundings(p *Plan) neighbourhood {
	n := neighbourhood{references: map[kind][]string{}}
	for _, r := range p.tf.ResourceChanges {
		if c := newChange(r); c.Mode != tfjson.DataResourceMode && c.kind.holdsData() {
			n.modules = append(n.modules, c.ModuleAddress)
			n.note(c.before)
			n.note(c.after)
		}
	}
	if p.tf.PriorState != nil && p.tf.PriorState.Values != nil {
		walkState(p.tf.PriorState.Values.RootModule, func(module string, r *tfjson.StateResource) {
			if r.Mode != tfjson.DataResourceMode && kindOf(r.Type).holdsData() {
				n.modules = append(n.modules, module)
				n.note(r.AttributeValues)
			}
		})
	}
	return n
}

// walkState visits every resource of a state.
func walkState(m *tfjson.StateModule, visit func(module string, r *tfjson.StateResource)) {
	if m == nil {
		return
	}
	for _, r := range m.Resources {
		if r != nil {
			visit(m.Address, r)
		}
	}
	for _, child := range m.ChildModules {
		walkState(child, visit)
	}
}

func (n *neighbourhood) note(object map[string]any) {
	add := func(k kind, v any) {
		if s, ok := v.(string); ok && s != "" {
			n.references[k] = append(n.references[k], s)
		}
	}
	groups, _ := object["vpc_security_group_ids"].([]any)
	for _, id := range groups {
		add(securityGroup, id)
	}
	add(subnetGroup, object["db_subnet_group_name"])
	add(encryptionKey, object["kms_key_id"])
	managed, _ := object["master_user_secret"].([]any)
	for _, m := range managed {
		if m, ok := m.(map[string]any); ok {
			add(secret, m["secret_arn"])
		}
	}
}

// uses tells whether a database uses the resource, as far as the plan shows: by reference,
// and where no database refers to anything of its kind, by living in the same module.
func (n *neighbourhood) uses(c *change) bool {
	refs := n.references[c.kind]
	for _, name := range []string{"id", "arn", "name", "key_id"} {
		if s, ok := c.before[name].(string); ok && s != "" && slices.Contains(refs, s) {
			return true
		}
	}
	return len(refs) == 0 && slices.Contains(n.modules, c.ModuleAddress)
}

// judgeSurrounding judges security groups, subnet groups, keys and secrets.
func (g *guard) judgeSurrounding(c *change) {
	// A subnet group is of use to databases only; and these are the names that Cumulus
	// gives to its secrets, which may be in another root module than the cluster.
	guarded := c.kind == subnetGroup || g.near.uses(c) || c.kind == secret && (c.Name == "rds_login" || c.Name == "db_credentials")
	if !guarded || !c.destroys() {
		g.unexpected(c)
		return
	}
	g.say(c, Verdict{Level: Refused, Do: keep(c),
		Reason: fmt.Sprintf("The %s would be destroyed; without it the database cannot be used.", c.kind.noun())})
}

// judgeSecretVersion: a new version of the database's secret is what a cut-over is about.
func (g *guard) judgeSecretVersion(c *change) {
	ours := c.Name == "rds_login" || slices.Contains(g.near.modules, c.ModuleAddress)
	elsewhere := c.attribute("secret_id").changes() && !c.does(tfjson.ActionCreate) || c.does(tfjson.ActionDelete) && c.attribute("secret_id").changes()
	switch {
	case c.DeposedKey != "", !ours, !c.does(tfjson.ActionCreate) && !c.does(tfjson.ActionUpdate):
		g.unexpected(c)
	case elsewhere:
		g.say(c, Verdict{Level: Unexpected, Attributes: []string{"secret_id"},
			Reason: "The version would be written to another secret, and applications would go on reading the one they know."})
	default:
		g.say(c, Verdict{Level: Expected, Reason: "The database's secret gets a new version, which tells applications where the database is."})
	}
}

// judgeLogGroup: the group of the server's log is named after the cluster.
func (g *guard) judgeLogGroup(c *change) {
	ours := slices.Contains(g.near.modules, c.ModuleAddress)
	for _, object := range []map[string]any{c.before, c.after} {
		if name, ok := object["name"].(string); ok && len(name) > 9 && name[:9] == "/aws/rds/" {
			ours = true
		}
	}
	if !ours || c.DeposedKey != "" || !c.does(tfjson.ActionCreate) && !c.does(tfjson.ActionUpdate) {
		g.unexpected(c)
		return
	}
	g.say(c, Verdict{Level: Expected, Reason: "The log group of the database's server, not the database."})
}
