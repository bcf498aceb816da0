// Package storetest holds what tests need of a store: one conformance suite that
// every implementation must pass, an in-memory store that checks how it is used,
// a store that fails on demand, and a real S3 server.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pileus/internal/store"
)

// Run checks a store against the contract of store.Store. open is called once for
// each check and must return an empty store.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, check := range []struct {
		name string
		run  func(*testing.T, store.Store)
	}{
		{"PutThenGet", putThenGet},
		{"PutFromThePosition", putFromPosition},
		{"PutNeverReplaces", putNeverReplaces},
		{"OneWinner", oneWinner},
		{"Ranges", ranges},
		{"Absent", absent},
		{"Delete", deletes},
		{"ListOrder", listOrder},
		{"ListPages", listPages},
		{"ListStops", listStops},
		{"InvalidKeys", invalidKeys},
		{"Cancelled", cancelled},
		{"BrokenBody", brokenBody},
	} {
		t.Run(check.name, func(t *testing.T) { check.run(t, open(t)) })
	}
}

func put(t *testing.T, s store.Store, key string, content []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, bytes.NewReader(content)); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func get(t *testing.T, s store.Store, key string, offset, length int64) ([]byte, error) {
	t.Helper()
	r, err := s.Get(t.Context(), key, offset, length)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	if closeErr := r.Close(); closeErr != nil {
		t.Errorf("close %s: %v", key, closeErr)
	}
	return b, err
}

func want(t *testing.T, s store.Store, key string, content []byte) {
	t.Helper()
	got, err := get(t, s, key, 0, -1)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	if !bytes.Equal(got, content) {
		t.Fatalf("%s holds %d other bytes than the %d put", key, len(got), len(content))
	}
}

// pattern is content that differs at every offset and from seed to seed.
func pattern(seed, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + seed*31)
	}
	return b
}

func keys(t *testing.T, s store.Store, prefix string) []string {
	t.Helper()
	var got []string
	for info, err := range s.List(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("list %q: %v", prefix, err)
		}
		got = append(got, info.Key)
	}
	return got
}

func putThenGet(t *testing.T, s store.Store) {
	for i, size := range []int{0, 1, 4096, 1<<20 + 7, 5 << 20} {
		key := fmt.Sprintf("packs/%02x/object-%d.bin", i, size)
		content := pattern(i, size)
		before := time.Now().Add(-5 * time.Second) // clocks of file systems are coarse
		put(t, s, key, content)
		want(t, s, key, content)
		info, err := s.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if info.Key != key || info.Size != int64(size) || info.Modified.Before(before) {
			t.Errorf("stat gives %+v for %d bytes written after %s", info, size, before)
		}
	}
}

func putFromPosition(t *testing.T, s store.Store) {
	body := bytes.NewReader(pattern(1, 1000))
	if _, err := body.Seek(400, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "a", body); err != nil {
		t.Fatal(err)
	}
	want(t, s, "a", pattern(1, 1000)[400:])
}

func putNeverReplaces(t *testing.T, s store.Store) {
	put(t, s, "dir/key", []byte("first"))
	for _, other := range []string{"other", "first", ""} {
		if err := s.Put(t.Context(), "dir/key", strings.NewReader(other)); !errors.Is(err, store.ErrExists) {
			t.Fatalf("put of %q over an object: %v, want ErrExists", other, err)
		}
	}
	want(t, s, "dir/key", []byte("first"))
}

func oneWinner(t *testing.T, s store.Store) {
	const writers = 8
	errs := make([]error, writers)
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range writers {
		all.Go(func() {
			<-start
			errs[i] = s.Put(t.Context(), "race/key", bytes.NewReader(pattern(i, 300_000)))
		})
	}
	close(start)
	all.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			t.Fatalf("writers %d and %d both won", winner, i)
		case err == nil:
			winner = i
		case !errors.Is(err, store.ErrExists):
			t.Errorf("writer %d: %v, want ErrExists", i, err)
		}
	}
	if winner < 0 {
		t.Fatal("nobody won")
	}
	want(t, s, "race/key", pattern(winner, 300_000))
}

func ranges(t *testing.T, s store.Store) {
	const size = 1000
	content := pattern(3, size)
	put(t, s, "r", content)
	put(t, s, "empty", nil)
	for _, r := range []struct {
		key            string
		offset, length int64
		want           []byte
		short          bool
	}{
		{"r", 0, -1, content, false},
		{"r", 0, size, content, false},
		{"r", 10, 20, content[10:30], false},
		{"r", 999, 1, content[999:], false},
		{"r", 990, -1, content[990:], false},
		{"r", 5, 0, nil, false},
		{"r", size, 0, nil, false},
		{"r", size, -1, nil, false},
		{"r", 990, 11, nil, true},
		{"r", size, 1, nil, true},
		{"r", size + 1, -1, nil, true},
		{"r", size + 1, 0, nil, true},
		{"r", 0, size + 1, nil, true},
		{"empty", 0, -1, nil, false},
		{"empty", 0, 0, nil, false},
		{"empty", 0, 1, nil, true},
	} {
		got, err := get(t, s, r.key, r.offset, r.length)
		switch {
		case r.short && !errors.Is(err, io.ErrUnexpectedEOF):
			t.Errorf("%s at %d+%d: %v, want ErrUnexpectedEOF", r.key, r.offset, r.length, err)
		case !r.short && err != nil:
			t.Errorf("%s at %d+%d: %v", r.key, r.offset, r.length, err)
		case !r.short && !bytes.Equal(got, r.want):
			t.Errorf("%s at %d+%d: %d other bytes", r.key, r.offset, r.length, len(got))
		}
	}
	if _, err := get(t, s, "r", -1, 5); err == nil {
		t.Error("a negative offset was accepted")
	}
}

func absent(t *testing.T, s store.Store) {
	put(t, s, "a/b/c", []byte("x"))
	for _, key := range []string{"nothing", "a", "a/b", "a/b/d", "a/b/c/d"} {
		if _, err := get(t, s, key, 0, -1); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("get %s: %v, want ErrNotFound", key, err)
		}
		if _, err := get(t, s, key, 3, 4); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("get a range of %s: %v, want ErrNotFound", key, err)
		}
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("stat %s: %v, want ErrNotFound", key, err)
		}
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("delete %s: %v, want no error", key, err)
		}
	}
	want(t, s, "a/b/c", []byte("x"))
}

func deletes(t *testing.T, s store.Store) {
	put(t, s, "d/one", []byte("1"))
	put(t, s, "d/two", []byte("2"))
	if err := s.Delete(t.Context(), "d/one"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(t.Context(), "d/one"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("stat after delete: %v", err)
	}
	if got := keys(t, s, ""); !slices.Equal(got, []string{"d/two"}) {
		t.Errorf("left: %q", got)
	}
	put(t, s, "d/one", []byte("again"))
	want(t, s, "d/one", []byte("again"))
}

func listOrder(t *testing.T, s store.Store) {
	all := []string{"a-b", "a.b", "a/b", "a/c.d", "a/c/d", "a0", "aB", "a_", "aa", "b/..x", "b/.hidden", "wal/00000001/x", "wal/00000001.history", "wal/00000002/y", "z"}
	for i, key := range all {
		put(t, s, key, pattern(i, i))
	}
	slices.Sort(all)
	for _, prefix := range []string{"", "a", "a/", "a/c", "a/c/", "a.", "b/.", "b/..", "wal/0", "wal/00000001", "wal/00000001/", "z", "zz", "nothing/here", "a/b/c"} {
		var expect []string
		for _, key := range all {
			if strings.HasPrefix(key, prefix) {
				expect = append(expect, key)
			}
		}
		if got := keys(t, s, prefix); !slices.Equal(got, expect) {
			t.Errorf("list %q gives\n%q, want\n%q", prefix, got, expect)
		}
	}
	for info, err := range s.List(t.Context(), "z") {
		if err != nil || info.Size != int64(slices.Index(all, "z")) || info.Modified.IsZero() {
			t.Errorf("list describes z as %+v, %v", info, err)
		}
	}
	for _, prefix := range []string{"/", "a//", "../", "a/../", "a b"} {
		failed := false
		for _, err := range s.List(t.Context(), prefix) {
			failed = failed || err != nil
		}
		if !failed {
			t.Errorf("list %q: no error", prefix)
		}
	}
}

// listPages puts more objects than a service lists in one answer.
func listPages(t *testing.T, s store.Store) {
	const n = 1100
	var workers sync.WaitGroup
	expect := make([]string, n)
	for w := range 8 {
		workers.Go(func() {
			for i := w; i < n; i += 8 {
				expect[i] = fmt.Sprintf("many/%05d", i)
				if err := s.Put(t.Context(), expect[i], strings.NewReader("x")); err != nil {
					t.Errorf("put: %v", err)
					return
				}
			}
		})
	}
	workers.Wait()
	if got := keys(t, s, "many/"); !slices.Equal(got, expect) {
		t.Errorf("listed %d objects of %d", len(got), n)
	}
}

func listStops(t *testing.T, s store.Store) {
	for i := range 5 {
		put(t, s, fmt.Sprintf("s/%d", i), nil)
	}
	n := 0
	for _, err := range s.List(t.Context(), "s/") {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 2 {
			break
		}
	}
	if n != 2 {
		t.Errorf("saw %d objects", n)
	}
}

func invalidKeys(t *testing.T, s store.Store) {
	for _, key := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a b", "a\\b", "ä", "a\x00", "~tmp/a", "a:b", strings.Repeat("x", 256), strings.Repeat("x/", 500) + "x"} {
		_, getErr := get(t, s, key, 0, -1)
		_, statErr := s.Stat(t.Context(), key)
		for _, err := range []error{getErr, statErr, s.Put(t.Context(), key, strings.NewReader("x")), s.Delete(t.Context(), key)} {
			if !errors.Is(err, store.ErrInvalidKey) {
				t.Errorf("key %q: %v, want ErrInvalidKey", key, err)
			}
		}
	}
	if got := keys(t, s, ""); len(got) != 0 {
		t.Errorf("invalid keys left %q", got)
	}
}

func cancelled(t *testing.T, s store.Store) {
	put(t, s, "here", []byte("x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, getErr := s.Get(ctx, "here", 0, -1)
	_, statErr := s.Stat(ctx, "here")
	errs := []error{getErr, statErr, s.Put(ctx, "new", strings.NewReader("x")), s.Delete(ctx, "here")}
	for _, err := range s.List(ctx, "") {
		errs = append(errs, err)
	}
	if len(errs) != 5 {
		t.Errorf("a cancelled list went on: %v", errs)
	}
	for i, err := range errs {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("call %d: %v, want context.Canceled", i, err)
		}
	}
	if got := keys(t, s, ""); !slices.Equal(got, []string{"here"}) {
		t.Errorf("after cancelled calls there are %q", got)
	}
}

var errBody = errors.New("the body broke")

// halfBody fails in the middle.
type halfBody struct{ *bytes.Reader }

func (b halfBody) Read(p []byte) (int, error) {
	if b.Len() <= 500_000 {
		return 0, errBody
	}
	return b.Reader.Read(p[:min(len(p), b.Len()-500_000)])
}

func brokenBody(t *testing.T, s store.Store) {
	if err := s.Put(t.Context(), "half", halfBody{bytes.NewReader(pattern(1, 1_000_000))}); !errors.Is(err, errBody) {
		t.Errorf("put: %v, want the body's error", err)
	}
	if got := keys(t, s, ""); len(got) != 0 {
		t.Errorf("half a body left %q", got)
	}
	put(t, s, "half", []byte("whole"))
	want(t, s, "half", []byte("whole"))
}
