package wal

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"pileus/internal/pg"
)

func TestHeapRecords(t *testing.T) {
	file := pg.RelFile{Tablespace: 1663, Database: 5, Relation: 16384}
	one := []BlockRef{{ID: 0, File: file, Block: 7}}
	two := []BlockRef{{ID: 0, File: file, Block: 8}, {ID: 1, File: file, Block: 7}}
	for name, c := range map[string]struct {
		r    Record
		want HeapChange
		ok   bool
	}{
		"insert":        {Record{Rmgr: RmgrHeap, Info: 0x00, MainData: []byte{3, 0, 0}, Blocks: one}, HeapChange{Kind: HeapInsert, Rows: 1, New: TupleID{7, 3}}, true},
		"on a new page": {Record{Rmgr: RmgrHeap, Info: 0x80, MainData: []byte{1, 0, 0}, Blocks: one}, HeapChange{Kind: HeapInsert, Rows: 1, New: TupleID{7, 1}}, true},
		"toast":         {Record{Rmgr: RmgrHeap, Info: 0x00, MainData: []byte{3, 0, 16}, Blocks: one}, HeapChange{Kind: HeapInsert, Rows: 1, Toast: true, New: TupleID{7, 3}}, true},
		"delete":        {Record{Rmgr: RmgrHeap, Info: 0x10, MainData: []byte{1, 0, 0, 0, 4, 0, 0, 0}, Blocks: one}, HeapChange{Kind: HeapDelete, Rows: 1, Old: TupleID{7, 4}}, true},
		"move":          {Record{Rmgr: RmgrHeap, Info: 0x10, MainData: []byte{1, 0, 0, 0, 4, 0, 0, 16}, Blocks: one}, HeapChange{Kind: HeapMove, Rows: 1, Old: TupleID{7, 4}}, true},
		"take back":     {Record{Rmgr: RmgrHeap, Info: 0x10, MainData: []byte{1, 0, 0, 0, 4, 0, 0, 8}, Blocks: one}, HeapChange{Kind: HeapUnmake, Rows: 1, Old: TupleID{7, 4}}, true},
		"update":        {Record{Rmgr: RmgrHeap, Info: 0x20, MainData: []byte{1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0}, Blocks: two}, HeapChange{Kind: HeapUpdate, Rows: 1, Old: TupleID{7, 4}, New: TupleID{8, 5}}, true},
		"hot update":    {Record{Rmgr: RmgrHeap, Info: 0x40, MainData: []byte{1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0}, Blocks: one}, HeapChange{Kind: HeapUpdate, Rows: 1, Old: TupleID{7, 4}, New: TupleID{7, 5}}, true},
		"many":          {Record{Rmgr: RmgrHeap2, Info: 0x50, MainData: []byte{0, 0, 2, 0, 1, 0, 2, 0}, Blocks: one}, HeapChange{Kind: HeapInsert, Rows: 2}, true},
		"lock":          {Record{Rmgr: RmgrHeap, Info: 0x60, MainData: make([]byte, 8), Blocks: one}, HeapChange{}, false},
		"prune":         {Record{Rmgr: RmgrHeap2, Info: 0x10, MainData: make([]byte, 8), Blocks: one}, HeapChange{}, false},
	} {
		h, ok, err := ParseHeap(&c.r)
		if err != nil || ok != c.ok {
			t.Errorf("%s: %v, %v", name, ok, err)
			continue
		}
		if ok && (h.Kind != c.want.Kind || h.Rows != c.want.Rows || h.Toast != c.want.Toast || h.File != file ||
			h.Kind != HeapInsert && h.Old != c.want.Old || h.Rows == 1 && (h.Kind == HeapInsert || h.Kind == HeapUpdate) && h.New != c.want.New) {
			t.Errorf("%s: %+v, want %+v", name, h, c.want)
		}
		if !ok {
			continue
		}
		c.r.MainData = c.r.MainData[:2]
		if _, _, err := ParseHeap(&c.r); err == nil {
			t.Errorf("%s: cut short it is taken", name)
		}
		c.r.MainData, c.r.Blocks = make([]byte, 20), nil
		if _, _, err := ParseHeap(&c.r); err == nil {
			t.Errorf("%s: without a page it is taken", name)
		}
	}
}

// TestNewRow builds update records as heap_update would and rebuilds the rows.
func TestNewRow(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		bytesOf := rapid.SliceOfN(rapid.Byte(), 1, 60)
		before := bytesOf.Draw(rt, "old")
		after := append(append(append([]byte(nil), before[:rapid.IntRange(0, len(before)).Draw(rt, "same")]...), bytesOf.Draw(rt, "new")...), before[rapid.IntRange(0, len(before)).Draw(rt, "end"):]...)
		prefix, suffix := 0, 0
		for prefix < min(len(before), len(after)) && before[prefix] == after[prefix] {
			prefix++
		}
		for suffix < min(len(before), len(after))-prefix && before[len(before)-1-suffix] == after[len(after)-1-suffix] {
			suffix++
		}
		if rapid.Bool().Draw(rt, "whole") {
			prefix, suffix = 0, 0
		}
		var data []byte
		flags := byte(0)
		if prefix > 0 {
			flags |= updatePrefix
			data = binary.LittleEndian.AppendUint16(data, uint16(prefix))
		}
		if suffix > 0 {
			flags |= updateSuffix
			data = binary.LittleEndian.AppendUint16(data, uint16(suffix))
		}
		data = append(data, 7, 0, 1, 0, 24, 0xFF) // 7 attributes, with nulls, a header of 24 bytes: one of bitmap
		data = append(data, after[prefix:len(after)-suffix]...)
		r := Record{Rmgr: RmgrHeap, Info: heapUpdate, MainData: []byte{1, 0, 0, 0, 4, 0, 0, flags, 0, 0, 0, 0, 5, 0}, Blocks: []BlockRef{{Data: data}}}
		h, ok, err := ParseHeap(&r)
		if err != nil || !ok {
			rt.Fatal(ok, err)
		}
		h = h.Clone()
		row, ok := h.NewRow(func(id TupleID) (Row, bool) { return Row{Data: before}, id == TupleID{0, 4} })
		if !ok || !bytes.Equal(row.Data, after) || row.Natts != 7 || !row.Nulls {
			rt.Fatalf("%v %+v, want %x", ok, row, after)
		}
	})
}

func TestPGLZ(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"\x00abc", "abc"},
		{"\x08abc\x00\x03", "abcabc"},                        // three bytes from three back
		{"\x02a\x0f\x01\x05", "a" + strings.Repeat("a", 23)}, // 18 + 5 bytes from one back
	} {
		got, err := pglz([]byte(c.in), len(c.want))
		if err != nil || string(got) != c.want {
			t.Errorf("%q: %q, %v", c.in, got, err)
		}
	}
	for _, wrong := range []string{"\x01\x00\x01", "\x01\x00", "\x02a\x0f\x01", "\x02a\x00\x00"} {
		if got, err := pglz([]byte(wrong), 100); err == nil {
			t.Errorf("%q: %q", wrong, got)
		}
	}
}

func TestImages(t *testing.T) {
	page := make([]byte, pg.PageSize)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 1000 {
		page[i], page[len(page)-1-i] = byte(rng.Uint32()), byte(rng.Uint32())
	}
	b := BlockRef{HasImage: true, HoleOffset: 1000, HoleLength: uint16(pg.PageSize - 2000), Image: append(bytes.Clone(page[:1000]), page[len(page)-1000:]...)}
	var im Images
	if got, err := im.Page(&b); err != nil || !bytes.Equal(got, page) {
		t.Error(err)
	}
	b.HoleLength--
	if _, err := im.Page(&b); err == nil {
		t.Error("an image that is too long is taken")
	}
	b.HoleOffset, b.HoleLength = 8000, 8000
	if _, err := im.Page(&b); err == nil {
		t.Error("a hole outside of the page is taken")
	}
}

func FuzzHeap(f *testing.F) {
	f.Add(uint8(RmgrHeap), uint8(heapUpdate), []byte{1, 0, 0, 0, 4, 0, 0, updatePrefix, 0, 0, 0, 0, 5, 0}, []byte{3, 0, 7, 0, 1, 0, 24, 0xFF, 'x'}, uint8(0))
	f.Add(uint8(RmgrHeap2), uint8(heap2MultiInsert), []byte{0, 0, 2, 0, 1, 0, 2, 0}, []byte{}, uint8(1))
	f.Add(uint8(RmgrStandby), uint8(0x10), make([]byte, 24), []byte{}, uint8(2))
	f.Fuzz(func(t *testing.T, rmgr, info uint8, main, data []byte, packed uint8) {
		r := Record{Rmgr: RmgrID(rmgr), Info: info, Major: 15, MainData: main, Blocks: []BlockRef{{Data: data, HasImage: true, Image: data, Compression: Compression(packed % 4)}}}
		if h, ok, err := ParseHeap(&r); ok && err == nil {
			h.NewRow(func(TupleID) (Row, bool) { return Row{Data: main}, true })
		}
		if v, ok, err := ParseRunning(&r); ok && err == nil && len(v.Xids) > len(main) {
			t.Fatal("more transactions than bytes")
		}
		page := make([]byte, pg.PageSize)
		copy(page, data)
		Versions(page, 0)
		var im Images
		if out, err := im.Page(&r.Blocks[0]); err == nil && len(out) != pg.PageSize {
			t.Fatal("a page of another size")
		}
	})
}
