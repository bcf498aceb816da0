package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/repo"
)

// ReceiverOptions of Receive. Repo, Cluster, Slot, SQL, Replication, StateDir and
// Log are required.
type ReceiverOptions struct {
	Repo    *repo.Repository
	Cluster string // identifier
	// SQL and Replication open sessions to the server.
	SQL         func(context.Context) (*postgres.Conn, error)
	Replication func(context.Context) (*postgres.ReplConn, error)
	Slot        string // physical replication slot
	CreateSlot  bool   // create it if it is not there
	Temporary   bool   // the slot is to end with the connection
	StateDir    string // for the spool and the status
	// FlushInterval is the longest that received WAL waits; 0: 1 s.
	FlushInterval time.Duration
	// WatermarkInterval is how often a quiet server's clock is recorded; 0: 10 s.
	WatermarkInterval time.Duration
	SpoolMax          int64 // bytes of WAL kept here while the repository is away; 0: 4 GiB
	PrimaryRetainMax  int64 // bytes of WAL that the primary may keep for us; 0: 8 GiB
	Log               *slog.Logger
	Streaming         func() // called each time a stream has begun; may be nil
}

// Times of the receiver.
const (
	statusInterval = 10 * time.Second // how often the server hears of us at least
	silenceProbe   = 20 * time.Second // after so long without a word the server is asked for one
	silenceLimit   = 60 * time.Second // and after so long the connection counts as dead
	drainTime      = 20 * time.Second // to store what is left when stopped
	monitorTick    = time.Second
	maxBackoff     = 30 * time.Second
)

// receiver is one Receive. Three goroutines share it: the network side, the
// uploader, and the monitor. All end with Receive.
type receiver struct {
	ReceiverOptions
	spool *spool
	up    *uploader

	removed pg.LSN // the server has no WAL from here any more; of the network side alone

	mu       sync.Mutex
	status   Status
	commits  commitQueue
	streamed pg.TimelineID // the server's own timeline, once its WAL is received
	size     int64         // of a segment
}

// Receive streams a cluster's WAL into the repository until ctx ends, which is
// its good end. It reconnects by itself, to the server and to the repository: while that is away
// WAL is received into the spool. Other ends: *repo.HeldError if another receives,
// *repo.IdentityError if the server is another database, and WAL that
// contradicts what was received before.
func Receive(ctx context.Context, o ReceiverOptions) error {
	o.defaults()
	sp, err := newSpool(filepath.Join(o.StateDir, "spool", o.Cluster), o.SpoolMax)
	if err != nil {
		return err
	}
	r := &receiver{ReceiverOptions: o, spool: sp, up: newUploader(o.Repo, o.Cluster, sp, o.FlushInterval)}
	r.status = newStatus(o.Cluster)
	if before, err := ReadStatus(o.StateDir, o.Cluster); err == nil && before != nil {
		r.status.Gap = before.Gap // a new receiver does not bring lost WAL back
	}
	return errors.Join(r.run(ctx), sp.close())
}

func (o *ReceiverOptions) defaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.FlushInterval, time.Second)
	def(&o.WatermarkInterval, 10*time.Second)
	if o.SpoolMax <= 0 {
		o.SpoolMax = 4 << 30
	}
	if o.PrimaryRetainMax <= 0 {
		o.PrimaryRetainMax = 8 << 30
	}
}

func (r *receiver) run(ctx context.Context) error {
	nctx, stop := context.WithCancel(ctx)
	defer stop()
	// The uploader outlives the network side, to store what came last.
	uctx, stopUploader := context.WithCancel(context.WithoutCancel(ctx))
	defer stopUploader()
	var g, u errgroup.Group
	known := make(chan repo.Cluster, 1)
	u.Go(func() error { defer stop(); return r.store(uctx, nctx, known) })
	g.Go(func() error { r.monitor(nctx); return nil })
	g.Go(func() error {
		defer stop()
		select {
		case c := <-known:
			return r.reconnect(nctx, c)
		case <-nctx.Done():
			return nil
		}
	})
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil // stopped as asked, or by the uploader, which says why
	}
	stopUploader()
	err = errors.Join(u.Wait(), err)
	r.report()
	return err
}

// store uploads while it holds the lease. A repository that is away for long costs the
// lease, and nothing else: the network side goes on into the spool, and when the lease
// is had again so does the upload. starting ends with the network side.
func (r *receiver) store(ctx, starting context.Context, known chan<- repo.Cluster) error {
	first, prepared := true, false
	for wait := newBackoff(); ; {
		err := r.Repo.WithLease(ctx, repo.LeaseReceive, r.Cluster, nil, func(ctx context.Context) error {
			first, wait = false, newBackoff()
			if !prepared {
				pctx, cancel := context.WithCancel(ctx)
				defer cancel()
				defer context.AfterFunc(starting, cancel)()
				c, err := r.prepare(pctx)
				if err != nil {
					return err
				}
				prepared = true
				known <- c
			}
			return r.up.run(ctx, drainTime)
		})
		switch {
		case ctx.Err() != nil && !final(err), !prepared && starting.Err() != nil:
			return nil
		case final(err), first && isHeld(err), isHeld(err) && !r.heldByUs(err):
			return err
		case err == nil:
			continue // the lease was lost in the middle
		}
		r.up.failed(err, time.Now())
		r.report()
		if err := wait.sleep(starting); err != nil && (!prepared || ctx.Err() != nil) {
			return nil
		}
	}
}

func isHeld(err error) bool {
	var held *repo.HeldError
	return errors.As(err, &held)
}

// heldByUs tells a lease that this process could not release when the repository
// went away: it runs out by itself.
func (r *receiver) heldByUs(err error) bool {
	var held *repo.HeldError
	return errors.As(err, &held) && held.By.PID == r.status.PID && held.By.Host == r.status.Host
}

// prepare learns who the server is, and takes up what an earlier receiver left.
func (r *receiver) prepare(ctx context.Context) (repo.Cluster, error) {
	c, err := r.identify(ctx)
	if err == nil {
		err = r.adoptSpool(ctx, c)
	}
	if err == nil {
		err = r.up.sweep(ctx, c.SegmentSize)
	}
	return c, err
}

// identify registers the cluster, waiting for the server if it must.
func (r *receiver) identify(ctx context.Context) (repo.Cluster, error) {
	for wait := newBackoff(); ; {
		c, err := r.tryIdentify(ctx)
		if err == nil || final(err) || ctx.Err() != nil {
			return c, err
		}
		r.disconnected(err)
		if err := wait.sleep(ctx); err != nil {
			return c, err
		}
	}
}

func (r *receiver) tryIdentify(ctx context.Context) (repo.Cluster, error) {
	conn, err := r.Replication(ctx)
	if err != nil {
		return repo.Cluster{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	sys, err := conn.IdentifySystem(ctx)
	if err != nil {
		return repo.Cluster{}, err
	}
	size, err := conn.WALSegmentSize(ctx)
	if err != nil {
		return repo.Cluster{}, err
	}
	sql, err := r.SQL(ctx)
	if err != nil {
		return repo.Cluster{}, err
	}
	defer sql.Close(context.WithoutCancel(ctx))
	return r.Repo.EnsureCluster(ctx, repo.Cluster{Name: r.Cluster, SystemIdentifier: sys.Identifier, SegmentSize: size,
		Major: sql.Major(), Created: time.Now().UTC().Truncate(time.Second)})
}

// reconnect runs sessions one after the other.
func (r *receiver) reconnect(ctx context.Context, c repo.Cluster) error {
	wait := newBackoff()
	for {
		s := &session{receiver: r, cluster: c}
		err := s.run(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if final(err) {
			r.Log.Error("receiving WAL has ended", "cluster", r.Cluster, "error", err)
			return err
		}
		if s.streamed {
			wait = newBackoff()
		}
		r.disconnected(err)
		if err := wait.sleep(ctx); err != nil {
			return err
		}
	}
}

// final tells whether trying again would be wrong.
func final(err error) bool {
	var id *repo.IdentityError
	return errors.As(err, &id) || errors.Is(err, errDiverged) || errors.Is(err, repo.ErrConflict)
}

// backoff doubles its pauses, with jitter so that many receivers do not call at once.
type backoff struct{ next time.Duration }

func newBackoff() *backoff { return &backoff{next: 200 * time.Millisecond} }

func (b *backoff) sleep(ctx context.Context) error {
	d := b.next/2 + rand.N(b.next)
	b.next = min(b.next*2, maxBackoff)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// disconnected notes that the server is away.
func (r *receiver) disconnected(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	r.mu.Lock()
	first := r.status.ConnectionFailingSince == nil
	if first {
		now := time.Now().UTC()
		r.status.ConnectionFailingSince = &now
	}
	changed := r.status.ConnectionError != err.Error()
	r.status.ConnectionError = err.Error()
	r.mu.Unlock()
	if first || changed {
		r.Log.Warn("the server is away, trying again", "cluster", r.Cluster, "error", err)
	}
	r.report()
}

func (r *receiver) connected(own, tli pg.TimelineID, from pg.Segment) {
	r.mu.Lock()
	r.status.ConnectionFailingSince, r.status.ConnectionError = nil, ""
	r.size, r.streamed = from.Size, 0
	if own == tli {
		r.streamed = tli
	}
	r.mu.Unlock()
	r.Log.Info("receiving WAL", "cluster", r.Cluster, "timeline", uint32(tli), "from", from.Start().String())
	r.report()
	if r.Streaming != nil {
		r.Streaming()
	}
}

// gap notes WAL that is lost for good.
func (r *receiver) gap(from, to pg.LSN, reason string) {
	r.mu.Lock()
	r.status.Gap = &GapInfo{Since: time.Now().UTC(), From: from, To: to, Reason: reason}
	r.mu.Unlock()
	r.Log.Error("WAL is lost: moments from here to the next backup cannot be restored; take a new backup now",
		"cluster", r.Cluster, "from", from.String(), "to", to.String(), "reason", reason)
	r.report()
}

// report writes the status file. That it cannot be written is no reason to stop.
func (r *receiver) report() {
	tli, received, durable := r.spool.position()
	since, failure := r.up.health()
	r.mu.Lock()
	defer r.mu.Unlock()
	st := &r.status
	st.Updated = time.Now().UTC()
	st.Timeline, st.Received, st.Durable = tli, received, durable
	st.LagBytes = 0
	if st.ServerEnd > durable {
		st.LagBytes = int64(st.ServerEnd - durable)
	}
	st.SpoolBytes = r.spool.size()
	if t, ok := r.commits.upTo(durable); ok {
		st.LastCommit = t
	}
	wasFailing := st.RepositoryFailingSince != nil
	st.RepositoryFailingSince, st.RepositoryError = nil, ""
	if failure != nil {
		since := since.UTC()
		st.RepositoryFailingSince, st.RepositoryError = &since, failure.Error()
	}
	if isFailing := failure != nil; isFailing != wasFailing {
		if isFailing {
			r.Log.Error("the repository does not take WAL; it is kept in the spool", "cluster", r.Cluster, "error", failure)
		} else {
			r.Log.Info("the repository takes WAL again", "cluster", r.Cluster)
		}
	}
	if err := WriteStatus(r.StateDir, *st); err != nil {
		r.Log.Warn("the status cannot be written", "error", err)
	}
}

// commitQueue remembers commits that are received and not yet durable, to tell
// the time of the last durable one. It is bounded: when full it forgets the
// newest, so that it lags but never runs ahead.
type commitQueue struct {
	ends  []pg.LSN
	times []time.Time
	last  time.Time
}

const commitQueueMax = 8192

func (q *commitQueue) add(end pg.LSN, t time.Time) {
	if len(q.ends) < commitQueueMax {
		q.ends, q.times = append(q.ends, end), append(q.times, t)
	}
}

// upTo is the time of the last commit that ends at or before durable.
func (q *commitQueue) upTo(durable pg.LSN) (time.Time, bool) {
	n := 0
	for n < len(q.ends) && q.ends[n] <= durable {
		q.last = q.times[n]
		n++
	}
	q.ends, q.times = q.ends[n:], q.times[n:]
	return q.last, !q.last.IsZero()
}

// slotError says what to do about a slot that is not there.
func slotError(slot string) error {
	return fmt.Errorf("replication slot %s does not exist, and wal.slot_create is off: create it with SELECT pg_create_physical_replication_slot('%s', true)", slot, slot)
}
