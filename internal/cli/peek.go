package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"pileus/internal/control"
	"pileus/internal/restore"
)

// peeked is one query's answer at one moment.
type peeked struct {
	At      string     `json:"at"`
	Columns []string   `json:"columns"`
	Rows    [][]string `json:"rows"`
}

func (a *app) peekCommand() *cobra.Command {
	var (
		q             control.PeekRequest
		at, database  string
		before, after uint64
	)
	cmd := &cobra.Command{
		Use:   "peek CLUSTER (--at TIME | --before-xid X | --after-xid X) [-- SQL]",
		Short: "Look at a cluster as it was at a moment, before you go back to it",
		Long: `Starts a throwaway copy of CLUSTER as it was at the moment, runs the SQL on it, and removes it.
Without SQL it opens psql. The copy is read-only, can be reached by you alone, and is gone
afterwards; neither the cluster nor its archive is touched. With both --before-xid and
--after-xid you see both sides of a transaction.`,
		Example: `  pileus peek prod --at 2026-03-07T23:44:59Z -- "SELECT count(*) FROM granules"
  pileus peek prod --before-xid 48151623 --after-xid 48151623 --database cumulus -- "SELECT count(*) FROM granules"
  pileus peek prod --at "2h ago"`,
		Args: func(cmd *cobra.Command, given []string) error {
			if n := cmd.ArgsLenAtDash(); len(given) == 0 || n > 1 || n < 0 && len(given) > 1 {
				return usageError{errors.New("give one cluster, and the SQL behind --")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, given []string) error {
			targets, err := peekTargets(at, before, after, time.Now())
			if err != nil {
				return usageError{err}
			}
			q.Cluster = strings.ToLower(given[0])
			sql := strings.Join(given[1:], " ")
			if sql == "" && len(targets) > 1 {
				return usageError{errors.New("psql looks at one moment: give SQL to see both sides")}
			}
			return a.peek(cmd.Context(), q, targets, database, sql)
		},
	}
	f := cmd.Flags()
	f.StringVar(&at, "at", "", "the moment: a `TIME`")
	f.Uint64Var(&before, "before-xid", 0, "just before this `TRANSACTION`")
	f.Uint64Var(&after, "after-xid", 0, "just after this `TRANSACTION`")
	f.StringVarP(&database, "database", "d", "postgres", "the `DATABASE` to look into")
	f.StringVar(&q.Dir, "dir", "", "where the throwaway copy goes: a `FOLDER` with room for it (default: the system's temporary one)")
	f.StringVar(&q.BinDir, "bin-dir", "", "the `FOLDER` of PostgreSQL's programs")
	return cmd
}

// peekTargets are the moments to look at, each with what to call it.
func peekTargets(at string, before, after uint64, now time.Time) (out []restore.Target, err error) {
	if (at != "") == (before != 0 || after != 0) {
		return nil, errors.New("give --at, or --before-xid and --after-xid")
	}
	if at != "" {
		t, err := parseTime(at, now)
		return []restore.Target{{Kind: restore.ToTime, Time: t}}, err
	}
	if before != 0 {
		out = append(out, restore.Target{Kind: restore.ToXID, XID: before, Exclusive: true})
	}
	if after != 0 {
		out = append(out, restore.Target{Kind: restore.ToXID, XID: after})
	}
	return out, nil
}

func (a *app) peek(ctx context.Context, q control.PeekRequest, targets []restore.Target, database, sql string) error {
	d, err := a.open(ctx)
	if err != nil {
		return err
	}
	var all []peeked
	for _, t := range targets {
		q.Target = t
		p, err := a.peekOne(ctx, d, q, database, sql)
		if err != nil {
			return err
		}
		if sql != "" {
			all = append(all, p)
		}
	}
	if sql == "" {
		return nil
	}
	return a.print(all, func(w io.Writer) error {
		for _, p := range all {
			if len(all) > 1 {
				fmt.Fprintf(w, "%s\n", p.At)
			}
			t := newTable(w, p.Columns...)
			for _, r := range p.Rows {
				t.row(r...)
			}
			if err := t.end("(no rows)"); err != nil {
				return err
			}
		}
		return nil
	})
}

// peekOne looks at one moment.
func (a *app) peekOne(ctx context.Context, d *control.Deployment, q control.PeekRequest, database, sql string) (out peeked, err error) {
	rep, end := a.reporter()
	p, err := d.Peek(ctx, q, rep)
	end()
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, p.Close(context.WithoutCancel(ctx))) }()
	if sql == "" {
		return out, a.psql(ctx, p.DSN(database))
	}
	out.At = q.Target.String()
	conn, err := p.Connect(ctx, database)
	if err != nil {
		return out, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// The session's search path is pinned; a person's query means the usual one.
	if _, err := conn.SQL().Exec(ctx, "RESET search_path"); err != nil {
		return out, err
	}
	rows, err := conn.SQL().Query(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return out, err
	}
	defer rows.Close()
	for _, f := range rows.FieldDescriptions() {
		out.Columns = append(out.Columns, f.Name)
	}
	for rows.Next() {
		var row []string
		for _, v := range rows.RawValues() {
			if v == nil {
				row = append(row, "")
			} else {
				row = append(row, string(v))
			}
		}
		out.Rows = append(out.Rows, row)
	}
	return out, rows.Err()
}

// psql opens the interactive program.
func (a *app) psql(ctx context.Context, dsn string) error {
	path, err := exec.LookPath("psql")
	if err != nil {
		return fmt.Errorf("psql is not installed; give the SQL behind --: %w", err)
	}
	cmd := exec.CommandContext(ctx, path, dsn)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = a.stdin, a.stdout, a.stderr, os.Environ()
	return cmd.Run()
}
