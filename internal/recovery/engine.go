package recovery

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// step is one step. Its methods may be called again after a kill at any moment: all are idempotent.
type step interface {
	// done tells whether there is nothing to do any more; a run that is resumed asks every step that its journal
	// calls done.
	done(ctx context.Context, w *work) (bool, error)
	// do does it; what it returns goes into the journal.
	do(ctx context.Context, w *work) (any, error)
	// undo takes it back.
	undo(ctx context.Context, w *work) error
}

// NeedsApproval stops a run until a person decided.
type NeedsApproval struct {
	Run     string   `json:"run"`
	Step    Step     `json:"step"`
	Why     string   `json:"why"`
	Details []string `json:"details,omitempty"`
}

func (e *NeedsApproval) Error() string {
	text := e.Why
	for _, d := range e.Details {
		text += "\n  " + d
	}
	return fmt.Sprintf("%s\nLook at it, then: pileus run resume %s --approve %s, or pileus run abort %s", text, e.Run, e.Step, e.Run)
}

// PausedError: the run stopped where it was told to.
type PausedError struct {
	Run   string
	After Step
	Next  Step
}

func (e *PausedError) Error() string {
	if e.After == "" {
		return fmt.Sprintf("stopped before %s, as asked; go on with: pileus run resume %s, or take it back: pileus run abort %s", e.Next, e.Run, e.Run)
	}
	return fmt.Sprintf("paused after %s, as asked; go on with: pileus run resume %s, or take it back: pileus run abort %s", e.After, e.Run, e.Run)
}

// StoppedError: a step failed; the run can be resumed or aborted.
type StoppedError struct {
	Run  string
	Step Step
	Err  error
}

func (e *StoppedError) Error() string {
	return fmt.Sprintf("%s: %v\nNothing is lost. When that is put right: pileus run resume %s; to take everything back: pileus run abort %s", e.Step, e.Err, e.Run, e.Run)
}

// Unwrap gives the cause.
func (e *StoppedError) Unwrap() error { return e.Err }

// work is a run being executed: its journal, and what the steps share.
type work struct {
	*Runbook
	run     Run
	entries []Entry
	step    Step // that is being done
	env     *environment
}

// append makes an entry durable, and shows it.
func (w *work) append(ctx context.Context, e Entry) error {
	e.Run = w.run.ID
	if e.Step == "" {
		e.Step = w.step
	}
	e, err := w.o.Journal.Append(ctx, e)
	if err != nil {
		return err
	}
	w.entries = append(w.entries, e)
	if w.o.Mirror != nil {
		if err := w.o.Mirror.Put(ctx, w.run, e); err != nil {
			// The journal here is whole; the copy tells less until the next run.
			w.o.Log.Warn("the journal's copy in the repository could not be written", "run", w.run.ID, "seq", e.Seq, "error", err)
		}
	}
	if w.o.OnEntry != nil {
		w.o.OnEntry(e)
	}
	return nil
}

func encode(v any) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	return json.Marshal(v)
}

// found writes down what was there before a change, once: if it was written down before, into gets that, for
// what is there now may be the change.
func (w *work) found(ctx context.Context, key, text string, into any, look func() error) error {
	if w.recall(KindFound, key, into) {
		return nil
	}
	if err := look(); err != nil {
		return err
	}
	data, err := encode(into)
	if err != nil {
		return err
	}
	return w.append(ctx, Entry{Kind: KindFound, Key: key, Text: text, Data: data})
}

// did writes down that a part of the step is done, unless it says that already.
func (w *work) did(ctx context.Context, key, text string, v any) error {
	data, err := encode(v)
	if err != nil {
		return err
	}
	for _, e := range slices.Backward(w.entries) {
		if e.Kind == KindDid && e.Key == key {
			if string(e.Data) == string(data) {
				return nil
			}
			break
		}
	}
	return w.append(ctx, Entry{Kind: KindDid, Key: key, Text: text, Data: data})
}

// note tells people something that matters afterwards.
func (w *work) note(ctx context.Context, format string, args ...any) error {
	return w.append(ctx, Entry{Kind: KindNote, Text: fmt.Sprintf(format, args...)})
}

// recall reads the newest entry of a kind and key, whichever step wrote it, since the run began.
func (w *work) recall(kind Kind, key string, into any) bool {
	for _, e := range slices.Backward(w.entries) {
		if e.Kind == kind && e.Key == key {
			return json.Unmarshal(e.Data, into) == nil
		}
	}
	return false
}

// state tells what the journal says of a step: begun, done, undone.
func (w *work) state(s Step) Kind {
	for _, e := range slices.Backward(w.entries) {
		if e.Step == s && (e.Kind == KindBegin || e.Kind == KindDone || e.Kind == KindFailed || e.Kind == KindUndone) {
			return e.Kind
		}
	}
	return ""
}

// approved tells whether the question of the current step is answered with yes.
func (w *work) approved() bool {
	return slices.Contains(w.run.Options.Approved, w.step) ||
		slices.ContainsFunc(w.entries, func(e Entry) bool { return e.Kind == KindApprove && e.Step == w.step })
}

// approve asks a person, unless he said so already.
func (w *work) approve(why string, details ...string) error {
	if w.approved() {
		return nil
	}
	return &NeedsApproval{Run: w.run.ID, Step: w.step, Why: why, Details: details}
}

// forward does the steps that are not done.
func (w *work) forward(ctx context.Context) error {
	w.run.Status, w.run.Problem = Running, ""
	for i, name := range Steps {
		if only := w.run.Options.Only; only != "" && only != name {
			continue
		}
		if w.run.Options.StopBefore == name {
			return w.pause(ctx, "", name)
		}
		s := w.steps()[name]
		w.step = name
		if w.state(name) == KindDone {
			ok, err := s.done(ctx, w)
			if err != nil {
				return w.stop(ctx, fmt.Errorf("look whether it is still done: %w", err))
			}
			if ok {
				continue
			}
			if err := w.note(ctx, "%s was done and is not any more; it is done again", name); err != nil {
				return err
			}
		}
		w.run.Step = name
		if err := w.o.Journal.Save(ctx, w.run); err != nil {
			return err
		}
		if err := w.append(ctx, Entry{Kind: KindBegin}); err != nil {
			return err
		}
		result, err := s.do(ctx, w)
		if err != nil {
			return w.stop(ctx, err)
		}
		data, err := encode(result)
		if err != nil {
			return err
		}
		if err := w.append(ctx, Entry{Kind: KindDone, Data: data, Text: describe(result)}); err != nil {
			return err
		}
		if w.run.Options.PauseAfter == name && i+1 < len(Steps) {
			return w.pause(ctx, name, Steps[i+1])
		}
	}
	return w.end(ctx, Done)
}

func describe(result any) string {
	if s, ok := result.(fmt.Stringer); ok {
		return s.String()
	}
	return ""
}

// stop notes why a step did not succeed.
func (w *work) stop(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = fmt.Errorf("interrupted: %w", err)
	}
	ctx = context.WithoutCancel(ctx)
	var needs *NeedsApproval
	w.run.Status, w.run.Problem = Stopped, err.Error()
	jerr := errors.Join(w.append(ctx, Entry{Kind: KindFailed, Text: err.Error()}), w.o.Journal.Save(ctx, w.run))
	if errors.As(err, &needs) {
		return errors.Join(err, jerr)
	}
	return errors.Join(&StoppedError{Run: w.run.ID, Step: w.step, Err: err}, jerr)
}

func (w *work) pause(ctx context.Context, after, next Step) error {
	p := &PausedError{Run: w.run.ID, After: after, Next: next}
	w.run.Status, w.run.Problem = Stopped, p.Error()
	w.run.Options.StopBefore, w.run.Options.PauseAfter = "", ""
	if err := w.append(ctx, Entry{Kind: KindPause, Step: next, Text: p.Error()}); err != nil {
		return err
	}
	return errors.Join(p, w.o.Journal.Save(ctx, w.run))
}

func (w *work) end(ctx context.Context, s Status) error {
	w.run.Status, w.run.Problem = s, ""
	if err := w.append(ctx, Entry{Kind: KindEnd, Text: string(s)}); err != nil {
		return err
	}
	return w.o.Journal.Save(ctx, w.run)
}

// backward undoes what was done, last first.
func (w *work) backward(ctx context.Context) error {
	var handed Handed
	if w.recall(KindDid, handedOver, &handed) {
		return errors.New("clients were sent to the new cluster already, or may have been: what they wrote there would be lost. Go on with `pileus run resume`, or send them back by hand first")
	}
	w.run.Status, w.run.Problem = Aborting, ""
	if err := w.o.Journal.Save(ctx, w.run); err != nil {
		return err
	}
	for _, name := range slices.Backward(Steps) {
		if k := w.state(name); k == "" || k == KindUndone {
			continue
		}
		w.step = name
		if err := w.steps()[name].undo(ctx, w); err != nil {
			err = fmt.Errorf("undo %s: %w", name, err)
			w.run.Problem = err.Error()
			ctx := context.WithoutCancel(ctx)
			return errors.Join(fmt.Errorf("%w\nWhen that is put right: pileus run abort %s", err, w.run.ID),
				w.append(ctx, Entry{Kind: KindNote, Text: err.Error()}), w.o.Journal.Save(ctx, w.run))
		}
		if err := w.append(ctx, Entry{Kind: KindUndone}); err != nil {
			return err
		}
	}
	return w.end(ctx, Aborted)
}

// newRunID is the time and some letters, so that runs sort by age.
func newRunID(now time.Time) string {
	var b [3]byte
	_, _ = rand.Read(b[:]) // never fails, by its contract
	return now.UTC().Format("20060102T150405Z") + "-" + hex.EncodeToString(b[:])
}
