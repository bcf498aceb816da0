package wal

import (
	"encoding/binary"
	"fmt"

	"pileus/internal/pg"
)

// maxRecord is the largest record that a server can read back, in bytes
// (MaxAllocSize).
const maxRecord = 1<<30 - 1

// keepBuffer is the largest gathering buffer kept after a record, in bytes.
const keepBuffer = 8 << 20

// Config says what a Decoder is to expect.
type Config struct {
	SystemID    uint64        // 0: any, but the same throughout
	SegmentSize int64         // bytes
	Timeline    pg.TimelineID // newest timeline allowed; 0: any. Segments begin with pages of older ones after a switch
	Major       int           // 13 to 18; 0: learn it from the first page, which works unless input starts within a page

	// PassOver are resource managers of whose records only the header is wanted. They are verified all the same, but
	// have no Blocks and no MainData. RmgrXLOG must not be among them: the decoder needs it itself.
	PassOver RmgrSet
}

// Decoder turns WAL, fed in pieces of any size, into records.
//
//	d.Feed(lsn, piece)
//	for {
//		rec, ok, err := d.Next()
//		…
//	}
//
// Every record it yields was verified: CRC-32C, link to the record before, and
// the headers of all its pages. Memory is bounded by the largest record that has
// actually arrived. The zero value is not usable; a Decoder is for one goroutine.
type Decoder struct {
	cfg Config

	in      []byte // fed and not yet taken
	pos     pg.LSN // of in[0]
	started bool
	fresh   bool // no page header seen yet
	err     error

	major    int
	timeline pg.TimelineID
	systemID uint64

	head    [longHeader]byte // page header being gathered
	headLen int
	skip    uint64 // bytes to pass over, page headers included
	tail    uint32 // bytes to pass over of a record that began before the input

	buf       []byte // record being gathered, when it is not whole in one page of the input
	want      int    // gather until buf is this long, then look again
	start     pg.LSN // of the record being gathered
	startTLI  pg.TimelineID
	lost      pg.LSN // start of a record whose rest was overwritten; zero: none
	first     pg.LSN
	last, end pg.LSN // start and end of the last complete record

	rec Record
}

// NewDecoder makes a Decoder, or says what is wrong with cfg.
func NewDecoder(cfg Config) (*Decoder, error) {
	if !pg.ValidSegmentSize(cfg.SegmentSize) {
		return nil, fmt.Errorf("decode WAL: %d bytes is not a WAL segment size", cfg.SegmentSize)
	}
	if cfg.Major != 0 && (cfg.Major < 13 || cfg.Major > 18) {
		return nil, fmt.Errorf("decode WAL: PostgreSQL %d is not supported, only 13 to 18 are", cfg.Major)
	}
	if cfg.PassOver.Has(RmgrXLOG) {
		return nil, fmt.Errorf("decode WAL: the records of %s cannot be passed over", RmgrXLOG)
	}
	return &Decoder{cfg: cfg, major: cfg.Major}, nil
}

// Feed gives the decoder the WAL at lsn. The first piece starts at a page (any
// multiple of 8192: the rest of an earlier record is passed over) or, with
// Config.Major set, at the exact start of a record. Each further piece
// continues the one before. The decoder reads b until Next has said that it
// needs more; only then may b change and Feed be called again.
func (d *Decoder) Feed(lsn pg.LSN, b []byte) error {
	switch {
	case d.err != nil:
		return d.err
	case len(d.in) > 0:
		return fmt.Errorf("decode WAL: fed %s before the %d bytes at %s were decoded", lsn, len(d.in), d.pos)
	case d.started && lsn != d.pos:
		return fmt.Errorf("decode WAL: fed %s, expected %s: the pieces are not contiguous", lsn, d.pos)
	case !d.started:
		if off := lsn % pageSize; off != 0 && (off%8 != 0 || off < shortHeader || d.major == 0) {
			return fmt.Errorf("decode WAL: cannot start at %s: give the start of a page, or the start of a record and the major version", lsn)
		}
		d.started, d.fresh, d.pos, d.end = true, lsn%pageSize == 0, lsn, lsn
	}
	d.in = b
	return nil
}

// Next yields the next complete record. It stays valid until the next call of
// Next or Feed. With ok false and no error the decoder needs to be fed. The
// error is an *EndOfWALError or a *DamageError, and final.
func (d *Decoder) Next() (rec *Record, ok bool, err error) {
	if d.err != nil {
		return nil, false, d.err
	}
	if d.want < 0 { // the buffer held the record yielded last
		d.want = 0
		if d.buf = d.buf[:0]; cap(d.buf) > keepBuffer {
			d.buf = nil
		}
	}
	for len(d.in) > 0 {
		switch {
		case d.skip > 0:
			n := min(d.skip, uint64(len(d.in)))
			d.skip -= n
			d.advance(int(n))
		case d.headLen > 0 || d.pos%pageSize == 0:
			d.err = d.takePageHeader()
		case d.tail > 0:
			n := min(int(d.tail), len(d.onPage()))
			d.tail -= uint32(n)
			d.advance(n)
			if d.tail == 0 {
				d.align()
				d.end = d.pos + pg.LSN(d.skip)
			}
		default:
			var raw []byte
			if raw, d.err = d.takeRecord(); raw != nil {
				d.err = d.yield(raw)
				if d.err == nil {
					return &d.rec, true, nil
				}
			}
		}
		if d.err != nil {
			d.in = nil
			return nil, false, d.err
		}
	}
	return nil, false, nil
}

// FirstRecord is where the first complete record started, and false as long as
// none has been yielded.
func (d *Decoder) FirstRecord() (pg.LSN, bool) { return d.first, d.first != 0 }

// LastRecord is where the last complete record started, zero before the first.
func (d *Decoder) LastRecord() pg.LSN { return d.last }

// End is just past the last complete record: where the next one starts, but for
// a page header in between.
func (d *Decoder) End() pg.LSN { return d.end }

// Pending tells, once Next needs to be fed, whether a record has begun that is not whole yet.
func (d *Decoder) Pending() bool { return len(d.buf) > 0 }

// Position is where the next piece has to start.
func (d *Decoder) Position() pg.LSN { return d.pos + pg.LSN(len(d.in)) }

// Major is the PostgreSQL major version of the WAL, zero before the first page.
func (d *Decoder) Major() int { return d.major }

// SystemID is what the last long header said, zero before the first.
func (d *Decoder) SystemID() uint64 { return d.systemID }

// Timeline is that of the last page begun.
func (d *Decoder) Timeline() pg.TimelineID { return d.timeline }

func (d *Decoder) advance(n int) { d.in, d.pos = d.in[n:], d.pos+pg.LSN(n) }

// onPage is the input up to the end of the current page.
func (d *Decoder) onPage() []byte {
	return d.in[:min(len(d.in), pageSize-int(d.pos%pageSize))]
}

// align passes over the padding before the next record.
func (d *Decoder) align() { d.skip = uint64(-d.pos % 8) }

// endOfWAL ends WAL after the last complete record.
func (d *Decoder) endOfWAL(reason string) error {
	if len(d.buf) > 0 {
		reason = fmt.Sprintf("the record at %s is incomplete: %s", d.start, reason)
	}
	return &EndOfWALError{LSN: d.end, Reason: reason}
}

// takePageHeader takes as much of a page header as there is and, when it is
// whole, checks it and relates it to the record being gathered.
func (d *Decoder) takePageHeader() error {
	size := shortHeader
	if d.headLen >= shortHeader { // and the rest of a long one is still to come
		size = longHeader
	}
	for {
		n := copy(d.head[d.headLen:size], d.in)
		d.headLen += n
		d.advance(n)
		if d.headLen < size {
			return nil
		}
		if size == longHeader || binary.LittleEndian.Uint16(d.head[2:])&flagLongHeader == 0 {
			break
		}
		size = longHeader
	}
	lsn := d.pos - pg.LSN(size)
	d.headLen = 0
	h := parsePageHeader(d.head[:size])
	if err := d.checkPage(lsn, h); err != nil {
		return err
	}
	continued, overwritten := h.flags&flagContinuation != 0, h.flags&flagOverwrite != 0
	fresh := d.fresh
	d.fresh = false
	switch {
	case continued && h.remaining == 0:
		return damage(lsn, "page continues a record of which nothing is left")
	case fresh:
		if continued {
			d.tail = h.remaining
		}
	case overwritten && (d.tail > 0 || len(d.buf) > 0):
		d.lost = 0
		if len(d.buf) > 0 {
			d.lost = d.start
		}
		d.tail, d.buf, d.want = 0, d.buf[:0], 0
	case d.tail > 0:
		if !continued || h.remaining != d.tail {
			return damage(lsn, "page has %d bytes of a continued record, expected %d", remaining(h), d.tail)
		}
	case len(d.buf) > 0:
		if left := d.total() - len(d.buf); !continued || int(h.remaining) != left {
			return damage(d.start, "record is continued at %s with %d bytes, expected %d", lsn, remaining(h), left)
		}
	case continued:
		return damage(lsn, "page continues a record, but none was incomplete")
	}
	return nil
}

// remaining is the length of a page's continuation, zero when it has none.
func remaining(h pageHeader) uint32 {
	if h.flags&flagContinuation == 0 {
		return 0
	}
	return h.remaining
}

// total is the length of the record being gathered; its first four bytes never
// lie on two pages.
func (d *Decoder) total() int { return int(binary.LittleEndian.Uint32(d.buf)) }

// takeRecord takes the next record's bytes off the page, and returns them when
// the record is whole: straight from the input where it can, else from buf.
func (d *Decoder) takeRecord() ([]byte, error) {
	avail := d.onPage()
	if len(d.buf) == 0 {
		d.start, d.startTLI, d.want = d.pos, d.timeline, 4
		if len(avail) >= recordHeader {
			total := int(binary.LittleEndian.Uint32(avail))
			if err := d.checkLength(total); err != nil {
				return nil, err
			}
			if total <= len(avail) {
				d.want = 0
				d.advance(total)
				return avail[:total:total], d.checkRecordHeader(avail)
			}
		}
	}
	for {
		n := min(d.want-len(d.buf), len(avail))
		d.buf = append(d.buf, avail[:n]...)
		avail = avail[n:]
		d.advance(n)
		if len(d.buf) < d.want {
			return nil, nil
		}
		total := d.total()
		switch d.want {
		case 4:
			if err := d.checkLength(total); err != nil {
				return nil, err
			}
			d.want = recordHeader
			continue
		case recordHeader:
			if err := d.checkRecordHeader(d.buf); err != nil {
				return nil, err
			}
			d.want = total
		}
		if len(d.buf) == total {
			d.want = -1 // emptied by the next Next
			return d.buf, nil
		}
	}
}

func (d *Decoder) checkLength(total int) error {
	switch {
	case total == 0:
		return &EndOfWALError{LSN: d.end, Reason: fmt.Sprintf("nothing was written at %s", d.start)}
	case total < recordHeader || total > maxRecord:
		return damage(d.start, "impossible record length %d", total)
	}
	return nil
}

// checkRecordHeader verifies what can be before the whole record is there.
func (d *Decoder) checkRecordHeader(h []byte) error {
	prev := pg.LSN(binary.LittleEndian.Uint64(h[8:]))
	switch rmgr := RmgrID(h[17]); {
	case !rmgr.valid(d.major):
		return damage(d.start, "unknown resource manager %d", rmgr)
	case d.last == 0 && prev >= d.start:
		return damage(d.start, "record says that the record before it is at %s, which is not before", prev)
	case d.last != 0 && prev != d.last:
		return damage(d.start, "record says that the record before it is at %s, but that is at %s", prev, d.last)
	}
	return nil
}

// yield verifies the whole record raw, which the input has just passed, and
// makes it the current one.
func (d *Decoder) yield(raw []byte) error {
	if d.err != nil {
		return d.err
	}
	r := &d.rec
	r.LSN, r.Timeline, r.Major = d.start, d.startTLI, d.major
	if err := r.parse(raw, &d.cfg.PassOver); err != nil {
		return err
	}
	d.align()
	if r.IsSwitch() {
		d.skip = uint64(-d.pos) % uint64(d.cfg.SegmentSize)
	}
	r.End = d.pos + pg.LSN(d.skip)
	if o, ok, err := ParseOverwrite(r); err != nil {
		return err
	} else if ok && d.lost != 0 && o.Overwritten != d.lost {
		return damage(r.LSN, "record replaces the one at %s, but that at %s is incomplete", o.Overwritten, d.lost)
	}
	d.lost = 0
	if d.first == 0 {
		d.first = r.LSN
	}
	d.last, d.end = r.LSN, r.End
	return nil
}
