package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net"
	"time"
)

// RetryPolicy bounds what WithRetry does. Zero fields take the defaults.
type RetryPolicy struct {
	MaxAttempts  int           // attempts without progress before giving up; default 10
	MaxElapsed   time.Duration // time without progress before giving up; default 5 minutes
	BaseDelay    time.Duration // first pause, doubled from then on; default 200 ms
	MaxDelay     time.Duration // longest pause; default 20 s
	StallTimeout time.Duration // an attempt in which nothing moves for so long has failed; default 60 s
	// Notify, if set, hears of every failure that will be retried. It may be
	// called concurrently.
	Notify func(RetryEvent)
}

// RetryEvent is one failed attempt.
type RetryEvent struct {
	Operation string        // "write", "read", "look up", "list" or "delete"
	Key       string        // the key, or the prefix of a list
	Attempt   int           // 1 is the first
	Pause     time.Duration // until the next
	Err       error
}

// errStalled is why an attempt was given up that did not move.
var errStalled = fmt.Errorf("%w: the connection stalled", ErrUnavailable)

type retrying struct {
	inner  Store
	policy RetryPolicy
}

// WithRetry repeats calls that fail with ErrUnavailable or time out, with
// exponential backoff and jitter. Whatever else fails, fails at once.
//
// Put rewinds the body. When an attempt ends without an answer and the next one
// finds the key taken, the object there is compared with the body: equal bytes
// are our own success. A caller that uses objects as locks must therefore put
// something into them that only it would write.
//
// Get resumes a download that breaks off at the byte where it stopped, List at
// the key.
func WithRetry(s Store, policy RetryPolicy) Store {
	setDefault(&policy.MaxAttempts, 10)
	setDefault(&policy.MaxElapsed, 5*time.Minute)
	setDefault(&policy.BaseDelay, 200*time.Millisecond)
	setDefault(&policy.MaxDelay, 20*time.Second)
	setDefault(&policy.StallTimeout, time.Minute)
	return &retrying{inner: s, policy: policy}
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

// Put implements Store.
func (r *retrying) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	whole, err := lendBody(body)
	if err != nil {
		return fmt.Errorf("write object %s: %w", key, err)
	}
	ambiguous := false // an earlier attempt may have written the object
	return r.repeat(ctx, opPut, key, func(ctx context.Context, w *watch) error {
		if _, err := body.Seek(whole.start, io.SeekStart); err != nil {
			return fmt.Errorf("write object %s: rewind its body: %w", key, err)
		}
		loan := &attemptBody{body: body, start: whole.start, size: whole.size, progress: w.progress}
		err := r.inner.Put(ctx, key, loan)
		if bodyErr := loan.take(); bodyErr != nil {
			return fmt.Errorf("write object %s: read its body: %w", key, bodyErr)
		}
		if err != nil && !errors.Is(err, ErrExists) {
			ambiguous = true
		}
		if !ambiguous || !errors.Is(err, ErrExists) {
			return err
		}
		if _, err := body.Seek(whole.start, io.SeekStart); err != nil {
			return fmt.Errorf("compare object %s: rewind its body: %w", key, err)
		}
		same, cmpErr := sameContent(ctx, progressStore{r.inner, w}, key, body, whole.size)
		if errors.Is(cmpErr, ErrNotFound) {
			return fmt.Errorf("write object %s: it was there and is gone again: %w", key, ErrUnavailable)
		}
		if cmpErr != nil {
			return fmt.Errorf("compare object %s with what an earlier attempt may have written: %w", key, cmpErr)
		}
		if same {
			return nil
		}
		return err
	})
}

// Stat implements Store.
func (r *retrying) Stat(ctx context.Context, key string) (info Info, err error) {
	err = r.repeat(ctx, opStat, key, func(ctx context.Context, _ *watch) (err error) {
		info, err = r.inner.Stat(ctx, key)
		return err
	})
	return info, err
}

// Delete implements Store.
func (r *retrying) Delete(ctx context.Context, key string) error {
	return r.repeat(ctx, opDelete, key, func(ctx context.Context, _ *watch) error {
		return r.inner.Delete(ctx, key)
	})
}

// List implements Store.
func (r *retrying) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		last, stopped := "", false
		budget := r.newBudget()
		for {
			before := last
			err := r.attempt(ctx, func(ctx context.Context, w *watch) error {
				for info, err := range r.inner.List(ctx, prefix) {
					w.pause()
					if err != nil {
						return err
					}
					if info.Key > last {
						last = info.Key
						if stopped = !yield(info, nil); stopped {
							return nil
						}
					}
					w.progress()
				}
				return nil
			})
			if err == nil || stopped {
				return
			}
			if last > before {
				budget = r.newBudget()
			}
			if err := budget.wait(ctx, opList, prefix, err); err != nil {
				yield(Info{}, err)
				return
			}
		}
	}
}

// repeat calls try until it succeeds, fails for good, or the budget is spent.
func (r *retrying) repeat(ctx context.Context, op operation, key string, try func(context.Context, *watch) error) error {
	budget := r.newBudget()
	for {
		err := r.attempt(ctx, try)
		if err == nil {
			return nil
		}
		if err := budget.wait(ctx, op, key, err); err != nil {
			return err
		}
	}
}

// attempt runs try once, and ends it if nothing moves.
func (r *retrying) attempt(ctx context.Context, try func(context.Context, *watch) error) error {
	ctx, w := newWatch(ctx, r.policy.StallTimeout)
	defer w.stop()
	return w.explain(try(ctx, w))
}

// budget counts what failures without progress have cost so far.
type budget struct {
	policy   RetryPolicy
	start    time.Time
	attempts int
}

func (r *retrying) newBudget() *budget { return &budget{policy: r.policy, start: time.Now()} }

// wait pauses before the next attempt, or returns the error to give up with.
func (b *budget) wait(ctx context.Context, op operation, key string, err error) error {
	if !isTemporary(err) || ctx.Err() != nil {
		return err
	}
	b.attempts++
	elapsed := time.Since(b.start)
	pause := b.policy.BaseDelay << min(b.attempts-1, 30)
	if pause <= 0 || pause > b.policy.MaxDelay {
		pause = b.policy.MaxDelay
	}
	// Half of it at random: clients that failed together shall not return together.
	pause = pause/2 + rand.N(pause/2+1)
	if b.attempts >= b.policy.MaxAttempts || elapsed+pause > b.policy.MaxElapsed {
		return fmt.Errorf("%s %q: gave up after %d attempts in %s: %w", op, key, b.attempts, elapsed.Round(time.Millisecond), err)
	}
	if b.policy.Notify != nil {
		b.policy.Notify(RetryEvent{Operation: string(op), Key: key, Attempt: b.attempts, Pause: pause, Err: err})
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s %q: %w while waiting to try again after: %w", op, key, ctx.Err(), err)
	}
}

func isTemporary(err error) bool {
	var timeout net.Error
	return errors.Is(err, ErrUnavailable) || errors.As(err, &timeout) && timeout.Timeout()
}

// watch cancels an attempt when no progress is reported for limit.
type watch struct {
	ctx    context.Context // the attempt's
	cancel context.CancelCauseFunc
	limit  time.Duration
	timer  *time.Timer
}

func newWatch(parent context.Context, limit time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(parent)
	w := &watch{ctx: ctx, cancel: cancel, limit: limit}
	w.timer = time.AfterFunc(limit, func() { cancel(errStalled) })
	return ctx, w
}

func (w *watch) progress() { w.timer.Reset(w.limit) }

// pause stops the clock while the caller, and not the store, has the next move.
func (w *watch) pause() { w.timer.Stop() }

func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(context.Canceled)
}

// explain names the stall in an error that only says "cancelled".
func (w *watch) explain(err error) error {
	if err != nil && errors.Is(context.Cause(w.ctx), errStalled) {
		return fmt.Errorf("%w for %s: %w", errStalled, w.limit, err)
	}
	return err
}
