package wal

import (
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"pileus/internal/pg"
)

// Images expands page images. It may be used concurrently.
type Images struct {
	zstd sync.Pool // of *zstd.Decoder
}

var errImage = errors.New("a page image cannot be expanded")

// Page rebuilds a page from its image: expanded, and with its hole. The result is the caller's.
func (im *Images) Page(b *BlockRef) ([]byte, error) {
	hole, length := int(b.HoleOffset), int(b.HoleLength)
	if !b.HasImage || hole+length > pg.PageSize {
		return nil, fmt.Errorf("%w: its hole lies outside of the page", errImage)
	}
	packed, err := im.expand(b, pg.PageSize-length)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errImage, err)
	}
	if len(packed) != pg.PageSize-length {
		return nil, fmt.Errorf("%w: it has %d bytes and not %d", errImage, len(packed), pg.PageSize-length)
	}
	page := make([]byte, pg.PageSize)
	copy(page, packed[:hole])
	copy(page[hole+length:], packed[hole:])
	return page, nil
}

func (im *Images) expand(b *BlockRef, size int) ([]byte, error) {
	switch b.Compression {
	case Uncompressed:
		return b.Image, nil
	case PGLZ:
		return pglz(b.Image, size)
	case LZ4:
		out := make([]byte, size)
		n, err := lz4.UncompressBlock(b.Image, out)
		return out[:max(n, 0)], err
	case Zstd:
		d, _ := im.zstd.Get().(*zstd.Decoder)
		if d == nil {
			var err error
			if d, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<20)); err != nil {
				return nil, err
			}
		}
		defer im.zstd.Put(d)
		return d.DecodeAll(b.Image, make([]byte, 0, size))
	}
	return nil, fmt.Errorf("its compression %d is not known", b.Compression)
}

// pglz expands PostgreSQL's own compression. A control byte says of each of eight items whether it is a
// byte as it is, or a copy of bytes before: 12 bits of distance and 4 of length less 3, with a further
// byte for lengths of 18 and more. Source: pg_lzcompress.c.
func pglz(in []byte, size int) ([]byte, error) {
	out := make([]byte, 0, size)
	for at := 0; at < len(in) && len(out) < size; {
		control := in[at]
		at++
		for bit := 0; bit < 8 && at < len(in) && len(out) < size; bit++ {
			if control>>bit&1 == 0 {
				out = append(out, in[at])
				at++
				continue
			}
			if at+2 > len(in) {
				return nil, errors.New("it ends within an item")
			}
			length, distance := int(in[at]&0x0F)+3, int(in[at]&0xF0)<<4|int(in[at+1])
			if at += 2; length == 18 {
				if at >= len(in) {
					return nil, errors.New("it ends within an item")
				}
				length += int(in[at])
				at++
			}
			if distance == 0 || distance > len(out) {
				return nil, errors.New("it copies from before its begin")
			}
			for range min(length, size-len(out)) {
				out = append(out, out[len(out)-distance])
			}
		}
	}
	return out, nil
}
