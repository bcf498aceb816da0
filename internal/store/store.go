// Package store keeps objects: named, immutable runs of bytes in a local folder,
// S3, Google Cloud Storage or Azure Blob Storage. It knows nothing of chunks or
// of PostgreSQL.
//
// Keys are slash-separated relative paths of [a-zA-Z0-9._-] segments; no segment
// is empty, "." or "..".
package store

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// ErrNotFound: no object has that key.
var ErrNotFound = errors.New("object not found")

// ErrExists: an object with that key is there already; it was left as it was.
var ErrExists = errors.New("object already exists")

// ErrUnavailable: the store could not be reached, or refused for a reason that
// may pass (network, throttling, 5xx, full disk). Retrying later may succeed.
var ErrUnavailable = errors.New("store unavailable")

// Info describes one object.
type Info struct {
	Key      string
	Size     int64 // bytes
	Modified time.Time
}

// Store keeps objects. Every method may be called concurrently, and respects ctx.
type Store interface {
	// Put creates the object from all of body, read from its current position.
	// When it returns nil the object is durable (would survive a power cut) and
	// visible whole; on error nothing new is visible, save that after a lost
	// answer the object may exist with exactly these bytes. An existing key is
	// ErrExists, and the object there is untouched.
	Put(ctx context.Context, key string, body io.ReadSeeker) error
	// Get reads length bytes from offset, or to the end if length is negative.
	// The reader delivers exactly that many bytes or fails: a shorter object is
	// io.ErrUnexpectedEOF, never a silent short read. Absent: ErrNotFound.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	// Stat describes the object. Absent: ErrNotFound.
	Stat(ctx context.Context, key string) (Info, error)
	// List yields every object whose key starts with prefix, in key order
	// (bytewise). After a yielded error it ends.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]
	// Delete removes the object. Absent is no error.
	Delete(ctx context.Context, key string) error
}
