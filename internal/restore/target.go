package restore

import (
	"fmt"
	"time"

	"pileus/internal/pg"
)

// TargetKind is how a target is given.
type TargetKind string

// Kinds of targets.
const (
	ToTime     TargetKind = "time"
	ToLSN      TargetKind = "lsn"
	ToXID      TargetKind = "xid"
	ToName     TargetKind = "name"
	ToLatest   TargetKind = "latest"
	ToSnapshot TargetKind = "snapshot"
	ToBackup   TargetKind = "backup"
)

// Target is the moment to recover to.
//
//	time      just before the first transaction, in WAL order, that ended after Time
//	          (exclusive: at or after Time); PostgreSQL's own rule
//	lsn       through the record that starts at LSN, or the first one after it
//	          (exclusive: up to that record); where WAL ends at LSN, through its last record
//	xid       through the commit of the transaction (exclusive: just before it)
//	name      through the restore point
//	latest    through the last record that the repository holds
//	snapshot  the state the snapshot's backup is consistent in
//	backup    the same, by the backup's ID
type Target struct {
	Kind      TargetKind    `json:"kind"`
	Time      time.Time     `json:"time,omitzero"`
	LSN       pg.LSN        `json:"lsn,omitzero"`
	XID       uint64        `json:"xid,omitempty"`       // 32 bits, or with the epoch in the upper half
	Name      string        `json:"name,omitempty"`      // restore point, snapshot or backup ID
	Exclusive bool          `json:"exclusive,omitempty"` // time, lsn and xid only
	Timeline  pg.TimelineID `json:"timeline,omitempty"`  // 0: the newest; of no meaning for snapshot and backup
}

// String says the target in words, as messages use it.
func (t Target) String() string {
	before := ""
	if t.Exclusive {
		before = "just before "
	}
	switch t.Kind {
	case ToTime:
		return before + formatTime(t.Time)
	case ToLSN:
		return before + "LSN " + t.LSN.String()
	case ToXID:
		return fmt.Sprintf("%stransaction %d", before, t.XID)
	case ToName:
		return fmt.Sprintf("restore point %q", t.Name)
	case ToSnapshot:
		return "snapshot " + t.Name
	case ToBackup:
		return "backup " + t.Name
	}
	return "the latest state"
}

// check refuses a target that says too little or contradicts itself.
func (t Target) check() error {
	missing := false
	switch t.Kind {
	case ToTime:
		missing = t.Time.IsZero()
	case ToLSN:
		missing = t.LSN == 0
	case ToXID:
		if missing = t.XID == 0; !missing && uint32(t.XID) < firstNormalXID {
			return fmt.Errorf("%d is not the ID of a transaction that can commit: they start at %d", t.XID, firstNormalXID)
		}
	case ToName, ToSnapshot, ToBackup:
		missing = t.Name == ""
	case ToLatest:
	default:
		return fmt.Errorf("%q is not a kind of target", t.Kind)
	}
	if missing {
		return fmt.Errorf("the target has kind %s and no value", t.Kind)
	}
	if t.Exclusive && t.Kind != ToTime && t.Kind != ToLSN && t.Kind != ToXID {
		return fmt.Errorf("%s cannot be exclusive: only a time, an LSN or a transaction can", t)
	}
	return nil
}

// firstNormalXID is the first transaction ID that is not reserved (FirstNormalTransactionId).
const firstNormalXID = 3

// formatTime prints UTC in RFC 3339 with as many digits as are needed, to the microsecond.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.UTC().Format("2006-01-02T15:04:05.999999Z07:00")
}
