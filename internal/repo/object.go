package repo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/blake3"

	"pileus/internal/store"
)

// Kind says what an object holds. It is part of the object's header and, when
// sealed, of its authenticated data, so that one kind never passes for another.
type Kind uint8

// Kinds of format 1.
const (
	KindCluster  Kind = 1
	KindManifest Kind = 2
	KindSnapshot Kind = 3
	KindSegment  Kind = 4
	KindPart     Kind = 5
	KindHistory  Kind = 6
	KindPrune    Kind = 7
	KindRun      Kind = 8
)

// An object is a header, frames, and an end frame:
//
//	header  "PILEUSo1" (8) | kind (1) | flags (1; bit 0: sealed) | zero (2)
//	frame   stored length (4) | plain length (4) | codec (1) | zero (3) | stored bytes
//	end     0xFFFFFFFF (4) | plain length in all (8) | stored length (4) | stored hash
//
// Integers are little-endian. A sealed frame's stored bytes are nonce, ciphertext
// and tag; its authenticated data is kind, frame number, codec, plain length and
// the object's key, so frames cannot be moved, dropped or renamed. The end frame
// carries the hash of all plain bytes.
const (
	objectMagic   = "PILEUSo1"
	objectHeader  = 12
	frameHeader   = 12
	endMark       = 0xFFFFFFFF
	frameSize     = 1 << 20 // plain bytes per frame, but for the last and for flushed ones
	flagSealed    = 1
	maxFrameStore = maxPlain + 1024
)

type objectWriter struct {
	r     *Repository
	w     io.Writer
	key   string
	kind  Kind
	buf   []byte // plain bytes of the frame being filled
	out   []byte
	tmp   []byte
	frame uint64
	total uint64
	hash  *blake3.Hasher
}

func (r *Repository) newObjectWriter(w io.Writer, kind Kind, key string) (*objectWriter, error) {
	var head [objectHeader]byte
	copy(head[:], objectMagic)
	head[8] = byte(kind)
	if r.keys.seal != nil {
		head[9] = flagSealed
	}
	if _, err := w.Write(head[:]); err != nil {
		return nil, err
	}
	return &objectWriter{r: r, w: w, key: key, kind: kind, buf: make([]byte, 0, frameSize), hash: r.keys.hasher()}, nil
}

func (o *objectWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		k := min(len(p), frameSize-len(o.buf))
		o.buf = append(o.buf, p[:k]...)
		p = p[k:]
		if len(o.buf) == frameSize {
			if err := o.Flush(); err != nil {
				return n - len(p), err
			}
		}
	}
	return n, nil
}

// Flush ends the current frame, so that what was written so far can be read
// without what follows.
func (o *objectWriter) Flush() error {
	if len(o.buf) == 0 {
		return nil
	}
	o.hash.Write(o.buf) // a hash never fails
	o.total += uint64(len(o.buf))
	var codec Codec
	o.tmp, codec = o.r.code.pack(o.tmp[:0], o.buf)
	aad := frameAAD(o.kind, o.frame, codec, len(o.buf), o.key)
	o.out = append(o.out[:0], make([]byte, frameHeader)...)
	o.out = o.r.keys.sealed(o.out, o.tmp, aad)
	binary.LittleEndian.PutUint32(o.out, uint32(len(o.out)-frameHeader))
	binary.LittleEndian.PutUint32(o.out[4:], uint32(len(o.buf)))
	o.out[8] = byte(codec)
	o.frame++
	o.buf = o.buf[:0]
	_, err := o.w.Write(o.out)
	return err
}

// Close writes what is left and the end frame. It does not close the writer below.
func (o *objectWriter) Close() error {
	if err := o.Flush(); err != nil {
		return err
	}
	h := sum(o.hash)
	body := o.r.keys.sealed(nil, h[:], frameAAD(o.kind, o.frame, CodecRaw, int(o.total), o.key))
	var end [16]byte
	binary.LittleEndian.PutUint32(end[:], endMark)
	binary.LittleEndian.PutUint64(end[4:], o.total)
	binary.LittleEndian.PutUint32(end[12:], uint32(len(body)))
	_, err := o.w.Write(append(end[:], body...))
	return err
}

func frameAAD(kind Kind, frame uint64, codec Codec, plain int, key string) []byte {
	aad := make([]byte, 0, 24+len(key))
	aad = append(aad, byte(kind), byte(codec))
	aad = binary.LittleEndian.AppendUint64(aad, frame)
	aad = binary.LittleEndian.AppendUint64(aad, uint64(plain))
	return append(aad, key...)
}

// objectReader yields an object's plain bytes. io.EOF means that the whole object
// was read and its hash is right; anything else is not to be trusted.
type objectReader struct {
	r      *Repository
	src    *bufio.Reader
	key    string
	kind   Kind
	frame  uint64
	total  uint64
	hash   *blake3.Hasher // nil: the content is trusted
	plain  []byte         // unread bytes of the current frame
	buf    []byte
	stored []byte
	opened []byte
	err    error
}

func (r *Repository) newObjectReader(src io.Reader, kind Kind, key string) (*objectReader, error) {
	o := &objectReader{r: r, src: bufio.NewReaderSize(src, 64<<10), key: key, kind: kind, hash: r.keys.hasher()}
	var head [objectHeader]byte
	if _, err := io.ReadFull(o.src, head[:]); err != nil {
		return nil, o.broken(err, "it has no header")
	}
	switch {
	case string(head[:7]) == objectMagic[:7] && head[7] != objectMagic[7]:
		return nil, fmt.Errorf("%s: %w", key, &FormatError{Found: int(head[7]) - '0'})
	case string(head[:8]) != objectMagic:
		return nil, damaged(key, "it does not start as an object does")
	case Kind(head[8]) != kind:
		return nil, damaged(key, "it is of kind %d, expected %d", head[8], kind)
	case head[9] == flagSealed && r.keys.seal == nil, head[9] == 0 && r.keys.seal != nil, head[9] > flagSealed:
		return nil, damaged(key, "it is sealed otherwise than the repository says")
	}
	return o, nil
}

func (o *objectReader) Read(p []byte) (int, error) {
	for len(o.plain) == 0 {
		if o.err == nil {
			o.buf, o.err = o.next(o.buf)
			o.plain = o.buf
		}
		if o.err != nil {
			return 0, o.err
		}
	}
	n := copy(p, o.plain)
	o.plain = o.plain[n:]
	return n, nil
}

// ReadFrame is that of Frames.
func (o *objectReader) ReadFrame(buf []byte) ([]byte, error) {
	if len(o.plain) > 0 {
		buf = append(buf[:0], o.plain...)
		o.plain = nil
		return buf, nil
	}
	if o.err == nil {
		buf, o.err = o.next(buf)
	}
	return buf, o.err
}

// TrustContent is that of Frames.
func (o *objectReader) TrustContent() { o.hash = nil }

// next reads a frame into buf.
func (o *objectReader) next(buf []byte) ([]byte, error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(o.src, head[:4]); err != nil {
		return nil, o.broken(err, "it ends in the middle")
	}
	length := binary.LittleEndian.Uint32(head[:])
	if length == endMark {
		return nil, o.end()
	}
	if _, err := io.ReadFull(o.src, head[4:]); err != nil {
		return nil, o.broken(err, "it ends in the middle")
	}
	plain, codec := int(binary.LittleEndian.Uint32(head[4:])), Codec(head[8])
	if length > maxFrameStore || plain > maxPlain || plain == 0 {
		return nil, damaged(o.key, "frame %d has impossible lengths", o.frame)
	}
	o.stored = resize(o.stored, int(length))
	if _, err := io.ReadFull(o.src, o.stored); err != nil {
		return nil, o.broken(err, "it ends in the middle")
	}
	packed, err := o.stored, error(nil)
	if o.r.keys.seal != nil {
		if packed, err = o.r.keys.opened(o.opened[:0], o.stored, frameAAD(o.kind, o.frame, codec, plain, o.key)); err != nil {
			return nil, damaged(o.key, "frame %d: %v", o.frame, err)
		}
		o.opened = packed
	}
	if buf, err = o.r.code.unpack(buf[:0], packed, codec, plain); err != nil {
		return nil, damaged(o.key, "frame %d: %v", o.frame, err)
	}
	if o.hash != nil {
		o.hash.Write(buf) // a hash never fails
	}
	o.total += uint64(plain)
	o.frame++
	return buf, nil
}

func (o *objectReader) end() error {
	var rest [12]byte
	if _, err := io.ReadFull(o.src, rest[:]); err != nil {
		return o.broken(err, "it ends in the middle")
	}
	total, length := binary.LittleEndian.Uint64(rest[:]), binary.LittleEndian.Uint32(rest[8:])
	if total != o.total || length > 256 {
		return damaged(o.key, "it holds %d bytes and says it holds %d", o.total, total)
	}
	stored := make([]byte, length)
	if _, err := io.ReadFull(o.src, stored); err != nil {
		return o.broken(err, "it ends in the middle")
	}
	h, err := o.r.keys.opened(nil, stored, frameAAD(o.kind, o.frame, CodecRaw, int(total), o.key))
	if err != nil {
		return damaged(o.key, "end: %v", err)
	}
	if o.hash != nil {
		if want := sum(o.hash); !bytes.Equal(h, want[:]) {
			return damaged(o.key, "its content does not match its hash")
		}
	}
	if _, err := o.src.ReadByte(); !errors.Is(err, io.EOF) {
		return damaged(o.key, "bytes follow its end")
	}
	return io.EOF
}

// broken tells an object that ends too early (damage) from a store that failed.
func (o *objectReader) broken(err error, what string) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged(o.key, "%s", what)
	}
	return fmt.Errorf("read %s: %w", o.key, err)
}

func resize(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// putObject writes an object whose plain bytes fill produces, in one Put.
func (r *Repository) putObject(ctx context.Context, key string, kind Kind, fill func(io.Writer) error) error {
	var s spill
	defer s.Close()
	w, err := r.newObjectWriter(&s, kind, key)
	if err == nil {
		if err = fill(w); err == nil {
			err = w.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("prepare %s: %w", key, err)
	}
	body, err := s.Reader()
	if err != nil {
		return fmt.Errorf("prepare %s: %w", key, err)
	}
	return r.store.Put(ctx, key, body)
}

// Frames reads an object, also frame by frame.
type Frames interface {
	io.ReadCloser
	// ReadFrame yields the next frame, or what Read left of the current one, in buf or, where that is too small, in memory
	// of its own: for those who would copy it anyway. A frame has up to 4 MiB. Errors are those of Read.
	ReadFrame(buf []byte) ([]byte, error)
	// TrustContent does without the hash over what is read, for those who verify the content by means of its own, such as
	// the CRCs of WAL. To be called before the first read. Seals are verified all the same.
	TrustContent()
}

type objectFile struct {
	*objectReader
	io.Closer
}

// openObject opens an object for reading. Absent: ErrNotFound.
func (r *Repository) openObject(ctx context.Context, key string, kind Kind) (Frames, error) {
	rc, err := r.store.Get(ctx, key, 0, -1)
	if err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return nil, fmt.Errorf("%s is %w", key, ErrNotFound)
		}
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	or, err := r.newObjectReader(rc, kind, key)
	if err != nil {
		rc.Close()
		return nil, err
	}
	return objectFile{or, rc}, nil
}

// readObject reads a whole object into memory; for the small kinds.
func (r *Repository) readObject(ctx context.Context, key string, kind Kind) ([]byte, error) {
	rc, err := r.openObject(ctx, key, kind)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}
