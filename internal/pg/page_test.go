package pg

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"pgregory.net/rapid"
)

// realPage is block 1 of pg_class in a new cluster of PostgreSQL 15 with checksums.
func realPage(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/page-1")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCheckPage(t *testing.T) {
	damage := func(block uint32, change func(p []byte)) error {
		p := realPage(t)
		change(p)
		return CheckPage(p, block)
	}
	zero := func(p []byte) { clear(p) }
	for name, c := range map[string]struct {
		err  error
		good bool
	}{
		"as it was":                 {damage(1, func([]byte) {}), true},
		"at another block":          {damage(2, func([]byte) {}), false},
		"never initialised":         {damage(7, zero), true},
		"one bit of data":           {damage(1, func(p []byte) { p[PageSize-1] ^= 1 }), false},
		"one bit of the checksum":   {damage(1, func(p []byte) { p[8] ^= 1 }), false},
		"the LSN":                   {damage(1, func(p []byte) { p[4] ^= 1 }), false},
		"torn, zeros at its end":    {damage(1, func(p []byte) { clear(p[4096:]) }), false},
		"torn, zeros at its start":  {damage(1, func(p []byte) { clear(p[:4096]) }), false},
		"one bit of an empty page":  {damage(1, func(p []byte) { clear(p); p[5000] = 1 }), false},
		"sane checksum, mad header": {damage(1, func(p []byte) { p[12] = 1; p[13] = 0; resum(p, 1) }), false},
		"sane checksum, half page":  {damage(1, func(p []byte) { p[19] = 0x10; resum(p, 1) }), false},
	} {
		if (c.err == nil) != c.good {
			t.Errorf("%s: %v", name, c.err)
		}
	}
	var e *PageError
	if err := CheckPage(make([]byte, 100), 3); !errors.As(err, &e) || e.Block != 3 {
		t.Errorf("short page: %v", err)
	}
	if err := CheckPageHeader(realPage(t), 999); err != nil {
		t.Error(err)
	}
	if err := CheckPageHeader(make([]byte, PageSize), 0); err != nil {
		t.Error(err)
	}
	if err := CheckPageHeader(nil, 0); err == nil {
		t.Error("an empty page passed")
	}
}

func resum(p []byte, block uint32) { binary.LittleEndian.PutUint16(p[8:], Checksum(p, block)) }

func TestPageHeader(t *testing.T) {
	h := PageHeader(realPage(t))
	if h.LSN()>>24 != 1 || h.Flags()&^7 != 0 || h.Lower() < 24 || h.Lower() > h.Upper() || h.Special() != PageSize ||
		h.Size() != PageSize || h.Version() != 4 || h.Checksum() == 0 {
		t.Errorf("LSN %s flags %d lower %d upper %d special %d size %d version %d", h.LSN(), h.Flags(), h.Lower(), h.Upper(), h.Special(), h.Size(), h.Version())
	}
}

// slowChecksum follows the definition lane by lane.
func slowChecksum(page []byte, block uint32) uint16 {
	sums := checksumBasis
	step := func(i int, v uint32) {
		x := sums[i] ^ v
		sums[i] = x*fnvPrime ^ x>>17
	}
	for row := range PageSize / checksumRow {
		for i := range checksumLanes {
			v := binary.LittleEndian.Uint32(page[row*checksumRow+i*4:])
			if row == 0 && i == 2 {
				v &^= 0xFFFF
			}
			step(i, v)
		}
	}
	sum := block
	for i := range checksumLanes {
		step(i, 0)
		step(i, 0)
		sum ^= sums[i]
	}
	return uint16(sum%65535 + 1)
}

func TestChecksumIsTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		page := make([]byte, PageSize)
		for _, e := range rapid.SliceOfN(rapid.Uint64(), 1, 200).Draw(t, "edits") {
			page[e%PageSize] = byte(e >> 32)
		}
		block := rapid.Uint32().Draw(t, "block")
		if got, want := Checksum(page, block), slowChecksum(page, block); got != want {
			t.Fatalf("%04X, by definition %04X", got, want)
		}
	})
}

func BenchmarkChecksum(b *testing.B) {
	p := realPage(b)
	b.SetBytes(PageSize)
	for b.Loop() {
		Checksum(p, 1)
	}
}

func BenchmarkIsNewPage(b *testing.B) {
	p := make([]byte, PageSize)
	b.SetBytes(PageSize)
	for b.Loop() {
		IsNewPage(p)
	}
}
