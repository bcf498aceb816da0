package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"pileus/internal/control"
	"pileus/internal/recovery"
	"pileus/internal/service"
)

func (a *app) serveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Keep clusters protected, and speak the RDS API",
		Long: `Keeps every cluster of pileus.yaml protected: receives its WAL, takes a backup each day in
its window, prunes. Creates, restores, stops, starts and deletes PostgreSQL servers of its
own when asked to over the RDS API, which ` + "`aws rds`" + `, SDKs and Terraform speak; see
` + "`pileus key create`" + ` for access keys and the section ` + "`serve:`" + ` of pileus.yaml.

Databases live on when serve ends, and the next serve adopts them. It logs JSON lines to
standard error, and answers GET /healthz and GET /metrics.`,
		Example: `  pileus key create --name me
  pileus serve
  aws --region us-east-1 --endpoint-url http://127.0.0.1:8432 rds describe-db-clusters`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := a.openFor(cmd.Context(), control.Patient)
			if err != nil {
				return err
			}
			log := newLogger(a.stderr, true, a.quiet)
			if err := d.ProbeServers(cmd.Context()); err != nil {
				log.Warn("restores will be refused", "error", err)
			}
			o := service.Options{Deployment: d, Log: log, Ready: func(at net.Addr) { fmt.Fprintf(a.stdout, "serving on %s\n", at) }}
			if d.Config.Recovery.DrillEvery > 0 {
				j, err := recovery.OpenJournal(cmd.Context(), d.Config.StateDir)
				if err != nil {
					return err
				}
				defer j.Close()
				r := recovery.NewRehearser(recovery.New(recovery.Options{Config: d.Config, Journal: j, Log: log, Operator: operator()}))
				o.Jobs, o.Collectors = append(o.Jobs, r.Run), append(o.Collectors, r)
			}
			return service.Run(cmd.Context(), o)
		},
	}
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show on one screen whether every cluster is protected",
		Long: `Asks the ` + "`pileus serve`" + ` that runs on this host: each cluster, protected or not, since
when, and why not. Without one, ` + "`pileus check`" + ` and ` + "`pileus list`" + ` tell about the clusters
of pileus.yaml.`,
		Example: `  pileus status
  pileus status --json`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			s, err := service.Ask(cmd.Context(), cfg)
			if errors.Is(err, service.ErrNotServing) {
				return fmt.Errorf("%w: start it, or use `pileus check` and `pileus list`", err)
			}
			if err != nil {
				return err
			}
			if err := a.print(s, func(w io.Writer) error { return printStatus(w, s) }); err != nil {
				return err
			}
			if !s.Protected {
				return codeError(ExitUnprotected)
			}
			return nil
		},
	}
}

func printStatus(w io.Writer, s service.Status) error {
	fmt.Fprintf(w, "pileus %s serves since %s.\n", s.Version, s.Since.Format(time.RFC3339))
	if s.Problem != "" {
		fmt.Fprintf(w, "NOT KNOWN whether all is well: %s\n", s.Problem)
	}
	if len(s.Clusters) == 0 && s.Problem == "" {
		fmt.Fprintln(w, "There are no clusters. Name one in pileus.yaml, or create one with `aws rds create-db-cluster`.")
	}
	if len(s.Clusters) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CLUSTER\tSTATUS\tPROTECTED\tSINCE\tRESTORABLE TO\tLAST BACKUP")
	for _, c := range s.Clusters {
		protected := "NO"
		if c.Protected {
			protected = "yes"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", c.Identifier, c.Status, protected, clock(c.Since), clock(c.Latest), clock(c.LastBackup))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, c := range s.Clusters {
		for _, why := range c.Why {
			fmt.Fprintf(w, "%s: %s\n", c.Identifier, strings.TrimSpace(why))
		}
	}
	return nil
}

func clock(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
