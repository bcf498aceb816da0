package wal

import (
	"time"

	"pileus/internal/pg"
)

// Kinds of records of RmgrXLOG (pg_control.h).
const (
	xlogCheckpointShutdown = 0x00
	xlogCheckpointOnline   = 0x10
	xlogSwitch             = 0x40
	xlogBackupEnd          = 0x50
	xlogParameterChange    = 0x60
	xlogRestorePoint       = 0x70
	xlogEndOfRecovery      = 0x90
	xlogOverwrite          = 0xD0
)

func (r *Record) isXLOG(op uint8) bool { return r.Rmgr == RmgrXLOG && r.Op() == op }

// IsSwitch tells whether the rest of the segment after r is unused.
func (r *Record) IsSwitch() bool { return r.isXLOG(xlogSwitch) }

// IsFullPageImages tells whether r does nothing but restore whole pages.
func (r *Record) IsFullPageImages() bool {
	const fpiForHint, fpi = 0xA0, 0xB0
	return r.isXLOG(fpiForHint) || r.isXLOG(fpi)
}

// finish is the error of a record that f found too short.
func finish(r *Record, f *fields, what string) error {
	if f.short {
		return damage(r.LSN, "%s record is too short: %d bytes", what, len(r.MainData))
	}
	return nil
}

// RestorePoint is a name given to a position by pg_create_restore_point.
type RestorePoint struct {
	Time time.Time
	Name string // at most 63 bytes
}

// ParseRestorePoint reads a restore point; ok is false for every other record.
// A recovery to it stops after the record, at its End.
func ParseRestorePoint(r *Record) (p RestorePoint, ok bool, err error) {
	if !r.isXLOG(xlogRestorePoint) {
		return p, false, nil
	}
	f := fields{b: r.MainData}
	p = RestorePoint{Time: f.timestamp(), Name: cString(f.next(64))}
	return p, true, finish(r, &f, "restore point")
}

// Checkpoint is where recovery can begin.
type Checkpoint struct {
	Shutdown         bool   // the server stopped, or recovery ended, with it
	Redo             pg.LSN // replay starts here; for a shutdown checkpoint its own LSN
	Timeline         pg.TimelineID
	PreviousTimeline pg.TimelineID // differs from Timeline where a timeline begins
	NextXid          uint64        // with the epoch in its high half
	Time             time.Time     // whole seconds
}

// ParseCheckpoint reads a checkpoint; ok is false for every other record.
func ParseCheckpoint(r *Record) (c Checkpoint, ok bool, err error) {
	if !r.isXLOG(xlogCheckpointShutdown) && !r.isXLOG(xlogCheckpointOnline) {
		return c, false, nil
	}
	f := fields{b: r.MainData}
	c = Checkpoint{Shutdown: r.Op() == xlogCheckpointShutdown, Redo: f.lsn(), Timeline: f.timeline(), PreviousTimeline: f.timeline()}
	f.next(8) // full_page_writes, wal_level
	c.NextXid = f.u64()
	f.next(32) // OIDs, multixacts, oldest transactions, padding
	c.Time = time.Unix(int64(f.u64()), 0).UTC()
	return c, true, finish(r, &f, "checkpoint")
}

// EndOfRecovery marks where a promoted server's own timeline begins.
type EndOfRecovery struct {
	Time             time.Time
	Timeline         pg.TimelineID
	PreviousTimeline pg.TimelineID
}

// ParseEndOfRecovery reads an end-of-recovery record; ok is false for every
// other record. A timeline can also begin with a shutdown checkpoint instead.
func ParseEndOfRecovery(r *Record) (e EndOfRecovery, ok bool, err error) {
	if !r.isXLOG(xlogEndOfRecovery) {
		return e, false, nil
	}
	f := fields{b: r.MainData}
	e = EndOfRecovery{Time: f.timestamp(), Timeline: f.timeline(), PreviousTimeline: f.timeline()}
	return e, true, finish(r, &f, "end of recovery")
}

// ParseBackupEnd reads the record that pg_backup_stop writes, and returns the
// redo point that the backup started from; ok is false for every other record.
// A base backup is consistent once recovery has reached the record's End.
func ParseBackupEnd(r *Record) (start pg.LSN, ok bool, err error) {
	if !r.isXLOG(xlogBackupEnd) {
		return 0, false, nil
	}
	f := fields{b: r.MainData}
	start = f.lsn()
	return start, true, finish(r, &f, "end of backup")
}

// Overwrite says that a record was begun and lost in a crash before it was
// written whole.
type Overwrite struct {
	Overwritten pg.LSN // the lost record's
	Time        time.Time
}

// ParseOverwrite reads an overwrite record; ok is false for every other record.
func ParseOverwrite(r *Record) (o Overwrite, ok bool, err error) {
	if !r.isXLOG(xlogOverwrite) {
		return o, false, nil
	}
	f := fields{b: r.MainData}
	o = Overwrite{Overwritten: f.lsn(), Time: f.timestamp()}
	return o, true, finish(r, &f, "overwrite")
}

// ParameterChange lists the settings that a server which replays further has to
// have at least as large.
type ParameterChange struct {
	MaxConnections, MaxWorkerProcesses, MaxWALSenders, MaxPreparedXacts, MaxLocksPerXact int32
	WALLevel                                                                             pg.WALLevel
}

// ParseParameterChange reads a change of settings; ok is false for every other record.
func ParseParameterChange(r *Record) (p ParameterChange, ok bool, err error) {
	if !r.isXLOG(xlogParameterChange) {
		return p, false, nil
	}
	f := fields{b: r.MainData}
	p = ParameterChange{
		MaxConnections: int32(f.u32()), MaxWorkerProcesses: int32(f.u32()), MaxWALSenders: int32(f.u32()),
		MaxPreparedXacts: int32(f.u32()), MaxLocksPerXact: int32(f.u32()), WALLevel: pg.WALLevel(f.u32()),
	}
	return p, true, finish(r, &f, "parameter change")
}
