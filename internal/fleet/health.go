package fleet

import (
	"context"
	"fmt"
	"time"

	"pileus/internal/archive"
)

// Health is what `pileus status` and the metrics say about one cluster.
type Health struct {
	Cluster     Cluster
	Protected   bool
	Since       time.Time // of Protected; zero: not known
	Why         []string  // if it is not, one sentence each, with what to do
	WALLagBytes int64     // -1: unknown
	WALLag      time.Duration
	LastBackup  time.Time
	BackupBytes int64 // size of the newest backup's files
	StoredBytes int64 // that the newest backup added to the repository
	Failures    int   // of backups, one after another
	SlotBytes   int64 // WAL that the server keeps for Pileus; -1: unknown
}

// Bounds of what counts as protected.
const (
	lagLimit    = 5 * time.Minute
	statusStale = time.Minute
	backupLate  = 26 * time.Hour // a day and some time for the backup itself
)

// Health tells how well each living cluster is protected. What the repository says of it may be ten
// seconds old.
func (f *Fleet) Health(ctx context.Context) []Health {
	var out []Health
	for _, c := range f.living() {
		f.window(ctx, &c, settled)
		out = append(out, f.health(ctx, c))
	}
	return out
}

func (f *Fleet) health(ctx context.Context, c Cluster) Health {
	h := Health{Cluster: c, WALLagBytes: -1, SlotBytes: -1}
	bad := func(since time.Time, format string, args ...any) {
		h.Why = append(h.Why, fmt.Sprintf(format, args...))
		if h.Since.IsZero() || !since.IsZero() && since.Before(h.Since) {
			h.Since = since
		}
	}
	if last, err := f.o.Ledger.LastAttempt(ctx, c.ResourceID, jobBackup); err == nil && last.Failures > 0 {
		h.Failures = last.Failures
	}
	switch c.Status {
	case StatusStopped, StatusStopping:
		bad(time.Time{}, "it is %s: what was committed before is in the repository, nothing new happens", c.Status)
	case StatusCreating, StatusFailed, StatusDeleting:
		bad(c.Created, "it is %s. %s", c.Status, c.Problem)
	}
	v, err := f.catalog.within(ctx, c.Archive, settled)
	if err != nil {
		bad(time.Time{}, "the repository cannot be read: %v", err)
		return h
	}
	if n := len(v.Backups); n > 0 {
		b := v.Backups[n-1]
		h.LastBackup, h.BackupBytes, h.StoredBytes = b.Stopped, b.Size, b.Stored
		if f.age(b.Stopped) > backupLate {
			bad(b.Stopped, "the last backup is of %s", b.Stopped.UTC().Format(time.RFC3339))
		}
	} else {
		bad(c.Created, "it has no backup yet; the first begins by itself")
	}
	if f.needsBackup(c, v) {
		bad(time.Time{}, "WAL was lost; the next backup, which begins by itself, closes the gap")
	}
	f.receiverHealth(&h, v.Receiver, bad)
	f.jobsHealth(c, bad)
	h.Protected = len(h.Why) == 0
	if h.Protected {
		h.Since = c.Earliest
	}
	return h
}

// jobsHealth tells which background jobs of a cluster fail.
func (f *Fleet) jobsHealth(c Cluster, bad func(time.Time, string, ...any)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, job := range []string{"supervise ", "receive ", "backup "} {
		if problem := f.failing[job+c.ResourceID]; problem != "" {
			bad(time.Time{}, "%s", problem)
		}
	}
}

// receiverHealth judges the receiver by the status that it writes.
func (f *Fleet) receiverHealth(h *Health, s *archive.Status, bad func(time.Time, string, ...any)) {
	if s == nil {
		if running(&h.Cluster) {
			bad(h.Cluster.Created, "its WAL is not received yet")
		}
		return
	}
	h.WALLagBytes, h.SlotBytes = s.LagBytes, s.LagBytes
	if s.LagBytes > 0 && !h.Cluster.Latest.IsZero() {
		h.WALLag = max(0, f.age(h.Cluster.Latest))
	}
	if !running(&h.Cluster) {
		return
	}
	if f.age(s.Updated) > statusStale {
		bad(s.Updated, "its WAL is not received since %s", s.Updated.UTC().Format(time.RFC3339))
	}
	if s.RepositoryFailingSince != nil {
		bad(*s.RepositoryFailingSince, "the repository takes no WAL since %s: %s", s.RepositoryFailingSince.UTC().Format(time.RFC3339), s.RepositoryError)
	}
	if s.ConnectionFailingSince != nil {
		bad(*s.ConnectionFailingSince, "the server cannot be reached since %s: %s", s.ConnectionFailingSince.UTC().Format(time.RFC3339), s.ConnectionError)
	}
	if s.LagBytes > 0 && h.WALLag > lagLimit {
		bad(h.Cluster.Latest, "its WAL in the repository is %s behind", h.WALLag.Round(time.Second))
	}
}
