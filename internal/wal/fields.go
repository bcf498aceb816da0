package wal

import (
	"bytes"
	"encoding/binary"
	"time"

	"pileus/internal/pg"
)

// fields reads a record's main data from front to back. After reading past the
// end, short is true and all that is read is zero.
type fields struct {
	b     []byte
	short bool
}

func (f *fields) next(n int) []byte {
	if n < 0 || n > len(f.b) {
		f.short, f.b = true, nil
		return nil
	}
	b := f.b[:n:n]
	f.b = f.b[n:]
	return b
}

func (f *fields) u8() uint8 {
	if b := f.next(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) u16() uint16 {
	if b := f.next(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (f *fields) u32() uint32 {
	if b := f.next(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (f *fields) u64() uint64 {
	if b := f.next(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (f *fields) lsn() pg.LSN             { return pg.LSN(f.u64()) }
func (f *fields) oid() pg.OID             { return pg.OID(f.u32()) }
func (f *fields) timeline() pg.TimelineID { return pg.TimelineID(f.u32()) }
func (f *fields) timestamp() time.Time    { return timestamp(int64(f.u64())) }

// count reads how many items of size bytes follow, and checks that they do.
func (f *fields) count(size int) int { return f.fits(int32(f.u32()), size) }

// fits is n, or zero and short when n items of size bytes do not follow.
func (f *fields) fits(n int32, size int) int {
	if n < 0 || int64(n)*int64(size) > int64(len(f.b)) {
		f.short, f.b = true, nil
		return 0
	}
	return int(n)
}

func (f *fields) xids(n int) []uint32 {
	if n == 0 {
		return nil
	}
	xids := make([]uint32, n)
	for i := range xids {
		xids[i] = f.u32()
	}
	return xids
}

func (f *fields) relations(n int) []pg.RelFile {
	if n == 0 {
		return nil
	}
	rels := make([]pg.RelFile, n)
	for i := range rels {
		rels[i] = f.relation()
	}
	return rels
}

func (f *fields) relation() pg.RelFile {
	return pg.RelFile{Tablespace: f.oid(), Database: f.oid(), Relation: f.oid()}
}

// text reads a string that ends with a zero byte, and that byte.
func (f *fields) text() string {
	n := bytes.IndexByte(f.b, 0)
	if n < 0 {
		f.next(-1)
		return ""
	}
	return string(f.next(n + 1)[:n])
}

// align passes over the padding to the next multiple of 8, given how long the
// data was that f started with.
func (f *fields) align(whole int) { f.next(-(whole - len(f.b)) & 7) }

// timestamp is the time of a TimestampTz: microseconds since 2000-01-01 UTC.
func timestamp(us int64) time.Time {
	const epoch = 946684800 // 2000-01-01 in Unix time
	return time.Unix(us/1e6+epoch, us%1e6*1000).UTC()
}

// cString is b up to its first zero byte.
func cString(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}
