package cli

import (
	"fmt"
	"time"
)

// size prints bytes with three significant digits in binary units.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, u := float64(n)/1024, 0
	for f >= 1000 && u < len(units)-1 {
		f /= 1024
		u++
	}
	switch {
	case f < 10:
		return fmt.Sprintf("%.2f %ciB", f, units[u])
	case f < 100:
		return fmt.Sprintf("%.1f %ciB", f, units[u])
	}
	return fmt.Sprintf("%.0f %ciB", f, units[u])
}

// span prints a duration for people: to the millisecond below a second, to the
// tenth below a minute, to the second above.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < 48*time.Hour:
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}
