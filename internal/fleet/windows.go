package fleet

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	dayWindow  = regexp.MustCompile(`^([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)$`)
	weekWindow = regexp.MustCompile(`^(mon|tue|wed|thu|fri|sat|sun):([01]\d|2[0-3]):([0-5]\d)-(mon|tue|wed|thu|fri|sat|sun):([01]\d|2[0-3]):([0-5]\d)$`)
)

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} // as time.Weekday counts

const (
	minutesOfDay  = 24 * 60
	minutesOfWeek = 7 * minutesOfDay
)

// span is a window that comes again each day or each week: minutes since its start.
type span struct {
	begin, length, period int // minutes
}

// parseDayWindow reads hh24:mi-hh24:mi in UTC, at least 30 minutes.
func parseDayWindow(s string) (span, error) {
	m := dayWindow.FindStringSubmatch(s)
	if m == nil {
		return span{}, fault(CodeInvalidParameter, "Invalid backup window %q: it must be hh24:mi-hh24:mi, in UTC.", s)
	}
	return newSpan(minutes(m[1], m[2]), minutes(m[3], m[4]), minutesOfDay, s)
}

// parseWeekWindow reads ddd:hh24:mi-ddd:hh24:mi in UTC, at least 30 minutes.
func parseWeekWindow(s string) (span, error) {
	m := weekWindow.FindStringSubmatch(strings.ToLower(s))
	if m == nil {
		return span{}, fault(CodeInvalidParameter, "Invalid maintenance window %q: it must be ddd:hh24:mi-ddd:hh24:mi, in UTC.", s)
	}
	from := weekday(m[1])*minutesOfDay + minutes(m[2], m[3])
	to := weekday(m[4])*minutesOfDay + minutes(m[5], m[6])
	return newSpan(from, to, minutesOfWeek, s)
}

func newSpan(from, to, period int, s string) (span, error) {
	length := (to - from + period) % period
	if length < 30 || length > minutesOfDay {
		return span{}, fault(CodeInvalidParameter, "Invalid window %q: it must last at least 30 minutes and at most 24 hours.", s)
	}
	return span{begin: from, length: length, period: period}, nil
}

// minutes of two numbers that a pattern has checked.
func minutes(hours, mins string) int {
	h, _ := strconv.Atoi(hours)
	m, _ := strconv.Atoi(mins)
	return 60*h + m
}

func weekday(name string) int {
	for i, d := range weekdays {
		if d == name {
			return i
		}
	}
	return 0
}

// latest is the start of the newest occurrence that has begun at t.
func (s span) latest(t time.Time) time.Time {
	t = t.UTC()
	midnight := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	if s.period == minutesOfWeek {
		midnight = midnight.AddDate(0, 0, -int(t.Weekday()))
	}
	start := midnight.Add(time.Duration(s.begin) * time.Minute)
	if start.After(t) {
		start = start.Add(-time.Duration(s.period) * time.Minute)
	}
	return start
}

// open tells whether t lies in the window.
func (s span) open(t time.Time) bool {
	return t.Sub(s.latest(t)) < time.Duration(s.length)*time.Minute
}

// overlaps tells whether a daily and a weekly window have a minute in common.
func overlaps(day, week span) bool {
	for d := range 7 {
		for _, shift := range []int{-minutesOfWeek, 0, minutesOfWeek} {
			from := d*minutesOfDay + day.begin + shift
			if from < week.begin+week.length && week.begin < from+day.length {
				return true
			}
		}
	}
	return false
}

// defaultWindow spreads the backups of many clusters over the night: 30 minutes between 03:00 and
// 11:00, by the cluster's resource ID.
func defaultWindow(resourceID string) string {
	n := 0
	for _, c := range resourceID {
		n = (n*31 + int(c)) % 16
	}
	from := 3*60 + 30*n
	return fmt.Sprintf("%02d:%02d-%02d:%02d", from/60, from%60, (from+30)/60, (from+30)%60)
}

// defaultMaintenance lies right after the backup window, on Sundays.
func defaultMaintenance(backupWindow string) string {
	s, err := parseDayWindow(backupWindow)
	if err != nil {
		s = span{begin: 3 * 60, length: 30, period: minutesOfDay}
	}
	from := s.begin + s.length + 30
	day := func(m int) string { return weekdays[m/minutesOfDay%7] }
	clock := func(m int) string { return fmt.Sprintf("%02d:%02d", m%minutesOfDay/60, m%60) }
	return fmt.Sprintf("%s:%s-%s:%s", day(from), clock(from), day(from+30), clock(from+30))
}
