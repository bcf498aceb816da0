package postgres

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"pileus/internal/pg"
)

// sendTimeout bounds a write on a replication connection, so that a peer that
// stopped reading cannot hold us for ever.
const sendTimeout = 30 * time.Second

// ReplConn is one physical replication session. It carries one command at a
// time and belongs to one goroutine at a time.
type ReplConn struct {
	conn *pgconn.PgConn
	cfg  *pgconn.Config

	identified bool // IDENTIFY_SYSTEM has run, without which a standby of 13 or 14 refuses to stream
}

// ConnectReplication opens a physical replication session; dsn and opts are those of
// Connect. The server shows it under opts.ApplicationName, which is the name that
// synchronous_standby_names has to hold. Error: a *ConnectError.
func ConnectReplication(ctx context.Context, dsn string, opts Options) (*ReplConn, error) {
	cfg, err := parseConfig(dsn, opts)
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams["replication"] = "true"
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, connectError(ctx, cfg, true, err)
	}
	return &ReplConn{conn: conn, cfg: cfg}, nil
}

// Close ends the session and with it any stream or base backup that runs on it.
func (r *ReplConn) Close(ctx context.Context) error { return r.conn.Close(ctx) }

// Closed tells whether the session has ended, by Close or by a failure.
func (r *ReplConn) Closed() bool { return r.conn.IsClosed() }

// System is the answer to IDENTIFY_SYSTEM.
type System struct {
	Identifier uint64
	Timeline   pg.TimelineID
	LSN        pg.LSN // flush position of a primary, replay position of a standby
}

// IdentifySystem asks which cluster this is and where its WAL stands.
func (r *ReplConn) IdentifySystem(ctx context.Context) (System, error) {
	var s System
	row, err := r.row(ctx, "IDENTIFY_SYSTEM", 3)
	if err != nil {
		return s, fmt.Errorf("identify system: %w", err)
	}
	if s.Identifier, err = strconv.ParseUint(row[0], 10, 64); err != nil {
		return s, fmt.Errorf("identify system: system identifier: %w", err)
	}
	if s.Timeline, err = parseTimeline(row[1]); err != nil {
		return s, fmt.Errorf("identify system: %w", err)
	}
	if s.LSN, err = pg.ParseLSN(row[2]); err != nil {
		return s, fmt.Errorf("identify system: %w", err)
	}
	r.identified = true
	return s, nil
}

// Show reads one setting, as SHOW prints it (with units, for example 16MB).
func (r *ReplConn) Show(ctx context.Context, name string) (string, error) {
	if !settingName.MatchString(name) {
		return "", fmt.Errorf("show: %q is not the name of a setting", name)
	}
	row, err := r.row(ctx, "SHOW "+name, 1)
	if err != nil {
		return "", fmt.Errorf("show %s: %w", name, privilege(err))
	}
	return row[0], nil
}

// WALSegmentSize is the cluster's segment size in bytes.
func (r *ReplConn) WALSegmentSize(ctx context.Context) (int64, error) {
	s, err := r.Show(ctx, "wal_segment_size")
	if err != nil {
		return 0, err
	}
	n, err := parseSize(s)
	if err != nil || !pg.ValidSegmentSize(n) {
		return 0, fmt.Errorf("wal_segment_size is %q, which is not a segment size", s)
	}
	return n, nil
}

func parseSize(s string) (int64, error) {
	unit := int64(1)
	for suffix, u := range map[string]int64{"kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30} {
		if n := len(s) - 2; n > 0 && s[n:] == suffix {
			s, unit = s[:n], u
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n * unit, err
}

var (
	settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)
	slotName    = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)
)

// CheckSlotName tells whether PostgreSQL would take name for a slot: 1 to 63
// lower-case letters, digits and underscores.
func CheckSlotName(name string) error {
	if !slotName.MatchString(name) {
		return fmt.Errorf("%q is not a replication slot name: use 1 to 63 lower-case letters, digits and underscores", name)
	}
	return nil
}

// CreateSlot creates a physical slot that keeps WAL from now on. A temporary
// slot ends with this session, or with the first error that the server reports on it. Errors: ErrSlotExists, ErrSlotLimit.
func (r *ReplConn) CreateSlot(ctx context.Context, name string, temporary bool) error {
	if err := CheckSlotName(name); err != nil {
		return err
	}
	kind := ""
	if temporary {
		kind = " TEMPORARY"
	}
	if err := r.exec(ctx, "CREATE_REPLICATION_SLOT "+QuoteIdent(name)+kind+" PHYSICAL RESERVE_WAL"); err != nil {
		return fmt.Errorf("create replication slot %q: %w", name, serverError(err))
	}
	return nil
}

// DropSlot drops a slot. Errors: ErrSlotMissing, ErrSlotActive.
func (r *ReplConn) DropSlot(ctx context.Context, name string) error {
	if err := CheckSlotName(name); err != nil {
		return err
	}
	if err := r.exec(ctx, "DROP_REPLICATION_SLOT "+QuoteIdent(name)); err != nil {
		return fmt.Errorf("drop replication slot %q: %w", name, serverError(err))
	}
	return nil
}

// TimelineHistory fetches the history file of a timeline: its file name and
// content. Timeline 1 has none.
func (r *ReplConn) TimelineHistory(ctx context.Context, tli pg.TimelineID) (name string, content []byte, err error) {
	row, err := r.row(ctx, fmt.Sprintf("TIMELINE_HISTORY %d", tli), 2)
	if err != nil {
		return "", nil, fmt.Errorf("fetch history of timeline %d: %w", tli, err)
	}
	if want := pg.HistoryName(tli); row[0] != want {
		return "", nil, fmt.Errorf("fetch history of timeline %d: the server sent file %q instead of %s", tli, row[0], want)
	}
	return row[0], []byte(row[1]), nil
}

func (r *ReplConn) exec(ctx context.Context, command string) error {
	_, err := r.conn.Exec(ctx, command).ReadAll()
	return err
}

// row runs a command that answers with one row of at least n columns; NULL reads as "".
func (r *ReplConn) row(ctx context.Context, command string, n int) ([]string, error) {
	res, err := r.conn.Exec(ctx, command).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(res) == 0 || len(res[0].Rows) != 1 || len(res[0].Rows[0]) < n {
		return nil, fmt.Errorf("the server answered %s in an unexpected shape", command)
	}
	row := make([]string, len(res[0].Rows[0]))
	for i, v := range res[0].Rows[0] {
		row[i] = string(v)
	}
	return row, nil
}

// send starts a command whose answer is not a plain result set.
func (r *ReplConn) send(ctx context.Context, command string) error {
	if r.conn.IsClosed() {
		return errors.New("the replication connection is closed")
	}
	r.conn.Frontend().SendQuery(&pgproto3.Query{String: command})
	return r.flush(ctx)
}

// flush writes what the frontend has buffered. A write that fails may have
// been cut short, so the connection cannot be used afterwards.
func (r *ReplConn) flush(ctx context.Context) error {
	deadline := time.Now().Add(sendTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := r.conn.Conn().SetWriteDeadline(deadline); err != nil {
		return fmt.Errorf("set write deadline: %w", err)
	}
	if err := r.conn.Frontend().Flush(); err != nil {
		r.abandon(ctx)
		return fmt.Errorf("send to %s: %w", address(r.cfg), err)
	}
	return r.conn.Conn().SetWriteDeadline(time.Time{})
}

// abandon closes the connection without waiting for a goodbye from the server.
func (r *ReplConn) abandon(ctx context.Context) {
	gone, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cancel()
	_ = r.conn.Close(gone)
}

// receive reads one message and turns an error response into an error.
func (r *ReplConn) receive(ctx context.Context) (pgproto3.BackendMessage, error) {
	for {
		msg, err := r.conn.ReceiveMessage(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, fmt.Errorf("receive from %s: %w", address(r.cfg), err)
		}
		switch m := msg.(type) {
		case *pgproto3.ErrorResponse:
			return nil, pgconn.ErrorResponseToPgError(m)
		case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus, *pgproto3.NotificationResponse:
			continue
		}
		return msg, nil
	}
}

// drain reads up to ReadyForQuery, after which the connection takes the next command.
func (r *ReplConn) drain(ctx context.Context) error {
	for {
		msg, err := r.receive(ctx)
		if err != nil {
			return err
		}
		if _, ok := msg.(*pgproto3.ReadyForQuery); ok {
			return nil
		}
	}
}

func parseTimeline(s string) (pg.TimelineID, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a timeline", s)
	}
	return pg.TimelineID(n), nil
}
