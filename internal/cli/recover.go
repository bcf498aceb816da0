package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"pileus/internal/config"
	"pileus/internal/control"
	"pileus/internal/recovery"
)

// recoveryFlags are those of `recover`.
type recoveryFlags struct {
	as, to, snapshot, xid, lsn string
	latest, exclusive          bool
	yes, dryRun                bool
	stopBefore, pauseAfter     string
	approve                    []string
	drain                      time.Duration
	only                       recovery.Step // of `step`
}

func (a *app) recoverCommand() *cobra.Command {
	var f recoveryFlags
	cmd := &cobra.Command{
		Use:   "recover CLUSTER --as NEW",
		Short: "Bring a database back: the whole recovery, step by step",
		Long: `Performs a disaster recovery from the first to the last step: preflight, halt, drain, fence,
wal, restore, compare, validate, cutover, resume, report. The source cluster stays as it is; NEW
is restored beside it through the RDS API. The section "recovery:" of pileus.yaml says what the
application is, and how its work is stopped and started.

A plan is shown first, and nothing happens until it is confirmed. Each step writes what it found
and did to a journal outside the database. A run that stops, or is killed, goes on where it was
with "pileus run resume", and is taken back, up to cut-over, with "pileus run abort".`,
		Example: `  pileus recover prod --as prod-2 --to 2026-03-07T23:44:59Z --dry-run
  pileus recover prod --as prod-2 --to 2026-03-07T23:44:59Z
  pileus recover prod --as prod-2 --to-xid 48151623 --exclusive --pause-after validate
  pileus recover prod --as prod-2 --snapshot before-upgrade --yes --json`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			q, err := f.request(given[0], time.Now())
			if err != nil {
				return usageError{err}
			}
			return a.recover(cmd.Context(), q, f)
		},
	}
	f.target(cmd)
	fl := cmd.Flags()
	fl.BoolVarP(&f.yes, "yes", "y", false, "do not ask; for scripts")
	fl.BoolVar(&f.dryRun, "dry-run", false, "show the plan and stop")
	fl.StringVar(&f.stopBefore, "stop-before", "", "stop before this `STEP`")
	fl.StringVar(&f.pauseAfter, "pause-after", "", "stop after this `STEP`")
	return cmd
}

// target adds the flags that say what to recover, to where.
func (f *recoveryFlags) target(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.as, "as", "", "the `NEW` cluster's identifier")
	fl.StringVar(&f.to, "to", "", "recover to this `TIME`: RFC 3339, or a duration such as 2h ago")
	fl.BoolVar(&f.latest, "latest", false, "recover everything that was committed")
	fl.StringVar(&f.snapshot, "snapshot", "", "recover a DB cluster snapshot, by its `ID`")
	fl.StringVar(&f.xid, "to-xid", "", "recover through the commit of the transaction `XID`; not on AWS")
	fl.StringVar(&f.lsn, "to-lsn", "", "recover up to this `LSN`; not on AWS")
	fl.BoolVar(&f.exclusive, "exclusive", false, "stop just before the transaction or LSN")
	fl.DurationVar(&f.drain, "drain-timeout", 0, "how long work may take to end until an operator decides, instead of recovery.drain_timeout")
	fl.StringSliceVar(&f.approve, "approve", nil, "answer the question of these `STEPS` with yes: drain, compare, validate")
}

// request reads the flags.
func (f recoveryFlags) request(cluster string, now time.Time) (recovery.Request, error) {
	q := recovery.Request{Cluster: strings.ToLower(cluster), New: strings.ToLower(f.as),
		Target: recovery.Target{Latest: f.latest, Snapshot: f.snapshot, XID: f.xid, LSN: f.lsn, Exclusive: f.exclusive}}
	if err := config.ValidateIdentifier(q.Cluster); err != nil {
		return q, err
	}
	if f.only == "" && q.New == "" {
		return q, errors.New("give the new cluster's identifier with --as")
	}
	if q.New != "" {
		if err := config.ValidateIdentifier(q.New); err != nil {
			return q, fmt.Errorf("--as: %w", err)
		}
	}
	if f.to != "" {
		var err error
		if q.Target.Time, err = parseTime(f.to, now); err != nil {
			return q, fmt.Errorf("--to: %w", err)
		}
	}
	var err error
	if q.Choices, err = choices(f.stopBefore, f.pauseAfter, f.approve); err != nil {
		return q, err
	}
	if q.Choices.DrainTimeout = f.drain; f.drain < 0 {
		return q, errors.New("--drain-timeout must be more than 0")
	}
	if q.Choices.Only = f.only; f.only != "" && f.only != recovery.StepRestore {
		return q, nil
	}
	return q, q.Target.Check()
}

func choices(stopBefore, pauseAfter string, approve []string) (c recovery.Choices, err error) {
	if stopBefore != "" {
		if c.StopBefore, err = recovery.ParseStep(stopBefore); err != nil {
			return c, err
		}
	}
	if pauseAfter != "" {
		if c.PauseAfter, err = recovery.ParseStep(pauseAfter); err != nil {
			return c, err
		}
	}
	for _, name := range approve {
		s, err := recovery.ParseStep(name)
		if err != nil {
			return c, err
		}
		c.Approved = append(c.Approved, s)
	}
	return c, nil
}

// runbook opens what a run needs. The repository is only for the journal's copy: where it cannot be opened, a recovery
// through the API goes on without.
func (a *app) runbook(ctx context.Context) (*recovery.Runbook, *recovery.Journal, error) {
	cfg, err := a.load()
	if err != nil {
		return nil, nil, err
	}
	j, err := recovery.OpenJournal(ctx, cfg.StateDir)
	if err != nil {
		return nil, nil, err
	}
	o := recovery.Options{Config: cfg, Journal: j, Log: newLogger(a.stderr, a.json, a.quiet), Operator: operator(), OnEntry: a.showEntry, OnProgress: a.showProgress}
	if d, err := control.Open(ctx, cfg, a.version, control.Patient); err != nil {
		o.Log.Warn("the repository cannot be opened; the journal is kept on this host alone", "error", err)
	} else {
		o.Mirror = recovery.RepositoryMirror{Repo: d.Repo}
	}
	return recovery.New(o), j, nil
}

// runbookFor opens what work on one cluster needs, and reads the cluster's name.
func (a *app) runbookFor(ctx context.Context, given string) (*recovery.Runbook, *recovery.Journal, string, error) {
	name := strings.ToLower(given)
	if err := config.ValidateIdentifier(name); err != nil {
		return nil, nil, "", usageError{err}
	}
	b, j, err := a.runbook(ctx)
	return b, j, name, err
}

// operator is the account that runs this.
func operator() string {
	u, err := user.Current()
	if err != nil {
		return "unknown"
	}
	return u.Username
}

func (a *app) showEntry(e recovery.Entry) {
	if a.quiet {
		return
	}
	if a.json {
		a.event(e)
		return
	}
	text := e.Text
	switch e.Kind {
	case recovery.KindBegin:
		text = "…"
	case recovery.KindDone:
		text = "done" + prefixed(": ", text)
	case recovery.KindFailed:
		return // the error says it
	case recovery.KindUndone:
		text = "taken back"
	}
	fmt.Fprintf(a.stderr, "%s  %-9s %s\n", e.At.Format("15:04:05"), e.Step, strings.ReplaceAll(text, "\n", "\n                     "))
}

// event prints one line of JSON for scripts that follow the work.
func (a *app) event(v any) {
	if err := json.NewEncoder(a.stderr).Encode(v); err != nil {
		a.quiet = true // nobody reads it any more
	}
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

func (a *app) showProgress(s recovery.Step, text string) {
	if a.quiet {
		return
	}
	if a.json {
		a.event(map[string]any{"event": "progress", "time": time.Now().UTC(), "step": s, "text": text})
		return
	}
	fmt.Fprintf(a.stderr, "%s  %-9s %s\n", time.Now().UTC().Format("15:04:05"), s, text)
}

func (a *app) recover(ctx context.Context, q recovery.Request, f recoveryFlags) error {
	b, j, err := a.runbook(ctx)
	if err != nil {
		return err
	}
	defer j.Close()
	plan, err := b.Plan(ctx, q)
	if err != nil {
		return err
	}
	problems := plan.Problems()
	if f.dryRun || !a.json || len(problems) > 0 {
		if err := a.print(plan, func(w io.Writer) error { return printPlan(w, q, plan) }); err != nil {
			return err
		}
	}
	if len(problems) > 0 {
		return codeError(ExitRefused)
	}
	if f.dryRun {
		return nil
	}
	if !f.yes {
		if err := a.confirm(fmt.Sprintf("To go on, type the name of the cluster to recover, %s: ", q.Cluster), q.Cluster); err != nil {
			return err
		}
	}
	run, err := b.Recover(ctx, q)
	return a.ended(ctx, j, run, err)
}

// confirm asks a person at a terminal; elsewhere there is nobody to ask.
func (a *app) confirm(question, answer string) error {
	f, ok := a.stdin.(interface{ Fd() uintptr })
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return usageError{errors.New("nothing was changed: there is no terminal to ask on; look at the plan with --dry-run, then give --yes")}
	}
	fmt.Fprint(a.stderr, question)
	line, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(line) != answer {
		return usageError{errors.New("nothing was changed")}
	}
	return nil
}

// ended shows how a run stands after this command.
func (a *app) ended(ctx context.Context, j *recovery.Journal, run recovery.Run, err error) error {
	if err != nil {
		return err
	}
	entries, err := j.Entries(ctx, run.ID)
	if err != nil {
		return err
	}
	r := recovery.Tell(run, entries)
	return a.print(r, func(w io.Writer) error {
		if run.Status == recovery.Aborted {
			_, err := fmt.Fprintf(w, "Run %s was taken back: %s is as it was.\n", run.ID, run.Cluster)
			return err
		}
		if run.Options.Only != "" {
			_, err := fmt.Fprintf(w, "%s of %s is done. What it found and did: pileus run show %s\n", run.Options.Only, run.Cluster, run.ID)
			return err
		}
		fmt.Fprintf(w, "%s was recovered to %s as %s", run.Cluster, run.Target, run.New)
		if r.Restored.At.Host != "" {
			fmt.Fprintf(w, " at %s", r.Restored.At)
		}
		fmt.Fprintf(w, ", in %s.\n", r.RTO.Round(time.Second))
		for _, text := range r.ByHand {
			fmt.Fprintf(w, "- %s\n", text)
		}
		_, err := fmt.Fprintf(w, "The report: pileus run report %s\n", run.ID)
		return err
	})
}

func printPlan(w io.Writer, q recovery.Request, p recovery.Findings) error {
	fmt.Fprintf(w, "Recover %s to %s as %s\n\n", q.Cluster, q.Target, q.New)
	t := newTable(w, "CHECKED", "", "FOUND")
	for _, f := range p.All {
		ok := "ok"
		if !f.OK {
			ok = "NO"
		}
		t.row(f.What, ok, f.Says)
	}
	if err := t.end(""); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for i, s := range p.Steps {
		fmt.Fprintf(w, "%2d  %s\n", i+1, s)
	}
	if n := len(p.Problems()); n > 0 {
		fmt.Fprintf(w, "\nThis run could not succeed; put right what says NO. Nothing was changed.\n")
	}
	_, err := fmt.Fprintln(w)
	return err
}
