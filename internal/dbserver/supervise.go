package dbserver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pileus/internal/postgres"
)

// EventKind says what a supervisor saw or did.
type EventKind string

// The events.
const (
	EventStarted   EventKind = "started"   // it was not running when the supervisor came
	EventCrashed   EventKind = "crashed"   // it ended by itself
	EventRestarted EventKind = "restarted" // it is up again
	EventFailed    EventKind = "failed"    // it could not be started; tried again
)

// Event is something that happened to a server.
type Event struct {
	Kind     EventKind
	Reason   string // end of the log
	Attempts int    // to start it, so far
}

// Times of a supervisor.
const (
	watchTick    = 500 * time.Millisecond
	firstBackoff = time.Second
	lastBackoff  = time.Minute
	steadyAfter  = 5 * time.Minute // a server that ran so long gets a short backoff again
)

// Supervise keeps the server up until ctx ends, and leaves it running then. One that runs is
// adopted. After a crash it is started again, with growing pauses.
func (s *Server) Supervise(ctx context.Context, on func(Event)) error {
	backoff, attempts, down := firstBackoff, 0, false
	since := time.Now()
	for {
		up, err := s.Running()
		if err != nil {
			return err
		}
		wait := watchTick
		switch {
		case up && attempts > 0:
			if down {
				on(Event{Kind: EventRestarted, Attempts: attempts})
			} else {
				on(Event{Kind: EventStarted, Attempts: attempts})
			}
			attempts, since = 0, time.Now()
		case up:
			if time.Since(since) > steadyAfter {
				backoff = firstBackoff
			}
		default:
			if attempts == 0 && time.Since(since) > watchTick/2 {
				down = true
				on(Event{Kind: EventCrashed, Reason: s.lastWords()})
			}
			attempts++
			if err := s.Start(ctx); err != nil && ctx.Err() == nil {
				on(Event{Kind: EventFailed, Reason: s.why(err), Attempts: attempts})
				wait, backoff = backoff, min(2*backoff, lastBackoff)
			} else if err == nil {
				wait = 0
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (s *Server) why(err error) string {
	var start *postgres.StartError
	if errors.As(err, &start) && start.Log != "" {
		return start.Log
	}
	return err.Error()
}

// lastWords is the end of the newest log.
func (s *Server) lastWords() string {
	entries, err := os.ReadDir(s.LogDir())
	if err != nil {
		return ""
	}
	var newest string
	var at time.Time
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.ModTime().After(at) {
			newest, at = filepath.Join(s.LogDir(), e.Name()), info.ModTime()
		}
	}
	b, err := os.ReadFile(newest)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b[max(0, len(b)-2000):])), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}
