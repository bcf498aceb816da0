package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"pileus/internal/store"
)

// LeaseKind names what a lease claims. Leases of one kind and subject exclude
// each other.
type LeaseKind string

// Kinds of leases; their subject is a cluster, but for prune's.
const (
	LeaseBackup  LeaseKind = "backup"
	LeaseReceive LeaseKind = "receive"
	LeasePrune   LeaseKind = "prune"
)

// LeaseTTL is how long after its last renewal a lease is taken for abandoned;
// it is renewed four times as often. The store's clock counts, not the holder's.
const LeaseTTL = 2 * time.Minute

// Holder says who holds a lease.
type Holder struct {
	Kind    LeaseKind `json:"kind"`
	Subject string    `json:"subject"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Boot    string    `json:"boot,omitempty"` // kernel's boot ID and PID namespace, so that a PID means something
	Since   time.Time `json:"since"`
	Token   string    `json:"token"`
	// Keeps lists backups that the holder builds upon; prune keeps them and their packs.
	Keeps []string `json:"keeps,omitempty"`
}

// HeldError: somebody else is at the same work.
type HeldError struct{ By Holder }

func (e *HeldError) Error() string {
	what := string(e.By.Kind)
	if e.By.Subject != "" {
		what += " of " + e.By.Subject
	}
	return fmt.Sprintf("another %s is under way: process %d on %s, since %s; wait for it, or end it", what, e.By.PID, e.By.Host, e.By.Since.UTC().Format(time.RFC3339))
}

// ErrLeaseLost: the lease could not be renewed in time; the work was stopped, as
// another may have taken it up.
var ErrLeaseLost = errors.New("the lease in the repository could not be renewed in time")

func leasePrefix(kind LeaseKind, subject string) string {
	if subject == "" {
		return "leases/" + string(kind) + "/"
	}
	return "leases/" + string(kind) + "/" + subject + "/"
}

// WithLease runs work while it holds the lease, and renews it meanwhile. If
// another holds it the error is *HeldError and work is not run. When the lease is
// lost, work's context ends with ErrLeaseLost as its cause.
func (r *Repository) WithLease(ctx context.Context, kind LeaseKind, subject string, keeps []string, work func(context.Context) error) error {
	l := lease{r: r, prefix: leasePrefix(kind, subject)}
	host, _ := os.Hostname()
	l.holder = Holder{Kind: kind, Subject: subject, Host: host, PID: os.Getpid(), Boot: bootID(),
		Since: time.Now().UTC(), Token: randomHex(8), Keeps: keeps}
	if err := l.acquire(ctx); err != nil {
		return err
	}
	defer l.release(ctx)
	wctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var g errgroup.Group
	done := make(chan struct{})
	g.Go(func() error {
		l.renew(wctx, done, cancel)
		return nil
	})
	err := work(wctx)
	close(done)
	g.Wait() // renew returns no error
	if cause := context.Cause(wctx); errors.Is(cause, ErrLeaseLost) && err != nil {
		return errors.Join(cause, err)
	}
	return err
}

type lease struct {
	r      *Repository
	prefix string
	holder Holder
	turn   int
	key    string // of the newest object
}

// put writes the next object of this lease and removes the one before.
func (l *lease) put(ctx context.Context) error {
	text, err := json.Marshal(l.holder)
	if err != nil {
		return err
	}
	key := fmt.Sprintf("%s%s.%d", l.prefix, l.holder.Token, l.turn)
	if err := l.r.store.Put(ctx, key, bytes.NewReader(text)); err != nil {
		return err
	}
	old := l.key
	l.key = key
	l.turn++
	if old != "" {
		return l.r.store.Delete(ctx, old)
	}
	return nil
}

// acquire announces itself first and looks second: of two that come at once at
// least one sees the other. Both may withdraw; neither works beside the other.
func (l *lease) acquire(ctx context.Context) error {
	if err := l.put(ctx); err != nil {
		return fmt.Errorf("take the lease %s: %w", l.prefix, err)
	}
	mine, err := l.r.store.Stat(ctx, l.key)
	if err == nil {
		var others []Holder
		others, err = l.r.holders(ctx, l.prefix, mine.Modified)
		for _, h := range others {
			if h.Token != l.holder.Token {
				err = &HeldError{By: h}
			}
		}
	}
	if err != nil {
		l.release(ctx)
		return err
	}
	return nil
}

func (l *lease) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	// A lease that stays behind for want of the store is abandoned after LeaseTTL.
	_ = l.r.store.Delete(ctx, l.key)
}

func (l *lease) renew(ctx context.Context, done <-chan struct{}, lost context.CancelCauseFunc) {
	tick := time.NewTicker(LeaseTTL / 4)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-done:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		pctx, cancel := context.WithTimeout(ctx, LeaseTTL/4)
		err := l.put(pctx)
		cancel()
		if err == nil {
			last = time.Now()
		} else if time.Since(last) > LeaseTTL*3/4 {
			lost(fmt.Errorf("%w: %w", ErrLeaseLost, err))
			return
		}
	}
}

// Holders lists who is at work now: leases of the kind that are not abandoned.
func (r *Repository) Holders(ctx context.Context, kind LeaseKind) ([]Holder, error) {
	now, err := r.storeClock(ctx)
	if err != nil {
		return nil, err
	}
	return r.holders(ctx, leasePrefix(kind, ""), now)
}

func (r *Repository) holders(ctx context.Context, prefix string, now time.Time) ([]Holder, error) {
	// A lease may be renewed between listing and reading: its old object is gone
	// then, and the new one was not listed. So it is listed again.
	for attempt := 0; ; attempt++ {
		out, moved, err := r.listHolders(ctx, prefix, now)
		if err != nil || !moved || attempt == 10 {
			return out, err
		}
	}
}

func (r *Repository) listHolders(ctx context.Context, prefix string, now time.Time) (out []Holder, moved bool, err error) {
	for info, err := range r.store.List(ctx, prefix) {
		if err != nil {
			return nil, false, fmt.Errorf("list leases: %w", err)
		}
		text, err := readAll(ctx, r.store, info.Key)
		if errors.Is(err, store.ErrNotFound) {
			moved = true
			continue
		}
		if err != nil {
			return nil, false, err
		}
		var h Holder
		if err := json.Unmarshal(text, &h); err != nil {
			return nil, false, damaged(info.Key, "%v", err)
		}
		if now.Sub(info.Modified) > LeaseTTL || h.dead() {
			if err := r.store.Delete(ctx, info.Key); err != nil {
				return nil, false, err
			}
			continue
		}
		out = append(out, h)
	}
	return out, moved, nil
}

// dead tells whether the holder ran on this very host and boot and has ended.
func (h Holder) dead() bool {
	host, err := os.Hostname()
	if err != nil || h.Host != host || h.Boot == "" || h.Boot != bootID() || h.PID == os.Getpid() {
		return false
	}
	_, err = os.Stat(fmt.Sprintf("/proc/%d", h.PID))
	return errors.Is(err, os.ErrNotExist)
}

// bootID is the kernel's random ID of this boot and the PID namespace; empty
// where they cannot be had.
func bootID() string {
	b, err1 := os.ReadFile("/proc/sys/kernel/random/boot_id")
	ns, err2 := os.Readlink("/proc/self/ns/pid")
	if err1 != nil || err2 != nil {
		return ""
	}
	return string(bytes.TrimSpace(b)) + " " + ns
}
