package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"pileus/internal/progress"
)

// newReporter picks the rendering: JSON events with --json, a bar on a terminal,
// lines otherwise. end must be called once; it ends the drawing.
func newReporter(w io.Writer, terminal, asJSON, quiet bool) (r progress.Reporter, end func()) {
	switch {
	case quiet && !asJSON:
		return progress.Silent{}, func() {}
	case asJSON:
		return &meter{w: w, every: time.Second, draw: drawJSON, now: time.Now}, func() {}
	case terminal:
		m := &meter{w: w, every: 100 * time.Millisecond, draw: drawBar, now: time.Now, redraw: true}
		return m, m.end
	}
	m := &meter{w: w, every: 5 * time.Second, draw: drawLine, now: time.Now}
	return m, m.end
}

// meter is one Reporter for all renderings: it keeps the figures and asks draw
// for a line, at most once per interval and at the end of each stage.
type meter struct {
	w      io.Writer
	every  time.Duration
	redraw bool // the line is drawn over itself
	draw   func(*meter, bool) string
	now    func() time.Time

	mu      sync.Mutex
	stage   string
	total   int64
	done    int64
	started time.Time
	last    time.Time
	drawn   bool
}

func (m *meter) Stage(name string, total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.finish()
	m.stage, m.total, m.done = name, total, 0
	m.started = m.now()
	m.last = m.started
	if m.redraw {
		m.show(false)
	}
}

func (m *meter) Add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += n
	if now := m.now(); now.Sub(m.last) >= m.every {
		m.last = now
		m.show(false)
	}
}

func (m *meter) Note(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if m.redraw && m.drawn {
		fmt.Fprint(m.w, "\r\x1b[K")
	}
	if strings.HasPrefix(m.draw(m, true), "{") {
		line, _ := json.Marshal(map[string]any{"event": "note", "time": m.now().UTC(), "text": text})
		fmt.Fprintf(m.w, "%s\n", line)
		return
	}
	fmt.Fprintf(m.w, "note: %s\n", text)
}

func (m *meter) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.finish()
	m.stage = ""
}

func (m *meter) finish() {
	if m.stage != "" {
		m.show(true)
	}
}

func (m *meter) show(done bool) {
	line := m.draw(m, done)
	if !m.redraw {
		fmt.Fprintln(m.w, line)
		return
	}
	m.drawn = !done
	fmt.Fprintf(m.w, "\r\x1b[K%s", line)
	if done {
		fmt.Fprintln(m.w)
	}
}

func (m *meter) rate() float64 {
	if s := m.now().Sub(m.started).Seconds(); s > 0.2 {
		return float64(m.done) / s
	}
	return 0
}

func drawBar(m *meter, done bool) string {
	if done {
		return drawLine(m, true)
	}
	if m.total <= 0 {
		if m.done == 0 {
			return fmt.Sprintf("%-22s …", m.stage)
		}
		return fmt.Sprintf("%-22s %9s  %s/s", m.stage, size(m.done), size(int64(m.rate())))
	}
	const width = 28
	part := min(float64(m.done)/float64(m.total), 1)
	full := int(part * width)
	bar := strings.Repeat("█", full) + strings.Repeat("░", width-full)
	line := fmt.Sprintf("%-22s %s %3.0f%%  %s of %s", m.stage, bar, part*100, size(m.done), size(m.total))
	if r := m.rate(); r > 0 {
		left := time.Duration(float64(m.total-m.done) / r * float64(time.Second))
		line += fmt.Sprintf("  %s/s  %s left", size(int64(r)), span(max(left, 0).Round(time.Second)))
	}
	return line
}

func drawLine(m *meter, done bool) string {
	took := m.now().Sub(m.started)
	switch {
	case done && m.done > 0:
		return fmt.Sprintf("%-22s %s in %s", m.stage, size(m.done), span(took))
	case done:
		return fmt.Sprintf("%-22s done in %s", m.stage, span(took))
	case m.total > 0:
		return fmt.Sprintf("%-22s %3.0f%%  %s of %s, %s so far", m.stage, min(100*float64(m.done)/float64(m.total), 100), size(m.done), size(m.total), span(took))
	}
	return fmt.Sprintf("%-22s %s, %s so far", m.stage, size(m.done), span(took))
}

func drawJSON(m *meter, done bool) string {
	line, _ := json.Marshal(map[string]any{"event": "progress", "time": m.now().UTC(), "stage": m.stage,
		"done_bytes": m.done, "total_bytes": m.total, "ended": done})
	return string(line)
}
