package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"pileus/internal/fence"
)

// Runbook executes runs.
type Runbook struct {
	o      Options
	fences *fence.Store
}

// New makes a runbook.
func New(o Options) *Runbook {
	return &Runbook{o: o, fences: &fence.Store{Dir: filepath.Join(o.Config.StateDir, "fences")}}
}

// steps are how each step is done.
func (b *Runbook) steps() map[Step]step {
	return map[Step]step{
		StepPreflight: preflight{}, StepHalt: halt{}, StepDrain: drain{}, StepFence: fencing{}, StepWAL: lastWAL{}, StepRestore: restoring{},
		StepCompare: comparing{}, StepValidate: validating{}, StepCutover: cutover{}, StepResume: resuming{}, StepReport: reporting{},
	}
}

// BusyError: another process works on the cluster, or a run on it is not over.
type BusyError struct {
	Cluster string
	Run     string // empty: of another process that has not said
}

func (e *BusyError) Error() string {
	if e.Run == "" {
		return fmt.Sprintf("another process recovers or rehearses %s right now: wait for it", e.Cluster)
	}
	return fmt.Sprintf("run %s on %s is not over: go on with `pileus run resume %s`, or take it back with `pileus run abort %s`", e.Run, e.Cluster, e.Run, e.Run)
}

// hold keeps other processes off a cluster until release is called.
func (b *Runbook) hold(cluster string) (release func(), err error) {
	dir := filepath.Join(b.o.Config.StateDir, "runs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("prepare the state folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, cluster+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", cluster, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		f.Close()
		return nil, &BusyError{Cluster: cluster}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", cluster, err)
	}
	return func() { f.Close() }, nil // which unlocks
}

// Request asks for a run.
type Request struct {
	Cluster string
	New     string
	Target  Target
	Choices Choices
}

// Plan looks, without changing anything, at what a run would do.
func (b *Runbook) Plan(ctx context.Context, q Request) (Findings, error) {
	if err := q.Target.Check(); err != nil {
		return Findings{}, err
	}
	env, err := newEnvironment(ctx, b.o.Config)
	if err != nil {
		return Findings{}, err
	}
	return look(ctx, env, Run{Cluster: q.Cluster, New: q.New, Target: q.Target})
}

// Recover executes a new run. Errors: *BusyError, *StoppedError, *NeedsApproval, *PausedError.
func (b *Runbook) Recover(ctx context.Context, q Request) (Run, error) {
	if only := q.Choices.Only; only == "" || only == StepRestore {
		if err := q.Target.Check(); err != nil {
			return Run{}, err
		}
	}
	release, err := b.hold(q.Cluster)
	if err != nil {
		return Run{}, err
	}
	defer release()
	all, err := b.o.Journal.Runs(ctx)
	if err != nil {
		return Run{}, err
	}
	for _, r := range all {
		if r.Cluster == q.Cluster && !r.Over() {
			return r, &BusyError{Cluster: q.Cluster, Run: r.ID}
		}
	}
	env, err := newEnvironment(ctx, b.o.Config)
	if err != nil {
		return Run{}, err
	}
	now := time.Now().UTC()
	w := &work{Runbook: b, env: env, run: Run{ID: newRunID(now), Cluster: q.Cluster, New: q.New, Target: q.Target, Options: q.Choices, Created: now, By: b.o.Operator, Status: Running}}
	if err := b.o.Journal.Save(ctx, w.run); err != nil {
		return Run{}, err
	}
	if q.Choices.Only != "" {
		if err := w.prepare(ctx, all); err != nil {
			return w.run, w.stop(ctx, err)
		}
	}
	err = w.forward(ctx)
	return w.run, err
}

// prepare writes down what a step that is done by itself would have from the steps before it: the source, where the new
// cluster is, and the rules that an earlier run recorded.
func (w *work) prepare(ctx context.Context, earlier []Run) error {
	w.step = w.run.Options.Only
	var s source
	err := w.found(ctx, "source", "the source as it is", &s, func() (err error) {
		s, err = w.env.source(ctx, w.run.Cluster)
		return err
	})
	if err != nil {
		return err
	}
	if w.run.New != "" && w.step != StepRestore {
		c, err := w.env.cluster(ctx, w.run.New)
		if err != nil || c == nil {
			return errors.Join(err, gone(err == nil, w.run.New))
		}
		if err := w.did(ctx, "endpoint", "the new cluster listens at "+placeOf(c).String(), placeOf(c)); err != nil {
			return err
		}
	}
	if w.step != StepResume || w.env.cumulus == nil {
		return nil
	}
	for _, r := range earlier {
		if r.Cluster != w.run.Cluster {
			continue
		}
		entries, err := w.o.Journal.Entries(ctx, r.ID)
		if err != nil {
			return err
		}
		if all, ok := (&work{entries: entries}).recorded(); ok {
			return w.found(ctx, "rules", "every rule and its trigger, as run "+r.ID+" recorded them", &all, func() error { return nil })
		}
	}
	return fmt.Errorf("no run on %s has recorded which rules were enabled: there is nothing to resume from", w.run.Cluster)
}

// load loads a run that is not over, and keeps others off it.
func (b *Runbook) load(ctx context.Context, id string) (*work, func(), error) {
	r, err := b.o.Journal.Run(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	release, err := b.hold(r.Cluster)
	if err != nil {
		return nil, nil, err
	}
	w := &work{Runbook: b}
	if w.run, err = b.o.Journal.Run(ctx, r.ID); err == nil { // it may have moved until the lock was ours
		w.entries, err = b.o.Journal.Entries(ctx, r.ID)
	}
	if err == nil && w.run.Over() {
		err = fmt.Errorf("run %s is over: it is %s", r.ID, w.run.Status)
	}
	if err == nil {
		w.env, err = newEnvironment(ctx, b.o.Config)
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return w, release, nil
}

// Resume goes on with a run that stopped or was killed. approve names steps whose question is answered with yes.
func (b *Runbook) Resume(ctx context.Context, id string, c Choices) (Run, error) {
	w, release, err := b.load(ctx, id)
	if err != nil {
		return Run{}, err
	}
	defer release()
	if w.run.Status == Aborting {
		return w.run, fmt.Errorf("run %s is being aborted: go on with `pileus run abort %s`", w.run.ID, w.run.ID)
	}
	w.run.Options.StopBefore, w.run.Options.PauseAfter = c.StopBefore, c.PauseAfter
	w.run.Options.DrainTimeout = cmp.Or(c.DrainTimeout, w.run.Options.DrainTimeout)
	for _, s := range c.Approved {
		if err := w.append(ctx, Entry{Step: s, Kind: KindApprove, Text: "approved by " + b.o.Operator}); err != nil {
			return w.run, err
		}
	}
	err = w.forward(ctx)
	return w.run, err
}

// Abort takes back what a run did, up to cut-over. deleteNew also deletes the new cluster.
func (b *Runbook) Abort(ctx context.Context, id string, deleteNew bool) (Run, error) {
	w, release, err := b.load(ctx, id)
	if err != nil {
		return Run{}, err
	}
	defer release()
	if deleteNew {
		if err := w.did(ctx, "delete-new", "the new cluster is to be deleted", true); err != nil {
			return w.run, err
		}
	}
	err = w.backward(ctx)
	return w.run, err
}
