package pg

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestSegmentNames(t *testing.T) {
	for _, c := range []struct {
		tli  TimelineID
		lsn  LSN
		size int64
		name string
	}{
		{1, 0x16B374D848, DefaultSegmentSize, "0000000100000016000000B3"},
		{1, 0xFFFFFFFF, DefaultSegmentSize, "0000000100000000000000FF"},
		{1, 0x100000000, DefaultSegmentSize, "000000010000000100000000"},
		{1, 0x100000000, MinSegmentSize, "000000010000000100000000"},
		{1, 0xFFFFFFFF, MinSegmentSize, "000000010000000000000FFF"},
		{1, 0xFFFFFFFF, MaxSegmentSize, "000000010000000000000003"},
		{10, 0x1000000, DefaultSegmentSize, "0000000A0000000000000001"}, // timelines are hexadecimal
		{16, 0x1000000, DefaultSegmentSize, "000000100000000000000001"},
		{0xFFFFFFFF, 0x1000000, DefaultSegmentSize, "FFFFFFFF0000000000000001"},
	} {
		s := SegmentAt(c.tli, c.lsn, c.size)
		if s.Name() != c.name {
			t.Errorf("timeline %d, %s, size %d: %s, want %s", c.tli, c.lsn, c.size, s, c.name)
		}
		if got, err := ParseSegmentName(c.name, c.size); err != nil || got != s {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

func TestSegmentNamesRefused(t *testing.T) {
	for _, name := range []string{
		"", "00000001000000000000000", "0000000100000000000000011", "00000001000000000000000a", "0000000100000000000000G1",
		"000000000000000000000001", // timeline 0
		"000000010000000000000100", // past the last of its log, for 16 MiB
		"00000002.history", "000000010000000000000001.partial", "000000010000000000000002.00000028.backup",
	} {
		if s, err := ParseSegmentName(name, DefaultSegmentSize); err == nil {
			t.Errorf("%q was taken for %+v", name, s)
		}
	}
	for _, size := range []int64{0, -1, MinSegmentSize / 2, MaxSegmentSize * 2, DefaultSegmentSize + 1} {
		if _, err := ParseSegmentName("000000010000000000000001", size); err == nil {
			t.Errorf("size %d was accepted", size)
		}
	}
}

func TestSegmentNameRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := MinSegmentSize << rapid.IntRange(0, 10).Draw(t, "size")
		tli := TimelineID(rapid.Uint32Min(1).Draw(t, "timeline"))
		lsn := LSN(rapid.Uint64().Draw(t, "lsn"))
		s := SegmentAt(tli, lsn, size)
		if lsn < s.Start() || lsn-s.Start() >= LSN(size) || s.End()-s.Start() != LSN(size) || s.Next().Start() != s.End() {
			t.Fatalf("%s is not in %s: %s to %s", lsn, s, s.Start(), s.End())
		}
		back, err := ParseSegmentName(s.Name(), size)
		if err != nil || back != s {
			t.Fatalf("%s came back as %+v, %v", s, back, err)
		}
		if next := s.Next().Name(); lsn < LSN(0)-LSN(size) && next <= s.Name() {
			t.Fatalf("%s sorts before %s", next, s)
		}
	})
}

func FuzzParseSegmentName(f *testing.F) {
	f.Add("0000000100000016000000B3", uint8(4))
	f.Add("0000000A0000000000000FFF", uint8(0))
	f.Add("00000001000000000000000a", uint8(10))
	f.Fuzz(func(t *testing.T, name string, shift uint8) {
		size := MinSegmentSize << (shift % 12)
		if s, err := ParseSegmentName(name, size); err == nil && s.Name() != name {
			t.Errorf("%q came back as %q", name, s.Name())
		}
	})
}

func TestHistoryNames(t *testing.T) {
	for tli, name := range map[TimelineID]string{2: "00000002.history", 26: "0000001A.history"} {
		if got := HistoryName(tli); got != name {
			t.Errorf("%d: %s", tli, got)
		}
		if got, ok := ParseHistoryName(name); !ok || got != tli {
			t.Errorf("%s: %d, %v", name, got, ok)
		}
	}
	for _, name := range []string{"00000000.history", "2.history", "0000000a.history", "00000002.backup", "00000002"} {
		if _, ok := ParseHistoryName(name); ok {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestLSN(t *testing.T) {
	for s, want := range map[string]LSN{"0/0": 0, "16/B374D848": 0x16B374D848, "ffffffff/FFFFFFFF": 1<<64 - 1} {
		l, err := ParseLSN(s)
		if err != nil || l != want || !strings.EqualFold(l.String(), s) {
			t.Errorf("%s: %s, %v", s, l, err)
		}
		text, _ := l.MarshalText()
		var back LSN
		if err := back.UnmarshalText(text); err != nil || back != l {
			t.Errorf("%s came back as %s, %v", l, back, err)
		}
	}
	for _, s := range []string{"", "/", "0", "1/", "/1", "100000000/0", "0/100000000", "0/-1", "g/0", "1/2/3", " 1/2"} {
		if l, err := ParseLSN(s); err == nil {
			t.Errorf("%q was taken for %s", s, l)
		}
	}
}
