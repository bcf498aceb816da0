package fleet

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// A background job that failed once and then runs on is not held against the cluster for ever; one that
// fails again is.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &Fleet{o: Options{Log: slog.New(slog.DiscardHandler)}, failing: map[string]string{}}
		wrong := func() string {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.failing["job"]
		}
		ctx, cancel := context.WithCancel(t.Context())
		attempts, over := 0, make(chan struct{})
		go func() {
			defer close(over)
			f.retry(ctx, "job", func(ctx context.Context) error {
				attempts++
				switch attempts {
				case 1:
					return errors.New("first")
				case 2: // runs for a while
					time.Sleep(time.Hour)
					return errors.New("second")
				}
				<-ctx.Done()
				return ctx.Err()
			})
		}()
		for _, at := range []struct {
			after time.Duration
			wrong string
		}{
			{0, "first"},
			{firstPause + soundAfter - time.Millisecond, "first"},
			{2 * time.Millisecond, ""},
			{time.Hour - soundAfter, "second"},
			{firstPause + soundAfter, ""},
		} {
			time.Sleep(at.after)
			synctest.Wait()
			if got := wrong(); got != at.wrong {
				t.Errorf("after %s more and %d attempts %q is wrong, not %q", at.after, attempts, got, at.wrong)
			}
		}
		cancel()
		<-over
		if attempts != 3 || wrong() != "" {
			t.Errorf("%d attempts, %q is wrong", attempts, wrong())
		}
	})
}
