package wal

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"pileus/internal/pg"
)

const (
	testStart  = pg.LSN(5 << 20)
	testSystem = 0x1234567890
)

// page is the header of a page of PostgreSQL 16 at lsn, and room for the rest.
func page(lsn pg.LSN, flags uint16, left uint32) []byte {
	b := make([]byte, pageSize)
	le := binary.LittleEndian
	if uint64(lsn)%uint64(pg.MinSegmentSize) == 0 {
		flags |= flagLongHeader
		le.PutUint64(b[24:], testSystem)
		le.PutUint32(b[32:], uint32(pg.MinSegmentSize))
		le.PutUint32(b[36:], pageSize)
	}
	le.PutUint16(b, 0xD113)
	le.PutUint16(b[2:], flags)
	le.PutUint32(b[4:], 7)
	le.PutUint64(b[8:], uint64(lsn))
	le.PutUint32(b[16:], left)
	return b
}

// decodeAll decodes b from testStart on, and returns the LSNs of the records.
func decodeAll(t *testing.T, cfg Config, b []byte) (lsns []pg.LSN, d *Decoder, err error) {
	t.Helper()
	cfg.SegmentSize = pg.MinSegmentSize
	d, err = NewDecoder(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Feed(testStart, b); err != nil {
		t.Fatal(err)
	}
	for {
		r, ok, err := d.Next()
		if err != nil || !ok {
			return lsns, d, err
		}
		lsns = append(lsns, r.LSN)
	}
}

// twoPages has one record on the first page and one that runs on to the second.
func twoPages() []byte {
	one := sealed(RmgrHeap, 0, 0, mainData(make([]byte, 7000)))
	two := sealed(RmgrHeap, 0, testStart+40, mainData(make([]byte, 3000)))
	a := page(testStart, 0, 0)
	at := 40
	at += copy(a[at:], one)
	at = (at + 7) &^ 7
	n := copy(a[at:], two)
	b := page(testStart+pageSize, flagContinuation, uint32(len(two)-n))
	copy(b[shortHeader:], two[n:])
	return append(a, b...)
}

func TestEndAndDamage(t *testing.T) {
	le := binary.LittleEndian
	const second = pageSize // offset of the second page
	end, damaged := &EndOfWALError{}, &DamageError{}
	for name, c := range map[string]struct {
		cfg     Config
		change  func(b []byte)
		records int
		want    error // nil, or of which type
		text    string
	}{
		"sound, then nothing written": {records: 2, want: end, text: "nothing was written"},
		"right cluster and timeline":  {cfg: Config{SystemID: testSystem, Timeline: 7, Major: 16}, records: 2, want: end},
		"another cluster":             {cfg: Config{SystemID: 1}, want: damaged, text: "system identifier"},
		"too new a timeline":          {cfg: Config{Timeline: 6}, want: damaged, text: "timeline 7"},
		"another version":             {cfg: Config{Major: 17}, want: damaged, text: "PostgreSQL 16"},
		"unknown magic":               {change: func(b []byte) { le.PutUint16(b, 0xD0FF) }, want: damaged, text: "magic"},
		"not WAL":                     {change: func(b []byte) { clear(b) }, want: damaged, text: "magic"},
		"page of elsewhere":           {change: func(b []byte) { le.PutUint64(b[8:], 0) }, want: damaged, text: "belongs at 0/0"},
		"segment size":                {change: func(b []byte) { le.PutUint32(b[32:], 16<<20) }, want: damaged, text: "segments of"},
		"page size":                   {change: func(b []byte) { le.PutUint32(b[36:], 16384) }, want: damaged, text: "pages of"},
		"no long header":              {change: func(b []byte) { b[2] = 0 }, want: damaged, text: "long header"},
		"unknown flag":                {change: func(b []byte) { b[2] |= 0x10 }, want: damaged, text: "flags"},
		"timeline zero":               {change: func(b []byte) { b[4] = 0 }, want: damaged, text: "timeline 0"},
		"continues nothing":           {change: func(b []byte) { b[2] |= flagContinuation }, want: damaged, text: "nothing is left"},

		"one bit of data":           {change: func(b []byte) { b[500] = 1 }, want: damaged, text: "CRC"},
		"one bit of a continuation": {change: func(b []byte) { b[second+500] = 1 }, records: 1, want: damaged, text: "CRC"},
		"wrong link":                {change: func(b []byte) { b[40+7032+8] ^= 8 }, records: 1, want: damaged, text: "before it"},
		"link ahead":                {change: func(b []byte) { le.PutUint64(b[40+8:], uint64(testStart)+40) }, want: damaged, text: "not before"},
		"length 23":                 {change: func(b []byte) { le.PutUint32(b[40:], 23) }, want: damaged, text: "length 23"},
		"length 4 GiB":              {change: func(b []byte) { le.PutUint32(b[40:], 1<<32-1) }, want: damaged, text: "length 4294967295"},
		"unknown resource manager":  {change: func(b []byte) { b[40+17] = 99 }, want: damaged, text: "manager 99"},

		"second page never written":      {change: func(b []byte) { clear(b[second:]) }, records: 1, want: end, text: "never written"},
		"second page recycled":           {change: func(b []byte) { le.PutUint64(b[second+8:], 8192) }, records: 1, want: end, text: "recycled"},
		"second page from the future":    {change: func(b []byte) { b[second+12] = 1 }, records: 1, want: damaged, text: "belongs at 1/"},
		"second page of an old timeline": {change: func(b []byte) { b[second+4] = 6 }, records: 1, want: damaged, text: "timeline 6, after timeline 7"},
		"second page of version 15":      {change: func(b []byte) { b[second] = 0x10 }, records: 1, want: damaged, text: "PostgreSQL 15"},
		"second page of a new timeline":  {change: func(b []byte) { b[second+4] = 8 }, records: 2, want: end},
		"no continuation":                {change: func(b []byte) { b[second+2] = 0 }, records: 1, want: damaged, text: "0 bytes, expected"},
		"short continuation":             {change: func(b []byte) { b[second+16]-- }, records: 1, want: damaged, text: "expected"},
	} {
		t.Run(name, func(t *testing.T) {
			b := twoPages()
			if c.change != nil {
				c.change(b)
			}
			lsns, d, err := decodeAll(t, c.cfg, b)
			var e *EndOfWALError
			var dm *DamageError
			isEnd, isDamage := errors.As(err, &e), errors.As(err, &dm)
			if _, wantEnd := c.want.(*EndOfWALError); isEnd != wantEnd || isDamage == wantEnd || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("got %v", err)
			}
			if len(lsns) != c.records {
				t.Errorf("%d records, expected %d", len(lsns), c.records)
			}
			if isEnd && e.LSN != d.End() {
				t.Errorf("%v, but the last record ends at %s", err, d.End())
			}
			if _, _, again := d.Next(); again == nil || again.Error() != err.Error() || d.Feed(d.Position(), b) == nil {
				t.Errorf("the error does not last: %v", again)
			}
		})
	}
}

// A record whose length is a lie may not make the decoder allocate it.
func TestLengthIsNotTrusted(t *testing.T) {
	b := page(testStart, 0, 0)
	binary.LittleEndian.PutUint32(b[40:], 900<<20)
	lsns, d, err := decodeAll(t, Config{}, b)
	if err != nil || len(lsns) != 0 || cap(d.buf) > 4*pageSize {
		t.Errorf("%d records, %v, %d bytes kept", len(lsns), err, cap(d.buf))
	}
}

func TestSwitchPassesOverTheRest(t *testing.T) {
	b := page(testStart, 0, 0)
	copy(b[40:], sealed(RmgrXLOG, xlogSwitch, 0, nil))
	b = append(b, make([]byte, int(pg.MinSegmentSize)-len(b))...)
	next := page(testStart+pg.LSN(pg.MinSegmentSize), 0, 0)
	copy(next[40:], sealed(RmgrXLOG, xlogRestorePoint, testStart+40, mainData(append(make([]byte, 8), append([]byte("here"), make([]byte, 60)...)...))))
	d, _ := NewDecoder(Config{SegmentSize: pg.MinSegmentSize})
	if err := d.Feed(testStart, b); err != nil {
		t.Fatal(err)
	}
	r, ok, err := d.Next()
	if err != nil || !ok || !r.IsSwitch() || r.End != testStart+pg.LSN(pg.MinSegmentSize) {
		t.Fatalf("%+v, %v, %v", r, ok, err)
	}
	if _, ok, err := d.Next(); ok || err != nil || d.Position() != r.End {
		t.Fatalf("%v, %v, position %s", ok, err, d.Position())
	}
	if err := d.Feed(d.Position(), next); err != nil {
		t.Fatal(err)
	}
	r, ok, err = d.Next()
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if p, ok, err := ParseRestorePoint(r); err != nil || !ok || p.Name != "here" || p.Time.Year() != 2000 {
		t.Errorf("%+v, %v, %v", p, ok, err)
	}
}

// An overwrite record has to name the record that was lost.
func TestOverwriteNamesTheLost(t *testing.T) {
	lost := testStart + 40 + 7032
	for _, named := range []pg.LSN{lost, lost - 8} {
		b := twoPages()[:pageSize]
		second := page(testStart+pageSize, flagOverwrite, 0)
		body := binary.LittleEndian.AppendUint64(nil, uint64(named))
		copy(second[shortHeader:], sealed(RmgrXLOG, xlogOverwrite, testStart+40, mainData(append(body, make([]byte, 8)...))))
		lsns, _, err := decodeAll(t, Config{}, append(b, second...))
		var end *EndOfWALError
		if named == lost && (len(lsns) != 2 || !errors.As(err, &end)) || named != lost && (len(lsns) != 1 || errors.As(err, &end)) {
			t.Errorf("named %s, lost %s: %d records, %v", named, lost, len(lsns), err)
		}
	}
}

func TestMisuse(t *testing.T) {
	for _, cfg := range []Config{{}, {SegmentSize: 1000}, {SegmentSize: pg.MinSegmentSize, Major: 12}, {SegmentSize: pg.MinSegmentSize, Major: 19}} {
		if _, err := NewDecoder(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
	d, _ := NewDecoder(Config{SegmentSize: pg.MinSegmentSize})
	if err := d.Feed(testStart+40, nil); err == nil {
		t.Error("started within a page of an unknown version")
	}
	if err := d.Feed(testStart, twoPages()); err != nil {
		t.Fatal(err)
	}
	if err := d.Feed(testStart+2*pageSize, nil); err == nil {
		t.Error("fed before all was decoded")
	}
	d, _ = NewDecoder(Config{SegmentSize: pg.MinSegmentSize, Major: 16})
	for _, at := range []pg.LSN{testStart + 41, testStart + 16} {
		if err := d.Feed(at, nil); err == nil {
			t.Errorf("started at %s", at)
		}
	}
	if err := d.Feed(testStart, []byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := d.Next(); ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := d.Feed(testStart+2, nil); err == nil {
		t.Error("fed with a hole")
	}
}
