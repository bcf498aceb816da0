package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"pileus/internal/pg"
)

// StopResult is what the server hands over at the end of a backup taken by SQL.
type StopResult struct {
	LSN           pg.LSN // the backup is consistent once WAL is replayed up to here
	Label         []byte // content for backup_label
	TablespaceMap []byte // content for tablespace_map; empty without tablespaces
}

// StartBackup begins a non-exclusive backup; the session must stay open until
// StopBackup, and closing it aborts the backup. fast asks for an immediate checkpoint
// instead of one spread over checkpoint_completion_target. It returns the LSN
// from which WAL is needed.
func (c *Conn) StartBackup(ctx context.Context, label string, fast bool) (pg.LSN, error) {
	q := "SELECT pg_backup_start($1, $2)::text"
	if c.version < 150000 {
		q = "SELECT pg_start_backup($1, $2, false)::text"
	}
	lsn, err := c.lsn(ctx, q, label, fast)
	if err != nil {
		return 0, fmt.Errorf("start backup %q: %w", label, err)
	}
	return lsn, nil
}

// StopBackup ends the backup that this session started, without waiting for the
// archiver: whoever takes the backup sees to the WAL.
func (c *Conn) StopBackup(ctx context.Context) (StopResult, error) {
	q := "SELECT lsn::text, labelfile, spcmapfile FROM pg_backup_stop(false)"
	if c.version < 150000 {
		q = "SELECT lsn::text, labelfile, spcmapfile FROM pg_stop_backup(false, false)"
	}
	var res StopResult
	var lsn, label, spcmap string
	err := c.sql.QueryRow(ctx, q).Scan(&lsn, &label, &spcmap)
	if err == nil {
		res.LSN, err = pg.ParseLSN(lsn)
	}
	if err != nil {
		return res, fmt.Errorf("stop backup: %w", privilege(err))
	}
	res.Label, res.TablespaceMap = []byte(label), []byte(spcmap)
	return res, nil
}

// SwitchWAL ends the current WAL segment and returns the end of the last
// record in it (plus one). On an idle server nothing is switched.
func (c *Conn) SwitchWAL(ctx context.Context) (pg.LSN, error) {
	lsn, err := c.lsn(ctx, "SELECT pg_switch_wal()::text")
	if err != nil {
		return 0, fmt.Errorf("switch WAL segment: %w", err)
	}
	return lsn, nil
}

// CreateRestorePoint writes a named restore point and returns its LSN.
func (c *Conn) CreateRestorePoint(ctx context.Context, name string) (pg.LSN, error) {
	lsn, err := c.lsn(ctx, "SELECT pg_create_restore_point($1)::text", name)
	if err != nil {
		return 0, fmt.Errorf("create restore point %q: %w", name, err)
	}
	return lsn, nil
}

// CurrentLSN is the insert position of a primary, the replay position of a standby.
func (c *Conn) CurrentLSN(ctx context.Context) (pg.LSN, error) {
	lsn, err := c.lsn(ctx, "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END)::text")
	if err != nil {
		return 0, fmt.Errorf("read WAL position: %w", err)
	}
	return lsn, nil
}

// InRecovery tells whether the server is a standby or still recovers.
func (c *Conn) InRecovery(ctx context.Context) (bool, error) {
	var in bool
	if err := c.sql.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&in); err != nil {
		return false, fmt.Errorf("ask whether the server recovers: %w", err)
	}
	return in, nil
}

// Checkpoint runs CHECKPOINT: all that is committed is in the data files afterwards.
func (c *Conn) Checkpoint(ctx context.Context) error {
	if _, err := c.sql.Exec(ctx, "CHECKPOINT"); err != nil {
		return fmt.Errorf("checkpoint: %w", privilege(err))
	}
	return nil
}

func (c *Conn) lsn(ctx context.Context, query string, args ...any) (pg.LSN, error) {
	var s string
	if err := c.sql.QueryRow(ctx, query, args...).Scan(&s); err != nil {
		return 0, privilege(err)
	}
	return pg.ParseLSN(s)
}

// Slot is one physical replication slot.
type Slot struct {
	Name         string
	Physical     bool
	Temporary    bool
	Active       bool
	ActivePID    int    // 0 when not active
	RestartLSN   pg.LSN // oldest WAL that the slot keeps; 0 when it keeps none yet
	WALStatus    string // reserved, extended, unreserved, lost; "" when it keeps none yet
	SafeWALSize  int64  // bytes until WAL of the slot may be removed; -1 when there is no limit or it is lost
	Invalidation string // why it was invalidated; always "" before 17
}

// Lost tells whether WAL that the slot should have kept is gone.
func (s Slot) Lost() bool { return s.WALStatus == "lost" || s.Invalidation != "" }

// ReadSlot reads one slot. Error: ErrSlotMissing.
func (c *Conn) ReadSlot(ctx context.Context, name string) (Slot, error) {
	s := Slot{Name: name}
	var pid *int32
	var restart, status, reason *string
	var safe *int64
	err := c.sql.QueryRow(ctx, `SELECT slot_type = 'physical', temporary, active, active_pid, restart_lsn::text, wal_status, safe_wal_size,
		to_jsonb(s) ->> 'invalidation_reason' FROM pg_replication_slots s WHERE slot_name = $1`, name).
		Scan(&s.Physical, &s.Temporary, &s.Active, &pid, &restart, &status, &safe, &reason)
	if errors.Is(err, pgx.ErrNoRows) {
		return s, fmt.Errorf("read slot %q: %w", name, ErrSlotMissing)
	}
	if err == nil {
		s.RestartLSN, err = optionalLSN(restart)
	}
	if err != nil {
		return s, fmt.Errorf("read slot %q: %w", name, err)
	}
	s.SafeWALSize = -1
	if safe != nil {
		s.SafeWALSize = *safe
	}
	if pid != nil {
		s.ActivePID = int(*pid)
	}
	if status != nil {
		s.WALStatus = *status
	}
	if reason != nil {
		s.Invalidation = *reason
	}
	return s, nil
}

// Reload makes the server read its configuration files again.
func (c *Conn) Reload(ctx context.Context) error {
	var ok bool
	if err := c.sql.QueryRow(ctx, "SELECT pg_reload_conf()").Scan(&ok); err != nil {
		return fmt.Errorf("reload configuration: %w", privilege(err))
	}
	if !ok {
		return errors.New("reload configuration: the server could not signal itself; see its log")
	}
	return nil
}
