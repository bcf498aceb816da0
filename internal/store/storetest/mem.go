package storetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pileus/internal/store"
)

// Mem keeps objects in memory and fails its test when it is misused: a download
// that is never closed or closed twice, or read after closing.
type Mem struct {
	t testing.TB

	mu      sync.Mutex
	objects map[string]memObject
	open    map[*memReader]string
}

type memObject struct {
	content  []byte
	modified time.Time
}

var _ store.Store = (*Mem)(nil)

// NewMem returns an empty store, which is checked when t ends.
func NewMem(t testing.TB) *Mem {
	m := &Mem{t: t, objects: map[string]memObject{}, open: map[*memReader]string{}}
	t.Cleanup(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, key := range m.open {
			t.Errorf("a download of %s was never closed", key)
		}
	})
	return m
}

// Put implements store.Store.
func (m *Mem) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	content, err := io.ReadAll(body)
	if err != nil {
		return fmt.Errorf("write object %s: read its body: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, taken := m.objects[key]; taken {
		return fmt.Errorf("write object %s: %w", key, store.ErrExists)
	}
	m.objects[key] = memObject{content: content, modified: time.Now()}
	return nil
}

// Get implements store.Store.
func (m *Mem) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := check(ctx, key); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, fmt.Errorf("read %s: negative offset %d", key, offset)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	object, ok := m.objects[key]
	if !ok {
		return nil, fmt.Errorf("read object %s: %w", key, store.ErrNotFound)
	}
	size := int64(len(object.content))
	if length < 0 {
		length = size - offset
	}
	if length < 0 || offset+length > size {
		return nil, fmt.Errorf("read %d bytes at %d of object %s, which has %d: %w", length, offset, key, size, io.ErrUnexpectedEOF)
	}
	r := &memReader{mem: m, ctx: ctx, Reader: bytes.NewReader(object.content[offset : offset+length])}
	m.open[r] = key
	return r, nil
}

// Stat implements store.Store.
func (m *Mem) Stat(ctx context.Context, key string) (store.Info, error) {
	if err := check(ctx, key); err != nil {
		return store.Info{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	object, ok := m.objects[key]
	if !ok {
		return store.Info{}, fmt.Errorf("look up object %s: %w", key, store.ErrNotFound)
	}
	return store.Info{Key: key, Size: int64(len(object.content)), Modified: object.modified}, nil
}

// List implements store.Store.
func (m *Mem) List(ctx context.Context, prefix string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		if prefix != "" && store.CheckKey(prefix+"x") != nil {
			yield(store.Info{}, fmt.Errorf("list %q: %w", prefix, store.ErrInvalidKey))
			return
		}
		m.mu.Lock()
		keys := slices.Sorted(maps.Keys(m.objects))
		m.mu.Unlock()
		if err := ctx.Err(); err != nil {
			yield(store.Info{}, err)
			return
		}
		for _, key := range keys {
			if !strings.HasPrefix(key, prefix) {
				continue
			}
			if err := ctx.Err(); err != nil {
				yield(store.Info{}, err)
				return
			}
			m.mu.Lock()
			object, ok := m.objects[key]
			m.mu.Unlock()
			if ok && !yield(store.Info{Key: key, Size: int64(len(object.content)), Modified: object.modified}, nil) {
				return
			}
		}
	}
}

// Delete implements store.Store.
func (m *Mem) Delete(ctx context.Context, key string) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
	return nil
}

// Corrupt changes stored bytes behind the contract's back, as a bad disk would.
// The key must exist.
func (m *Mem) Corrupt(key string, change func(content []byte) []byte) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	object, ok := m.objects[key]
	if !ok {
		m.t.Fatalf("corrupt %s: no such object", key)
	}
	object.content = change(bytes.Clone(object.content))
	m.objects[key] = object
}

func check(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return store.CheckKey(key)
}

type memReader struct {
	*bytes.Reader
	mem *Mem
	ctx context.Context
}

func (r *memReader) isOpen() bool {
	r.mem.mu.Lock()
	defer r.mem.mu.Unlock()
	_, ok := r.mem.open[r]
	return ok
}

func (r *memReader) Read(p []byte) (int, error) {
	if !r.isOpen() {
		r.mem.t.Error("a download was read after it was closed")
	}
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

func (r *memReader) Close() error {
	if !r.isOpen() {
		r.mem.t.Error("a download was closed twice")
	}
	r.mem.mu.Lock()
	defer r.mem.mu.Unlock()
	delete(r.mem.open, r)
	return nil
}
