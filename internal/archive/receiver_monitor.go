package archive

import (
	"context"
	"errors"
	"time"

	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/repo"
)

// watermarkMargin is taken off a watermark's time: a commit takes its time a
// moment before its record is in the WAL.
const watermarkMargin = time.Second

// monitor looks at the server over SQL: whether commits wait for us, how much it
// keeps for us, and what its clock says while it is quiet. It also writes the
// status. That it fails is never a reason to stop receiving.
func (r *receiver) monitor(ctx context.Context) {
	tick := time.NewTicker(monitorTick)
	defer tick.Stop()
	var sql *postgres.Conn
	defer func() {
		if sql != nil {
			sql.Close(context.WithoutCancel(ctx))
		}
	}()
	var marks watermarks
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.report()
		qctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		var err error
		if sql == nil {
			sql, err = r.SQL(qctx)
		}
		if err == nil {
			err = r.observe(qctx, sql, &marks)
		}
		cancel()
		if err != nil && sql != nil {
			sql.Close(context.WithoutCancel(ctx))
			sql = nil
		}
	}
}

func (r *receiver) observe(ctx context.Context, sql *postgres.Conn, marks *watermarks) error {
	var waits, recovering bool
	var flushed, inserted *string
	var now time.Time
	// The clock is read before the position: whatever is committed by then lies
	// before the insert position, flushed or not (synchronous_commit may be off).
	err := sql.SQL().QueryRow(ctx, `SELECT pg_is_in_recovery(), one.now,
		CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn()::text END,
		CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_insert_lsn()::text END,
		(SELECT coalesce(bool_or(r.sync_state IN ('sync', 'quorum', 'potential')), false) FROM pg_stat_replication r WHERE r.application_name = $1)
		FROM (SELECT clock_timestamp() AS now OFFSET 0) one`, postgres.DefaultApplicationName).
		Scan(&recovering, &now, &flushed, &inserted, &waits)
	if err != nil {
		return err
	}
	r.up.setSynchronous(waits)
	r.mu.Lock()
	r.status.Synchronous = waits
	streamed, size := r.streamed, r.size
	r.mu.Unlock()
	if recovering || flushed == nil || inserted == nil {
		return nil // a standby's WAL says nothing of what its primary has committed
	}
	end, err := pg.ParseLSN(*flushed)
	if err != nil {
		return err
	}
	insert, err := pg.ParseLSN(*inserted)
	if err != nil {
		return err
	}
	if err := r.protectPrimary(ctx, sql, end); err != nil {
		return err
	}
	tli, _, durable := r.spool.position()
	if tli == 0 || tli != streamed {
		return nil // not streaming the server's own timeline yet
	}
	marks.see(repo.Watermark{Timeline: tli, LSN: recordEnd(insert, size), Time: now.Add(-watermarkMargin).UTC()})
	m, ok := marks.due(tli, durable, r.WatermarkInterval)
	if !ok {
		r.spool.notify()
		return nil // soon: WAL is on its way
	}
	if err := r.Repo.PutWatermark(ctx, r.Cluster, m); err != nil {
		r.Log.Warn("the watermark cannot be stored", "cluster", r.Cluster, "error", err)
	}
	return nil
}

// watermarks wait until the WAL before them is durable. One waits at a time: under
// a steady load a newer one would never be reached.
type watermarks struct {
	waiting repo.Watermark // zero: none
	written time.Time
}

func (w *watermarks) see(m repo.Watermark) {
	if w.waiting.LSN == 0 || w.waiting.Timeline != m.Timeline || w.waiting.LSN == m.LSN {
		w.waiting = m
	}
}

// due is the watermark to write now, if there is one and the last is old enough.
func (w *watermarks) due(tli pg.TimelineID, durable pg.LSN, interval time.Duration) (m repo.Watermark, ok bool) {
	if w.waiting.Timeline != tli || durable < w.waiting.LSN || time.Since(w.written) < interval {
		return m, false
	}
	m = w.waiting
	w.waiting, w.written = repo.Watermark{}, time.Now()
	return m, true
}

// recordEnd is the end of the last record before an insert position, which lies
// behind the header of a page that has none yet.
func recordEnd(insert pg.LSN, segmentSize int64) pg.LSN {
	const page, shortHeader, longHeader = 8 << 10, 24, 40
	switch {
	case insert%pg.LSN(segmentSize) == longHeader:
		return insert - longHeader
	case insert%page == shortHeader && insert%pg.LSN(segmentSize) != shortHeader:
		return insert - shortHeader
	}
	return insert
}

// protectPrimary gives the slot up when all else failed: the repository is away, the
// spool takes no more or nothing streams into it, and the primary keeps more WAL for us
// than it may. The database must not die of its backup. A server that bounds its slots by
// itself (max_slot_wal_keep_size) needs no help.
func (r *receiver) protectPrimary(ctx context.Context, sql *postgres.Conn, end pg.LSN) error {
	_, failure := r.up.health()
	if r.Temporary || failure == nil {
		return nil
	}
	slot, err := sql.ReadSlot(ctx, r.Slot)
	if errors.Is(err, postgres.ErrSlotMissing) {
		return nil
	} else if err != nil {
		return err
	}
	if slot.RestartLSN == 0 || int64(end-slot.RestartLSN) <= r.PrimaryRetainMax || slot.SafeWALSize >= 0 {
		return nil
	}
	if slot.Active && !r.spool.full() {
		return nil // the stream will acknowledge what is safe in the spool
	}
	if slot.ActivePID != 0 {
		if _, err := sql.SQL().Exec(ctx, `SELECT pg_terminate_backend($1)`, slot.ActivePID); err != nil {
			r.Log.Warn("our own WAL sender cannot be ended to free the slot (GRANT pg_signal_backend TO the role)", "cluster", r.Cluster, "error", err)
			return nil
		}
	}
	if _, err := sql.SQL().Exec(ctx, `SELECT pg_drop_replication_slot($1)`, r.Slot); err != nil {
		return nil // still in use: the next tick tries again
	}
	// Whether WAL is lost by it shows when the stream begins again.
	r.Log.Error("the repository is away, nothing more can be received, and the primary kept too much WAL: the slot was given up to save the primary",
		"cluster", r.Cluster, "slot", r.Slot, "kept_bytes", int64(end-slot.RestartLSN), "error", failure)
	return nil
}
