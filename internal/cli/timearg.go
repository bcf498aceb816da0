package cli

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// timeLayouts are the absolute forms; one without a zone is UTC.
var timeLayouts = []string{
	time.RFC3339Nano,
	"2006-01-02 15:04:05.999999999Z07:00",
	"2006-01-02 15:04:05.999999999-07",
	"2006-01-02T15:04:05.999999999",
	"2006-01-02 15:04:05.999999999",
	"2006-01-02T15:04",
	"2006-01-02 15:04",
}

// parseTime reads a moment: RFC 3339, the same without a zone (UTC), or a
// distance from now such as "2h ago" or "1d2h ago".
func parseTime(s string, now time.Time) (time.Time, error) {
	text := strings.TrimSpace(s)
	if ago, ok := strings.CutSuffix(text, "ago"); ok {
		d, err := parseAgo(strings.TrimSpace(ago))
		if err != nil {
			return time.Time{}, fmt.Errorf("%q is not a time: %w", s, err)
		}
		return now.Add(-d).UTC(), nil
	}
	for _, layout := range timeLayouts {
		if t, err := time.ParseInLocation(layout, text, time.UTC); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time (examples: 2026-03-07T23:45:00Z, 2026-03-07T23:45:00.123456+02:00, \"2h ago\", \"90s ago\")", s)
}

var leadingDays = regexp.MustCompile(`^(\d+) ?(?:days?|d)`)

// parseAgo reads a duration that may start with whole days.
func parseAgo(s string) (time.Duration, error) {
	if s == "" {
		return 0, errors.New("how long ago?")
	}
	var days time.Duration
	if m := leadingDays.FindStringSubmatch(s); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil || n > 36500 {
			return 0, fmt.Errorf("%q days", m[1])
		}
		days, s = time.Duration(n)*24*time.Hour, strings.TrimSpace(s[len(m[0]):])
	}
	if s == "" {
		return days, nil
	}
	for _, unit := range [][2]string{{" hours", "h"}, {" hour", "h"}, {" minutes", "m"}, {" minute", "m"}, {" min", "m"}, {" seconds", "s"}, {" second", "s"}} {
		s = strings.ReplaceAll(s, unit[0], unit[1])
	}
	d, err := time.ParseDuration(strings.ReplaceAll(s, " ", ""))
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration such as 2h30m", s)
	}
	return days + d, nil
}

// stamp prints a moment: UTC, RFC 3339, microseconds where there are any.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04:05.999999Z07:00")
}
