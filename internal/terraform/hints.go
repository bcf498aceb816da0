package terraform

import (
	"fmt"

	tfjson "github.com/hashicorp/terraform-json"
)

// look is the advice on a change that can be allowed.
func look(c *change) string {
	return "Look at it in `terraform show PLAN`. If it is meant and harmless, allow it with --allow " + quoted(c.Address)
}

// keep is the advice on a change that would destroy something that must stay.
func keep(c *change) string {
	address := quoted(c.Address)
	if c.DeposedKey != "" {
		return fmt.Sprintf("Look whether the deposed object %s still holds data. Only when it does not, delete it by hand, and plan again.", printable(c.DeposedKey))
	}
	switch c.ActionReason {
	case tfjson.ActionReasonReplaceBecauseTainted:
		return "Plan again after `terraform untaint " + address + "`."
	case tfjson.ActionReasonReplaceByRequest:
		return "Plan again without -replace=" + address + "."
	case tfjson.ActionReasonReplaceByTriggers:
		return "Take it out of reach of replace_triggered_by in its lifecycle block, and plan again."
	case tfjson.ActionReasonDeleteBecauseCountIndex:
		return "Raise the count that it is created with again (for Cumulus: cluster_instance_count), and plan again."
	case tfjson.ActionReasonDeleteBecauseEachKey:
		return "Put its key back into for_each, or say with a `moved` block what it is called now, and plan again."
	case tfjson.ActionReasonDeleteBecauseWrongRepetition, tfjson.ActionReasonDeleteBecauseNoMoveTarget:
		return "Say with a `moved` block which address it has now, and plan again."
	case tfjson.ActionReasonDeleteBecauseNoResourceConfig, tfjson.ActionReasonDeleteBecauseNoModule:
		return "Put its block back into the configuration, or say with a `moved` block which address it has now. To make Terraform let go of it without destroying it: `terraform state rm " + address + "`."
	}
	if c.action() == "delete" {
		return "Do not apply this plan. Plan without -destroy, and with the resource in the configuration. To make Terraform let go of it without destroying it: `terraform state rm " + address + "`."
	}
	if do := c.importAdvice(); do != "" {
		return do
	}
	return "Set what causes it back to what the existing object has, and plan again."
}

// importAdvice is for the commonest mistake of a recovery: state and tfvars name
// different clusters.
func (c *change) importAdvice() string {
	address := quoted(c.Address)
	name := "cluster_identifier"
	a := c.attribute(name)
	was, wasText := a.before.(string)
	will, willText := a.after.(string)
	if !a.changes() || a.sensitive || !wasText {
		return ""
	}
	if c.kind == instance {
		return fmt.Sprintf("This is an instance of %s. If that cluster is to be left alone: `terraform state rm %s`, then `terraform import %s INSTANCE` with an instance of the new cluster.", printable(was), address, address)
	}
	if !willText {
		return fmt.Sprintf("Set cluster_identifier in terraform.tfvars to %s, the cluster in the state, and plan again.", printable(was))
	}
	return fmt.Sprintf("If %s is the cluster to keep, set cluster_identifier in terraform.tfvars to it. If %s is the restored one: `terraform state rm %s`, then `terraform import %s %s`; its instances likewise. Then plan again.",
		printable(was), printable(will), address, address, quoted(will))
}
