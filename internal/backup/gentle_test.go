package backup

import (
	"context"
	"errors"
	"testing"
	"time"

	"pileus/internal/pgtest"
	"pileus/internal/repo"
)

// paced takes a backup and says how long the server's files were asked for.
func (l *lab) paced(o Options) (b repo.Backup, copying time.Duration) {
	l.t.Helper()
	var began, ended time.Time
	l.notes.stage = func(name string) {
		switch name {
		case "copy files", "receive files":
			began = time.Now()
		case "wait for WAL":
			ended = time.Now()
		}
	}
	b = l.run(o)
	return b, ended.Sub(began)
}

func TestRateIsKept(t *testing.T) {
	l := newLab(t, pgtest.Newest(t), kept)
	l.server.Exec("CREATE TABLE t AS SELECT i, repeat('x', 400) AS filler FROM generate_series(1, 20000) i")
	const fast, slow = 24 << 20, 8 << 20
	whole := l.options(ModeFiles)
	whole.Full, whole.MaxRate = true, fast
	base, took := l.paced(whole)
	keeps(t, "every page", base.Read, fast, took)

	l.server.Exec("UPDATE t SET i = -i WHERE i % 400 < 40")
	part := l.options(ModeFiles)
	part.Parent, part.MaxRate = &base, slow
	b, took := l.paced(part)
	if !b.Incremental {
		t.Fatalf("the second backup is not incremental: %s", b.WhyFull)
	}
	keeps(t, "changed pages", b.Read, slow, took)

	stream := l.options(ModeStream)
	stream.MaxRate = fast
	b, took = l.paced(stream)
	keeps(t, "a stream", b.Size, fast, took)
}

// keeps fails if n bytes came faster than rate allows, less the one chunk that may come at once.
func keeps(t *testing.T, what string, n, rate int64, took time.Duration) {
	t.Helper()
	least := time.Duration(float64(n-repo.ChunkSize) / float64(rate) * float64(time.Second))
	if n < 2*repo.ChunkSize || took < least*98/100 {
		t.Errorf("%s: %d bytes came in %s, faster than %d a second", what, n, took, rate)
	}
	t.Logf("%s: %d bytes in %s, at least %s", what, n, took, least)
}

func TestAwaitEndsWithTheBackup(t *testing.T) {
	r := &run{pace: newPace(64 << 10)}
	ctx, cancel := context.WithCancelCause(t.Context())
	broken := errors.New("the disk is full")
	time.AfterFunc(50*time.Millisecond, func() { cancel(broken) })
	for range 100 {
		if err := r.await(ctx, repo.ChunkSize); err != nil {
			if !errors.Is(err, broken) {
				t.Errorf("await: %v", err)
			}
			return
		}
	}
	t.Error("await went on for 400 s worth of bytes")
}
