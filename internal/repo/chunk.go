package repo

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"

	"pileus/internal/store"
)

// ChunkSize is how many plain bytes of a file one chunk holds at the most.
// Chunks are aligned: chunk i of a file starts at i × ChunkSize.
const ChunkSize = 256 << 10

// PackID names a pack. It is random, so that writers never agree on one.
type PackID [16]byte

// String is the ID in hexadecimal.
func (p PackID) String() string { return hex.EncodeToString(p[:]) }

// MarshalText makes an ID appear in JSON in hexadecimal.
func (p PackID) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads the hexadecimal form.
func (p *PackID) UnmarshalText(b []byte) error { return unhex(p[:], b, "pack ID") }

func (p PackID) key() string { s := p.String(); return "packs/" + s[:2] + "/" + s }

// Ref says where one chunk lies and what it holds.
type Ref struct {
	Pack   PackID
	Offset uint32 // in the pack, bytes
	Stored uint32 // length in the pack, bytes
	Length uint32 // length when expanded, bytes; at most 4 MiB
	Codec  Codec
	Hash   Hash // of the expanded bytes
}

// chunkAAD binds a sealed chunk to its codec. Its place and content are bound by
// the hash in the node, which is sealed itself.
func chunkAAD(codec Codec) []byte { return []byte{'c', byte(codec)} }

// Decode turns the stored bytes of ref into plain bytes appended to dst, and
// checks their hash. It is safe for concurrent use.
func (r *Repository) Decode(dst []byte, ref Ref, stored []byte) ([]byte, error) {
	packed, n := stored, len(dst)
	var err error
	if r.keys.seal != nil {
		if packed, err = r.keys.opened(nil, stored, chunkAAD(ref.Codec)); err != nil {
			return nil, damaged(ref.String(), "%v", err)
		}
	}
	if dst, err = r.code.unpack(dst, packed, ref.Codec, int(ref.Length)); err != nil {
		return nil, damaged(ref.String(), "%v", err)
	}
	if r.keys.hash(dst[n:]) != ref.Hash {
		return nil, damaged(ref.String(), "its content does not match its hash")
	}
	return dst, nil
}

// String names the chunk by its place.
func (r Ref) String() string {
	return fmt.Sprintf("chunk at %d+%d of pack %s", r.Offset, r.Stored, r.Pack)
}

// ReadSpan reads length stored bytes of a pack from offset into buf (grown as
// needed). Several chunks that lie side by side are read at once this way.
func (r *Repository) ReadSpan(ctx context.Context, buf []byte, pack PackID, offset, length int64) ([]byte, error) {
	rc, err := r.store.Get(ctx, pack.key(), offset, length)
	if err != nil {
		return nil, fmt.Errorf("read pack %s: %w", pack, missing(err))
	}
	defer rc.Close()
	buf = resize(buf, int(length))
	if _, err := io.ReadFull(rc, buf); err != nil {
		return nil, fmt.Errorf("read pack %s at %d+%d: %w", pack, offset, length, missing(err))
	}
	return buf, nil
}

// missing turns the store's view of a vanished or short object into damage.
func missing(err error) error {
	switch {
	case isAny(err, store.ErrNotFound):
		return fmt.Errorf("%w: it is missing (%w)", ErrDamaged, err)
	case isAny(err, io.ErrUnexpectedEOF, io.EOF):
		return fmt.Errorf("%w: it is shorter than it was (%w)", ErrDamaged, err)
	}
	return err
}

// ReadChunk reads and checks one chunk, appended to dst.
func (r *Repository) ReadChunk(ctx context.Context, dst []byte, ref Ref) ([]byte, error) {
	stored, err := r.ReadSpan(ctx, nil, ref.Pack, int64(ref.Offset), int64(ref.Stored))
	if err != nil {
		return nil, err
	}
	return r.Decode(dst, ref, stored)
}
