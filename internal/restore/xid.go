package restore

import (
	"fmt"
	"slices"
	"time"

	"pileus/internal/pg"
)

// TransactionError: the transaction is in the WAL and is no target.
type TransactionError struct {
	XID     uint64
	Parent  uint32 // it is a subtransaction of this one; 0: it was rolled back
	LSN     pg.LSN
	Time    time.Time
	Aborted bool
}

func (e *TransactionError) Error() string {
	at := fmt.Sprintf("at %s, LSN %s", formatTime(e.Time), e.LSN)
	switch {
	case e.Aborted:
		return fmt.Sprintf("transaction %d was rolled back %s: it changed nothing that could be restored to; give a time or an LSN instead", e.XID, at)
	default:
		return fmt.Sprintf("transaction %d is a part (a savepoint) of transaction %d, which committed %s: give %d as the target", e.XID, e.Parent, at, e.Parent)
	}
}

// transaction tells whether r is the commit of the wanted transaction.
func (s *scanner) transaction(r *Record) (bool, error) {
	want := uint32(s.target.XID)
	switch r.Kind {
	case RecordCommit:
		if r.XID == want {
			return true, nil
		}
		if slices.Contains(r.Subs, want) {
			return false, &TransactionError{XID: s.target.XID, Parent: r.XID, LSN: r.LSN, Time: r.Time}
		}
	case RecordAbort, RecordAbortPrepared:
		if r.XID == want || slices.Contains(r.Subs, want) {
			return false, &TransactionError{XID: s.target.XID, LSN: r.LSN, Time: r.Time, Aborted: true}
		}
	}
	return false, nil
}
