package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"pileus/internal/pg"
)

// WALMessage is one of XLogData, Keepalive and EndOfTimeline.
type WALMessage interface{ walMessage() }

// XLogData is a piece of WAL.
type XLogData struct {
	Start      pg.LSN    // position of Data's first byte
	ServerEnd  pg.LSN    // end of WAL on the server when it sent this
	ServerTime time.Time // UTC
	Data       []byte    // valid until the next Receive; copy what is kept
}

// Keepalive says where the server stands while it has nothing to send.
type Keepalive struct {
	ServerEnd      pg.LSN
	ServerTime     time.Time // UTC
	ReplyRequested bool      // answer with SendStatus at once, or be cut off
}

// EndOfTimeline is the last message of a stream whose timeline the server has left:
// all its WAL was sent. Go on with StartWAL on NextTimeline from NextStart, or
// rather from the start of the segment that holds it. The ReplConn is free again.
type EndOfTimeline struct {
	NextTimeline pg.TimelineID
	NextStart    pg.LSN
}

func (XLogData) walMessage()      {}
func (Keepalive) walMessage()     {}
func (EndOfTimeline) walMessage() {}

// ErrStreamEnded is returned by Receive when the server ended the stream
// without naming a next timeline, as it does on shutdown.
var ErrStreamEnded = errors.New("the server ended the WAL stream")

// WALStream is a running START_REPLICATION. It occupies its ReplConn until EndOfTimeline
// was received, Stop returned nil, or the connection was closed. Its methods must not be
// called concurrently: one goroutine receives with a deadline and sends status in between.
type WALStream struct {
	r      *ReplConn
	tli    pg.TimelineID
	end    *EndOfTimeline // the timeline ended before the first byte
	closed bool
}

// StartWAL streams WAL of timeline tli from start, which should be the start of a segment.
// slot may be "". Errors: ErrWALRemoved, ErrSlotMissing, ErrSlotActive,
// ErrSlotLost, ErrNotInHistory; the connection stays usable after these.
func (r *ReplConn) StartWAL(ctx context.Context, slot string, start pg.LSN, tli pg.TimelineID) (*WALStream, error) {
	cmd := "START_REPLICATION "
	if slot != "" {
		if err := CheckSlotName(slot); err != nil {
			return nil, err
		}
		cmd += "SLOT " + QuoteIdent(slot) + " "
	}
	cmd += fmt.Sprintf("PHYSICAL %s TIMELINE %d", start, tli)
	if !r.identified {
		if _, err := r.IdentifySystem(ctx); err != nil {
			return nil, fmt.Errorf("stream WAL: %w", err)
		}
	}
	s := &WALStream{r: r, tli: tli}
	if err := s.open(ctx, cmd); err != nil {
		return nil, fmt.Errorf("stream WAL of timeline %d from %s: %w", tli, start, err)
	}
	return s, nil
}

func (s *WALStream) open(ctx context.Context, cmd string) error {
	if err := s.r.send(ctx, cmd); err != nil {
		return err
	}
	msg, err := s.r.receive(ctx)
	if err != nil {
		return s.refused(ctx, err)
	}
	switch m := msg.(type) {
	case *pgproto3.CopyBothResponse:
		return nil
	case *pgproto3.RowDescription:
		// start is the very end of a timeline: no WAL, only the way on.
		s.closed = true
		s.end, err = s.r.nextTimeline(ctx)
		return err
	default:
		s.r.abandon(ctx)
		return fmt.Errorf("unexpected answer %T", m)
	}
}

// refused makes the connection usable again after an error response, and types it.
func (s *WALStream) refused(ctx context.Context, err error) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		// The answer may still come: nobody could tell it from the next one's.
		s.r.abandon(ctx)
		return err
	}
	if pe.Severity == "FATAL" || s.r.conn.IsClosed() {
		return err
	}
	if derr := s.r.drain(ctx); derr != nil {
		s.r.abandon(ctx)
	}
	// StartReplication raises this one without an SQLSTATE of its own.
	if pe.Code == "XX000" && pe.Routine == "StartReplication" {
		return fmt.Errorf("%w (%w)", ErrNotInHistory, err)
	}
	return streamError(err)
}

// Timeline is the timeline that is streamed.
func (s *WALStream) Timeline() pg.TimelineID { return s.tli }

// Receive waits for the next message. When ctx ends first it returns ctx's error and the
// stream goes on: call it again with another ctx. Any other error ends the stream;
// ErrStreamEnded, ErrWALRemoved and ErrSlotLost are told apart.
func (s *WALStream) Receive(ctx context.Context) (WALMessage, error) {
	if s.end != nil {
		end := *s.end
		s.end = nil
		return end, nil
	}
	if s.closed {
		return nil, ErrStreamEnded
	}
	msg, err := s.r.receive(ctx)
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return nil, err
		}
		s.closed = true
		var pe *pgconn.PgError
		if errors.As(err, &pe) {
			// The server left copy mode; what state it is in depends on the
			// failure, so a new connection is the safe way on.
			s.r.abandon(ctx)
			if pe.Code == "57P01" || pe.Code == "57P02" || pe.Code == "57P03" {
				return nil, fmt.Errorf("%w: %w", ErrStreamEnded, err)
			}
		}
		return nil, fmt.Errorf("stream WAL of timeline %d: %w", s.tli, streamError(err))
	}
	switch m := msg.(type) {
	case *pgproto3.CopyData:
		out, err := parseWALMessage(m.Data)
		if err != nil {
			s.closed = true
			s.r.abandon(ctx)
			return nil, fmt.Errorf("stream WAL of timeline %d: %w", s.tli, err)
		}
		return out, nil
	case *pgproto3.CopyDone:
		s.closed = true
		return s.finish(ctx)
	case *pgproto3.CommandComplete:
		s.closed = true
		s.r.abandon(ctx)
		return nil, ErrStreamEnded
	default:
		s.closed = true
		s.r.abandon(ctx)
		return nil, fmt.Errorf("stream WAL of timeline %d: unexpected message %T", s.tli, m)
	}
}

// finish answers the server's CopyDone and reads where the WAL goes on.
func (s *WALStream) finish(ctx context.Context) (WALMessage, error) {
	end, err := s.endCopy(ctx)
	if err != nil {
		s.r.abandon(ctx)
		return nil, fmt.Errorf("end of timeline %d: %w", s.tli, err)
	}
	if end == nil {
		return nil, ErrStreamEnded
	}
	return *end, nil
}

func (s *WALStream) endCopy(ctx context.Context) (*EndOfTimeline, error) {
	s.r.conn.Frontend().Send(&pgproto3.CopyDone{})
	if err := s.r.flush(ctx); err != nil {
		return nil, err
	}
	for {
		msg, err := s.r.receive(ctx)
		if err != nil {
			return nil, err
		}
		switch msg.(type) {
		case *pgproto3.RowDescription:
			return s.r.nextTimeline(ctx)
		case *pgproto3.ReadyForQuery:
			return nil, nil
		}
	}
}

// nextTimeline reads the row that follows the RowDescription just received, up
// to ReadyForQuery.
func (r *ReplConn) nextTimeline(ctx context.Context) (*EndOfTimeline, error) {
	var end *EndOfTimeline
	for {
		msg, err := r.receive(ctx)
		if err != nil {
			return nil, err
		}
		switch m := msg.(type) {
		case *pgproto3.DataRow:
			if len(m.Values) < 2 {
				return nil, fmt.Errorf("the row about the next timeline has %d columns instead of 2", len(m.Values))
			}
			e := EndOfTimeline{}
			if e.NextTimeline, err = parseTimeline(string(m.Values[0])); err != nil {
				return nil, err
			}
			if e.NextStart, err = pg.ParseLSN(string(m.Values[1])); err != nil {
				return nil, err
			}
			end = &e
		case *pgproto3.ReadyForQuery:
			return end, nil
		}
	}
}

// SendStatus reports how far WAL was written, flushed and applied here. flushed is a promise: the
// server may discard WAL before it, and a synchronous commit returns on it. With
// replyRequested the server answers with a Keepalive. A failed call ends the connection.
func (s *WALStream) SendStatus(ctx context.Context, written, flushed, applied pg.LSN, replyRequested bool) error {
	if s.closed {
		return ErrStreamEnded
	}
	s.r.conn.Frontend().Send(&pgproto3.CopyData{Data: encodeStatus(written, flushed, applied, time.Now(), replyRequested)})
	if err := s.r.flush(ctx); err != nil {
		s.closed = true
		return fmt.Errorf("report WAL status: %w", err)
	}
	return nil
}

// Stop ends the stream from our side and frees the ReplConn. WAL that was under
// way is discarded. After an error the connection is closed.
func (s *WALStream) Stop(ctx context.Context) error {
	if s.closed {
		return nil
	}
	s.closed = true
	if _, err := s.endCopy(ctx); err != nil {
		s.r.abandon(ctx)
		return fmt.Errorf("stop WAL stream: %w", err)
	}
	return nil
}

// The messages inside CopyData, all integers big-endian, times in microseconds
// since 2000-01-01 UTC (PostgreSQL documentation, "Streaming Replication Protocol"):
//
//	w  start u64 | server end u64 | time i64 | WAL bytes        server to client
//	k  server end u64 | time i64 | reply requested u8           server to client
//	r  written u64 | flushed u64 | applied u64 | time i64 | reply requested u8
const (
	xlogDataHeader = 1 + 8 + 8 + 8
	keepaliveSize  = 1 + 8 + 8 + 1
	statusSize     = 1 + 8 + 8 + 8 + 8 + 1
)

// epoch is PostgreSQL's: 2000-01-01 00:00:00 UTC.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func parseWALMessage(b []byte) (WALMessage, error) {
	if len(b) == 0 {
		return nil, errors.New("empty message in the WAL stream")
	}
	switch b[0] {
	case 'w':
		if len(b) < xlogDataHeader {
			return nil, fmt.Errorf("WAL data message of %d bytes is too short", len(b))
		}
		return XLogData{
			Start:      pg.LSN(binary.BigEndian.Uint64(b[1:])),
			ServerEnd:  pg.LSN(binary.BigEndian.Uint64(b[9:])),
			ServerTime: fromMicros(int64(binary.BigEndian.Uint64(b[17:]))),
			Data:       b[xlogDataHeader:],
		}, nil
	case 'k':
		if len(b) < keepaliveSize {
			return nil, fmt.Errorf("keepalive message of %d bytes is too short", len(b))
		}
		return Keepalive{
			ServerEnd:      pg.LSN(binary.BigEndian.Uint64(b[1:])),
			ServerTime:     fromMicros(int64(binary.BigEndian.Uint64(b[9:]))),
			ReplyRequested: b[17] != 0,
		}, nil
	}
	return nil, fmt.Errorf("unknown message %q in the WAL stream", b[0])
}

func fromMicros(us int64) time.Time {
	// Not epoch.Add: a Duration holds only 292 years.
	return time.UnixMicro(epoch.UnixMicro() + us).UTC()
}

func encodeStatus(written, flushed, applied pg.LSN, now time.Time, reply bool) []byte {
	b := make([]byte, 0, statusSize)
	b = append(b, 'r')
	b = binary.BigEndian.AppendUint64(b, uint64(written))
	b = binary.BigEndian.AppendUint64(b, uint64(flushed))
	b = binary.BigEndian.AppendUint64(b, uint64(applied))
	b = binary.BigEndian.AppendUint64(b, uint64(now.UnixMicro()-epoch.UnixMicro()))
	if reply {
		return append(b, 1)
	}
	return append(b, 0)
}
