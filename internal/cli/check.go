package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"pileus/internal/control"
)

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check [CLUSTER]",
		Short: "Tell in one screen whether a cluster is protected",
		Long: `Looks at the connection, privileges, settings, replication slot, archive, repository,
programs, disk and clocks, and says for everything that is missing what to do about it,
as the statement or command to run. Without CLUSTER all configured ones are checked.

Exit code 0 only if every cluster is protected.`,
		Example: "  pileus check\n  pileus check prod --json",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			d, err := a.openFor(cmd.Context(), control.Brief)
			if err != nil {
				return err
			}
			names := d.Config.ClusterNames()
			if len(given) > 0 {
				names = []string{strings.ToLower(given[0])}
			}
			if len(names) == 0 {
				return usageError{fmt.Errorf("%s names no cluster yet: add one under `clusters:`", d.Config.Path)}
			}
			reports := []control.CheckReport{}
			protected := true
			for _, name := range names {
				r, err := d.Check(cmd.Context(), name)
				if err != nil {
					return err
				}
				reports = append(reports, r)
				protected = protected && r.Protected
			}
			err = a.print(reports, func(w io.Writer) error {
				for i, r := range reports {
					if i > 0 {
						fmt.Fprintln(w)
					}
					describeCheck(w, r)
				}
				return nil
			})
			if err == nil && !protected {
				return codeError(ExitUnprotected)
			}
			return err
		},
	}
}

func describeCheck(w io.Writer, r control.CheckReport) {
	verdict, warnings := "is PROTECTED", 0
	for _, f := range r.Findings {
		if f.Level == control.LevelWarn {
			warnings++
		}
	}
	if !r.Protected {
		verdict = "is NOT PROTECTED"
	}
	fmt.Fprintf(w, "%s %s", r.Cluster, verdict)
	switch warnings {
	case 0:
	case 1:
		fmt.Fprint(w, ", with 1 warning")
	default:
		fmt.Fprintf(w, ", with %d warnings", warnings)
	}
	fmt.Fprint(w, "\n\n")
	for _, f := range r.Findings {
		mark := map[control.Level]string{control.LevelOK: "  ok ", control.LevelWarn: "WARN ", control.LevelBad: " BAD "}[f.Level]
		fmt.Fprintf(w, "%s %-22s %s\n", mark, f.Subject, strings.ReplaceAll(f.Text, "\n", "\n"+strings.Repeat(" ", 29)))
		if f.Do != "" {
			fmt.Fprintf(w, "%s → %s\n", strings.Repeat(" ", 27), f.Do)
		}
	}
}
