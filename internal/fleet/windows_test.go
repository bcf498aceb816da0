package fleet

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func at(t *testing.T, s string) time.Time {
	t.Helper()
	v, err := time.Parse("Mon 2006-01-02 15:04", s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestWindows(t *testing.T) {
	for _, c := range []struct {
		window string
		parse  func(string) (span, error)
		now    string
		latest string
		open   bool
	}{
		{"03:00-03:30", parseDayWindow, "Mon 2026-11-23 03:00", "Mon 2026-11-23 03:00", true},
		{"03:00-03:30", parseDayWindow, "Mon 2026-11-23 03:30", "Mon 2026-11-23 03:00", false},
		{"03:00-03:30", parseDayWindow, "Mon 2026-11-23 02:59", "Sun 2026-11-22 03:00", false},
		{"23:45-00:30", parseDayWindow, "Mon 2026-11-23 00:10", "Sun 2026-11-22 23:45", true},
		{"sun:23:45-mon:00:30", parseWeekWindow, "Mon 2026-11-23 00:10", "Sun 2026-11-22 23:45", true},
		{"Sat:23:45-sun:00:30", parseWeekWindow, "Sun 2026-11-22 00:10", "Sat 2026-11-21 23:45", true},
		{"tue:10:00-tue:10:30", parseWeekWindow, "Mon 2026-11-23 10:10", "Tue 2026-11-17 10:00", false},
	} {
		s, err := c.parse(c.window)
		if err != nil {
			t.Fatal(err)
		}
		now := at(t, c.now)
		if got := s.latest(now); !got.Equal(at(t, c.latest)) {
			t.Errorf("%s at %s began %s, want %s", c.window, c.now, got, c.latest)
		}
		if got := s.open(now); got != c.open {
			t.Errorf("%s at %s is open: %v", c.window, c.now, got)
		}
	}
	for _, s := range []string{"", "3:00-4:00", "03:00-03:29", "24:00-24:30", "03:00-03:00", "mon:03:00-mon:04:00"} {
		if _, err := parseDayWindow(s); err == nil {
			t.Errorf("%q is a daily window", s)
		}
	}
	for _, s := range []string{"", "mon:03:00", "xxx:03:00-xxx:04:00", "mon:03:00-wed:03:00", "03:00-04:00"} {
		if _, err := parseWeekWindow(s); err == nil {
			t.Errorf("%q is a weekly window", s)
		}
	}
}

// TestOverlaps compares with counting minutes.
func TestOverlaps(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		day := span{rapid.IntRange(0, minutesOfDay-1).Draw(rt, "day"), rapid.IntRange(30, 200).Draw(rt, "long"), minutesOfDay}
		week := span{rapid.IntRange(0, minutesOfWeek-1).Draw(rt, "week"), rapid.IntRange(30, 200).Draw(rt, "longer"), minutesOfWeek}
		want := false
		for m := range minutesOfWeek {
			inDay := ((m-day.begin)%minutesOfDay+minutesOfDay)%minutesOfDay < day.length
			inWeek := ((m-week.begin)%minutesOfWeek+minutesOfWeek)%minutesOfWeek < week.length
			want = want || inDay && inWeek
		}
		if got := overlaps(day, week); got != want {
			rt.Fatalf("%+v and %+v overlap: %v", day, week, got)
		}
	})
}

// TestDefaultsAreSound: what a cluster gets that names no windows is what one may ask for.
func TestDefaultsAreSound(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := Cluster{BackupWindow: defaultWindow(rapid.String().Draw(rt, "id"))}
		if rapid.Bool().Draw(rt, "configured") {
			from := rapid.IntRange(0, minutesOfDay-1).Draw(rt, "from")
			c.BackupWindow = time.Unix(int64(from)*60, 0).UTC().Format("15:04") + "-" + time.Unix(int64(from+rapid.IntRange(30, 600).Draw(rt, "long"))*60, 0).UTC().Format("15:04")
		}
		c.MaintenanceWindow = defaultMaintenance(c.BackupWindow)
		if err := checkWindows(&c); err != nil {
			rt.Fatalf("%s and %s: %v", c.BackupWindow, c.MaintenanceWindow, err)
		}
	})
}
