package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) fenceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fence CLUSTER",
		Short: "Take access to the application's database away, and prove it",
		Long: `Takes the right to connect to recovery.database from everybody but recovery.administrator and
recovery.exempt_roles, ends every session, and tries it: the application's role must be refused
and the administrator must not. What was is kept in the state folder, outside the database;
"pileus unfence" restores exactly that.`,
		Example: `  pileus fence prod
  pileus fence status prod
  pileus unfence prod`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			b, j, name, err := a.runbookFor(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			defer j.Close()
			f, err := b.Fence(cmd.Context(), name)
			if err != nil {
				return err
			}
			return a.print(f, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s is fenced: %s.\n", given[0], f)
				return err
			})
		},
	}
	cmd.AddCommand(a.fenceStatus())
	return cmd
}

func (a *app) fenceStatus() *cobra.Command {
	return &cobra.Command{
		Use:     "status CLUSTER",
		Short:   "Tell whether a cluster is fenced, and who is connected",
		Example: `  pileus fence status prod --json`,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			b, j, name, err := a.runbookFor(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			defer j.Close()
			s, err := b.FenceStatus(cmd.Context(), name)
			if err != nil {
				return err
			}
			return a.print(s, func(w io.Writer) error {
				word := "OPEN"
				if s.Closed {
					word = "CLOSED"
				}
				fmt.Fprintf(w, "%s of %s is %s: %d sessions, %d prepared transactions.\n", s.Database, s.Cluster, word, len(s.Sessions), len(s.Prepared))
				if s.Kept == nil {
					fmt.Fprintln(w, "Pileus has put up no fence there.")
				} else {
					fmt.Fprintf(w, "Pileus has put up a fence, and keeps how it was at %s; `pileus unfence %s` restores that.\n", s.Kept.Saved.Format(time.RFC3339), s.Cluster)
				}
				if len(s.Sessions) == 0 {
					return nil
				}
				t := newTable(w, "PROCESS", "ROLE", "APPLICATION", "FROM", "SINCE")
				for _, x := range s.Sessions {
					t.row(fmt.Sprint(x.PID), x.Role, x.Application, x.Address, x.Since.UTC().Format(time.RFC3339))
				}
				return t.end("")
			})
		},
	}
}

func (a *app) unfenceCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "unfence CLUSTER",
		Short:   "Give access back exactly as it was before the fence",
		Example: `  pileus unfence prod`,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			b, j, name, err := a.runbookFor(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			defer j.Close()
			s, err := b.Unfence(cmd.Context(), name)
			if err != nil {
				return err
			}
			return a.print(s, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s of %s is open as it was at %s.\n", s.Database, given[0], s.Saved.Format(time.RFC3339))
				return err
			})
		},
	}
}

func (a *app) drillCommand() *cobra.Command {
	var random, list bool
	cmd := &cobra.Command{
		Use:   "drill CLUSTER",
		Short: "Rehearse a recovery on a throwaway cluster, and measure it",
		Long: `Restores CLUSTER to the latest moment, or a random one, as a throwaway cluster, validates that
as "pileus recover" would, deletes it, and keeps the outcome: how long it took until a validated
cluster served (RTO), and how far behind the latest restorable moment was (RPO). The cluster
itself is not touched.`,
		Example: `  pileus drill prod
  pileus drill prod --random
  pileus drill prod --list --json`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			b, j, name, err := a.runbookFor(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			defer j.Close()
			if list {
				all, err := j.Drills(cmd.Context(), name)
				if err != nil {
					return err
				}
				return a.print(all, func(w io.Writer) error {
					t := newTable(w, "AT", "TO", "OUTCOME", "RTO", "RPO")
					for _, d := range all {
						outcome := "proven"
						if !d.OK {
							outcome = "FAILED: " + d.Problem
						}
						t.row(d.At.Format(time.RFC3339), d.Target.String(), outcome, d.RTO.Round(time.Millisecond).String(), d.RPO.Round(time.Millisecond).String())
					}
					return t.end("There was no drill yet.")
				})
			}
			d, err := b.Drill(cmd.Context(), name, random)
			if err != nil {
				return err
			}
			return a.print(d, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s can be recovered to %s: restored in %s, validated after %s (%s). The latest restorable moment was %s behind.\n", name, d.Target,
					d.Restored.Round(time.Millisecond), d.RTO.Round(time.Millisecond), d.Validated, d.RPO.Round(time.Millisecond))
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&random, "random", false, "to a random moment of the restorable window instead of the latest")
	cmd.Flags().BoolVar(&list, "list", false, "list the drills so far")
	return cmd
}
