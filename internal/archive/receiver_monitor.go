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
	var marked time.Time
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
			err = r.observe(qctx, sql, &marked)
		}
		cancel()
		if err != nil && sql != nil {
			sql.Close(context.WithoutCancel(ctx))
			sql = nil
		}
	}
}

func (r *receiver) observe(ctx context.Context, sql *postgres.Conn, marked *time.Time) error {
	var waits, recovering bool
	var flushed *string
	var now time.Time
	err := sql.SQL().QueryRow(ctx, `SELECT pg_is_in_recovery(), clock_timestamp(),
		CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn()::text END,
		coalesce(bool_or(r.sync_state IN ('sync', 'quorum', 'potential')), false)
		FROM (SELECT) one LEFT JOIN pg_stat_replication r ON r.application_name = $1`, postgres.DefaultApplicationName).
		Scan(&recovering, &now, &flushed, &waits)
	if err != nil {
		return err
	}
	r.up.setSynchronous(waits)
	r.mu.Lock()
	r.status.Synchronous = waits
	r.mu.Unlock()
	if recovering || flushed == nil {
		return nil // a standby's WAL says nothing of what its primary has committed
	}
	end, err := pg.ParseLSN(*flushed)
	if err != nil {
		return err
	}
	if err := r.protectPrimary(ctx, sql, end); err != nil {
		return err
	}
	if time.Since(*marked) < r.WatermarkInterval {
		return nil
	}
	tli, _, durable := r.spool.position()
	if durable < end || tli == 0 {
		r.spool.notify()
		return nil // soon: WAL is on its way
	}
	*marked = time.Now()
	err = r.Repo.PutWatermark(ctx, r.Cluster, repo.Watermark{Timeline: tli, LSN: durable, Time: now.Add(-watermarkMargin).UTC()})
	if err != nil {
		r.Log.Warn("the watermark cannot be stored", "cluster", r.Cluster, "error", err)
	}
	return nil
}

// protectPrimary gives the slot up when all else failed: the repository is away,
// the spool is full, and the primary keeps more WAL for us than it may. The
// database must not die of its backup.
func (r *receiver) protectPrimary(ctx context.Context, sql *postgres.Conn, end pg.LSN) error {
	if r.Temporary || !r.spool.full() {
		return nil
	}
	slot, err := sql.ReadSlot(ctx, r.Slot)
	if errors.Is(err, postgres.ErrSlotMissing) {
		return nil
	} else if err != nil {
		return err
	}
	if slot.RestartLSN == 0 || int64(end-slot.RestartLSN) <= r.PrimaryRetainMax {
		return nil
	}
	_, received, _ := r.spool.position()
	if slot.ActivePID != 0 {
		if _, err := sql.SQL().Exec(ctx, `SELECT pg_terminate_backend($1)`, slot.ActivePID); err != nil {
			r.Log.Warn("our own WAL sender cannot be ended to free the slot (GRANT pg_signal_backend TO the role)", "cluster", r.Cluster, "error", err)
			return nil
		}
	}
	if _, err := sql.SQL().Exec(ctx, `SELECT pg_drop_replication_slot($1)`, r.Slot); err != nil {
		return nil // still in use: the next tick tries again
	}
	r.gap(received, end, "the repository was away, the spool was full, and the primary kept too much WAL: the slot was given up")
	return nil
}
