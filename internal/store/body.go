package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// errBodyClosed is what a transport gets that reads on after its call has ended.
var errBodyClosed = errors.New("the upload this body belonged to has ended")

// attemptBody lends a caller's body to one upload. HTTP transports may read a
// request body after the call has returned; without the lock such a straggler
// would race with the next attempt's rewind. It also remembers failures of the
// body itself, which no retry can cure, and tells a watcher of progress.
type attemptBody struct {
	mu       sync.Mutex
	body     io.ReadSeeker
	start    int64 // position of the object's first byte in body
	size     int64 // bytes from start to the end
	progress func()
	err      error // first failure of body itself
	closed   bool
}

// lendBody measures body from its current position to its end.
func lendBody(body io.ReadSeeker) (*attemptBody, error) {
	start, err := body.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, fmt.Errorf("find the position in the body: %w", err)
	}
	end, err := body.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("find the end of the body: %w", err)
	}
	if _, err := body.Seek(start, io.SeekStart); err != nil {
		return nil, fmt.Errorf("rewind the body: %w", err)
	}
	return &attemptBody{body: body, start: start, size: end - start}, nil
}

func (b *attemptBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, errBodyClosed
	}
	n, err := b.body.Read(p)
	if err != nil && err != io.EOF && b.err == nil {
		b.err = err
	}
	if b.progress != nil {
		b.progress()
	}
	return n, err
}

// Seek moves within the object: offset 0 is its first byte.
func (b *attemptBody) Seek(offset int64, whence int) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, errBodyClosed
	}
	if whence == io.SeekStart {
		offset += b.start
	}
	at, err := b.body.Seek(offset, whence)
	if err != nil && b.err == nil {
		b.err = err
	}
	return at - b.start, err
}

// take ends the loan: from here on the body is the caller's again. It returns
// the first failure of the body itself.
func (b *attemptBody) take() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return b.err
}

// sameContent reports whether the object at key holds exactly the bytes that body
// delivers from its current position on.
func sameContent(ctx context.Context, s Store, key string, body io.Reader, size int64) (bool, error) {
	info, err := s.Stat(ctx, key)
	if err != nil {
		return false, err
	}
	if info.Size != size {
		return false, nil
	}
	object, err := s.Get(ctx, key, 0, size)
	if err != nil {
		return false, err
	}
	defer object.Close() // read only: nothing can be lost in closing it
	const step = 256 << 10
	mine, theirs := make([]byte, step), make([]byte, step)
	for left := size; left > 0; {
		n := int(min(left, step))
		if _, err := io.ReadFull(object, theirs[:n]); err != nil {
			return false, fmt.Errorf("read %s back: %w", key, err)
		}
		if _, err := io.ReadFull(body, mine[:n]); err != nil {
			return false, fmt.Errorf("read the body of %s again: %w", key, err)
		}
		if !bytes.Equal(mine[:n], theirs[:n]) {
			return false, nil
		}
		left -= int64(n)
	}
	return true, nil
}

// exactReader delivers want bytes or fails: the end of the object before that is
// io.ErrUnexpectedEOF. With want negative it delivers whatever comes.
type exactReader struct {
	io.ReadCloser
	key  string
	want int64 // bytes still to come
}

func (r *exactReader) Read(p []byte) (int, error) {
	if r.want == 0 {
		// The driver checks its checksum only when it sees the end.
		var one [1]byte
		if _, err := r.ReadCloser.Read(one[:]); err != nil && err != io.EOF {
			return 0, err
		}
		return 0, io.EOF
	}
	if r.want > 0 && int64(len(p)) > r.want {
		p = p[:r.want]
	}
	n, err := r.ReadCloser.Read(p)
	if r.want < 0 {
		return n, err
	}
	r.want -= int64(n)
	if err == io.EOF && r.want > 0 {
		return n, fmt.Errorf("object %s ends %d bytes too soon: %w", r.key, r.want, io.ErrUnexpectedEOF)
	}
	if r.want == 0 {
		// All that was promised is here; what lies behind is not asked for.
		return n, nil
	}
	return n, err
}
