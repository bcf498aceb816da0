package restore

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"pileus/internal/pg"
)

// Errors on which callers decide; test them with errors.Is.
var (
	// ErrNoBackup: the cluster has no backup that the path can start from.
	ErrNoBackup = errors.New("there is no backup to start from")
	// ErrNotEmpty: a directory holds something that this restore did not put there.
	ErrNotEmpty = errors.New("the directory is not empty")
	// ErrNoSpace: the target filesystem is too small.
	ErrNoSpace = errors.New("not enough free disk space")
	// ErrIdentifier: the new cluster's identifier cannot be used.
	ErrIdentifier = errors.New("the identifier cannot be used")
	// ErrTablespace: a tablespace has no place that it may be written to.
	ErrTablespace = errors.New("a tablespace has no free place to go")
	// ErrNotPromoted: the server did not come to the planned end. It did not promote.
	ErrNotPromoted = errors.New("recovery did not come to its target")
)

// Window is the range of moments that can be restored to, as far as it is known.
type Window struct {
	Earliest    time.Time     `json:"earliest,omitzero"` // the first usable backup was complete
	EarliestLSN pg.LSN        `json:"earliest_lsn,omitzero"`
	Latest      time.Time     `json:"latest,omitzero"` // all that was committed by then is held
	LatestLSN   pg.LSN        `json:"latest_lsn,omitzero"`
	Timeline    pg.TimelineID `json:"timeline,omitempty"`
}

// String prints the window in UTC.
func (w Window) String() string {
	return fmt.Sprintf("restorable: %s to %s (LSN %s to %s, timeline %d)", formatTime(w.Earliest), formatTime(w.Latest), w.EarliestLSN, w.LatestLSN, w.Timeline)
}

// WindowError: the target cannot be reached. Nothing was written.
type WindowError struct {
	Cluster string
	Target  Target
	Window  Window
	Reason  string // why, as the end of a sentence about the target
}

func (e *WindowError) Error() string {
	return fmt.Sprintf("%s of cluster %s cannot be restored: %s; %s", e.Target, e.Cluster, e.Reason, e.Window)
}

// GapError: WAL is missing although later WAL is in the repository.
type GapError struct {
	Timeline pg.TimelineID
	From     pg.LSN // the WAL before it is there
	To       pg.LSN // the WAL from here on is there; 0 if unknown
	Detail   string // what is wrong with the WAL at From, if it is not simply absent
}

func (e *GapError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "WAL of timeline %d is missing from LSN %s", e.Timeline, e.From)
	if e.To != 0 {
		fmt.Fprintf(&b, " to %s", e.To)
	}
	if e.Detail != "" {
		b.WriteString(" (" + e.Detail + ")")
	}
	return b.String()
}

// AmbiguousError: several restore points have the name.
type AmbiguousError struct {
	Name  string
	Found []Point
}

// Point is a place in the WAL and its time.
type Point struct {
	LSN  pg.LSN    `json:"lsn"`
	Time time.Time `json:"time"`
}

func (e *AmbiguousError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d restore points are named %q:", len(e.Found), e.Name)
	for _, p := range e.Found {
		fmt.Fprintf(&b, " %s at LSN %s;", formatTime(p.Time), p.LSN)
	}
	b.WriteString(" give the LSN of the one you mean as the target")
	return b.String()
}
