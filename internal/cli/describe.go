package cli

import (
	"fmt"
	"io"

	"pileus/internal/repo"
	"pileus/internal/restore"
)

// describePlan says what a restore will do, before it does it.
func describePlan(w io.Writer, p restore.Plan) error {
	b := p.Resolution.Backup
	fmt.Fprintf(w, "Plan: restore %s as %s, to %s\n", p.Source, p.NewCluster, p.Target)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-18s "+format+"\n", append([]any{name}, args...)...)
	}
	line("from backup", "%s, complete at %s", b.ID, stamp(b.Stopped))
	line("WAL needed", "%s to %s, %s, on timeline %d", p.WALFrom, p.WALTo, size(p.WALBytes), p.Resolution.Timeline)
	if c := p.Resolution.LastCommit; c != nil {
		line("LAST COMMIT IN", "transaction %d at %s (LSN %s)", c.XID, stamp(c.Time), c.LSN)
	} else {
		line("LAST COMMIT IN", "as in the backup: none was made since it began")
	}
	if c := p.Resolution.FirstExcluded; c != nil {
		line("FIRST COMMIT OUT", "transaction %d at %s (LSN %s)", c.XID, stamp(c.Time), c.LSN)
	} else {
		line("FIRST COMMIT OUT", "none: nothing later is in the repository")
	}
	line("data directory", "%s, %s in %d files, owned by %s", p.DataDir, size(p.Bytes), p.Files, p.Owner)
	for _, t := range p.Tablespaces {
		line("tablespace", "%s (%d): %s becomes %s, %s", t.Name, t.OID, t.Old, t.New, size(t.Bytes))
	}
	for _, d := range p.Disks {
		line("disk", "%s needed of %s free at %s", size(d.Need), size(d.Free), d.Path)
	}
	for _, s := range p.Settings {
		what := "becomes " + s.New
		if s.Remove {
			what = "is taken out"
		} else if s.New == "" {
			what = "becomes empty"
		}
		line("setting", "%s (%s) %s: %s", s.Name, s.Old, what, s.Reason)
	}
	if p.Resumes {
		line("note", "%s holds this same restore, unfinished; it is begun again", p.DataDir)
	}
	var err error
	for _, n := range p.Notes {
		_, err = fmt.Fprintf(w, "  note: %s\n", n)
	}
	return err
}

// describeRestored says what a restore has done, and what to do now.
func describeRestored(w io.Writer, p restore.Plan, r restore.Result) error {
	if r.Started {
		fmt.Fprintf(w, "%s is running: recovered to LSN %s, promoted to timeline %d, checked.\n", p.NewCluster, r.EndLSN, r.Timeline)
		fmt.Fprintf(w, "  connect: psql -h %s -p %d\n", r.Socket, r.Port)
		if r.LogFile != "" {
			fmt.Fprintf(w, "  log:     %s\n", r.LogFile)
		}
	} else {
		fmt.Fprintf(w, "%s is prepared in %s. It recovers to LSN %s when it is started.\n", p.NewCluster, p.DataDir, r.EndLSN)
	}
	for _, s := range r.Stages {
		fmt.Fprintf(w, "  %-22s %s\n", s.Name, span(s.Took))
	}
	_, err := fmt.Fprintf(w, "  %-22s %s\n", "in all", span(r.Total))
	if len(r.Next) > 0 {
		fmt.Fprintln(w, "\nNext:")
		for _, n := range r.Next {
			_, err = fmt.Fprintf(w, "  %s\n", n)
		}
	}
	return err
}

func describeVerify(w io.Writer, r repo.VerifyReport) error {
	_, err := fmt.Fprintf(w, "Checked %d backups, %d packs, %d WAL segments; read %s.\n", r.Backups, r.Packs, r.Segments, size(r.ReadBytes))
	if len(r.Problems) == 0 {
		_, err = fmt.Fprintln(w, "Everything is whole.")
		return err
	}
	fmt.Fprintf(w, "\nDAMAGE: %d problems\n", len(r.Problems))
	for _, p := range r.Problems {
		fmt.Fprintf(w, "  %s: %s\n", p.Object, p.What)
		if len(p.Backups) > 0 {
			fmt.Fprintf(w, "      hits backups of %s: %v\n", p.Cluster, p.Backups)
		}
		if p.Do != "" {
			_, err = fmt.Fprintf(w, "      → %s\n", p.Do)
		}
	}
	return err
}

func describePrune(w io.Writer, p repo.PrunePlan, dryRun bool) error {
	would := "Removed"
	if dryRun {
		would = "Would remove"
	}
	for _, b := range p.Backups {
		fmt.Fprintf(w, "%s backup %s of %s, from %s\n", would, b.ID, b.Cluster, stamp(b.Stopped))
	}
	fmt.Fprintf(w, "%s %d backups, %d WAL segments, %d packs (%s).\n", would, len(p.Backups), p.Segments, p.PacksRemoved, size(p.BytesRemoved))
	var err error
	if p.PacksMarked > 0 {
		_, err = fmt.Fprintf(w, "%d packs (%s) are named by nothing; a later run removes them.\n", p.PacksMarked, size(p.BytesMarked))
	}
	for _, n := range p.Notes {
		_, err = fmt.Fprintf(w, "note: %s\n", n)
	}
	return err
}
