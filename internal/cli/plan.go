package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"pileus/internal/terraform"
)

// planExitHelp stands in for exitHelp: these codes are made for the pipelines that a plan
// goes through.
const planExitHelp = `Exit codes:
  0  safe                      2  the plan cannot be read, or wrong usage
  1  refused                   130  interrupted`

func (a *app) planCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Judge Terraform plans",
		Example: `  terraform plan -out tfplan
  pileus plan check tfplan`,
	}
	cmd.AddCommand(a.planCheck())
	return cmd
}

func (a *app) planCheck() *cobra.Command {
	var allow []string
	cmd := &cobra.Command{
		Use:   "check PLAN",
		Short: "Refuse a Terraform plan that could lose the database",
		Long: `Reads a plan of Terraform or OpenTofu and says of every change whether it could lose the
database. It needs no configuration, no repository and no network, and changes nothing.

PLAN is a saved plan, which terraform or tofu has to be in the PATH for, or a file with
what "terraform show -json" printed, or - for that on standard input.

  expected    loses nothing: a cluster updated in place, a new version of its secret
  unexpected  nothing the guard knows of; the plan is refused unless --allow names the address
  refused     could lose the database: a cluster, an instance, its secret, security group or
              subnet group destroyed or replaced; an argument that replaces a cluster, even
              if this version of the provider plans an update; deletion protection or final
              snapshot turned off; a provisioning function that recreates the database.
              No --allow helps.

--allow takes the address of a resource instance, or of a resource for all its instances.`,
		Example: `  pileus plan check tfplan
  terraform show -json tfplan | pileus plan check -
  pileus plan check tfplan --allow "module.rds_cluster.aws_rds_cluster_parameter_group.rds_cluster_group" --json`,
		Args:        args(cobra.ExactArgs(1)),
		Annotations: map[string]string{exitAnnotation: planExitHelp},
		RunE: func(cmd *cobra.Command, given []string) error {
			for _, address := range allow {
				if !strings.Contains(address, ".") || strings.ContainsAny(address, "*? ") && !strings.Contains(address, `"`) {
					return usageError{fmt.Errorf("--allow %q is not the address of a resource: give it as the plan does, such as module.m.aws_x.y[0]", address)}
				}
			}
			plan, err := terraform.Read(cmd.Context(), given[0], a.stdin)
			if err != nil {
				return err
			}
			report := terraform.Check(plan, allow)
			err = a.print(report, func(w io.Writer) error { return describeVerdicts(w, &report) })
			if err == nil && !report.Safe {
				return codeError(ExitFailed)
			}
			return err
		},
	}
	cmd.Flags().StringArrayVar(&allow, "allow", nil, "accept unexpected changes of the resource at `ADDRESS`; can be repeated")
	return cmd
}

func describeVerdicts(w io.Writer, r *terraform.Report) error {
	word := "SAFE"
	if !r.Safe {
		word = "REFUSED"
	}
	fmt.Fprintf(w, "%s: %d refused, %d unexpected, %d allowed, %d expected; %d unchanged, %d only read\n\n", word,
		r.Count(terraform.Refused), r.Count(terraform.Unexpected), r.Count(terraform.Allowed), r.Count(terraform.Expected), r.Unchanged, r.Read)
	t := newTable(w, "VERDICT", "ADDRESS", "ACTION", "BECAUSE OF")
	for _, v := range r.Verdicts {
		t.row(string(v.Level), v.Address, v.Action, attributes(v.Attributes))
	}
	if err := t.end("Nothing would change."); err != nil {
		return err
	}
	for _, v := range r.Verdicts {
		if v.Level == terraform.Expected && len(v.Notes) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s %s\n  %s\n", v.Level, v.Address, v.Reason)
		for _, note := range v.Notes {
			fmt.Fprintf(w, "  Note: %s\n", note)
		}
		if v.Do != "" {
			fmt.Fprintf(w, "  → %s\n", v.Do)
		}
	}
	for _, address := range r.UnusedAllowances {
		fmt.Fprintf(w, "\nNote: --allow %s was not used: no unexpected change has this address, and what is refused cannot be allowed.\n", address)
	}
	return nil
}

// attributes fits into a table; --json has all of them.
func attributes(names []string) string {
	const most = 3
	if len(names) == 0 {
		return "-"
	}
	if len(names) > most+1 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
