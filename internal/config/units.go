package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// durationUnits are written behind the number. A day is 24 hours.
var durationUnits = []unit{
	{"ms", int64(time.Millisecond)}, {"s", int64(time.Second)}, {"m", int64(time.Minute)},
	{"h", int64(time.Hour)}, {"d", int64(day)}, {"w", int64(7 * day)},
}

// sizeUnits follow IEC and SI: 1 KiB is 1,024 bytes and 1 kB is 1,000.
var sizeUnits = []unit{
	{"B", 1},
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"PiB", 1 << 50},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"PB", 1e15},
}

type unit struct {
	name   string
	factor int64
}

// ParseDuration reads whole numbers with a unit each: 500ms, 1s, 24h, 7d, 1h30m.
// Units are ms, s, m, h, d (24 hours) and w. A number without a unit is an error,
// for nobody can know what was meant.
func ParseDuration(text string) (time.Duration, error) {
	total, rest := int64(0), text
	for {
		number, suffix, tail := splitQuantity(rest)
		amount, ok := multiply(number, suffix, durationUnits)
		if !ok || total > math.MaxInt64-amount {
			return 0, fmt.Errorf("%q is not a duration; write for example 500ms, 1s, 24h or 7d", text)
		}
		total += amount
		if tail == "" {
			return time.Duration(total), nil
		}
		rest = tail
	}
}

// ParseSize reads one whole number of bytes with its unit: 256MiB, 10GB, 4 GiB.
// Units are B, KiB to PiB (powers of 1,024) and kB to PB (powers of 1,000).
func ParseSize(text string) (int64, error) {
	number, suffix, tail := splitQuantity(text)
	amount, ok := multiply(number, strings.TrimLeft(suffix, " "), sizeUnits)
	if !ok || tail != "" {
		return 0, fmt.Errorf("%q is not a size; write for example 256MiB or 10GB", text)
	}
	return amount, nil
}

// NoLimit is the rate of what goes as fast as it can.
const NoLimit = "none"

// Bounds of a rate, in bytes per second. With less a chunk would take longer than anybody waits.
const (
	leastRate = 64 << 10
	mostRate  = 1 << 40
)

// ParseRate reads bytes per second, from 64KiB to 1TiB, written as a size; NoLimit is 0.
func ParseRate(text string) (int64, error) {
	if text == NoLimit {
		return 0, nil
	}
	n, err := ParseSize(text)
	if err != nil {
		return 0, fmt.Errorf("%w; or %s for no limit", err, NoLimit)
	}
	if n < leastRate || n > mostRate {
		return 0, fmt.Errorf("must be from %s to %s a second, or %s, not %s", formatSize(leastRate), formatSize(mostRate), NoLimit, text)
	}
	return n, nil
}

// splitQuantity cuts text behind its first number and the unit that follows.
func splitQuantity(text string) (number, suffix, tail string) {
	end := 0
	for end < len(text) && isDigit(text[end]) {
		end++
	}
	number, text = text[:end], text[end:]
	end = 0
	for end < len(text) && !isDigit(text[end]) {
		end++
	}
	return number, text[:end], text[end:]
}

func multiply(number, suffix string, units []unit) (int64, bool) {
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, false
	}
	for _, u := range units {
		if u.name == suffix {
			return n * u.factor, n <= math.MaxInt64/u.factor
		}
	}
	return 0, false
}

// formatDuration writes d in the largest unit that divides it; ParseDuration reads it back.
func formatDuration(d time.Duration) string {
	for _, name := range []string{"d", "h", "m", "s"} {
		for _, u := range durationUnits {
			if u.name == name && int64(d)%u.factor == 0 {
				return strconv.FormatInt(int64(d)/u.factor, 10) + name
			}
		}
	}
	return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
}

// formatSize writes n in the largest power of 1,024 that divides it; ParseSize reads it back.
func formatSize(n int64) string {
	text := strconv.FormatInt(n, 10) + "B"
	for _, u := range sizeUnits {
		if strings.HasSuffix(u.name, "iB") && n%u.factor == 0 {
			text = strconv.FormatInt(n/u.factor, 10) + u.name
		}
	}
	return text
}
