package wal

import (
	"encoding/binary"
	"hash/crc32"

	"pileus/internal/pg"
)

const recordHeader = 24

// maxBlocks is how many block references a record can have.
const maxBlocks = 33

// infoSpecialRelUpdate in a record's info says that it changes relation files
// in ways that its block references do not show.
const infoSpecialRelUpdate = 0x01

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Record is one WAL record. Its slices point into the decoder's input or
// buffer: they are valid as long as the record is.
type Record struct {
	LSN pg.LSN // of its first byte; what pg_waldump prints

	// End is past its last byte and padding, PostgreSQL's "end LSN" of a record.
	// Where the record fills its page that is the page's end, though the next
	// record starts after the next page's header; for a switch it is the end of
	// the segment.
	End pg.LSN

	Prev     pg.LSN // of the record before
	Timeline pg.TimelineID
	Major    int // PostgreSQL's, whose layout the record has
	Xid      uint32
	TopXid   uint32 // of a subtransaction's parent, where wal_level = logical logged it; else zero
	Origin   uint16 // replication origin; zero: none
	Rmgr     RmgrID
	Info     uint8  // high four bits: the resource manager's own
	TotalLen uint32 // bytes, without page headers
	Blocks   []BlockRef
	MainData []byte
}

// Op is the part of Info that says, with Rmgr, what kind of record it is.
func (r *Record) Op() uint8 { return r.Info & 0xF0 }

// SpecialRelUpdate tells whether the record changes relation files in ways that
// Blocks does not show, such as truncating or copying them.
func (r *Record) SpecialRelUpdate() bool { return r.Info&infoSpecialRelUpdate != 0 }

// Compression is how a page image is packed.
type Compression uint8

// Ways to pack a page image. Up to 14 there is only pglz.
const (
	Uncompressed Compression = iota
	PGLZ
	LZ4
	Zstd
)

// BlockRef is a page that a record changes.
type BlockRef struct {
	ID       uint8 // its number in the record, ascending, with gaps
	Fork     pg.Fork
	File     pg.RelFile
	Block    uint32 // within the fork
	WillInit bool   // replay writes the page anew, whatever it held
	HasImage bool
	Apply    bool // replay restores the image; otherwise it is there for a consistency check

	Image                  []byte // page without its hole, packed as Compression says
	Compression            Compression
	HoleOffset, HoleLength uint16 // bytes of zeros left out of the image

	Data []byte // what the resource manager needs to redo the change

	imageLen, dataLen uint16 // bytes, while the record is taken apart
}

// Block identifiers in a record that are not blocks.
const (
	idMainShort = 255
	idMainLong  = 254
	idOrigin    = 253
	idTopXid    = 252
)

// Flags of a block reference; the low four bits are the fork.
const (
	blockHasImage = 0x10
	blockHasData  = 0x20
	blockWillInit = 0x40
	blockSameRel  = 0x80
)

// parse verifies the CRC of the record in raw, which holds at least a header,
// and takes it apart, or only its header where its resource manager is passed over. LSN and Major have to be
// set. Source: DecodeXLogRecord.
func (r *Record) parse(raw []byte, pass *RmgrSet) error {
	le := binary.LittleEndian
	want, got := le.Uint32(raw[20:]), crc32.Update(crc32.Update(0, castagnoli, raw[recordHeader:]), castagnoli, raw[:20])
	if want != got {
		return damage(r.LSN, "record has CRC %08X, computed %08X", want, got)
	}
	r.TotalLen, r.Xid, r.Prev = le.Uint32(raw), le.Uint32(raw[4:]), pg.LSN(le.Uint64(raw[8:]))
	r.Info, r.Rmgr = raw[16], RmgrID(raw[17])
	r.TopXid, r.Origin, r.MainData, r.Blocks = 0, 0, nil, r.Blocks[:0]
	if pass.Has(r.Rmgr) {
		return nil
	}

	b := raw[recordHeader:]
	short := func() error { return damage(r.LSN, "record's parts do not add up to its length, %d", r.TotalLen) }
	var payload, mainLen int
headers:
	for len(b) > payload {
		switch id := b[0]; {
		case id == idMainShort && len(b) >= 2:
			mainLen, b = int(b[1]), b[2:]
			break headers
		case id == idMainLong && len(b) >= 5:
			mainLen, b = int(le.Uint32(b[1:])), b[5:]
			break headers
		case id == idOrigin && len(b) >= 3:
			r.Origin, b = le.Uint16(b[1:]), b[3:]
		case id == idTopXid && len(b) >= 5:
			r.TopXid, b = le.Uint32(b[1:]), b[5:]
		case id < maxBlocks:
			n := len(r.Blocks)
			if n > 0 && id <= r.Blocks[n-1].ID {
				return damage(r.LSN, "block reference %d is out of order", id)
			}
			r.Blocks = append(r.Blocks, BlockRef{ID: id})
			var err error
			if b, err = r.parseBlock(b); err != nil {
				return err
			}
			payload += int(r.Blocks[n].imageLen) + int(r.Blocks[n].dataLen)
		case id >= idTopXid:
			return short()
		default:
			return damage(r.LSN, "unknown block reference %d", id)
		}
	}
	if len(b) != payload+mainLen {
		return short()
	}
	for i := range r.Blocks {
		blk := &r.Blocks[i]
		if k := int(blk.imageLen); k > 0 {
			blk.Image, b = b[:k:k], b[k:]
		}
		if k := int(blk.dataLen); k > 0 {
			blk.Data, b = b[:k:k], b[k:]
		}
	}
	r.MainData = b
	return nil
}

// parseBlock reads the header of the last of r.Blocks, and returns what follows it.
func (r *Record) parseBlock(b []byte) (rest []byte, err error) {
	le := binary.LittleEndian
	blk := &r.Blocks[len(r.Blocks)-1]
	short := func() ([]byte, error) {
		return nil, damage(r.LSN, "record ends within block reference %d", blk.ID)
	}
	if len(b) < 4 {
		return short()
	}
	flags := b[1]
	blk.dataLen, b = le.Uint16(b[2:]), b[4:]
	blk.Fork, blk.WillInit, blk.HasImage = pg.Fork(flags&0x0F), flags&blockWillInit != 0, flags&blockHasImage != 0
	if (flags&blockHasData != 0) != (blk.dataLen > 0) {
		return nil, damage(r.LSN, "block reference %d contradicts itself: flags %02X, %d bytes of data", blk.ID, flags, blk.dataLen)
	}
	if blk.HasImage {
		if len(b) < 5 {
			return short()
		}
		blk.imageLen, blk.HoleOffset = le.Uint16(b), le.Uint16(b[2:])
		info := b[4]
		b = b[5:]
		blk.Apply, blk.Compression = imageInfo(info, r.Major)
		hole := info&imageHasHole != 0
		switch {
		case blk.Compression == Uncompressed:
			blk.HoleLength = pageSize - blk.imageLen
		case hole:
			if len(b) < 2 {
				return short()
			}
			blk.HoleLength, b = le.Uint16(b), b[2:]
		}
		whole := blk.imageLen == pageSize && blk.Compression == Uncompressed && blk.HoleOffset == 0
		cut := int(blk.HoleOffset)+int(blk.HoleLength) <= pageSize && blk.imageLen > 0 && blk.imageLen < pageSize
		sound := cut && blk.HoleOffset > 0 && blk.HoleLength > 0
		if !hole {
			sound = whole || cut && blk.Compression != Uncompressed && blk.HoleOffset == 0
		}
		if !sound {
			return nil, damage(r.LSN, "block reference %d has an impossible image: info %02X, %d bytes, hole of %d at %d", blk.ID, info, blk.imageLen, blk.HoleLength, blk.HoleOffset)
		}
	}
	if flags&blockSameRel == 0 {
		if len(b) < 12 {
			return short()
		}
		blk.File = pg.RelFile{Tablespace: pg.OID(le.Uint32(b)), Database: pg.OID(le.Uint32(b[4:])), Relation: pg.OID(le.Uint32(b[8:]))}
		b = b[12:]
	} else if len(r.Blocks) > 1 {
		blk.File = r.Blocks[len(r.Blocks)-2].File
	} else {
		return nil, damage(r.LSN, "first block reference has no relation")
	}
	if len(b) < 4 {
		return short()
	}
	blk.Block = le.Uint32(b)
	return b[4:], nil
}

const imageHasHole = 0x01

// imageInfo reads the flags of an image, which 15 rearranged.
func imageInfo(info uint8, major int) (apply bool, c Compression) {
	if major < 15 {
		if info&0x02 != 0 {
			c = PGLZ
		}
		return info&0x04 != 0, c
	}
	switch {
	case info&0x04 != 0:
		c = PGLZ
	case info&0x08 != 0:
		c = LZ4
	case info&0x10 != 0:
		c = Zstd
	}
	return info&0x02 != 0, c
}
