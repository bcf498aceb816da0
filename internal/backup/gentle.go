package backup

import (
	"context"
	"runtime"

	"golang.org/x/time/rate"

	"pileus/internal/repo"
)

// newPace lets bytes through at a rate per second; 0 is no limit, and gives nil. What was saved up while the
// workers were busy otherwise is one chunk at the most, so there are no bursts.
func newPace(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), repo.ChunkSize)
}

// await returns when the server's disk may be asked for n more bytes, at most repo.ChunkSize.
func (r *run) await(ctx context.Context, n int) error {
	if r.pace == nil {
		return nil
	}
	if err := r.pace.WaitN(ctx, n); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return nil
}

// yield puts the calling goroutine behind others for CPU and disk, for as long as it lives. It keeps
// its thread, which ends with it: the system lets nobody take a lower priority back.
func (r *run) yield() {
	if !r.Nice {
		return
	}
	runtime.LockOSThread()
	if err := lowerPriority(); err != nil {
		r.noted.Do(func() { r.Progress.Note("the backup's workers keep their usual priority: %v", err) })
	}
}
