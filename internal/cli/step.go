package cli

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"pileus/internal/recovery"
)

func (a *app) stepCommand() *cobra.Command {
	var f recoveryFlags
	cmd := &cobra.Command{
		Use:   "step STEP CLUSTER",
		Short: "Do one step of a recovery by itself",
		Long: `Does one step of "pileus recover" and nothing else, for who wants to go through the page by hand:
halt, drain, fence, wal, restore, compare, validate, cutover or resume. It has a journal as a
whole run has. compare, validate and cutover take the recovered cluster with --as; restore takes
the target, too; resume starts the rules that the last halt of CLUSTER recorded.

Preflight is "pileus recover --dry-run", the report "pileus run report".`,
		Example: `  pileus step halt prod
  pileus step drain prod --drain-timeout 10m
  pileus step restore prod --as prod-2 --to 2026-03-07T23:44:59Z
  pileus step validate prod --as prod-2
  pileus step resume prod`,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			step, err := recovery.ParseStep(given[0])
			if err != nil {
				return usageError{err}
			}
			if step == recovery.StepPreflight || step == recovery.StepReport {
				return usageError{fmt.Errorf("%s has a command of its own: `pileus recover --dry-run`, `pileus run report`", step)}
			}
			needs := []recovery.Step{recovery.StepRestore, recovery.StepCompare, recovery.StepValidate, recovery.StepCutover}
			if slices.Contains(needs, step) && f.as == "" {
				return usageError{fmt.Errorf("%s needs the other cluster: --as NEW", step)}
			}
			f.only = step
			q, err := f.request(given[1], time.Now())
			if err != nil {
				return usageError{err}
			}
			b, j, err := a.runbook(cmd.Context())
			if err != nil {
				return err
			}
			defer j.Close()
			run, err := b.Recover(cmd.Context(), q)
			return a.ended(cmd.Context(), j, run, err)
		},
	}
	f.target(cmd)
	return cmd
}
