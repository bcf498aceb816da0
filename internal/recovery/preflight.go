package recovery

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"pileus/internal/config"
	"pileus/internal/cumulus"
	"pileus/internal/fence"
)

// Finding is one thing that later steps need.
type Finding struct {
	What string `json:"what"`
	OK   bool   `json:"ok"`
	Says string `json:"says"`
}

// Findings are what preflight saw.
type Findings struct {
	Source source    `json:"source"`
	All    []Finding `json:"findings"`
	Steps  []string  `json:"steps"` // what the run will do, in order
}

// Problems lists what is not as it must be.
func (f Findings) Problems() []string {
	var out []string
	for _, x := range f.All {
		if !x.OK {
			out = append(out, x.What+": "+x.Says)
		}
	}
	return out
}

func (f Findings) String() string { return fmt.Sprintf("%d things checked", len(f.All)) }

func (f *Findings) good(what, format string, args ...any) {
	f.All = append(f.All, Finding{what, true, fmt.Sprintf(format, args...)})
}

func (f *Findings) bad(what, format string, args ...any) {
	f.All = append(f.All, Finding{what, false, fmt.Sprintf(format, args...)})
}

// look checks everything that later steps need, and changes nothing.
func look(ctx context.Context, e *environment, r Run) (Findings, error) {
	var f Findings
	s, err := e.source(ctx, r.Cluster)
	if err != nil {
		return f, err
	}
	f.Source = s
	f.good("RDS API", "answers")
	if s.Status == statusDeleted {
		f.good("source", "%s is gone: nothing to halt on it, and nothing to fence", r.Cluster)
	} else if !s.Reachable {
		f.good("source", "%s is %s and cannot be reached (%s): it is not fenced", r.Cluster, s.Status, s.Why)
	} else {
		f.good("source", "%s at %s is %s", r.Cluster, s.At, s.Status)
	}
	problem, err := s.check(ctx, e, r.Target)
	if err != nil {
		return f, err
	}
	if problem != "" {
		f.bad("target", "%s", problem)
	} else {
		f.good("target", "%s", r.Target)
	}
	if err := unused(ctx, e, r, &f); err != nil {
		return f, err
	}
	if s.Reachable {
		onSource(ctx, e, s, &f)
	}
	commands(ctx, e.c, &f)
	rules(ctx, e, &f)
	f.Steps = outline(e.c, r, s)
	return f, nil
}

// unused makes sure that the new cluster's name is free.
func unused(ctx context.Context, e *environment, r Run, f *Findings) error {
	if strings.EqualFold(r.New, r.Cluster) {
		f.bad("new cluster", "must have another name than the source, which stays as it is")
		return nil
	}
	c, err := e.cluster(ctx, r.New)
	if err != nil {
		return err
	}
	if c != nil {
		f.bad("new cluster", "%s exists already: choose another name with --as", r.New)
		return nil
	}
	f.good("new cluster", "%s is free", r.New)
	return nil
}

// onSource checks who may do what on the source.
func onSource(ctx context.Context, e *environment, s source, f *Findings) {
	conn, err := e.admin(ctx, s.At)
	if err != nil {
		f.bad("administrator", "%v", err)
		return
	}
	defer conn.Close(context.WithoutCancel(ctx))
	t := e.target()
	st, err := fence.Observe(ctx, conn, t)
	if err != nil {
		f.bad("fence", "%v", err)
		return
	}
	lacks, err := fence.Permitted(ctx, conn, st)
	switch {
	case err != nil:
		f.bad("fence", "%v", err)
	case len(lacks) > 0:
		f.bad("fence", "%s may not put it up; have a superuser run: %s", st.Admin, strings.Join(lacks, "; "))
	default:
		f.good("fence", "%s can take access away and keeps his own", st.Admin)
	}
	if prepared, err := fence.PreparedOn(ctx, conn, e.c.Database); err == nil && len(prepared) > 0 && e.c.PreparedTransactions == config.PreparedRefuse {
		f.bad("prepared transactions", "%v", &fence.PreparedError{Database: e.c.Database, Transactions: prepared})
	}
	if !e.hasApplication() {
		f.good("application", "recovery.application is not set: the fence will be proven by its rights alone, not by trying")
	} else if in, err := e.connect(ctx, s.At, e.c.Database, e.c.Application); err != nil {
		f.bad("application", "its role must be able to connect now, or that it cannot later proves nothing: %v", err)
	} else {
		f.good("application", "its role connects, as it should until the fence is up")
		_ = in.Close(ctx) // nothing was done on it
	}
	expectations(ctx, e, s, f)
}

// expectations tries on the source whether the queries can be asked.
func expectations(ctx context.Context, e *environment, s source, f *Findings) {
	if len(e.c.Expect) == 0 {
		f.good("expectations", "none are configured under recovery.expect: the recovered data is looked at by its tables alone")
		return
	}
	conn, err := e.asApplication(ctx, s.At)
	if err != nil {
		f.bad("expectations", "%v", err)
		return
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var wrong []string
	for _, x := range e.c.Expect {
		if _, err := conn.Exec(ctx, "EXPLAIN "+x.SQL); err != nil { // which also checks the rights
			wrong = append(wrong, fmt.Sprintf("%s: %v", x.Name, err))
		}
	}
	if len(wrong) > 0 {
		f.bad("expectations", "%s", strings.Join(wrong, "; "))
		return
	}
	f.good("expectations", "%d queries are sound", len(e.c.Expect))
}

// commands tries whether the shell can read what is configured.
func commands(ctx context.Context, c config.Recovery, f *Findings) {
	n := 0
	for _, list := range [][]config.Command{c.Halt, c.Drained, c.Resume, c.Cutover.Commands} {
		for _, cmd := range list {
			n++
			out, err := exec.CommandContext(ctx, "/bin/sh", "-n", "-c", cmd.Line).CombinedOutput()
			if err != nil {
				f.bad("command "+cmd.Name, "the shell cannot read it: %s", strings.TrimSpace(string(out)))
			}
		}
	}
	if len(c.Halt) > 0 && len(c.Resume) == 0 {
		f.bad("commands", "recovery.halt is set and recovery.resume is not: the work would stay stopped")
	}
	if n > 0 {
		f.good("commands", "%d are configured", n)
	}
}

// outline says what the run will do.
func outline(c config.Recovery, r Run, s source) []string {
	names := func(list []config.Command, rules string) string {
		var out []string
		if c.Cumulus.API != "" && rules != "" {
			out = append(out, rules)
		}
		for _, cmd := range list {
			out = append(out, cmd.Name)
		}
		return strings.Join(out, ", ")
	}
	or := func(text, otherwise string) string {
		if text == "" {
			return otherwise
		}
		return text
	}
	where := "take access to " + c.Database + " on " + s.Identifier + " away from everybody but " + c.Administrator.User + ", and prove it"
	wal := "wait until everything that was committed can be restored"
	if !s.Reachable {
		where, wal = "skipped: the source cannot be reached", "skipped: the source cannot be reached"
	}
	if r.Target.Snapshot != "" {
		wal = "skipped: a snapshot needs no WAL"
	}
	return []string{
		"preflight  check what later steps need; change nothing",
		"halt       " + or(names(c.Halt, "every enabled rule of Cumulus, by its type's safe way"), "nothing is configured under recovery.halt"),
		"drain      " + or(names(c.Drained, "wait until no execution, message, granule, PDR or async operation is under way"), "nothing is configured under recovery.drained"),
		"fence      " + where,
		"wal        " + wal,
		"restore    " + s.Identifier + " to " + r.Target.String() + " as the new cluster " + r.New,
		"compare    configuration of " + s.Identifier + " and " + r.New + "; stop where they differ",
		"validate   " + fmt.Sprintf("%d expectations", len(c.Expect)),
		"cutover    " + c.Cutover.Method + or(" "+names(c.Cutover.Commands, ""), ""),
		"resume     " + or(names(c.Resume, "the rules that were enabled, and compare their triggers in AWS"), "nothing is configured under recovery.resume"),
		"report     what was recovered, in how long, and what is left to do",
	}
}

func (e *environment) target() fence.Target {
	return fence.Target{Database: e.c.Database, Exempt: e.c.ExemptRoles, Application: e.c.Application.User}
}

type preflight struct{}

func (preflight) done(context.Context, *work) (bool, error) { return true, nil }

func (preflight) do(ctx context.Context, w *work) (any, error) {
	f, err := look(ctx, w.env, w.run)
	if err != nil {
		return nil, err
	}
	if problems := f.Problems(); len(problems) > 0 {
		return nil, errors.New("nothing was changed, for the run could not succeed:\n  " + strings.Join(problems, "\n  "))
	}
	var s source
	if err := w.found(ctx, "source", "the source as it was", &s, func() error { s = f.Source; return nil }); err != nil {
		return nil, err
	}
	if w.env.cumulus != nil && s.Reachable {
		var counts cumulus.Counts
		err := w.found(ctx, "counts", "how many rows there were", &counts, func() (err error) {
			counts, err = w.env.countRows(ctx, s.At)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (preflight) undo(context.Context, *work) error { return nil }
