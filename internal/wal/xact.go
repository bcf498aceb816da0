package wal

import (
	"fmt"
	"time"

	"pileus/internal/pg"
)

// CommitKind says how a transaction ended.
type CommitKind uint8

// Ways a transaction ends.
const (
	KindCommit CommitKind = iota
	KindAbort
	KindPrepare // of two-phase commit: not an end yet
	KindCommitPrepared
	KindAbortPrepared
)

// String is the name that pg_waldump prints.
func (k CommitKind) String() string {
	names := [...]string{"COMMIT", "ABORT", "PREPARE", "COMMIT_PREPARED", "ABORT_PREPARED"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Committed tells whether the transaction's changes are there for good.
func (k CommitKind) Committed() bool { return k == KindCommit || k == KindCommitPrepared }

// Commit is what a record says that ends, or prepares, a transaction.
type Commit struct {
	Kind     CommitKind
	Xid      uint32    // of the transaction itself, also where another session ends a prepared one
	Time     time.Time // UTC, microseconds; by the server's clock, so not in the order of the WAL
	Database pg.OID    // zero where the record does not say
	SubXids  []uint32
	Dropped  []pg.RelFile // files that the end removes: DROP, TRUNCATE and rewrites
	GID      string       // name of a prepared transaction, where the record has it

	HasOrigin  bool // came by logical replication
	OriginLSN  pg.LSN
	OriginTime time.Time
}

// Kinds of records of RmgrTransaction; their information bits.
const (
	xactCommit         = 0x00
	xactPrepare        = 0x10
	xactAbort          = 0x20
	xactCommitPrepared = 0x30
	xactAbortPrepared  = 0x40
	xactOpMask         = 0x70
	xactHasInfo        = 0x80
)

// Parts of a commit or abort record, in the order in which they follow.
const (
	xinfoDatabase     = 1 << 0
	xinfoSubXids      = 1 << 1
	xinfoRelations    = 1 << 2
	xinfoDroppedStats = 1 << 8 // from 15 on
	xinfoInvals       = 1 << 3
	xinfoTwoPhase     = 1 << 4
	xinfoGID          = 1 << 7
	xinfoOrigin       = 1 << 5
)

const sizeOfInval = 16 // SharedInvalidationMessage

// sizeOfStat is that of xl_xact_stats_item, which 18 widened.
func sizeOfStat(major int) int {
	if major >= 18 {
		return 16
	}
	return 12
}

// commitKind is how r ends a transaction, and false when it does not.
func commitKind(r *Record) (CommitKind, bool) {
	if r.Rmgr != RmgrTransaction {
		return 0, false
	}
	switch r.Info & xactOpMask {
	case xactCommit:
		return KindCommit, true
	case xactAbort:
		return KindAbort, true
	case xactPrepare:
		return KindPrepare, true
	case xactCommitPrepared:
		return KindCommitPrepared, true
	case xactAbortPrepared:
		return KindAbortPrepared, true
	}
	return 0, false
}

// ParseCommit reads a record that ends or prepares a transaction; ok is false
// for every other record. The result does not point into the record. The error is
// a *DamageError. Sources: xact.h, ParseCommitRecord in xactdesc.c.
func ParseCommit(r *Record) (c Commit, ok bool, err error) {
	kind, ok := commitKind(r)
	if !ok {
		return Commit{}, false, nil
	}
	c = Commit{Kind: kind, Xid: r.Xid}
	f := fields{b: r.MainData}
	if kind == KindPrepare {
		c.parsePrepare(&f, r)
	} else {
		c.parseEnd(&f, r)
	}
	if f.short {
		return Commit{}, true, damage(r.LSN, "%s record is too short for its parts", kind)
	}
	return c, true, nil
}

func (c *Commit) parseEnd(f *fields, r *Record) {
	c.Time = f.timestamp()
	if r.Info&xactHasInfo == 0 {
		return
	}
	info := f.u32()
	if info&xinfoDatabase != 0 {
		c.Database = pg.OID(f.u32())
		f.next(4) // its tablespace
	}
	if info&xinfoSubXids != 0 {
		c.SubXids = f.xids(f.count(4))
	}
	if info&xinfoRelations != 0 {
		c.Dropped = f.relations(f.count(12))
	}
	if info&xinfoDroppedStats != 0 && r.Major >= 15 {
		size := sizeOfStat(r.Major)
		f.next(f.count(size) * size)
	}
	if info&xinfoInvals != 0 && c.Kind.Committed() {
		f.next(f.count(sizeOfInval) * sizeOfInval)
	}
	if info&xinfoTwoPhase != 0 {
		c.Xid = f.u32()
		if info&xinfoGID != 0 {
			c.GID = f.text()
		}
	}
	if info&xinfoOrigin != 0 {
		c.HasOrigin, c.OriginLSN, c.OriginTime = true, f.lsn(), f.timestamp()
	}
}

// parsePrepare reads what is also the content of the file in pg_twophase: a
// header, then the name and arrays, each padded to 8 bytes.
func (c *Commit) parsePrepare(f *fields, r *Record) {
	whole := len(f.b)
	f.next(8) // magic, length
	c.Xid, c.Database = f.u32(), pg.OID(f.u32())
	c.Time = f.timestamp()
	f.next(4) // owner
	subXids, commitRels := int32(f.u32()), int32(f.u32())
	f.next(4) // relations dropped on abort
	if r.Major >= 15 {
		f.next(8) // statistics dropped on commit, on abort
	}
	f.next(4 + 2) // invalidation messages, a flag and padding
	gid := int(f.u16())
	originLSN, originTime := f.lsn(), f.timestamp()
	if originLSN != 0 {
		c.HasOrigin, c.OriginLSN, c.OriginTime = true, originLSN, originTime
	}
	f.align(whole)
	c.GID = cString(f.next(gid))
	f.align(whole)
	c.SubXids = f.xids(f.fits(subXids, 4))
	f.align(whole)
	c.Dropped = f.relations(f.fits(commitRels, 12))
}
