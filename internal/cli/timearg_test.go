package cli

import (
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 3, 8, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]string{
		"2026-03-07T23:45:00Z":             "2026-03-07T23:45:00Z",
		"2026-03-07T23:45:00.123456+02:00": "2026-03-07T21:45:00.123456Z",
		"2026-03-07 23:45:00.5+00":         "2026-03-07T23:45:00.5Z",
		"2026-03-07 23:45:00":              "2026-03-07T23:45:00Z",
		"2026-03-07T23:45":                 "2026-03-07T23:45:00Z",
		"2h ago":                           "2026-03-08T10:00:00Z",
		"1d2h ago":                         "2026-03-07T10:00:00Z",
		"90 seconds ago":                   "2026-03-08T11:58:30Z",
		"2 days 3 hours ago":               "2026-03-06T09:00:00Z",
		"1d ago":                           "2026-03-07T12:00:00Z",
	} {
		got, err := parseTime(in, now)
		if err != nil || stamp(got) != want {
			t.Errorf("parseTime(%q) = %s, %v; want %s", in, stamp(got), err, want)
		}
	}
	for _, bad := range []string{"", "yesterday", "25:00", "-2h ago", "ago", "2026-13-01T00:00:00Z", "xd ago", "99999999d ago"} {
		if got, err := parseTime(bad, now); err == nil {
			t.Errorf("parseTime(%q) = %s, want an error", bad, stamp(got))
		}
	}
}

func TestSizeAndSpan(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.00 KiB", 16 << 20: "16.0 MiB", 1023 << 20: "1.00 GiB", 5 << 40: "5.00 TiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{1500 * time.Microsecond: "2ms", 2340 * time.Millisecond: "2.3s", 75 * time.Second: "1m15s", 73 * time.Hour: "3d1h"} {
		if got := span(d); got != want {
			t.Errorf("span(%v) = %s, want %s", d, got, want)
		}
	}
}
