package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
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

// WithLease runs work while it holds the lease, and renews it until work has
// returned, also while work winds down after ctx has ended. If another holds it
// the error is *HeldError and work is not run. When the lease is lost, work's
// context ends with ErrLeaseLost as its cause.
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
	rctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error {
		tick := time.NewTicker(LeaseTTL / 4)
		defer tick.Stop()
		l.renew(rctx, tick.C, cancel)
		return nil
	})
	defer g.Wait() // renew returns no error
	defer stop()
	err := work(wctx)
	if cause := context.Cause(wctx); errors.Is(cause, ErrLeaseLost) && err != nil && !errors.Is(err, ErrLeaseLost) {
		return errors.Join(cause, err)
	}
	return err
}

type lease struct {
	r       *Repository
	prefix  string
	holder  Holder
	turn    int
	keys    []string  // objects that may be there, the newest last
	renewed time.Time // when the newest was written, by the store's clock
}

// put writes the next object of this lease and removes those before. late tells
// that by the store's clock so much time has passed that somebody may have taken
// the lease for abandoned.
func (l *lease) put(ctx context.Context) (late bool, err error) {
	text, err := json.Marshal(l.holder)
	if err != nil {
		return false, err
	}
	// Each attempt has a name of its own: one whose answer was lost may be there.
	key := fmt.Sprintf("%s%s.%d", l.prefix, l.holder.Token, l.turn)
	l.turn++
	l.keys = append(l.keys, key)
	if err := l.r.store.Put(ctx, key, bytes.NewReader(text)); err != nil {
		return false, err
	}
	info, err := l.r.store.Stat(ctx, key)
	if err != nil {
		return false, err
	}
	late = !l.renewed.IsZero() && info.Modified.Sub(l.renewed) > LeaseTTL*3/4
	l.renewed = info.Modified
	for len(l.keys) > 1 {
		if err := l.r.store.Delete(ctx, l.keys[0]); err != nil {
			return late, nil // the lease is renewed; the next turn removes what is left
		}
		l.keys = l.keys[1:]
	}
	return late, nil
}

// acquire announces itself first and looks second: of two that come at once at
// least one sees the other. Both may withdraw; neither works beside the other.
func (l *lease) acquire(ctx context.Context) error {
	_, err := l.put(ctx)
	if err == nil {
		err = l.alone(ctx)
	}
	if err == nil {
		return nil
	}
	l.release(ctx)
	if _, held := errors.AsType[*HeldError](err); held {
		return err
	}
	return fmt.Errorf("take the lease %s: %w", strings.TrimSuffix(l.prefix, "/"), err)
}

// alone is a *HeldError if another holds the lease.
func (l *lease) alone(ctx context.Context) error {
	others, err := l.r.holders(ctx, l.prefix, l.renewed)
	if err != nil {
		return err
	}
	for _, h := range others {
		if h.Token != l.holder.Token {
			return &HeldError{By: h}
		}
	}
	return nil
}

func (l *lease) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for _, key := range l.keys {
		// A lease that stays behind for want of the store is abandoned after LeaseTTL.
		_ = l.r.store.Delete(ctx, key)
	}
}

// renew renews the lease at each tick until ctx ends or the lease is lost. A
// holder that was suspended may find that another has taken the lease meanwhile:
// that one announced itself before it looked, so it is seen here.
func (l *lease) renew(ctx context.Context, tick <-chan time.Time, lost context.CancelCauseFunc) {
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		pctx, cancel := context.WithTimeout(ctx, LeaseTTL/4)
		late, err := l.put(pctx)
		if err == nil && late {
			err = l.alone(pctx)
		}
		cancel()
		switch {
		case err == nil:
			last = time.Now()
		case ctx.Err() != nil:
			return
		case late || time.Since(last) > LeaseTTL*5/8: // at the third tick in a row, while others still honour it
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

// listAttempts is how often leases are listed until none moves meanwhile. Each is
// renewed every half a minute, so that a second look nearly always suffices.
const listAttempts = 20

func (r *Repository) holders(ctx context.Context, prefix string, now time.Time) ([]Holder, error) {
	// A lease may be renewed between listing and reading: its old object is gone
	// then, and the new one was not listed. So it is listed again.
	for range listAttempts {
		if out, moved, err := r.listHolders(ctx, prefix, now); err != nil || !moved {
			return out, err
		}
	}
	return nil, fmt.Errorf("list leases below %s: they changed during each of %d looks; try again: %w", prefix, listAttempts, store.ErrUnavailable)
}

func (r *Repository) listHolders(ctx context.Context, prefix string, now time.Time) (out []Holder, moved bool, err error) {
	seen := map[string]bool{}
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
		err = json.Unmarshal(text, &h)
		if now.Sub(info.Modified) > LeaseTTL || err == nil && h.dead() {
			if err := r.store.Delete(ctx, info.Key); err != nil {
				return nil, false, fmt.Errorf("remove the abandoned lease %s: %w", info.Key, err)
			}
			continue
		}
		if err != nil {
			return nil, false, damaged(info.Key, "%v; it is ignored %s after it was written", err, LeaseTTL)
		}
		if !seen[h.Token] { // between the writing of a new object and the removal of the old one both are there
			seen[h.Token] = true
			out = append(out, h)
		}
	}
	return out, moved, nil
}

// dead tells whether the holder ran on this very host and boot and has ended. It
// asks by signal 0, as /proc may hide the processes of others.
func (h Holder) dead() bool {
	host, err := os.Hostname()
	if err != nil || h.Host != host || h.Boot == "" || h.Boot != bootID() || h.PID <= 0 || h.PID == os.Getpid() {
		return false
	}
	p, err := os.FindProcess(h.PID)
	if err != nil {
		return false
	}
	defer p.Release() // frees what FindProcess took; its error has no consequence
	return errors.Is(p.Signal(syscall.Signal(0)), os.ErrProcessDone)
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
