package wal

import "pileus/internal/pg"

// Kinds of records of RmgrHeap and RmgrHeap2 that change rows, and the bit that says that the page
// is made anew (heapam_xlog.h).
const (
	heapInsert    = 0x00
	heapDelete    = 0x10
	heapUpdate    = 0x20
	heapTruncate  = 0x30
	heapHotUpdate = 0x40
	heapConfirm   = 0x50
	heapLock      = 0x60
	heapInplace   = 0x70
	heapOpMask    = 0x70

	heap2MultiInsert = 0x50
)

// Flags of heap records.
const (
	insertSpeculative = 1 << 2
	insertOnToast     = 1 << 4
	deleteSuper       = 1 << 3 // takes back a speculative insertion
	deleteMove        = 1 << 4 // the row goes to another partition
	updatePrefix      = 1 << 5
	updateSuffix      = 1 << 6
)

// HeapKind is what a record does to rows.
type HeapKind uint8

// The kinds. A row that an update moves to another partition is deleted from one and inserted into
// the other.
const (
	HeapInsert HeapKind = iota
	HeapUpdate
	HeapDelete
	HeapMove   // deleted from one partition by an update
	HeapUnmake // a speculative insertion (ON CONFLICT) taken back
	HeapOverwrite
)

// HeapChange is what a record changes in a table, a TOAST table or a catalog. Its slices point into the record.
type HeapChange struct {
	Kind  HeapKind
	File  pg.RelFile // where the rows are; for an update where the new one is
	Rows  int
	Toast bool    // insertions say so of themselves
	Old   TupleID // of an update or deletion
	New   TupleID // of an update, an insertion of one row, or an overwriting
	tuple []byte  // what the record has of the new row
	flags uint8
	block *BlockRef
}

// TupleID is where a row version is: PostgreSQL's ctid.
type TupleID struct {
	Block  uint32
	Offset uint16
}

// ParseHeap reads a change of rows; ok is false for every other record, such as one that
// locks, prunes or freezes. The error is a *DamageError. Sources: heapam_xlog.h, heapam.c.
func ParseHeap(r *Record) (h HeapChange, ok bool, err error) {
	f := fields{b: r.MainData}
	switch {
	case r.Rmgr == RmgrHeap && r.Info&heapOpMask == heapInsert:
		h.Kind, h.Rows = HeapInsert, 1
		offset := f.u16()
		h.flags = f.u8()
		h.Toast = h.flags&insertOnToast != 0
		err = h.at(r, &f, 0, 0)
		h.New.Offset = offset
	case r.Rmgr == RmgrHeap && r.Info&heapOpMask == heapDelete:
		h.Kind, h.Rows = HeapDelete, 1
		f.next(4)
		offset := f.u16()
		f.next(1)
		h.flags = f.u8()
		switch {
		case h.flags&deleteSuper != 0:
			h.Kind = HeapUnmake
		case h.flags&deleteMove != 0:
			h.Kind = HeapMove
		}
		err = h.at(r, &f, 0, 0)
		h.Old.Offset = offset
	case r.Rmgr == RmgrHeap && (r.Info&heapOpMask == heapUpdate || r.Info&heapOpMask == heapHotUpdate):
		h.Kind, h.Rows = HeapUpdate, 1
		f.next(4)
		before := f.u16()
		f.next(1)
		h.flags = f.u8()
		f.next(4)
		after := f.u16()
		err = h.at(r, &f, 0, 1)
		h.Old.Offset, h.New.Offset = before, after
	case r.Rmgr == RmgrHeap && r.Info&heapOpMask == heapInplace:
		h.Kind, h.Rows = HeapOverwrite, 0
		offset := f.u16()
		err = h.at(r, &f, 0, 0)
		h.New.Offset = offset
	case r.Rmgr == RmgrHeap2 && r.Info&heapOpMask == heap2MultiInsert:
		h.Kind = HeapInsert
		h.flags = f.u8()
		f.next(1)
		h.Rows = int(f.u16())
		h.Toast = h.flags&insertOnToast != 0
		err = h.at(r, &f, 0, 0)
	default:
		return h, false, nil
	}
	return h, true, err
}

// at finds the pages: of the new row, and of the old one where that is another.
func (h *HeapChange) at(r *Record, f *fields, page, old uint8) error {
	if f.short {
		return damage(r.LSN, "a record of %s is too short", r.Rmgr)
	}
	for i := range r.Blocks {
		b := &r.Blocks[i]
		if b.ID == page {
			h.block, h.File, h.New.Block = b, b.File, b.Block
			h.Old.Block = b.Block
		}
	}
	if h.block == nil {
		return damage(r.LSN, "a record of %s names no page", r.Rmgr)
	}
	for i := range r.Blocks {
		if b := &r.Blocks[i]; old != page && b.ID == old {
			h.Old.Block = b.Block
		}
	}
	h.tuple = h.block.Data
	return nil
}

// tupleHeader is the size of a row's header as WAL has it, and fixedHeader of that on a page
// without bitmap and padding (SizeOfHeapHeader, SizeofHeapTupleHeader).
const (
	tupleHeader = 5
	fixedHeader = 23
)

// Row is a row version's attributes: what follows its header, and the number of attributes that it has.
type Row struct {
	Data  []byte
	Natts int
	Nulls bool
}

// NewRow rebuilds the row that an insertion or update makes, if the record has it: where the page's image
// has it instead, ok is false. old gives the version that an update changes, of which the record leaves
// out what is the same at begin and end.
func (h *HeapChange) NewRow(old func(TupleID) (Row, bool)) (row Row, ok bool) {
	if len(h.tuple) == 0 || h.Rows != 1 || h.Kind != HeapInsert && h.Kind != HeapUpdate {
		return row, false
	}
	f := fields{b: h.tuple}
	var prefix, suffix int
	if h.Kind == HeapUpdate {
		if h.flags&updatePrefix != 0 {
			prefix = int(f.u16())
		}
		if h.flags&updateSuffix != 0 {
			suffix = int(f.u16())
		}
	}
	infomask2, infomask, hoff := f.u16(), f.u16(), f.u8()
	if f.short || hoff < fixedHeader || len(f.b) < int(hoff)-fixedHeader {
		return row, false
	}
	row = Row{Natts: int(infomask2 & 0x07FF), Nulls: infomask&0x0001 != 0}
	f.next(int(hoff) - fixedHeader)
	if prefix == 0 && suffix == 0 {
		row.Data = append(row.Data, f.b...)
		return row, true
	}
	before, ok := old(h.Old)
	if !ok || prefix > len(before.Data) || suffix > len(before.Data)-prefix {
		return row, false
	}
	row.Data = append(row.Data, before.Data[:prefix]...)
	row.Data = append(row.Data, f.b...)
	row.Data = append(row.Data, before.Data[len(before.Data)-suffix:]...)
	return row, true
}

// Overwritten is what HeapOverwrite puts in the place of a row's attributes.
func (h *HeapChange) Overwritten() []byte { return h.tuple }

// Version is a row version on a page.
type Version struct {
	TupleID
	Row
	Xmin, Xmax uint32
	infomask   uint16
}

// Bits of t_infomask (htup_details.h).
const (
	xmaxLockOnly  = 0x0080
	xminCommitted = 0x0100
	xminInvalid   = 0x0200
	xmaxCommitted = 0x0400
	xmaxInvalid   = 0x0800
	xmaxMulti     = 0x1000
)

// Made tells whether the page itself says that the version's transaction committed, or that it did not.
func (v *Version) Made() (committed, aborted bool) {
	committed = v.infomask&xminCommitted != 0 // frozen ones have both bits
	return committed, !committed && v.infomask&xminInvalid != 0
}

// Replaced tells whether Xmax is a transaction that replaced or deleted the version, if it committed; sure says that it did.
func (v *Version) Replaced() (by, sure bool) {
	if v.infomask&(xmaxInvalid|xmaxMulti|xmaxLockOnly) != 0 || v.Xmax == 0 {
		return false, false
	}
	return true, v.infomask&xmaxCommitted != 0
}

// Versions lists the row versions on a page of a table; dead line pointers are left out. They do not point into
// the page. Sources: itemid.h, bufpage.h, htup_details.h.
func Versions(page []byte, block uint32) (all []Version) {
	const header, pointer, normal = 24, 4, 1
	if len(page) != pg.PageSize {
		return nil
	}
	lower := int(uint16(page[12]) | uint16(page[13])<<8)
	for at, n := header, uint16(1); at+pointer <= min(lower, len(page)); at, n = at+pointer, n+1 {
		f := fields{b: page[at:]}
		id := f.u32()
		start, state, length := int(id&0x7FFF), id>>15&3, int(id>>17)
		if state != normal || length < fixedHeader || start+length > len(page) {
			continue
		}
		t := fields{b: page[start : start+length]}
		v := Version{TupleID: TupleID{block, n}, Xmin: t.u32(), Xmax: t.u32()}
		t.next(10)
		infomask2 := t.u16()
		v.infomask = t.u16()
		hoff := t.u8()
		if hoff < fixedHeader || int(hoff) > length {
			continue
		}
		v.Row = Row{Natts: int(infomask2 & 0x07FF), Nulls: v.infomask&1 != 0, Data: append([]byte(nil), page[start+int(hoff):start+length]...)}
		all = append(all, v)
	}
	return all
}

// Clone is a copy that does not point into the record.
func (h *HeapChange) Clone() HeapChange {
	own := *h
	own.block, own.tuple = nil, append([]byte(nil), h.tuple...)
	return own
}
