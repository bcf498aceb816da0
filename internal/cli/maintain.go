package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pileus/internal/control"
)

func (a *app) verifyCommand() *cobra.Command {
	var read string
	cmd := &cobra.Command{
		Use:   "verify [CLUSTER]",
		Short: "Check that what is in the repository is whole",
		Long: `Checks that every backup has all its packs, that page maps and manifests match their
hashes, and that the WAL each backup needs is there without a gap. With --read-data
the content is read back as well: all of it, or a random part.

Exit code 3 if anything is damaged; the report says what, and what it costs.`,
		Example: `  pileus verify
  pileus verify prod --read-data all
  pileus verify --read-data 5%`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			fraction, err := parseFraction(read)
			if err != nil {
				return usageError{fmt.Errorf("--read-data: %w", err)}
			}
			d, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			rep, end := a.reporter()
			res, err := d.Verify(cmd.Context(), strings.ToLower(first(given)), fraction, rep)
			end()
			if err != nil {
				return err
			}
			if err := a.print(res, func(w io.Writer) error { return describeVerify(w, res) }); err != nil {
				return err
			}
			if len(res.Problems) > 0 {
				return codeError(ExitDamage)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&read, "read-data", "", "how much content to read back: `all or N%`")
	return cmd
}

// parseFraction reads "", all, or a percentage.
func parseFraction(s string) (float64, error) {
	switch {
	case s == "":
		return 0, nil
	case s == "all":
		return 1, nil
	}
	n, ok := strings.CutSuffix(s, "%")
	f, err := strconv.ParseFloat(n, 64)
	if !ok || err != nil || !(f > 0 && f <= 100) {
		return 0, fmt.Errorf("%q is neither all nor a percentage above 0%% and up to 100%%", s)
	}
	return f / 100, nil
}

func (a *app) pruneCommand() *cobra.Command {
	var q control.PruneRequest
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove what retention does not keep",
		Long: `Removes backups and WAL that are not needed to restore any moment of the last
` + "`retention`" + ` days, nor by a snapshot, nor by a backup under way. Packs are removed in two
steps: one run marks those that nothing names, a run at least --grace later removes
them if still nothing does.`,
		Example: `  pileus prune --dry-run
  pileus prune`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			rep, end := a.reporter()
			plan, err := d.Prune(cmd.Context(), q, rep)
			end()
			if err != nil {
				return err
			}
			return a.print(plan, func(w io.Writer) error { return describePrune(w, plan, q.DryRun) })
		},
	}
	cmd.Flags().BoolVar(&q.DryRun, "dry-run", false, "print what would be removed, and remove nothing")
	cmd.Flags().DurationVar(&q.Grace, "grace", 24*time.Hour, "how long a pack stays marked before it is removed")
	return cmd
}
