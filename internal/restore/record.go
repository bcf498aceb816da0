package restore

import (
	"context"
	"iter"
	"time"

	"pileus/internal/pg"
)

// RecordKind is what a WAL record means to a recovery target.
type RecordKind uint8

// Kinds of records. Commits and aborts of prepared transactions count as such,
// with the XID of the prepared transaction.
const (
	RecordOther RecordKind = iota
	RecordCommit
	RecordAbort
	RecordPrepare
	RecordAbortPrepared
	RecordRestorePoint
	RecordSwitch // the rest of its segment is empty
)

// Record is one WAL record as far as targets need it.
type Record struct {
	LSN, End pg.LSN // first byte, and just past the last
	Kind     RecordKind
	XID      uint32
	Subs     []uint32  // subtransactions of a commit or abort; valid until the next record
	Time     time.Time // of commits, aborts, prepares and restore points
	Name     string    // of a restore point
}

// boundary tells whether the record changes which transactions exist: after it
// the database says something else than before.
func (r *Record) boundary() bool {
	switch r.Kind {
	case RecordCommit, RecordPrepare, RecordAbortPrepared:
		return true
	}
	return false
}

// WAL reads the archived WAL of one cluster.
type WAL interface {
	// Records yields every record on the path from the one that starts at from, in
	// order; each is complete and its CRC is right. The sequence ends without an
	// error where the durable WAL ends. WAL that is missing while later WAL is
	// there is a *GapError; WAL that is damaged is an error wrapping repo.ErrDamaged.
	// It reads ahead while the consumer works.
	Records(ctx context.Context, path pg.History, from pg.LSN) iter.Seq2[Record, error]
	// Holds tells whether the timeline's own copy of the segment before end is there
	// up to end. Where a timeline was left, often only its successor's copy is.
	Holds(ctx context.Context, tli pg.TimelineID, end pg.LSN) (bool, error)
}
