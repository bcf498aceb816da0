package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pileus/internal/control"
	"pileus/internal/damage"
)

// spanFlags are the flags that bound a scan in time.
type spanFlags struct{ since, from, to string }

func (s *spanFlags) add(cmd *cobra.Command, since string) {
	f := cmd.Flags()
	f.StringVar(&s.since, "since", since, "how far back to look: a `DURATION` such as 2h, or a time")
	f.StringVar(&s.from, "from", "", "first moment to look at, instead of --since: a `TIME`")
	f.StringVar(&s.to, "to", "", "last moment to look at: a `TIME` (default: up to now)")
}

// bounds resolves them; a zero time is no bound.
func (s *spanFlags) bounds(now time.Time, sinceGiven bool) (from, to time.Time, err error) {
	if s.from != "" && sinceGiven {
		return from, to, usageError{fmt.Errorf("--since and --from exclude each other")}
	}
	start := s.from
	if start == "" {
		start = s.since
		if _, err := parseAgo(start); err == nil {
			start += " ago"
		}
	}
	if from, err = parseTime(start, now); err != nil {
		return from, to, usageError{err}
	}
	if s.to != "" {
		if to, err = parseTime(s.to, now); err != nil {
			return from, to, usageError{err}
		}
		if to.Before(from) {
			return from, to, usageError{fmt.Errorf("--to lies before the first moment to look at, %s", stamp(from))}
		}
	}
	return from, to, nil
}

// found is a report with the command for each transaction.
type found struct {
	damage.Report
	Cluster  string            `json:"cluster"`
	Commands map[string]string `json:"recover_commands"` // by xid: to just before it
}

func (a *app) findCommand() *cobra.Command {
	var (
		span  spanFlags
		q     control.FindRequest
		kinds []string
	)
	cmd := &cobra.Command{
		Use:   "find CLUSTER",
		Short: "Find the transaction that did the damage",
		Long: `Reads the archived WAL of CLUSTER and lists the transactions that deleted or updated rows,
truncated or dropped tables, or dropped databases, the largest first: when each committed, what
it did to which table, the command that recovers to just before it, and how many later commits
that would undo.

The WAL is read from the newest backup before the first moment to look at, up to what reached
the repository a second ago. Nothing has to be set up beforehand. Unlogged tables leave no trace
in the WAL and are not listed. What aborted is not listed either. Where the WAL cannot be read
to its end, this says where it stops and why, and exits with 3.`,
		Example: `  pileus find prod
  pileus find prod --since 1d --table granules --kind delete
  pileus find prod --from 2026-03-07T22:00:00Z --to 2026-03-07T23:00:00Z --min-rows 1000 --json`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			var err error
			if q.Filter.From, q.Filter.To, err = span.bounds(time.Now(), cmd.Flags().Changed("since")); err != nil {
				return err
			}
			if q.Filter.Kinds, err = parseKinds(kinds); err != nil {
				return usageError{err}
			}
			q.Cluster = strings.ToLower(given[0])
			return a.find(cmd.Context(), q)
		},
	}
	span.add(cmd, "2h")
	f := cmd.Flags()
	f.StringVar(&q.Filter.Table, "table", "", "only tables of this `NAME`, with or without schema; * and ? match")
	f.StringSliceVar(&kinds, "kind", nil, "only these `KINDS`: delete, update, truncate, drop, insert")
	f.Int64Var(&q.Filter.MinRows, "min-rows", 0, "only transactions that lost or changed at least so many rows")
	f.IntVar(&q.Keep, "limit", 20, "list at most this many")
	return cmd
}

func parseKinds(given []string) ([]damage.Kind, error) {
	var out []damage.Kind
	for _, g := range given {
		k := damage.Kind(strings.ToLower(g))
		if !slices.Contains(damage.Kinds(), k) {
			return nil, fmt.Errorf("--kind: %q is none of %v", g, damage.Kinds())
		}
		out = append(out, k)
	}
	return out, nil
}

func (a *app) find(ctx context.Context, q control.FindRequest) error {
	if q.Keep < 1 || q.Keep > 100000 {
		return usageError{fmt.Errorf("--limit must be 1 to 100000")}
	}
	d, err := a.open(ctx)
	if err != nil {
		return err
	}
	rep, end := a.reporter()
	r, err := d.Find(ctx, q, rep)
	end()
	if err != nil {
		return err
	}
	f := found{Report: r, Cluster: q.Cluster, Commands: map[string]string{}}
	for _, t := range r.Transactions {
		f.Commands[fmt.Sprint(t.XID)] = before(q.Cluster, t)
	}
	if err := a.print(f, func(w io.Writer) error { return printFound(w, f, q) }); err != nil {
		return err
	}
	if r.Stopped != "" {
		return codeError(ExitDamage)
	}
	return nil
}

// before is the command that recovers to just before a transaction.
func before(cluster string, t damage.Transaction) string {
	return fmt.Sprintf("pileus restore %[1]s --as %[1]s-before-%[2]d --data-dir DIR --to-xid %[2]d --exclusive --start", cluster, t.XID)
}

func printFound(w io.Writer, f found, q control.FindRequest) error {
	until := "the end of the WAL"
	if !f.To.IsZero() {
		until = stamp(f.To)
	}
	fmt.Fprintf(w, "%s: %d commits from %s to %s, %d with damage as asked for.\n", q.Cluster, f.Report.Commits, stamp(f.From), until, f.Matched)
	for i, t := range f.Transactions {
		fmt.Fprintf(w, "\n%d. transaction %d, committed %s, LSN %s, %s of WAL\n", i+1, t.XID, stamp(t.Time), t.LSN, size(t.Bytes))
		for _, db := range t.Dropped {
			fmt.Fprintf(w, "     database %s DROPPED\n", db)
		}
		for _, table := range t.Tables {
			fmt.Fprintf(w, "     %s\n", describeTable(table))
		}
		if t.Partial {
			fmt.Fprintln(w, "     It may have begun before the WAL that was read: it did at least this.")
		}
		fmt.Fprintf(w, "   to just before it: %s\n", before(q.Cluster, t))
		fmt.Fprintf(w, "   which undoes it and %d later commits\n", t.Later)
	}
	if n := f.Matched - int64(len(f.Transactions)); n > 0 {
		fmt.Fprintf(w, "\n%d more, smaller ones: use --limit, or a narrower question.\n", n)
	}
	if f.Stopped != "" {
		fmt.Fprintf(w, "\nNOT ALL WAS READ: %s\nWhat was committed later is not in this list.\n", f.Stopped)
	}
	return nil
}

// describeTable says what happened to one table.
func describeTable(t damage.Table) string {
	name := t.Name
	if name == "" {
		name = "file " + t.File + " (its name is not known)"
	}
	name += " in " + t.Database
	if t.Parent != "" {
		name += ", partition of " + t.Parent
	}
	var did []string
	for _, n := range []struct {
		rows int64
		what string
	}{{t.Deleted, "deleted"}, {t.Updated, "updated"}, {t.Inserted, "inserted"}} {
		if n.rows != 0 {
			did = append(did, fmt.Sprintf("%d rows %s", n.rows, n.what))
		}
	}
	for _, s := range []struct {
		is   bool
		what string
	}{{t.Dropped, "DROPPED"}, {t.Truncated, "TRUNCATED"}, {t.Removed, "a file of it removed (dropped, truncated or rewritten)"}, {t.Rewritten, "rewritten, nothing lost"}} {
		if s.is {
			if (t.Dropped || t.Truncated) && t.Estimate >= 0 {
				s.what += fmt.Sprintf(" (about %d rows, as the statistics said)", t.Estimate)
			}
			did = append(did, s.what)
		}
	}
	return name + ": " + strings.Join(did, ", ")
}
