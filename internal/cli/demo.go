package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"pileus/internal/demo"
)

func (a *app) demoCommand() *cobra.Command {
	var o demo.Options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Lose a database and get it back, in a scratch folder",
		Long: `Starts a PostgreSQL server of its own in a scratch folder, loads a database shaped like
that of NASA Cumulus, and writes to it while it is backed up and its WAL is streamed.
Then all granules are deleted "by mistake". The database is restored to just before
that as a new cluster, and compared: every commit that was acknowledged before the
mistake must be there.

It needs PostgreSQL 13 to 18 on this host, takes under two minutes, and leaves nothing
behind unless --keep is given. Run as root it drops its privileges.`,
		Example: "  pileus demo\n  pileus demo --keep --dir /tmp/pileus-demo",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if handled, err := demo.AsOrdinaryUser(cmd.Context(), a.stdout, a.stderr); handled {
				return err
			}
			rep, end := a.reporter()
			o.Version = a.version
			acc, err := demo.Run(cmd.Context(), o, rep)
			end()
			if err != nil {
				return err
			}
			if err := a.print(acc, func(w io.Writer) error { return describeDemo(w, acc) }); err != nil {
				return err
			}
			if acc.CommitsLost > 0 || acc.DamageFound {
				return codeError(ExitFailed)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&o.Keep, "keep", false, "keep the scratch folder and both servers running")
	cmd.Flags().StringVar(&o.Dir, "dir", "", "the scratch folder, absent or empty (default: a temporary one)")
	cmd.Flags().StringVar(&o.BinDir, "bin-dir", "", "folder of PostgreSQL's programs")
	return cmd
}

func describeDemo(w io.Writer, a demo.Account) error {
	fmt.Fprintf(w, "\nPostgreSQL %s, %s, %d granules and a live ingest.\n\n", a.Server, size(a.Size), a.GranulesBefore)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-22s "+format+"\n", append([]any{name}, args...)...)
	}
	line("time to protect", "%s  (from nothing to a backup with all of its WAL, under load)", span(a.TimeToProtect))
	line("the mistake", "DELETE FROM granules: %d rows, transaction %d", a.GranulesDeleted, a.DeleteXID)
	line("time to recover", "%s  (from the command to a new cluster that serves)", span(a.TimeToRecover))
	line("granules recovered", "%d", a.GranulesAfter)
	line("commits before it", "%d acknowledged to the ingest", a.CommitsBefore)
	_, err := fmt.Fprintf(w, "  %-22s %d\n", "COMMITS LOST", a.CommitsLost)
	if a.DamageFound {
		_, err = fmt.Fprintln(w, "  THE MISTAKE IS IN THE RESTORED CLUSTER: this is a bug, please report it.")
	}
	if a.Kept != "" {
		_, err = fmt.Fprintf(w, "\nKept in %s: damaged: psql -h %s -p %d · restored: psql -h %s -p %d\n", a.Kept, a.SourceSocket, a.SourcePort, a.RestoredSocket, a.RestoredPort)
	}
	return err
}
