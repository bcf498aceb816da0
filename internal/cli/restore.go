package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pileus/internal/control"
	"pileus/internal/pg"
	"pileus/internal/restore"
)

// targetFlags are the ways to name a moment.
type targetFlags struct {
	time, lsn, name, snapshot, backup string
	xid                               uint64
	latest, exclusive                 bool
	timeline                          uint32
}

func (a *app) restoreCommand() *cobra.Command {
	var (
		q           control.RestoreRequest
		t           targetFlags
		tablespaces []string
		dryRun      bool
	)
	cmd := &cobra.Command{
		Use:   "restore CLUSTER --as NEW --data-dir DIR TARGET",
		Short: "Bring a cluster back, at a moment you name, as a new cluster",
		Long: `Restores CLUSTER as it was at the target into the empty directory DIR, as the new cluster
NEW. The target is one of --to, --to-lsn, --to-xid, --to-name, --latest, --snapshot and
--backup. It is looked up in the WAL first: the plan names the last commit that will be
there and the first that will not, and a target that cannot be reached is refused before
anything is written.

Without --start the directory is prepared, and the server recovers when you start it.
With --start it is started, recovered and promoted, checked, and left running.

The source, its archive and its tablespaces are never written to. Settings that would
harm the source or fail here are neutralised, and listed. A restore that was killed is
simply run again.`,
		Example: `  pileus restore prod --as prod-0307 --data-dir /srv/prod-0307 --to 2026-03-07T23:45:00Z --dry-run
  pileus restore prod --as prod-0307 --data-dir /srv/prod-0307 --to "2h ago" --start
  pileus restore prod --as before-delete --data-dir /srv/bd --to-xid 48151623 --exclusive --start
  pileus restore prod --as from-snap --data-dir /srv/fs --snapshot before-migration-21
  pileus restore prod --as latest --data-dir /srv/l --latest --tablespace /mnt/fast=/srv/l-fast`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			var err error
			q.Cluster = strings.ToLower(given[0])
			if q.Target, err = t.target(time.Now()); err != nil {
				return usageError{err}
			}
			if q.Tablespaces, err = parseTablespaces(tablespaces); err != nil {
				return usageError{err}
			}
			if q.DataDir == "" || q.As == "" {
				return usageError{errors.New("--as NEW and --data-dir DIR say what the new cluster is called and where it goes")}
			}
			d, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			rep, end := a.reporter()
			defer end()
			plan, err := d.PlanRestore(cmd.Context(), q, rep)
			if err != nil {
				return err
			}
			end()
			if dryRun {
				return a.print(plan, func(w io.Writer) error { return describePlan(w, plan) })
			}
			if !a.json && !a.quiet {
				if err := describePlan(a.stderr, plan); err != nil {
					return err
				}
			}
			res, err := d.Restore(cmd.Context(), plan)
			if err != nil {
				return err
			}
			end()
			return a.print(res, func(w io.Writer) error { return describeRestored(w, plan, res) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.As, "as", "", "identifier of the `NEW` cluster")
	f.StringVar(&q.DataDir, "data-dir", "", "its data directory: absent or empty")
	f.StringVar(&t.time, "to", "", "`TIME`: RFC 3339, UTC unless it says otherwise, or like \"2h ago\"")
	f.StringVar(&t.lsn, "to-lsn", "", "`LSN`: through the record that starts there or next")
	f.Uint64Var(&t.xid, "to-xid", 0, "`XID`: through the commit of this transaction")
	f.StringVar(&t.name, "to-name", "", "`NAME` of a restore point")
	f.BoolVar(&t.latest, "latest", false, "through the last record in the repository")
	f.StringVar(&t.snapshot, "snapshot", "", "`NAME` of a snapshot")
	f.StringVar(&t.backup, "backup", "", "`ID` of a backup: as it was when the backup ended")
	f.BoolVar(&t.exclusive, "exclusive", false, "stop just before the target (--to, --to-lsn, --to-xid)")
	f.Uint32Var(&t.timeline, "timeline", 0, "follow this `TIMELINE` (default: the newest)")
	f.StringArrayVar(&tablespaces, "tablespace", nil, "`OLD=NEW`: where a tablespace goes; OLD is its location, name or OID; may be repeated")
	f.BoolVar(&q.Start, "start", false, "start it, recover, promote, check, and leave it running")
	f.IntVar(&q.Port, "port", 0, "its port (default: the source's; with --start a free one)")
	f.StringVar(&q.Owner, "owner", "", "operating-system `USER` who owns it, when run as root (default: postgres)")
	f.StringVar(&q.BinDir, "bin-dir", "", "folder of PostgreSQL's programs")
	f.BoolVar(&dryRun, "dry-run", false, "print the plan, and do nothing")
	return cmd
}

// target turns the flags into the one target they must name.
func (t targetFlags) target(now time.Time) (restore.Target, error) {
	var found []restore.Target
	var err error
	add := func(k restore.Target) { found = append(found, k) }
	if t.time != "" {
		k := restore.Target{Kind: restore.ToTime}
		if k.Time, err = parseTime(t.time, now); err != nil {
			return k, fmt.Errorf("--to: %w", err)
		}
		add(k)
	}
	if t.lsn != "" {
		k := restore.Target{Kind: restore.ToLSN}
		if k.LSN, err = pg.ParseLSN(t.lsn); err != nil {
			return k, fmt.Errorf("--to-lsn: %w", err)
		}
		add(k)
	}
	if t.xid != 0 {
		add(restore.Target{Kind: restore.ToXID, XID: t.xid})
	}
	for kind, name := range map[restore.TargetKind]string{restore.ToName: t.name, restore.ToSnapshot: t.snapshot, restore.ToBackup: t.backup} {
		if name != "" {
			add(restore.Target{Kind: kind, Name: name})
		}
	}
	if t.latest {
		add(restore.Target{Kind: restore.ToLatest})
	}
	if len(found) != 1 {
		return restore.Target{}, errors.New("give exactly one of --to, --to-lsn, --to-xid, --to-name, --latest, --snapshot and --backup")
	}
	k := found[0]
	k.Exclusive, k.Timeline = t.exclusive, pg.TimelineID(t.timeline)
	return k, nil
}

func parseTablespaces(given []string) (map[string]string, error) {
	out := map[string]string{}
	for _, text := range given {
		i := strings.LastIndexByte(text, '=')
		if i <= 0 || i == len(text)-1 {
			return nil, fmt.Errorf("--tablespace %s: expected OLD=NEW", text)
		}
		if _, twice := out[text[:i]]; twice {
			return nil, fmt.Errorf("--tablespace names %s twice", text[:i])
		}
		out[text[:i]] = text[i+1:]
	}
	return out, nil
}
