package archive

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestWaitCovered(t *testing.T) {
	b := newBranched(t)
	b.put(b.one, 1, 4)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("patience"))
	defer cancel()
	if err := WaitCovered(ctx, b.repo, b.c, 2, 4<<20, 8<<20, time.Millisecond); err == nil || ctx.Err() == nil {
		t.Fatalf("it did not wait: %v", err)
	}
	done := make(chan error)
	go func() { done <- WaitCovered(t.Context(), b.repo, b.c, 2, 4<<20, 8<<20, time.Millisecond) }()
	b.put(b.two, 2, 6, 7) // in any order, and across the switch
	select {
	case err := <-done:
		t.Fatalf("it did not wait for the hole to close: %v", err)
	default:
	}
	b.put(b.one, 1, 5)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A reader that is left early leaves nothing open; the store checks that.
func TestReaderLeftEarly(t *testing.T) {
	b := branch(inMemory(t))
	b.put(b.one, 1, 4, 5)
	path, err := History(t.Context(), b.repo, b.c.Name, 2)
	b.check(err)
	r := Reader{Repo: b.repo, Cluster: b.c, Path: path}
	for range r.Pieces(t.Context(), 4<<20+100, 0) {
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range r.Pieces(ctx, 4<<20, 0) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("after the end of its context: %v", err)
		}
		return
	}
	t.Error("the end of its context was taken for the end of the WAL")
}
