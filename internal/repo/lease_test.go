package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pileus/internal/store"
	"pileus/internal/store/storetest"
)

func nothing(context.Context) error { return nil }

// putHolder leaves a lease behind as a process would that was killed.
func putHolder(t testing.TB, st store.Store, h Holder) string {
	t.Helper()
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	key := leasePrefix(h.Kind, h.Subject) + h.Token + ".0"
	if err := st.Put(t.Context(), key, bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return key
}

func openFaulty(t testing.TB, st store.Store) (*Repository, *storetest.Faulty) {
	t.Helper()
	f := storetest.NewFaulty(st)
	r, err := Open(t.Context(), f, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r, f
}

func TestLeaseIsRenewedUntilWorkEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := newTestRepo(t, false, Options{})
		ctx, stop := context.WithCancel(t.Context())
		err := r.WithLease(ctx, LeaseBackup, "c", nil, func(ctx context.Context) error {
			for range 2 {
				time.Sleep(5 * LeaseTTL) // of the test's clock
				var held *HeldError
				if err := r.WithLease(t.Context(), LeaseBackup, "c", nil, nothing); !errors.As(err, &held) {
					t.Errorf("a second holder: %v", err)
				}
				stop() // what winds down still holds the lease
			}
			return context.Cause(ctx)
		})
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := r.WithLease(t.Context(), LeaseBackup, "c", nil, nothing); err != nil {
			t.Error(err)
		}
	})
}

// The store goes away: the work must have stopped before others take the lease for abandoned.
func TestLeaseIsLostInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, st := newTestRepo(t, false, Options{})
		r, faulty := openFaulty(t, st)
		err := r.WithLease(t.Context(), LeaseBackup, "c", nil, func(ctx context.Context) error {
			time.Sleep(LeaseTTL / 3)
			faulty.SetDown(true)
			began := time.Now()
			<-ctx.Done()
			if took := time.Since(began); took >= LeaseTTL*3/4 {
				t.Errorf("told after %s", took)
			}
			return nil
		})
		if err != nil {
			t.Errorf("work that ended well: %v", err)
		}
		faulty.SetDown(false)
		other, err := Open(t.Context(), st, nil, Options{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(LeaseTTL)
		if err := other.WithLease(t.Context(), LeaseBackup, "c", nil, nothing); err != nil {
			t.Errorf("an abandoned lease: %v", err)
		}
	})
}

// A renewal whose answer was lost must neither end the lease nor leave it behind.
func TestLeaseAfterALostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, st := newTestRepo(t, false, Options{})
		r, faulty := openFaulty(t, st)
		err := r.WithLease(t.Context(), LeaseBackup, "c", nil, func(ctx context.Context) error {
			faulty.Inject(storetest.Fault{Op: storetest.Put, Prefix: "leases/backup/", After: store.ErrUnavailable})
			faulty.Inject(storetest.Fault{Op: storetest.Delete, Prefix: "leases/backup/", Skip: 1, Before: store.ErrUnavailable})
			time.Sleep(3 * LeaseTTL)
			if h, err := r.Holders(ctx, LeaseBackup); err != nil || len(h) != 1 {
				t.Errorf("holders %+v, %v", h, err)
			}
			return ctx.Err()
		})
		if err != nil {
			t.Error(err)
		}
		for info, err := range st.List(t.Context(), "leases/") {
			t.Errorf("%s was left behind, %v", info.Key, err)
		}
	})
}

// A holder that was suspended for long finds that another is at work now, and stops.
func TestSuspendedHolderStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := newTestRepo(t, false, Options{})
		for _, taken := range []bool{true, false} {
			l := lease{r: r, prefix: leasePrefix(LeaseBackup, "c"), holder: Holder{Kind: LeaseBackup, Subject: "c", Token: fmt.Sprint("slow", taken)}}
			if err := l.acquire(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * LeaseTTL) // without a tick: nothing runs
			ctx, lost := context.WithCancelCause(t.Context())
			renewed := func() {
				tick := make(chan time.Time)
				rctx, stop := context.WithCancel(t.Context())
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					l.renew(rctx, tick, lost)
				}()
				tick <- time.Now()
				synctest.Wait()
				stop()
				<-ended
			}
			if !taken {
				renewed()
				if ctx.Err() != nil {
					t.Errorf("nobody took the lease, and it was given up: %v", context.Cause(ctx))
				}
				l.release(t.Context())
				continue
			}
			if err := r.WithLease(t.Context(), LeaseBackup, "c", nil, func(context.Context) error {
				renewed()
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if !errors.Is(context.Cause(ctx), ErrLeaseLost) {
				t.Errorf("two at work at once; the first was told %v", context.Cause(ctx))
			}
			l.release(t.Context())
		}
	})
}

func TestAbandonedLeases(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	// A process that has ended: its ID is not used again so soon.
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		holder Holder
		held   bool
	}{
		{"ended process of this host", Holder{Host: host, Boot: bootID(), PID: ended.Process.Pid}, false},
		{"living process of this host", Holder{Host: host, Boot: bootID(), PID: os.Getppid()}, true},
		{"another boot or PID namespace", Holder{Host: host, Boot: "x", PID: ended.Process.Pid}, true},
		{"another host", Holder{Host: host + "x", Boot: bootID(), PID: ended.Process.Pid}, true},
		{"no process", Holder{Host: host, Boot: bootID()}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, st := newTestRepo(t, false, Options{})
			c.holder.Kind, c.holder.Subject, c.holder.Token = LeaseBackup, "c", "t"
			putHolder(t, st, c.holder)
			err := r.WithLease(t.Context(), LeaseBackup, "c", nil, nothing)
			if _, held := errors.AsType[*HeldError](err); held != c.held {
				t.Errorf("err = %v", err)
			}
		})
	}
}

func TestUnreadableLeaseIsIgnoredWhenOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, st := newTestRepo(t, false, Options{})
		key := putHolder(t, st, Holder{Kind: LeasePrune, Token: "t"})
		st.Corrupt(key, func([]byte) []byte { return []byte("{") })
		if err := r.WithLease(t.Context(), LeasePrune, "", nil, nothing); !errors.Is(err, ErrDamaged) {
			t.Errorf("who wrote it may be at work: %v", err)
		}
		time.Sleep(LeaseTTL + time.Second)
		if err := r.WithLease(t.Context(), LeasePrune, "", nil, nothing); err != nil {
			t.Error(err)
		}
	})
}

// hook runs between a listing and what follows it.
type hook struct {
	store.Store
	listed func(prefix string)
}

func (h *hook) List(ctx context.Context, prefix string) iter.Seq2[store.Info, error] {
	var all []store.Info
	var failed error
	for info, err := range h.Store.List(ctx, prefix) {
		if failed = err; err == nil {
			all = append(all, info)
		}
	}
	h.listed(prefix)
	return func(yield func(store.Info, error) bool) {
		for _, info := range all {
			if !yield(info, nil) {
				return
			}
		}
		if failed != nil {
			yield(store.Info{}, failed)
		}
	}
}

// A lease that is renewed between listing and reading is still seen.
func TestHoldersSeesAMovingLease(t *testing.T) {
	_, mem := newTestRepo(t, false, Options{})
	st := &hook{Store: mem, listed: func(string) {}}
	r, err := Open(t.Context(), st, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := lease{r: r, prefix: leasePrefix(LeaseBackup, "c"), holder: Holder{Kind: LeaseBackup, Subject: "c", Token: "moving"}}
	if err := l.acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	moves := 3
	st.listed = func(string) {
		if moves--; moves >= 0 {
			if _, err := l.put(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	if h, err := r.Holders(t.Context(), LeaseBackup); err != nil || len(h) != 1 {
		t.Errorf("holders %+v, %v", h, err)
	}
	moves = 1 << 20
	if h, err := r.Holders(t.Context(), LeaseBackup); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a list that was never whole was believed: %+v, %v", h, err)
	}
}

// Two at once: never do both work.
func TestLeaseRace(t *testing.T) {
	r, _ := newTestRepo(t, false, Options{})
	var busy atomic.Bool
	errs := make(chan error)
	for range 8 {
		go func() {
			errs <- func() error {
				for range 20 {
					err := r.WithLease(t.Context(), LeaseBackup, "c", nil, func(context.Context) error {
						if !busy.CompareAndSwap(false, true) {
							return io.ErrNoProgress
						}
						busy.Store(false)
						return nil
					})
					if _, held := errors.AsType[*HeldError](err); err != nil && !held && !errors.Is(err, store.ErrUnavailable) {
						return err
					}
				}
				return nil
			}()
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
