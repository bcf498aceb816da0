package repo

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// Codec says how stored bytes became smaller.
type Codec uint8

// Codecs of format 1.
const (
	CodecRaw  Codec = 0 // as they were
	CodecZstd Codec = 1 // one zstd frame
)

// maxPlain bounds what one chunk or frame may expand to, in bytes, so that
// damaged lengths cannot exhaust memory.
const maxPlain = 4 << 20

// Level is how hard zstd tries.
type Level = zstd.EncoderLevel

// ParseLevel reads fastest, default, better or best.
func ParseLevel(s string) (Level, error) {
	ok, l := zstd.EncoderLevelFromString(s)
	if !ok {
		return 0, fmt.Errorf("%q is not a compression level (fastest, default, better, best)", s)
	}
	return l, nil
}

// coder compresses and expands single chunks. Its methods may be called
// concurrently: EncodeAll and DecodeAll keep no state between calls.
type coder struct {
	enc *zstd.Encoder // nil: store everything raw
	dec *zstd.Decoder
}

func newCoder(level Level, compress bool, workers int) (coder, error) {
	var c coder
	var err error
	if compress {
		c.enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(workers),
			zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return c, fmt.Errorf("start zstd: %w", err)
		}
	}
	c.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(workers), zstd.WithDecoderMaxMemory(maxPlain*2), zstd.IgnoreChecksum(true))
	if err != nil {
		return c, fmt.Errorf("start zstd: %w", err)
	}
	return c, nil
}

// pack appends the smaller of plain and its compressed form to dst.
func (c coder) pack(dst, plain []byte) ([]byte, Codec) {
	if c.enc == nil || len(plain) < 64 {
		return append(dst, plain...), CodecRaw
	}
	n := len(dst)
	dst = c.enc.EncodeAll(plain, dst)
	if saved := len(plain) - (len(dst) - n); saved < len(plain)/32 { // compressed already: not worth expanding at restore
		return append(dst[:n], plain...), CodecRaw
	}
	return dst, CodecZstd
}

// unpack appends the plain form of stored to dst; it must have length bytes.
func (c coder) unpack(dst, stored []byte, codec Codec, length int) ([]byte, error) {
	if length < 0 || length > maxPlain {
		return nil, fmt.Errorf("a length of %d bytes is out of range", length)
	}
	n := len(dst)
	switch codec {
	case CodecRaw:
		dst = append(dst, stored...)
	case CodecZstd:
		var err error
		if dst, err = c.dec.DecodeAll(stored, dst); err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
	default:
		return nil, fmt.Errorf("codec %d is unknown", codec)
	}
	if len(dst)-n != length {
		return nil, fmt.Errorf("%d bytes where %d were expected", len(dst)-n, length)
	}
	return dst, nil
}
