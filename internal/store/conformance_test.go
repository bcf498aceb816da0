package store_test

import (
	"fmt"
	"testing"

	"pileus/internal/store"
	"pileus/internal/store/storetest"
)

func openLocal(t testing.TB) *store.Local {
	t.Helper()
	l, err := store.OpenLocal(t.TempDir(), store.LocalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestLocalConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return openLocal(t) })
}

func TestMemConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return storetest.NewMem(t) })
}

func TestFaultyConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return storetest.NewFaulty(storetest.NewMem(t)) })
}

func TestRetryConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		return store.WithRetry(openLocal(t), store.RetryPolicy{})
	})
}

// TestRetryOverFaultsConformance: a store that fails now and then, before and
// after taking effect, looks like one that never does.
func TestRetryOverFaultsConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		faulty := storetest.NewFaulty(storetest.NewMem(t))
		for i := range 40 {
			faulty.Inject(storetest.Fault{Skip: i % 3, Before: fmt.Errorf("injected: %w", store.ErrUnavailable)})
			faulty.Inject(storetest.Fault{Skip: i % 5, CutAt: int64(i), CutErr: fmt.Errorf("cut: %w", store.ErrUnavailable),
				After: fmt.Errorf("answer lost: %w", store.ErrUnavailable)})
		}
		return store.WithRetry(faulty, store.RetryPolicy{MaxAttempts: 100, BaseDelay: 1, MaxDelay: 1})
	})
}

func TestS3Conformance(t *testing.T) {
	server := storetest.StartS3(t)
	n := 0
	open := func(t *testing.T) store.Store {
		n++
		return server.Open(t, fmt.Sprintf("repo%d/deep", n))
	}
	t.Run("Plain", func(t *testing.T) { storetest.Run(t, open) })
	t.Run("Retry", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) store.Store { return store.WithRetry(open(t), store.RetryPolicy{}) })
	})
}

func TestBucketConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return store.NewMemBucket("in/a/folder/") })
}
