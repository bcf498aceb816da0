package store

import (
	"errors"
	"fmt"
	"strings"
)

// Limits on keys, in bytes. S3 and Google Cloud Storage allow 1024 bytes for a
// whole name, of which a prefix inside the bucket takes its share; file systems
// allow 255 bytes between slashes.
const (
	maxKeyLen     = 768
	maxSegmentLen = 255
)

// ErrInvalidKey: the key breaks the rules in the package comment. It is a mistake
// of the caller: nothing was looked up or written.
var ErrInvalidKey = errors.New("invalid object key")

// CheckKey reports whether key may name an object, as an error that wraps
// ErrInvalidKey and names the fault.
func CheckKey(key string) error {
	if key == "" {
		return fmt.Errorf("%w: it is empty", ErrInvalidKey)
	}
	if len(key) > maxKeyLen {
		return fmt.Errorf("%w: %d bytes long, the limit is %d", ErrInvalidKey, len(key), maxKeyLen)
	}
	for segment := range strings.SplitSeq(key, "/") {
		if !isSegment(segment) {
			return fmt.Errorf("%w %q: segment %q (want 1 to %d of a-z, A-Z, 0-9, '.', '_' and '-', and neither \".\" nor \"..\")",
				ErrInvalidKey, key, segment, maxSegmentLen)
		}
	}
	return nil
}

// checkPrefix accepts what a valid key can begin with, the empty prefix included.
func checkPrefix(prefix string) error {
	// Any last segment that is not yet complete can be completed to a valid one
	// if its characters are: "packs/.." begins "packs/..x".
	if prefix == "" || CheckKey(prefix+"x") == nil {
		return nil
	}
	return fmt.Errorf("%w: no key can begin with %q", ErrInvalidKey, prefix)
}

// isSegment reports whether name may stand between the slashes of a key. A name
// that is none (such as the folder for temporary files) is invisible to List.
func isSegment(name string) bool {
	if name == "" || name == "." || name == ".." || len(name) > maxSegmentLen {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
