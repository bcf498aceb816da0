package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"pileus/internal/ledger"
	"pileus/internal/service"
)

func (a *app) auditCommand() *cobra.Command {
	var since, key, action string
	var limit int
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who asked `pileus serve` to change what, and when",
		Long: `Lists the requests to the RDS API that were to change something, newest first: when, by
which access key, from which address, what, and what came of it. Refused requests are listed
too; passwords are not. The log only grows: entries cannot be changed or removed.`,
		Example: `  pileus audit --since 24h
  pileus audit --action DeleteDBCluster --json`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := ledger.AuditQuery{AccessKey: key, Action: action, Limit: limit}
			if since != "" {
				from, err := parseTime(since, time.Now())
				if err != nil {
					return usageError{fmt.Errorf("--since: %w", err)}
				}
				q.From = from
			}
			return a.audit(cmd.Context(), q)
		},
	}
	f := cmd.Flags()
	f.StringVar(&since, "since", "", "only entries since this `TIME`: RFC 3339, or a duration such as 2h ago")
	f.StringVar(&key, "access-key", "", "only those of this access key `ID`")
	f.StringVar(&action, "action", "", "only this `ACTION`, such as DeleteDBCluster")
	f.IntVar(&limit, "limit", 100, "at most this many entries; 0 for all")
	return cmd
}

func (a *app) audit(ctx context.Context, q ledger.AuditQuery) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	all, err := service.AuditLog(ctx, cfg, q)
	if err != nil {
		return err
	}
	return a.print(all, func(w io.Writer) error {
		if len(all) == 0 {
			_, err := fmt.Fprintln(w, "No entries.")
			return err
		}
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "TIME\tACCESS KEY\tFROM\tACTION\tRESOURCE\tRESULT\tPARAMETERS")
		for _, e := range all {
			var parameters []string
			for _, name := range slices.Sorted(maps.Keys(e.Parameters)) {
				parameters = append(parameters, name+"="+e.Parameters[name])
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Time.Format(time.RFC3339), e.AccessKey, e.SourceAddress, e.Action, e.Resource, e.Result, strings.Join(parameters, " "))
		}
		return t.Flush()
	})
}
