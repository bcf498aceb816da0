package wal

import (
	"encoding/binary"
	"fmt"

	"pileus/internal/pg"
)

// pageSize is XLOG_BLCKSZ. Servers built with another write their own page size
// into each long header, where it is refused.
const pageSize = 8192

const (
	shortHeader = 24
	longHeader  = 40
)

// Page flags.
const (
	flagContinuation = 0x0001 // a record goes on from the page before
	flagLongHeader   = 0x0002
	flagOverwrite    = 0x0008 // the record begun before was lost in a crash; another begins here
	flagsKnown       = 0x000F
)

// majorOf is the PostgreSQL major version whose pages carry magic; zero for others.
func majorOf(magic uint16) int {
	switch magic {
	case 0xD106:
		return 13
	case 0xD10D:
		return 14
	case 0xD110:
		return 15
	case 0xD113:
		return 16
	case 0xD116:
		return 17
	case 0xD118:
		return 18
	}
	return 0
}

// pageHeader is what a page header says.
type pageHeader struct {
	magic, flags uint16
	timeline     pg.TimelineID
	address      pg.LSN
	remaining    uint32 // bytes of the continuation, on this page and later ones

	// Of the long header only.
	systemID    uint64
	segmentSize uint32
	blockSize   uint32
}

// parsePageHeader reads 24 bytes, or 40 where the flags say so.
func parsePageHeader(b []byte) pageHeader {
	le := binary.LittleEndian
	h := pageHeader{
		magic: le.Uint16(b), flags: le.Uint16(b[2:]), timeline: pg.TimelineID(le.Uint32(b[4:])),
		address: pg.LSN(le.Uint64(b[8:])), remaining: le.Uint32(b[16:]),
	}
	if len(b) >= longHeader {
		h.systemID, h.segmentSize, h.blockSize = le.Uint64(b[24:]), le.Uint32(b[32:]), le.Uint32(b[36:])
	}
	return h
}

// checkPage verifies the header of the page at lsn against all that is known.
func (d *Decoder) checkPage(lsn pg.LSN, h pageHeader) error {
	major := majorOf(h.magic)
	switch {
	case h.magic == 0 && h.address == 0 && !d.fresh:
		return d.endOfWAL(fmt.Sprintf("the page at %s was never written", lsn))
	case major == 0:
		return damage(lsn, "page magic %04X is not that of PostgreSQL 13 to 18", h.magic)
	case h.address < lsn && !d.fresh:
		return d.endOfWAL(fmt.Sprintf("the page at %s is left from %s in a recycled segment", lsn, h.address))
	case h.address != lsn:
		return damage(lsn, "page belongs at %s", h.address)
	case d.major != 0 && major != d.major:
		return damage(lsn, "page is of PostgreSQL %d, expected %d", major, d.major)
	case h.flags&^flagsKnown != 0:
		return damage(lsn, "page has unknown flags %04X", h.flags)
	case h.timeline == 0 || h.timeline < d.timeline:
		return damage(lsn, "page is of timeline %d, after timeline %d", h.timeline, d.timeline)
	case d.cfg.Timeline != 0 && h.timeline > d.cfg.Timeline:
		return damage(lsn, "page is of timeline %d, expected at most %d", h.timeline, d.cfg.Timeline)
	}
	atStart := uint64(lsn)%uint64(d.cfg.SegmentSize) == 0
	long := h.flags&flagLongHeader != 0
	switch {
	case atStart && !long:
		return damage(lsn, "first page of a segment has no long header")
	case !long:
	case d.cfg.SystemID != 0 && h.systemID != d.cfg.SystemID:
		return damage(lsn, "WAL is of the cluster with system identifier %d, expected %d", h.systemID, d.cfg.SystemID)
	case d.systemID != 0 && h.systemID != d.systemID:
		return damage(lsn, "WAL is of the cluster with system identifier %d, before that of %d", h.systemID, d.systemID)
	case int64(h.segmentSize) != d.cfg.SegmentSize:
		return damage(lsn, "WAL has segments of %d bytes, expected %d", h.segmentSize, d.cfg.SegmentSize)
	case h.blockSize != pageSize:
		return damage(lsn, "WAL has pages of %d bytes, only %d are supported", h.blockSize, pageSize)
	}
	d.major, d.timeline = major, h.timeline
	if long {
		d.systemID = h.systemID
	}
	return nil
}
