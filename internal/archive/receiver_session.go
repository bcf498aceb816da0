package archive

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/repo"
	"pileus/internal/wal"
)

// session is one connection's life: find where to go on, stream, follow timelines.
type session struct {
	*receiver
	cluster  repo.Cluster
	conn     *postgres.ReplConn
	stream   *postgres.WALStream
	streamed bool          // at least one message came
	answered bool          // and one on the current stream
	own      pg.TimelineID // the server's

	serverEnd pg.LSN
	heard     time.Time // when the server last said something
	told      time.Time // when it last heard of us
	toldFlush pg.LSN
	spoolSync pg.LSN // the spool is durable on this host up to here
}

func (s *session) run(ctx context.Context) error {
	var err error
	if s.conn, err = s.Replication(ctx); err != nil {
		return err
	}
	defer s.conn.Close(context.WithoutCancel(ctx))
	sys, err := s.conn.IdentifySystem(ctx)
	if err != nil {
		return err
	}
	if sys.Identifier != s.cluster.SystemIdentifier {
		return &repo.IdentityError{Name: s.Cluster, Have: s.cluster.SystemIdentifier, Given: sys.Identifier}
	}
	if err := s.ensureSlot(ctx); err != nil {
		return err
	}
	s.own = sys.Timeline
	path, err := s.learnHistory(ctx, sys.Timeline)
	if err != nil {
		return err
	}
	tli, from, err := s.position(ctx, sys, path)
	if err != nil {
		return err
	}
	if s.removed != 0 && from == s.removed {
		if tli, from, err = s.skipRemoved(ctx, sys, path, from); err != nil {
			return err
		}
	}
	for {
		next, err := s.follow(ctx, tli, from)
		if errors.Is(err, postgres.ErrWALRemoved) {
			// The server says so after the stream has begun, which ends the connection.
			s.removed = from
		}
		if err != nil {
			return err
		}
		s.spool.left()
		s.Log.Info("the server has left the timeline; following", "cluster", s.Cluster, "timeline", uint32(tli), "next", uint32(next.NextTimeline), "at", next.NextStart.String())
		if _, err := s.learnHistory(ctx, next.NextTimeline); err != nil {
			return err
		}
		tli, from, s.own = next.NextTimeline, next.NextStart, max(s.own, next.NextTimeline)
	}
}

// ensureSlot creates the slot if it is not there, or is of no use any more.
func (s *session) ensureSlot(ctx context.Context) error {
	if s.Temporary {
		return s.conn.CreateSlot(ctx, s.Slot, true)
	}
	sql, err := s.SQL(ctx)
	if err != nil {
		return err
	}
	defer sql.Close(context.WithoutCancel(ctx))
	slot, err := sql.ReadSlot(ctx, s.Slot)
	switch {
	case err == nil && !slot.Lost():
		return nil
	case err == nil && s.CreateSlot:
		s.Log.Warn("the replication slot has lost WAL; it is created anew", "cluster", s.Cluster, "slot", s.Slot)
		if err := s.conn.DropSlot(ctx, s.Slot); err != nil {
			return err
		}
	case err == nil:
		return fmt.Errorf("slot %s: %w", s.Slot, postgres.ErrSlotLost)
	case !errors.Is(err, postgres.ErrSlotMissing):
		return err
	case !s.CreateSlot:
		return slotError(s.Slot)
	case s.spool.full():
		return errSpoolFull // a slot that nobody can read from would only fill the primary again
	}
	if err := s.conn.CreateSlot(ctx, s.Slot, false); err != nil && !errors.Is(err, postgres.ErrSlotExists) {
		return err
	}
	s.Log.Info("created the replication slot", "cluster", s.Cluster, "slot", s.Slot)
	return nil
}

// follow streams one timeline to its end.
func (s *session) follow(ctx context.Context, tli pg.TimelineID, from pg.LSN) (postgres.EndOfTimeline, error) {
	seg := pg.SegmentAt(tli, from, s.cluster.SegmentSize)
	stream, err := s.conn.StartWAL(ctx, s.Slot, seg.Start(), tli)
	if err != nil {
		return postgres.EndOfTimeline{}, err
	}
	s.stream = stream
	prefix, err := s.prefix(ctx, seg)
	if err != nil {
		return postgres.EndOfTimeline{}, err
	}
	n, err := s.spool.begin(seg, prefix)
	if err != nil {
		return postgres.EndOfTimeline{}, err
	}
	d, err := wal.NewDecoder(wal.Config{SystemID: s.cluster.SystemIdentifier, SegmentSize: s.cluster.SegmentSize, Timeline: tli})
	if err != nil {
		return postgres.EndOfTimeline{}, err
	}
	s.heard, s.answered = time.Now(), false
	s.connected(s.own, tli, seg)
	return s.receive(ctx, n, d)
}

// prefix is what the repository holds of an unfinished segment that is about to
// be received again; nothing if the spool has the segment.
func (s *session) prefix(ctx context.Context, seg pg.Segment) ([]byte, error) {
	if t := s.spool.tail(); t != nil && t.seg == seg {
		return nil, nil
	}
	return s.Repo.ReadParts(ctx, s.Cluster, seg)
}

// receive takes messages until the timeline ends.
func (s *session) receive(ctx context.Context, n *spooled, d *wal.Decoder) (end postgres.EndOfTimeline, err error) {
	w := newWaker()
	s.up.onMove(w.wake)
	defer s.up.onMove(nil)
	for {
		if err := s.tell(ctx, false); err != nil {
			return end, err
		}
		wctx, cancel := w.wait(ctx, time.Second)
		var msg postgres.WALMessage
		if s.spool.full() {
			<-wctx.Done() // read no more; the server waits, and hears from us meanwhile
			err = context.DeadlineExceeded
			s.heard = time.Now()
		} else {
			msg, err = s.stream.Receive(wctx)
		}
		interrupted := wctx.Err() != nil
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				return end, context.Cause(ctx)
			}
			if !interrupted || !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
				return end, err
			}
			if err := s.silence(ctx); err != nil {
				return end, err
			}
			continue
		}
		s.heard, s.streamed, s.answered = time.Now(), true, true
		switch m := msg.(type) {
		case postgres.XLogData:
			if n, err = s.take(n, d, m); err != nil {
				return end, err
			}
			s.noteServer(max(m.ServerEnd, m.Start+pg.LSN(len(m.Data))))
		case postgres.Keepalive:
			s.noteServer(m.ServerEnd)
			if m.ReplyRequested {
				if err := s.tell(ctx, true); err != nil {
					return end, err
				}
			}
		case postgres.EndOfTimeline:
			return m, nil
		}
	}
}

// take checks a piece of WAL and puts it into the spool. The server may send
// pieces that cross segments.
func (s *session) take(n *spooled, d *wal.Decoder, m postgres.XLogData) (*spooled, error) {
	if err := s.decode(d, m.Start, m.Data); err != nil {
		return n, err
	}
	at, data := m.Start, m.Data
	for len(data) > 0 {
		if at == n.seg.End() {
			var err error
			if n, err = s.spool.begin(n.seg.Next(), nil); err != nil {
				return n, err
			}
		}
		if at < n.seg.Start() || at > n.seg.End() {
			return n, fmt.Errorf("the server sent WAL at %s, expected it in segment %s", at, n.seg)
		}
		k := min(int64(len(data)), int64(n.seg.End()-at))
		if err := s.spool.write(n, int64(at-n.seg.Start()), data[:k]); err != nil {
			return n, err
		}
		at, data = at+pg.LSN(k), data[k:]
	}
	return n, nil
}

// decode verifies WAL as it comes and notes the commits in it.
func (s *session) decode(d *wal.Decoder, at pg.LSN, data []byte) error {
	err := d.Feed(at, data)
	for err == nil {
		var rec *wal.Record
		var ok bool
		if rec, ok, err = d.Next(); err != nil || !ok {
			break
		}
		if c, is, perr := wal.ParseCommit(rec); perr != nil {
			err = perr
		} else if is && c.Kind.Committed() {
			s.mu.Lock()
			s.commits.add(rec.End, c.Time)
			s.mu.Unlock()
		}
	}
	if err != nil {
		return fmt.Errorf("the WAL that the server sent is not sound and was not stored: %w", err)
	}
	return nil
}

func (s *session) noteServer(end pg.LSN) {
	s.serverEnd = max(s.serverEnd, end)
	s.mu.Lock()
	s.status.ServerEnd = s.serverEnd
	s.mu.Unlock()
}

// silence asks a server that says nothing for a sign of life.
func (s *session) silence(ctx context.Context) error {
	quiet := time.Since(s.heard)
	if quiet > silenceLimit {
		return fmt.Errorf("nothing was heard of the server for %s", quiet.Round(time.Second))
	}
	if quiet > silenceProbe {
		return s.tell(ctx, true)
	}
	return nil
}

// tell reports to the server how far WAL is received and durable, if that moved,
// or it is time, or always. Before the server has sent anything it is told nothing: it moves the slot to where
// we say that we are, even back to WAL that it has removed, as a slot's that was created anew.
func (s *session) tell(ctx context.Context, always bool) error {
	if !s.answered {
		return nil
	}
	_, received, durable := s.spool.position()
	flush, err := s.flushed(received, durable)
	if err != nil {
		return err
	}
	if !always && flush == s.toldFlush && time.Since(s.told) < statusInterval {
		return nil
	}
	if err := s.stream.SendStatus(ctx, received, flush, flush, time.Since(s.heard) > silenceProbe); err != nil {
		return err
	}
	s.told, s.toldFlush = time.Now(), flush
	return nil
}

// flushed is what may be promised: what is durable in the repository. Only when
// the repository is away, the primary keeps more for us than it should, and no
// commit waits for us, the spool counts too, once it is durable on this host.
func (s *session) flushed(received, durable pg.LSN) (pg.LSN, error) {
	_, failure := s.up.health()
	if failure == nil || s.up.urgent() || int64(max(s.serverEnd, received)-durable) <= s.PrimaryRetainMax {
		return max(durable, min(s.spoolSync, received)), nil
	}
	if received > s.spoolSync {
		if err := s.spool.sync(); err != nil {
			return durable, err
		}
		s.spoolSync = received
		s.Log.Warn("the repository is away and the primary keeps too much WAL: what is safe in the spool is acknowledged", "cluster", s.Cluster, "up_to", received.String())
	}
	return s.spoolSync, nil
}

// waker interrupts a wait for the network when the repository has got further,
// so that the server hears of it at once.
type waker struct {
	mu     sync.Mutex
	moved  bool
	cancel context.CancelFunc
}

func newWaker() *waker { return &waker{} }

func (w *waker) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.moved = true
	if w.cancel != nil {
		w.cancel()
	}
}

// wait makes the context of one wait: it ends with ctx, after d, or by wake, also
// by one that came before.
func (w *waker) wait(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	wctx, cancel := context.WithTimeout(ctx, d)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cancel = cancel
	if w.moved {
		w.moved = false
		cancel()
	}
	return wctx, func() {
		w.mu.Lock()
		w.cancel = nil
		w.mu.Unlock()
		cancel()
	}
}
