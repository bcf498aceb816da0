package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pileus/internal/config"
	"pileus/internal/control"
	"pileus/internal/repo"
)

func (a *app) backupCommand() *cobra.Command {
	var q backupFlags
	cmd := &cobra.Command{
		Use:   "backup [CLUSTER]",
		Short: "Take a base backup",
		Long: `Takes a base backup and waits until all WAL it needs is in the repository as well.
If no ` + "`pileus wal receive`" + ` is running, the WAL of the backup is received meanwhile.

Files are read directly if the cluster's data directory is on this host, otherwise the
backup comes over the replication protocol. Where files are read directly, only those pages
are read that changed since the last backup according to the WAL in the repository. If
that WAL has a gap, or timelines parted, every page is read and compared, and the output
says why. What did not change is not stored again; --full reads and stores everything.

With data checksums on, every page is checked. A bad page is reported by file, block
and LSN; the backup is completed, is marked, and the exit code is 3.`,
		Example: `  pileus backup prod
  pileus backup prod --mode stream
  pileus backup prod --max-rate 20MiB
  pileus backup prod --json 2>progress.jsonl >backup.json`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			b, err := a.backup(cmd, given, q)
			if err != nil {
				return err
			}
			return a.finishBackup(b, func(w io.Writer) error { return describeBackup(w, b) })
		},
	}
	q.register(cmd)
	return cmd
}

// backupFlags are what commands that take a backup have in common.
type backupFlags struct {
	control.BackupRequest
	rate string
}

func (q *backupFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&q.Mode, "mode", "auto", "auto, files (read the data directory on this host) or stream (replication protocol)")
	cmd.Flags().BoolVar(&q.Full, "full", false, "read every page and store every chunk, also those that an earlier backup has")
	cmd.Flags().StringVar(&q.Label, "label", "", "label for PostgreSQL's backup_label (default: pileus and the backup's ID)")
	cmd.Flags().StringVar(&q.rate, "max-rate", "", "bytes a second to take from the cluster's files, such as 20MiB, or none (default: max_rate of the configuration)")
}

// request checks what was given.
func (q *backupFlags) request() (control.BackupRequest, error) {
	if q.Mode != "auto" && q.Mode != "files" && q.Mode != "stream" {
		return q.BackupRequest, usageError{fmt.Errorf("--mode %s: it can be auto, files or stream", q.Mode)}
	}
	if q.rate != "" {
		n, err := config.ParseRate(q.rate)
		if err != nil {
			return q.BackupRequest, usageError{fmt.Errorf("--max-rate: %w", err)}
		}
		q.MaxRate = &n
	}
	return q.BackupRequest, nil
}

func (a *app) backup(cmd *cobra.Command, given []string, flags backupFlags) (repo.Backup, error) {
	q, err := flags.request()
	if err != nil {
		return repo.Backup{}, err
	}
	d, err := a.open(cmd.Context())
	if err != nil {
		return repo.Backup{}, err
	}
	if q.Cluster, err = one(d.Config, given); err != nil {
		return repo.Backup{}, err
	}
	rep, end := a.reporter()
	defer end()
	return d.Backup(cmd.Context(), q, rep)
}

// finishBackup prints a backup and turns damage into its exit code.
func (a *app) finishBackup(b repo.Backup, text func(io.Writer) error) error {
	if err := a.print(b, text); err != nil {
		return err
	}
	if b.DamagedPages > 0 {
		return codeError(ExitDamage)
	}
	return nil
}

func describeBackup(w io.Writer, b repo.Backup) error {
	fmt.Fprintf(w, "Backup %s of %s is complete.\n", b.ID, b.Cluster)
	fmt.Fprintf(w, "  %s in %d files, %s added to the repository, in %s\n", size(b.Size), b.Files, size(b.Stored), span(b.Stopped.Sub(b.Started)))
	fmt.Fprintf(w, "  %s\n", howRead(b))
	_, err := fmt.Fprintf(w, "  restorable from %s (LSN %s, timeline %d)\n", stamp(b.Stopped), b.StopLSN, b.Timeline)
	if b.DamagedPages > 0 {
		_, err = fmt.Fprintf(w, "\nDAMAGE: %d pages have a wrong checksum. The backup holds them as they are.\n", b.DamagedPages)
		for _, x := range b.Damage {
			_, err = fmt.Fprintf(w, "  %s block %d: checksum %04X, expected %04X, page LSN %s\n", x.Path, x.Block, x.Found, x.Expected, x.LSN)
		}
		fmt.Fprintln(w, "Keep the older backups; find out which disk or memory did this; pg_amcheck tells what is affected.")
	}
	return err
}

// howRead says how much of the cluster a backup had to read, and why.
func howRead(b repo.Backup) string {
	switch {
	case b.Incremental && b.Method == repo.MethodStream:
		return fmt.Sprintf("%s of files received: what changed since %s according to the server's summaries of WAL", size(b.Read), b.Parent)
	case b.Incremental:
		return fmt.Sprintf("%s of files read: what changed since %s according to %s of WAL", size(b.Read), b.Parent, size(b.ReadWAL))
	case b.WhyFull == "": // taken before backups said so
		return "every page was read"
	}
	return "every page was read: " + b.WhyFull
}

func (a *app) snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Create, list and delete snapshots",
		Long:  "A snapshot is a backup with a name, which is kept until the snapshot is deleted.",
		Example: `  pileus snapshot create prod before-migration-21
  pileus snapshot list
  pileus snapshot delete prod before-migration-21`,
	}
	cmd.AddCommand(a.snapshotCreate(), a.snapshotList(), a.snapshotDelete())
	return cmd
}

func (a *app) snapshotCreate() *cobra.Command {
	var q backupFlags
	cmd := &cobra.Command{
		Use:   "create [CLUSTER] NAME",
		Short: "Take a backup now and keep it under a name",
		Long: `Takes a backup and names it. The name has 1 to 255 letters, digits and hyphens and starts
with a letter. Nothing is done if the name is used already.`,
		Example: `  pileus snapshot create prod before-migration-21`,
		Args:    args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			q.Snapshot = given[len(given)-1]
			b, err := a.backup(cmd, given[:len(given)-1], q)
			if err != nil {
				return err
			}
			return a.finishBackup(b, func(w io.Writer) error {
				fmt.Fprintf(w, "Snapshot %s of %s is complete.\n", q.Snapshot, b.Cluster)
				return describeBackup(w, b)
			})
		},
	}
	q.register(cmd)
	return cmd
}

func (a *app) snapshotList() *cobra.Command {
	return &cobra.Command{
		Use:     "list [CLUSTER]",
		Short:   "List snapshots",
		Example: "  pileus snapshot list\n  pileus snapshot list prod --json",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			d, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			list, err := d.Snapshots(cmd.Context(), strings.ToLower(first(given)))
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) error {
				t := newTable(w, "CLUSTER", "SNAPSHOT", "TIME", "BACKUP")
				for _, s := range list {
					t.row(s.Cluster, s.Name, stamp(s.Time), s.Backup)
				}
				return t.end("No snapshots.")
			})
		},
	}
}

func (a *app) snapshotDelete() *cobra.Command {
	return &cobra.Command{
		Use:     "delete CLUSTER NAME",
		Short:   "Delete a snapshot",
		Long:    "Deletes the name. The backup goes with the next `pileus prune`, if nothing else keeps it.",
		Example: "  pileus snapshot delete prod before-migration-21",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			d, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			cluster := strings.ToLower(given[0])
			if err := d.Repo.DeleteSnapshot(cmd.Context(), cluster, given[1]); err != nil {
				if errors.Is(err, repo.ErrNotFound) {
					return usageError{err}
				}
				return err
			}
			return a.print(map[string]any{"deleted": given[1], "cluster": cluster, "time": time.Now().UTC()}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "Deleted snapshot %s of %s. Its space comes back with `pileus prune`.\n", given[1], cluster)
				return err
			})
		},
	}
}

func first(given []string) string {
	if len(given) == 0 {
		return ""
	}
	return given[0]
}
