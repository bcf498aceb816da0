package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"pileus/internal/config"
	"pileus/internal/fence"
)

// source is what preflight found.
func (w *work) source() (source, error) {
	var s source
	if !w.recall(KindFound, "source", &s) {
		return s, errors.New("the journal does not say what the source was: begin a new run")
	}
	return s, nil
}

// each runs configured commands in order. Those that the journal calls done are not run again.
func (w *work) each(ctx context.Context, prefix string, list []config.Command) ([]string, error) {
	var ran []string
	for _, c := range list {
		key := prefix + ":" + c.Name
		var said string
		if w.recall(KindDid, key, &said) {
			continue
		}
		said, err := shell(ctx, c.Line, w.commandEnv())
		if err != nil {
			return ran, fmt.Errorf("the command %s failed: %w", c.Name, err)
		}
		if err := w.did(ctx, key, c.Name, said); err != nil {
			return ran, err
		}
		ran = append(ran, c.Name)
	}
	return ran, nil
}

type halt struct{}

// done looks whether everything is still halted, as long as the archive API can be asked: behind the fence it cannot.
func (halt) done(ctx context.Context, w *work) (bool, error) {
	all, recorded := w.recorded()
	if w.env.cumulus == nil || !recorded || w.state(StepFence) != "" {
		return true, nil
	}
	loud, err := w.env.cumulus.Quiet(ctx, all)
	return len(loud) == 0, err
}

func (halt) do(ctx context.Context, w *work) (any, error) {
	if len(w.env.c.Halt) == 0 && w.env.cumulus == nil {
		return nil, w.note(ctx, "nothing is configured that would stop the application's work")
	}
	if err := w.haltRules(ctx); err != nil {
		return nil, err
	}
	return w.each(ctx, "halt", w.env.c.Halt)
}

// undo starts everything again, also what this run had not stopped yet when it was killed: a command may have
// worked although the journal does not say so.
func (halt) undo(ctx context.Context, w *work) error {
	if _, err := w.each(ctx, "unhalt", w.env.c.Resume); err != nil {
		return err
	}
	_, err := w.resumeRules(ctx)
	return err
}

type drain struct{}

// done looks whether work began again, as long as it can be asked.
func (drain) done(ctx context.Context, w *work) (bool, error) {
	if w.approved() || w.state(StepFence) != "" {
		return true, nil
	}
	left, err := w.busy(ctx)
	return len(left) == 0, err
}

// Drained is how the waiting ended.
type Drained struct {
	Idle     bool     `json:"idle"`
	Took     string   `json:"took"`
	Left     []string `json:"left,omitempty"` // what was still under way when an operator went on
	Approved bool     `json:"approved,omitempty"`
}

func (d Drained) String() string {
	if d.Idle {
		return "no work is under way"
	}
	return "an operator went on although work was left: " + strings.Join(d.Left, "; ")
}

func (drain) do(ctx context.Context, w *work) (any, error) {
	began := time.Now()
	if len(w.env.c.Drained) == 0 && w.env.cumulus == nil {
		return Drained{Idle: true, Took: "0s"}, w.note(ctx, "nothing is configured that would tell whether work is under way")
	}
	var left []string
	err := w.wait(ctx, func() (bool, string, error) {
		busy, err := w.busy(ctx)
		if err != nil {
			return false, "", err
		}
		left = append(left[:0], busy...)
		for _, c := range w.env.c.Drained {
			if said, err := shell(ctx, c.Line, w.commandEnv()); err != nil {
				if ctx.Err() != nil {
					return false, "", ctx.Err()
				}
				left = append(left, c.Name+": "+firstOf(said, err.Error()))
			}
		}
		if len(left) == 0 {
			return true, "", nil
		}
		if w.approved() {
			return true, "", nil
		}
		if limit := cmp.Or(w.run.Options.DrainTimeout, w.env.c.DrainTimeout); time.Since(began) > limit {
			return false, "", w.approve(fmt.Sprintf("work is still under way after %s; going on loses track of it", limit), left...)
		}
		return false, strings.Join(left, "; "), nil
	})
	var needs *NeedsApproval
	if err != nil && !errors.As(err, &needs) {
		return nil, err
	}
	if err != nil {
		if jerr := w.did(ctx, "drain-left", "work was left", left); jerr != nil {
			return nil, jerr
		}
		return nil, err
	}
	d := Drained{Idle: len(left) == 0, Took: time.Since(began).Round(time.Millisecond).String(), Left: left, Approved: len(left) > 0}
	return d, nil
}

func (drain) undo(context.Context, *work) error { return nil }

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

type fencing struct{}

// Fenced is the proof.
type Fenced struct {
	Skipped  string          `json:"skipped,omitempty"`
	Ended    []fence.Session `json:"ended,omitempty"`
	Refused  string          `json:"refused,omitempty"` // what the server said to the application's role
	Admin    string          `json:"administrator,omitempty"`
	Unproven bool            `json:"unproven,omitempty"` // by rights alone
}

func (f Fenced) String() string {
	switch {
	case f.Skipped != "":
		return "skipped: " + f.Skipped
	case f.Unproven:
		return fmt.Sprintf("%d sessions ended; nobody but %s has the right to connect", len(f.Ended), f.Admin)
	}
	return fmt.Sprintf("%d sessions ended; the application is refused (%s), %s is not", len(f.Ended), f.Refused, f.Admin)
}

func (fencing) done(ctx context.Context, w *work) (bool, error) {
	s, err := w.source()
	if err != nil || !s.Reachable {
		return true, err
	}
	conn, err := w.env.admin(ctx, s.At)
	if err != nil { // it may be down for good, which is why there is a recovery; or come back without its fence
		return true, w.approve("the source cannot be reached any more, and with it the fence cannot be looked at; make sure that it does not come back", err.Error())
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var st fence.State
	if !w.recall(KindFound, "access", &st) {
		return false, nil
	}
	return fence.Closed(ctx, conn, w.env.target(), st)
}

func (fencing) do(ctx context.Context, w *work) (any, error) {
	s, err := w.source()
	if err != nil {
		return nil, err
	}
	if !s.Reachable {
		return Fenced{Skipped: s.Why}, nil
	}
	conn, err := w.env.admin(ctx, s.At)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var st fence.State
	err = w.found(ctx, "access", "who may connect", &st, func() error {
		// A fence that stands already was put up before this run; what it kept is how things were.
		kept, err := w.fences.Load(w.run.Cluster)
		if err == nil {
			st = kept
			return nil
		}
		if errors.Is(err, fence.ErrNone) {
			st, err = fence.Observe(ctx, conn, w.env.target())
		}
		return err
	})
	if err == nil {
		err = w.fences.Save(w.run.Cluster, st)
	}
	if err != nil {
		return nil, err
	}
	return raise(ctx, w.env, s.At, conn, st)
}

// raise puts the fence up and proves it. conn is the administrator's on another database.
func raise(ctx context.Context, e *environment, at Place, conn *pgx.Conn, st fence.State) (Fenced, error) {
	t := e.target()
	if err := fence.Close(ctx, conn, t, st); err != nil {
		return Fenced{}, err
	}
	ended, err := fence.EndSessions(ctx, conn, t, st.Admin, e.c.PreparedTransactions, func(ctx context.Context) (*pgx.Conn, error) { return e.inside(ctx, at) })
	if err != nil {
		return Fenced{}, err
	}
	in, err := e.inside(ctx, at)
	if err != nil {
		return Fenced{}, fmt.Errorf("the administrator cannot connect behind the fence: %w", err)
	}
	if err := in.Close(ctx); err != nil {
		return Fenced{}, err
	}
	out := Fenced{Ended: ended, Admin: st.Admin}
	if !e.hasApplication() {
		out.Unproven = true
		return out, nil
	}
	as, err := e.connection(ctx, at, e.c.Database, e.c.Application)
	if err != nil {
		return Fenced{}, err
	}
	out.Refused, err = fence.Probe(ctx, as)
	return out, err
}

func (fencing) undo(ctx context.Context, w *work) error {
	var st fence.State
	if !w.recall(KindFound, "access", &st) {
		return nil // nothing was changed
	}
	s, err := w.source()
	if err != nil {
		return err
	}
	if err := lift(ctx, w.env, s.At, st); err != nil {
		return err
	}
	return w.fences.Remove(w.run.Cluster)
}

func lift(ctx context.Context, e *environment, at Place, st fence.State) error {
	conn, err := e.admin(ctx, at)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return fence.Lift(ctx, conn, st)
}

type lastWAL struct{}

// LastWAL is how far the source can be restored.
type LastWAL struct {
	Skipped string    `json:"skipped,omitempty"`
	Mark    time.Time `json:"mark,omitzero"` // of a commit behind all others
	Latest  time.Time `json:"latest_restorable_time,omitzero"`
}

func (l LastWAL) String() string {
	if l.Skipped != "" {
		return "skipped: " + l.Skipped
	}
	return "everything committed up to " + l.Latest.UTC().Format(time.RFC3339Nano) + " can be restored"
}

func (lastWAL) done(context.Context, *work) (bool, error) { return true, nil }

func (lastWAL) do(ctx context.Context, w *work) (any, error) {
	s, err := w.source()
	switch {
	case err != nil:
		return nil, err
	case w.run.Target.Snapshot != "":
		return LastWAL{Skipped: "a snapshot needs no WAL"}, nil
	case !s.Reachable:
		return LastWAL{Skipped: "the source cannot be reached; what had not been archived is lost"}, nil
	}
	var mark time.Time
	err = w.found(ctx, "mark", "a commit behind all others", &mark, func() error {
		mark, err = markCommit(ctx, w.env, s.At)
		return err
	})
	if err != nil {
		return nil, err
	}
	var latest time.Time
	began := time.Now()
	err = w.wait(ctx, func() (bool, string, error) {
		c, err := w.env.cluster(ctx, w.run.Cluster)
		if err != nil || c == nil {
			return false, "", errors.Join(err, gone(err == nil, w.run.Cluster))
		}
		if w.approved() {
			return true, "", nil
		}
		if time.Since(began) > walTime {
			return false, "", w.approve(fmt.Sprintf("what was committed last cannot be restored after %s: %s is restorable to %s; going on loses what came after", walTime, w.run.Cluster, latest.UTC().Format(time.RFC3339Nano)))
		}
		if c.LatestRestorableTime != nil {
			latest = *c.LatestRestorableTime
		}
		return !latest.Before(mark), fmt.Sprintf("restorable to %s, wanted %s", latest.UTC().Format(time.RFC3339Nano), mark.UTC().Format(time.RFC3339Nano)), nil
	})
	return LastWAL{Mark: mark, Latest: latest}, err
}

// walTime is how long the last commit may take to be restorable; Aurora trails by up to five minutes.
const walTime = 20 * time.Minute

func (lastWAL) undo(context.Context, *work) error { return nil }

func gone(is bool, id string) error {
	if is {
		return fmt.Errorf("cluster %s is gone", id)
	}
	return nil
}

// markCommit makes a transaction that changes nothing and is in the WAL all the same, and returns a time before its commit.
func markCommit(ctx context.Context, e *environment, at Place) (time.Time, error) {
	conn, err := e.admin(ctx, at)
	if err != nil {
		return time.Time{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	tx, err := conn.Begin(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("mark the end of the WAL: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) // nothing to roll back once it is committed
	var mark time.Time
	var xid string
	if err := tx.QueryRow(ctx, "SELECT clock_timestamp(), pg_current_xact_id()::text").Scan(&mark, &xid); err != nil {
		return time.Time{}, fmt.Errorf("mark the end of the WAL: %w", err)
	}
	if err := tx.Commit(ctx); err != nil {
		return time.Time{}, fmt.Errorf("mark the end of the WAL: %w", err)
	}
	return mark, nil
}
