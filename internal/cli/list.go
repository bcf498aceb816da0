package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"pileus/internal/control"
)

func (a *app) listCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list [CLUSTER]",
		Short: "List backups, snapshots and the moments you can restore to",
		Long: `Lists what the repository holds: for each cluster its backups and snapshots, and the
restorable window: the times, in UTC, between which any moment can be restored.`,
		Example: "  pileus list\n  pileus list prod --json",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			d, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			views, err := d.View(cmd.Context(), strings.ToLower(first(given)))
			if err != nil {
				return err
			}
			if views == nil {
				views = []control.ClusterView{}
			}
			return a.print(views, func(w io.Writer) error {
				if len(views) == 0 {
					_, err := fmt.Fprintln(w, "The repository is empty, and no cluster is configured.")
					return err
				}
				for i, v := range views {
					if i > 0 {
						fmt.Fprintln(w)
					}
					if err := describeView(w, v); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func describeView(w io.Writer, v control.ClusterView) error {
	fmt.Fprintf(w, "%s", v.Name)
	if v.Identity != nil {
		fmt.Fprintf(w, "  (system identifier %d", v.Identity.SystemIdentifier)
		if p := v.Identity.Parent; p != nil {
			fmt.Fprintf(w, "; restored from %s as of %s", p.Cluster, stamp(p.Time))
		}
		fmt.Fprint(w, ")")
	}
	fmt.Fprintln(w)
	for _, p := range append(v.Problems, v.Window.Problems...) {
		fmt.Fprintf(w, "  PROBLEM: %s\n", p)
	}
	switch {
	case v.Window.Restorable():
		fmt.Fprintf(w, "  restorable: %s to %s (LSN %s to %s, timeline %d)\n", stamp(v.Window.Earliest), stamp(v.Window.Latest), v.Window.EarliestLSN, v.Window.LatestLSN, v.Window.Timeline)
		for _, iv := range v.Window.Intervals {
			if iv.FromLSN != v.Window.EarliestLSN {
				fmt.Fprintf(w, "  and also:   %s to %s (LSN %s to %s, timeline %d)\n", stamp(iv.From), stamp(iv.To), iv.FromLSN, iv.ToLSN, iv.Timeline)
			}
		}
	case v.Identity != nil:
		fmt.Fprintln(w, "  restorable: nothing yet")
	}
	for _, g := range v.Window.Gaps {
		fmt.Fprintf(w, "  gap: WAL of timeline %d from %s to %s is missing\n", g.Timeline, g.Start, g.End)
	}
	if len(v.Backups) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := newTable(w, "  BACKUP", "COMPLETE", "SIZE", "ADDED", "TIMELINE", "KEPT BY", "STATE")
	for _, b := range v.Backups {
		state := "good"
		if b.DamagedPages > 0 {
			state = fmt.Sprintf("holds %d damaged pages", b.DamagedPages)
		}
		if b.Problem != "" {
			state = "cannot be read: " + b.Problem
		}
		keeps := "retention"
		if len(b.Snapshots) > 0 {
			keeps = "snapshot " + strings.Join(b.Snapshots, ", ")
		}
		t.row("  "+b.ID, stamp(b.Stopped), size(b.Size), size(b.Stored), fmt.Sprint(b.Timeline), keeps, state)
	}
	return t.end("")
}

func (a *app) showCommand() *cobra.Command {
	var files bool
	cmd := &cobra.Command{
		Use:   "show BACKUP",
		Short: "Show one backup",
		Long: `Shows all there is to know of one backup: where it begins and ends, how it was taken, its
tablespaces, and the damage it found. With --files also every file.`,
		Example: "  pileus show 20260307T234500Z-1f3a9c\n  pileus show 20260307T234500Z-1f3a9c --files",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			d, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			b, err := d.FindBackup(cmd.Context(), given[0], files)
			if err != nil {
				return err
			}
			return a.print(b, func(w io.Writer) error { return describeDetail(w, b) })
		},
	}
	cmd.Flags().BoolVar(&files, "files", false, "list every file")
	return cmd
}

func describeDetail(w io.Writer, b control.BackupDetail) error {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-16s "+format+"\n", append([]any{name}, args...)...)
	}
	line("backup", "%s", b.ID)
	line("cluster", "%s (system identifier %d)", b.Cluster, b.SystemIdentifier)
	line("server", "%d, data checksums %s", b.Version/10000, onOff(b.Checksums))
	line("taken", "%s to %s on %s, by %s", stamp(b.Started), stamp(b.Stopped), b.Host, b.Method)
	line("WAL", "%s to %s on timeline %d", b.StartLSN, b.StopLSN, b.Timeline)
	line("size", "%s in %d files; %s added to the repository", size(b.Size), b.Files, size(b.Stored))
	line("read", "%s", howRead(b.Backup))
	if b.Parent != "" {
		line("shares with", "%s", b.Parent)
	}
	for _, ts := range b.Tablespaces {
		line("tablespace", "%s (%d) at %s", ts.Name, ts.OID, ts.Location)
	}
	if b.DamagedPages > 0 {
		line("DAMAGE", "%d pages with a wrong checksum", b.DamagedPages)
		for _, x := range b.Damage {
			line("", "%s block %d, page LSN %s: checksum %04X, expected %04X", x.Path, x.Block, x.LSN, x.Found, x.Expected)
		}
	}
	for _, f := range b.FileList {
		fmt.Fprintf(w, "%s %04o %12d %s\n", f.Type, f.Mode, f.Size, f.Path)
	}
	return nil
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}
