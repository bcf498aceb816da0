package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pileus/internal/recovery"
)

func (a *app) runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Look at recovery runs, go on with one, or take one back",
		Example: `  pileus run list
  pileus run resume 20260308T001502Z-4f2a91
  pileus run abort 4f2a91`,
	}
	cmd.AddCommand(a.runList(), a.runShow(), a.runReport(), a.runResume(), a.runAbort())
	return cmd
}

// journal opens the journal for reading.
func (a *app) journal(ctx context.Context) (*recovery.Journal, error) {
	cfg, err := a.load()
	if err != nil {
		return nil, err
	}
	return recovery.OpenJournal(ctx, cfg.StateDir)
}

func (a *app) runList() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the recovery runs of this host, newest first",
		Example: `  pileus run list --json`,
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			j, err := a.journal(cmd.Context())
			if err != nil {
				return err
			}
			defer j.Close()
			all, err := j.Runs(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(all, func(w io.Writer) error {
				t := newTable(w, "RUN", "CLUSTER", "NEW", "TO", "STATUS", "STEP", "BY")
				for _, r := range all {
					t.row(r.ID, r.Cluster, r.New, r.Target.String(), string(r.Status), string(r.Step), r.By)
				}
				return t.end("There are no runs. `pileus recover` begins one.")
			})
		},
	}
}

func (a *app) runShow() *cobra.Command {
	return &cobra.Command{
		Use:     "show RUN",
		Short:   "Show the journal of a run",
		Example: `  pileus run show 4f2a91`,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.withRun(cmd.Context(), given[0], func(r recovery.Run, entries []recovery.Entry) error {
				shown := struct {
					recovery.Run
					Journal []recovery.Entry `json:"journal"`
				}{r, entries}
				return a.print(shown, func(w io.Writer) error {
					fmt.Fprintf(w, "Run %s: %s to %s as %s, by %s. It is %s.\n", r.ID, r.Cluster, r.Target, r.New, r.By, r.Status)
					if r.Problem != "" {
						fmt.Fprintf(w, "%s\n", r.Problem)
					}
					fmt.Fprintln(w)
					t := newTable(w, "AT", "STEP", "", "")
					for _, e := range entries {
						text, _, _ := strings.Cut(e.Text, "\n")
						t.row(e.At.Format(time.RFC3339), string(e.Step), string(e.Kind), text)
					}
					return t.end("Nothing happened yet.")
				})
			})
		},
	}
}

func (a *app) withRun(ctx context.Context, id string, with func(recovery.Run, []recovery.Entry) error) error {
	j, err := a.journal(ctx)
	if err != nil {
		return err
	}
	defer j.Close()
	r, err := j.Run(ctx, id)
	if err != nil {
		return err
	}
	entries, err := j.Entries(ctx, r.ID)
	if err != nil {
		return err
	}
	return with(r, entries)
}

func (a *app) runReport() *cobra.Command {
	var html bool
	cmd := &cobra.Command{
		Use:   "report RUN",
		Short: "Print the report of a run, as Markdown or HTML",
		Example: `  pileus run report 4f2a91
  pileus run report 4f2a91 --html`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.withRun(cmd.Context(), given[0], func(r recovery.Run, entries []recovery.Entry) error {
				report := recovery.Tell(r, entries)
				return a.print(report, func(w io.Writer) error {
					render := report.Markdown
					if html {
						render = report.HTML
					}
					text, err := render()
					if err == nil {
						_, err = io.WriteString(w, text)
					}
					return err
				})
			})
		},
	}
	cmd.Flags().BoolVar(&html, "html", false, "as a page")
	return cmd
}

func (a *app) runResume() *cobra.Command {
	var stopBefore, pauseAfter string
	var approve []string
	var drain time.Duration
	cmd := &cobra.Command{
		Use:   "resume RUN",
		Short: "Go on with a run that stopped or was killed",
		Long: `Goes on where the run was. What its journal calls done is looked at again first, and done
again if it is not so any more. --approve answers the question that the run stopped at; who did
is written down.`,
		Example: `  pileus run resume 4f2a91
  pileus run resume 4f2a91 --approve compare --pause-after validate`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := choices(stopBefore, pauseAfter, approve)
			if err != nil {
				return usageError{err}
			}
			c.DrainTimeout = max(0, drain)
			b, j, err := a.runbook(cmd.Context())
			if err != nil {
				return err
			}
			defer j.Close()
			run, err := b.Resume(cmd.Context(), given[0], c)
			return a.ended(cmd.Context(), j, run, err)
		},
	}
	f := cmd.Flags()
	f.StringVar(&stopBefore, "stop-before", "", "stop before this `STEP`")
	f.StringVar(&pauseAfter, "pause-after", "", "stop after this `STEP`")
	f.DurationVar(&drain, "drain-timeout", 0, "how long work may take to end until an operator decides")
	f.StringSliceVar(&approve, "approve", nil, "answer the question of these `STEPS` with yes")
	return cmd
}

func (a *app) runAbort() *cobra.Command {
	var deleteNew bool
	cmd := &cobra.Command{
		Use:   "abort RUN",
		Short: "Take a run back: unfence, and start the application's work again",
		Long: `Undoes what the run did, the last step first: the source serves again with the rights that
it had, and its work is started again. The new cluster stays unless --delete-new is given. Once
clients were sent to the new cluster a run is not taken back any more.`,
		Example: `  pileus run abort 4f2a91
  pileus run abort 4f2a91 --delete-new`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			b, j, err := a.runbook(cmd.Context())
			if err != nil {
				return err
			}
			defer j.Close()
			run, err := b.Abort(cmd.Context(), given[0], deleteNew)
			return a.ended(cmd.Context(), j, run, err)
		},
	}
	cmd.Flags().BoolVar(&deleteNew, "delete-new", false, "delete the cluster that the run restored")
	return cmd
}
