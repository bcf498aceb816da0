package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"pileus/internal/archive"
	"pileus/internal/control"
)

func (a *app) walCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wal",
		Short: "Receive, push and fetch write-ahead log",
		Example: `  pileus wal receive prod
  archive_command = 'pileus --config /etc/pileus/pileus.yaml wal push --cluster prod %p'
  restore_command = 'pileus --config /etc/pileus/pileus.yaml wal fetch --cluster prod %f %p'`,
	}
	cmd.AddCommand(a.walReceive(), a.walPush(), a.walFetch())
	return cmd
}

func (a *app) walReceive() *cobra.Command {
	return &cobra.Command{
		Use:   "receive [CLUSTER]",
		Short: "Stream write-ahead log into the repository, until stopped",
		Long: `Streams the cluster's WAL into the repository over a physical replication slot, which
it creates. The unfinished segment follows at wal.flush_interval. It reconnects by
itself, follows promotions, and logs to standard error.

With synchronous_standby_names = 'pileus' on the primary, a commit returns only when it
is durable in the repository.`,
		Example: `  pileus wal receive prod
  systemctl enable --now pileus-wal@prod`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			d, err := a.openFor(cmd.Context(), control.Brief)
			if err != nil {
				return err
			}
			name, err := one(d.Config, given)
			if err != nil {
				return err
			}
			err = d.Receive(cmd.Context(), name, newLogger(a.stderr, a.json, a.quiet))
			if cmd.Context().Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
				return nil // stopped as asked: all that was received is in the repository or the spool
			}
			return err
		},
	}
}

func (a *app) walPush() *cobra.Command {
	var cluster string
	cmd := &cobra.Command{
		Use:   "push PATH",
		Short: "Store one finished WAL file (archive_command)",
		Long: `Stores one file of pg_wal in the repository, for archive_command. The segment is checked
record by record first; exit code 0 means that it is durable in the repository. The
same file again is fine, another file of the same name is refused.

When more than wal.push_queue_max waits in pg_wal, the segment is given up to save the
database: ` + "`pileus check`" + ` then says since when the cluster is unprotected, and a new backup
closes the gap.`,
		Example: `  archive_command = 'pileus --config /etc/pileus/pileus.yaml wal push --cluster prod %p'`,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			name, err := one(cfg, named(cluster))
			if err != nil {
				return err
			}
			return control.Push(cmd.Context(), cfg, a.version, name, given[0], newLogger(a.stderr, a.json, a.quiet))
		},
	}
	cmd.Flags().StringVar(&cluster, "cluster", "", "the cluster (default: the only one configured)")
	return cmd
}

func (a *app) walFetch() *cobra.Command {
	var q control.FetchRequest
	var probe bool
	cmd := &cobra.Command{
		Use:   "fetch FILE PATH",
		Short: "Get one WAL file (restore_command)",
		Long: `Writes one WAL file to PATH, for restore_command. Exit code 1 means that the archive does
not have the file, which PostgreSQL takes for the end of the WAL. For anything else,
such as a repository that cannot be reached or a damaged object, the command kills
itself: PostgreSQL then stops recovery and does not promote a truncated cluster.`,
		Example: `  restore_command = 'pileus --config /etc/pileus/pileus.yaml wal fetch --cluster prod %f %p'`,
		Args: args(func(cmd *cobra.Command, given []string) error {
			if probe {
				return cobra.NoArgs(cmd, given)
			}
			return cobra.ExactArgs(2)(cmd, given)
		}),
		RunE: func(cmd *cobra.Command, given []string) error {
			err := a.fetch(cmd.Context(), q, given, probe)
			if err == nil || probe || errors.Is(err, archive.ErrNoSuchFile) {
				return err
			}
			a.printError(cmd, fmt.Errorf("%w (recovery is stopped on purpose)", err))
			die()
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Cluster, "cluster", "", "the cluster (default: the only one configured)")
	f.BoolVar(&probe, "probe", false, "only try whether this user can read the repository")
	return cmd
}

func (a *app) fetch(ctx context.Context, q control.FetchRequest, given []string, probe bool) error {
	d, err := a.open(ctx)
	if err != nil {
		return err
	}
	if probe {
		return d.Probe(ctx, q.Cluster)
	}
	if q.Cluster == "" {
		if q.Cluster, err = one(d.Config, nil); err != nil {
			return err
		}
	}
	q.File, q.Dest = given[0], given[1]
	return d.Fetch(ctx, q)
}

// die ends the process by a signal, which PostgreSQL never takes for "no such
// file". SIGKILL cannot be caught or blocked.
func die() {
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		if err := p.Signal(syscall.SIGKILL); err == nil {
		}
	}
}

func named(cluster string) []string {
	if cluster == "" {
		return nil
	}
	return []string{strings.ToLower(cluster)}
}
