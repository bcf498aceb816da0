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

	mu      sync.Mutex
	status  Status
	commits commitQueue
}

// Receive streams a cluster's WAL into the repository until ctx ends, which is
// its good end. It reconnects by itself. Other ends: *repo.HeldError if another receives,
// *repo.IdentityError if the server is another database, and WAL that
// contradicts what was received before.
func Receive(ctx context.Context, o ReceiverOptions) error {
	o.defaults()
	return o.Repo.WithLease(ctx, repo.LeaseReceive, o.Cluster, nil, func(ctx context.Context) error {
		sp, err := newSpool(filepath.Join(o.StateDir, "spool", o.Cluster), o.SpoolMax)
		if err != nil {
			return err
		}
		r := &receiver{ReceiverOptions: o, spool: sp, up: &uploader{repo: o.Repo, cluster: o.Cluster, spool: sp, interval: o.FlushInterval}}
		r.status = newStatus(o.Cluster)
		return errors.Join(r.run(ctx), sp.close())
	})
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
	c, err := r.identify(ctx)
	if err != nil {
		return err
	}
	if err := r.adoptSpool(ctx, c); err != nil {
		return err
	}
	// The uploader outlives the network side, to store what came last.
	uctx, stopUploader := context.WithCancel(context.WithoutCancel(ctx))
	defer stopUploader()
	var g, u errgroup.Group
	nctx, stop := context.WithCancel(ctx)
	defer stop()
	u.Go(func() error { r.up.run(uctx, drainTime); return nil })
	g.Go(func() error { r.monitor(nctx); return nil })
	g.Go(func() error { defer stop(); return r.reconnect(nctx, c) })
	err = g.Wait()
	stopUploader()
	u.Wait() // run returns no error
	r.report()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		if lost := context.Cause(ctx); errors.Is(lost, repo.ErrLeaseLost) {
			return lost
		}
		return nil
	}
	return err
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

// adoptSpool continues with what an earlier receiver could not store any more.
func (r *receiver) adoptSpool(ctx context.Context, c repo.Cluster) error {
	tli, end, err := r.storedEnd(ctx, c)
	if err != nil {
		return err
	}
	next := pg.Segment{}
	if end != 0 {
		next = pg.SegmentAt(tli, end, c.SegmentSize)
	}
	return r.spool.adopt(ctx, r.Repo, c, next)
}

// storedEnd is where the repository's newest WAL ends; 0 if it has none.
func (r *receiver) storedEnd(ctx context.Context, c repo.Cluster) (pg.TimelineID, pg.LSN, error) {
	tli, err := NewestTimeline(ctx, r.Repo, c.Name)
	if err != nil || tli == 0 {
		return 0, 0, err
	}
	end, err := DurableEnd(ctx, r.Repo, c, tli)
	return tli, end, err
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
	return errors.As(err, &id) || errors.Is(err, errDiverged)
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

func (r *receiver) connected(tli pg.TimelineID, from pg.LSN) {
	r.mu.Lock()
	r.status.ConnectionFailingSince, r.status.ConnectionError = nil, ""
	r.mu.Unlock()
	r.Log.Info("receiving WAL", "cluster", r.Cluster, "timeline", uint32(tli), "from", from.String())
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
