package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"pileus/internal/store"
	"pileus/internal/store/storetest"
)

var errAway = fmt.Errorf("injected: %w", store.ErrUnavailable)

// retryOver runs check on a retrying store over a faulty one, on a clock that
// jumps instead of waiting.
func retryOver(t *testing.T, policy store.RetryPolicy, check func(*testing.T, store.Store, *storetest.Faulty, *storetest.Mem)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		mem := storetest.NewMem(t)
		faulty := storetest.NewFaulty(mem)
		check(t, store.WithRetry(faulty, policy), faulty, mem)
	})
}

func TestRetryPutWhoseAnswerWasLost(t *testing.T) {
	retryOver(t, store.RetryPolicy{}, func(t *testing.T, s store.Store, faulty *storetest.Faulty, _ *storetest.Mem) {
		faulty.Inject(storetest.Fault{Op: storetest.Put, After: errAway})
		body := strings.NewReader("skipped|mine")
		if _, err := body.Seek(8, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if err := s.Put(t.Context(), "k", body); err != nil {
			t.Fatalf("our own object was not recognised: %v", err)
		}
		if faulty.Calls(storetest.Put) != 2 {
			t.Errorf("%d attempts", faulty.Calls(storetest.Put))
		}
		if err := s.Put(t.Context(), "k", strings.NewReader("mine")); !errors.Is(err, store.ErrExists) {
			t.Errorf("a plain second put: %v, want ErrExists even for equal bytes", err)
		}
	})
}

func TestRetryPutThatLostToAnother(t *testing.T) {
	retryOver(t, store.RetryPolicy{}, func(t *testing.T, s store.Store, faulty *storetest.Faulty, mem *storetest.Mem) {
		if err := mem.Put(t.Context(), "k", strings.NewReader("them")); err != nil {
			t.Fatal(err)
		}
		faulty.Inject(storetest.Fault{Op: storetest.Put, Before: errAway})
		if err := s.Put(t.Context(), "k", strings.NewReader("mine")); !errors.Is(err, store.ErrExists) {
			t.Errorf("put: %v, want ErrExists", err)
		}
	})
}

func TestRetryGivesUp(t *testing.T) {
	var events []store.RetryEvent
	policy := store.RetryPolicy{MaxAttempts: 4, BaseDelay: time.Second, Notify: func(e store.RetryEvent) { events = append(events, e) }}
	retryOver(t, policy, func(t *testing.T, s store.Store, faulty *storetest.Faulty, _ *storetest.Mem) {
		faulty.SetDown(true)
		start := time.Now()
		_, err := s.Stat(t.Context(), "k")
		if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "after 4 attempts") {
			t.Errorf("stat: %v", err)
		}
		if took := time.Since(start); took < 3500*time.Millisecond || took > 7*time.Second {
			t.Errorf("pauses of 1, 2 and 4 s, halved at random, took %s", took)
		}
		if len(events) != 3 || events[0].Key != "k" || events[2].Attempt != 3 {
			t.Errorf("told of %+v", events)
		}
	})
	retryOver(t, store.RetryPolicy{MaxAttempts: 1000, MaxElapsed: time.Minute}, func(t *testing.T, s store.Store, faulty *storetest.Faulty, _ *storetest.Mem) {
		faulty.SetDown(true)
		start := time.Now()
		if err := s.Delete(t.Context(), "k"); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("delete: %v", err)
		}
		if took := time.Since(start); took > time.Minute || took < 30*time.Second {
			t.Errorf("gave up after %s of a minute", took)
		}
	})
}

func TestRetryNotWhatIsFinal(t *testing.T) {
	for _, final := range []error{store.ErrNotFound, store.ErrExists, errors.New("access denied"), store.ErrInvalidKey} {
		retryOver(t, store.RetryPolicy{}, func(t *testing.T, s store.Store, faulty *storetest.Faulty, _ *storetest.Mem) {
			faulty.Inject(storetest.Fault{Before: final, Times: -1})
			if err := s.Put(t.Context(), "k", strings.NewReader("x")); !errors.Is(err, final) {
				t.Errorf("put: %v", err)
			}
			if n := faulty.Calls(storetest.Put); n != 1 {
				t.Errorf("%v was tried %d times", final, n)
			}
		})
	}
}

// TestRetryStall: a connection that stays open and silent is given up, for every
// method.
func TestRetryStall(t *testing.T) {
	policy := store.RetryPolicy{StallTimeout: 30 * time.Second}
	retryOver(t, policy, func(t *testing.T, s store.Store, faulty *storetest.Faulty, _ *storetest.Mem) {
		for _, call := range []func() error{
			func() error { return s.Put(t.Context(), "k", strings.NewReader("x")) },
			func() error { _, err := s.Stat(t.Context(), "k"); return err },
			func() error {
				r, err := s.Get(t.Context(), "k", 0, -1)
				if err == nil {
					err = r.Close()
				}
				return err
			},
			func() error {
				for _, err := range s.List(t.Context(), "") {
					if err != nil {
						return err
					}
				}
				return nil
			},
			func() error { return s.Delete(t.Context(), "k") },
		} {
			faulty.Inject(storetest.Fault{Hang: true})
			start := time.Now()
			if err := call(); err != nil {
				t.Errorf("after one stall: %v", err)
			}
			if took := time.Since(start); took < 30*time.Second || took > 32*time.Second {
				t.Errorf("a stall of 30 s took %s", took)
			}
		}
		faulty.Inject(storetest.Fault{Hang: true, Times: -1})
		_, err := s.Stat(t.Context(), "k")
		if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "stalled") {
			t.Errorf("stalled for ever: %v", err)
		}
	})
}

// TestRetrySlowCaller: time that the caller takes is no stall.
func TestRetrySlowCaller(t *testing.T) {
	retryOver(t, store.RetryPolicy{StallTimeout: time.Second}, func(t *testing.T, s store.Store, faulty *storetest.Faulty, mem *storetest.Mem) {
		for _, key := range []string{"a", "b"} {
			if err := mem.Put(t.Context(), key, strings.NewReader("content")); err != nil {
				t.Fatal(err)
			}
		}
		r, err := s.Get(t.Context(), "a", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for _, err := range s.List(t.Context(), "") {
			if err != nil {
				t.Error(err)
			}
			<-time.After(time.Minute)
		}
		if b, err := io.ReadAll(r); err != nil || string(b) != "content" {
			t.Errorf("read %q, %v", b, err)
		}
		if faulty.Calls(storetest.Get) != 1 || faulty.Calls(storetest.List) != 1 {
			t.Error("a slow caller made the store be asked again")
		}
	})
}

func TestRetryCancelledWhileWaiting(t *testing.T) {
	retryOver(t, store.RetryPolicy{}, func(t *testing.T, s store.Store, faulty *storetest.Faulty, _ *storetest.Mem) {
		faulty.SetDown(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := s.Stat(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("stat: %v", err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("noticed after %s", took)
		}
	})
}

// TestRetryResumes: wherever downloads and lists break off, the caller sees all
// of it, once and in order.
func TestRetryResumes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.IntRange(0, 300).Draw(rt, "size")
		offset := rapid.IntRange(0, size).Draw(rt, "offset")
		length := rapid.IntRange(-1, size-offset).Draw(rt, "length")
		cuts := rapid.SliceOfN(rapid.Int64Range(0, 120), 0, 6).Draw(rt, "cuts")
		early := rapid.Bool().Draw(rt, "unexpected EOF")
		content := make([]byte, size)
		for i := range content {
			content[i] = byte(i)
		}
		mem := storetest.NewMem(t)
		faulty := storetest.NewFaulty(mem)
		s := store.WithRetry(faulty, store.RetryPolicy{BaseDelay: 1, MaxDelay: 1})
		if err := mem.Put(t.Context(), "k", bytes.NewReader(content)); err != nil {
			rt.Fatal(err)
		}
		var names []string
		for i := range 20 {
			names = append(names, fmt.Sprintf("l/%02d", i))
			if err := mem.Put(t.Context(), names[i], strings.NewReader("")); err != nil {
				rt.Fatal(err)
			}
		}
		for _, cut := range cuts {
			err := errAway
			if early {
				err = io.ErrUnexpectedEOF
			}
			faulty.Inject(storetest.Fault{Op: storetest.Get, CutAt: cut, CutErr: err})
			faulty.Inject(storetest.Fault{Op: storetest.List, CutAt: cut % 20, CutErr: errAway})
		}
		r, err := s.Get(t.Context(), "k", int64(offset), int64(length))
		if err != nil {
			rt.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if closeErr := r.Close(); closeErr != nil {
			rt.Fatal(closeErr)
		}
		want := content[offset:]
		if length >= 0 {
			want = want[:length]
		}
		if !bytes.Equal(got, want) {
			rt.Fatalf("%d bytes, want %d: %v", len(got), len(want), err)
		}
		// A cut behind the last byte is how a driver reports a bad checksum: the
		// bytes are with the caller already, who must hear of it.
		if err != nil && length < 0 {
			rt.Fatal(err)
		}
		var listed []string
		for info, err := range s.List(t.Context(), "l/") {
			if err != nil {
				rt.Fatal(err)
			}
			listed = append(listed, info.Key)
		}
		if !slices.Equal(listed, names) {
			rt.Fatalf("listed %q", listed)
		}
	})
}

// TestFaultyDamages: the fakes of damage do what their names say.
func TestFaultyDamages(t *testing.T) {
	mem := storetest.NewMem(t)
	faulty := storetest.NewFaulty(mem)
	if err := faulty.Put(t.Context(), "k", strings.NewReader("abcdef")); err != nil {
		t.Fatal(err)
	}
	read := func() string {
		t.Helper()
		r, err := faulty.Get(t.Context(), "k", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	faulty.Inject(storetest.Fault{Op: storetest.Get, Flip: true, FlipBit: 2})
	faulty.Inject(storetest.Fault{Op: storetest.Get, EndEarly: true, EndAt: 4})
	for _, want := range []string{"abbdef", "abcd", "abcdef"} {
		if got := read(); got != want {
			t.Errorf("read %q, want %q", got, want)
		}
	}
}
