package pg

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const historyOf4 = "1\t0/5000000\tno recovery target specified\n\n" +
	"2\t0/7000100\tat restore point \"before the upgrade\"\n# a comment\n" +
	"3\t1/2\tbefore 2024-01-01 00:00:00+00\n"

func TestParseHistory(t *testing.T) {
	h, err := ParseHistory(4, []byte(historyOf4))
	if err != nil {
		t.Fatal(err)
	}
	want := History{Timeline: 4, Entries: []HistoryEntry{
		{1, 0x5000000, "no recovery target specified"},
		{2, 0x7000100, `at restore point "before the upgrade"`},
		{3, 0x100000002, "before 2024-01-01 00:00:00+00"},
	}}
	if d := cmp.Diff(want, h); d != "" {
		t.Error(d)
	}
	for lsn, tli := range map[LSN]TimelineID{0: 1, 0x4FFFFFF: 1, 0x5000000: 2, 0x70000FF: 2, 0x7000100: 3, 0x100000002: 4, 1 << 60: 4} {
		if got := h.TimelineAt(lsn); got != tli {
			t.Errorf("%s is on timeline %d, want %d", lsn, got, tli)
		}
	}
	if end, ok := h.End(2); !ok || end != 0x7000100 {
		t.Errorf("timeline 2 ends at %s, %v", end, ok)
	}
	if _, ok := h.End(4); ok {
		t.Error("the timeline itself has an end")
	}
	if !h.Contains(4) || !h.Contains(1) || h.Contains(5) {
		t.Error("Contains is wrong")
	}
}

// A recovery along timeline 2 that ends before timeline 2 began leaves this.
func TestHistoryOfAnEarlyEnd(t *testing.T) {
	h, err := ParseHistory(3, []byte("1\t0/8000000\tno recovery target\n2\t0/5000000\tbefore\n"))
	if err != nil {
		t.Fatal(err)
	}
	if end, _ := h.End(1); end != 0x5000000 {
		t.Errorf("timeline 1 ends at %s", end)
	}
	for lsn, want := range map[LSN]TimelineID{0x4FFFFFF: 1, 0x5000000: 3, 0x8000000: 3} {
		if got := h.TimelineAt(lsn); got != want {
			t.Errorf("%s is on timeline %d, want %d", lsn, got, want)
		}
	}
}

func TestParseHistoryRefuses(t *testing.T) {
	for _, s := range []string{
		"1\n", "x 0/1 y\n", "1 nonsense\n", "-1 0/1\n",
		"4 0/1 itself\n", "5 0/1 younger\n",
		"2 0/1 a\n1 0/2 b\n", "1 0/1 a\n1 0/2 b\n",
	} {
		if h, err := ParseHistory(4, []byte(s)); err == nil {
			t.Errorf("%q was taken for %+v", s, h)
		}
	}
}

func FuzzParseHistory(f *testing.F) {
	f.Add(uint32(4), historyOf4)
	f.Add(uint32(2), "1 0/1")
	f.Add(uint32(1), strings.Repeat("# ", 100))
	f.Fuzz(func(t *testing.T, tli uint32, s string) {
		h, err := ParseHistory(TimelineID(tli), []byte(s))
		if err != nil {
			return
		}
		for i, e := range h.Entries {
			if e.Timeline >= h.Timeline || i > 0 && (e.Timeline <= h.Entries[i-1].Timeline || e.End < h.Entries[i-1].End) {
				t.Errorf("out of order: %+v", h)
			}
		}
	})
}
