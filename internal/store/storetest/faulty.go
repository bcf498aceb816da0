package storetest

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"time"

	"pileus/internal/store"
)

// Op is a method of a store.
type Op string

// The methods a Fault can hit; the empty Op is all of them.
const (
	Put    Op = "put"
	Get    Op = "get"
	Stat   Op = "stat"
	List   Op = "list"
	Delete Op = "delete"
)

// Fault is one thing that goes wrong. Its zero fields do nothing.
type Fault struct {
	Op     Op     // the method it hits
	Prefix string // keys it hits
	Skip   int    // calls that pass before the first that it hits
	Times  int    // calls that it hits; 0 is once, negative is for ever

	Before  error         // fail with this, and nothing is done
	After   error         // do it, then fail with this: the lost answer
	Latency time.Duration // wait, or until the context ends
	Hang    bool          // wait until the context ends: the stalled connection

	// What follows hits downloads, and for CutAt listings.
	CutAt    int64 // with CutErr: break off after so many bytes of a Get, or so many objects of a List
	CutErr   error
	EndAt    int64 // with EndEarly: a Get ends there as if the object did
	EndEarly bool
	FlipBit  int64 // with Flip: invert the lowest bit of this byte of the download
	Flip     bool
}

// Faulty passes calls on to a store and makes some of them go wrong.
type Faulty struct {
	inner store.Store

	mu     sync.Mutex
	down   bool
	faults []*Fault
	calls  map[Op]int
}

var _ store.Store = (*Faulty)(nil)

// NewFaulty returns a store over inner in which nothing fails yet.
func NewFaulty(inner store.Store) *Faulty {
	return &Faulty{inner: inner, calls: map[Op]int{}}
}

// Inject adds a fault. Of several that fit a call, the one added first hits it.
func (f *Faulty) Inject(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fault.Times == 0 {
		fault.Times = 1
	}
	f.faults = append(f.faults, &fault)
}

// SetDown switches the store off, or on again. While it is off every call fails
// with store.ErrUnavailable and nothing is done.
func (f *Faulty) SetDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

// Calls says how often a method was called.
func (f *Faulty) Calls(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// hit returns the fault for a call, after its waiting, or the error to fail with.
func (f *Faulty) hit(ctx context.Context, op Op, key string) (Fault, error) {
	fault, down := f.choose(op, key)
	if down {
		return Fault{}, fmt.Errorf("%s %s: switched off: %w", op, key, store.ErrUnavailable)
	}
	if fault.Hang {
		<-ctx.Done()
		return Fault{}, ctx.Err()
	}
	if fault.Latency > 0 {
		timer := time.NewTimer(fault.Latency)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return Fault{}, ctx.Err()
		}
	}
	return fault, fault.Before
}

func (f *Faulty) choose(op Op, key string) (fault Fault, down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[op]++
	if f.down {
		return Fault{}, true
	}
	for _, fault := range f.faults {
		if fault.Times == 0 || fault.Op != "" && fault.Op != op || !strings.HasPrefix(key, fault.Prefix) {
			continue
		}
		if fault.Skip > 0 {
			fault.Skip--
			continue
		}
		if fault.Times > 0 {
			fault.Times--
		}
		return *fault, false
	}
	return Fault{}, false
}

// Put implements store.Store.
func (f *Faulty) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	fault, err := f.hit(ctx, Put, key)
	if err != nil {
		return err
	}
	if err := f.inner.Put(ctx, key, body); err != nil {
		return err
	}
	return fault.After
}

// Stat implements store.Store.
func (f *Faulty) Stat(ctx context.Context, key string) (store.Info, error) {
	fault, err := f.hit(ctx, Stat, key)
	if err != nil {
		return store.Info{}, err
	}
	info, err := f.inner.Stat(ctx, key)
	if err == nil && fault.After != nil {
		return store.Info{}, fault.After
	}
	return info, err
}

// Delete implements store.Store.
func (f *Faulty) Delete(ctx context.Context, key string) error {
	fault, err := f.hit(ctx, Delete, key)
	if err != nil {
		return err
	}
	if err := f.inner.Delete(ctx, key); err != nil {
		return err
	}
	return fault.After
}

// List implements store.Store.
func (f *Faulty) List(ctx context.Context, prefix string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		fault, err := f.hit(ctx, List, prefix)
		if err != nil {
			yield(store.Info{}, err)
			return
		}
		n := int64(0)
		for info, err := range f.inner.List(ctx, prefix) {
			if fault.CutErr != nil && n == fault.CutAt {
				yield(store.Info{}, fault.CutErr)
				return
			}
			n++
			if !yield(info, err) || err != nil {
				return
			}
		}
		if fault.After != nil {
			yield(store.Info{}, fault.After)
		}
	}
}

// Get implements store.Store.
func (f *Faulty) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	fault, err := f.hit(ctx, Get, key)
	if err != nil {
		return nil, err
	}
	r, err := f.inner.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	return &faultyReader{ReadCloser: r, fault: fault}, nil
}

type faultyReader struct {
	io.ReadCloser
	fault Fault
	at    int64 // bytes delivered
}

func (r *faultyReader) Read(p []byte) (int, error) {
	end, endErr := int64(-1), io.EOF
	if r.fault.EndEarly {
		end = r.fault.EndAt
	}
	if r.fault.CutErr != nil {
		end, endErr = r.fault.CutAt, r.fault.CutErr
	}
	if end >= 0 {
		if r.at >= end {
			return 0, endErr
		}
		p = p[:min(int64(len(p)), end-r.at)]
	}
	n, err := r.ReadCloser.Read(p)
	if bit := r.fault.FlipBit - r.at; r.fault.Flip && bit >= 0 && bit < int64(n) {
		p[bit] ^= 1
	}
	r.at += int64(n)
	return n, err
}
