package repo

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
)

// PackInfo describes a stored pack as manifests list it.
type PackInfo struct {
	ID   PackID `json:"id"`
	Size int64  `json:"size"` // bytes
	Hash Hash   `json:"hash"` // of the whole object, as stored
}

// A pack is its magic, then chunks one after the other. What lies where is in
// the nodes and manifests.
const packMagic = "PILEUSp1"

// Packer gathers chunks from concurrent writers into packs and stores them.
// Memory: one pack per writer plus Options.Uploads packs on their way.
type Packer struct {
	r       *Repository
	ctx     context.Context
	uploads *errgroup.Group
	buffers sync.Pool
	mu      sync.Mutex
	done    []PackInfo
	stored  int64
}

// NewPacker starts a packer. Close must be called, also after a failure.
func (r *Repository) NewPacker(ctx context.Context) *Packer {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(r.opt.Uploads)
	return &Packer{r: r, ctx: gctx, uploads: g}
}

// Close waits until every pack is durable and returns them. Each writer must
// have been closed before. On error nothing may be built on the packs.
func (p *Packer) Close() ([]PackInfo, error) {
	if err := p.uploads.Wait(); err != nil {
		return nil, err
	}
	return p.done, nil
}

// Stored is how many bytes of packs are durable so far.
func (p *Packer) Stored() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stored
}

// PackWriter fills one pack after the other. It is not safe for concurrent use:
// each worker has its own.
type PackWriter struct {
	p    *Packer
	id   PackID
	buf  []byte
	work []byte
}

// Writer makes a writer for one worker.
func (p *Packer) Writer() *PackWriter { return &PackWriter{p: p} }

// Add compresses, seals and appends one chunk of at most 4 MiB and tells where
// it will lie. The ref is valid once Packer.Close has returned without error.
func (w *PackWriter) Add(plain []byte) (Ref, error) {
	if len(plain) == 0 || len(plain) > maxPlain {
		return Ref{}, fmt.Errorf("a chunk of %d bytes cannot be stored", len(plain))
	}
	return w.AddHashed(plain, w.p.r.keys.hash(plain))
}

// AddHashed is Add for a caller that has the chunk's hash already (see Repository.Hash).
func (w *PackWriter) AddHashed(plain []byte, hash Hash) (Ref, error) {
	if err := w.p.ctx.Err(); err != nil {
		return Ref{}, context.Cause(w.p.ctx)
	}
	if w.buf == nil {
		w.start()
	}
	ref := Ref{Pack: w.id, Offset: uint32(len(w.buf)), Length: uint32(len(plain)), Hash: hash}
	if w.p.r.keys.seal == nil {
		w.buf, ref.Codec = w.p.r.code.pack(w.buf, plain)
	} else {
		w.work, ref.Codec = w.p.r.code.pack(w.work[:0], plain)
		w.buf = w.p.r.keys.sealed(w.buf, w.work, chunkAAD(ref.Codec))
	}
	ref.Stored = uint32(len(w.buf)) - ref.Offset
	if int64(len(w.buf)) >= w.p.r.opt.PackSize {
		w.flush()
	}
	return ref, nil
}

// Close stores what was gathered; Packer.Close waits for it.
func (w *PackWriter) Close() {
	if len(w.buf) > len(packMagic) {
		w.flush()
	}
	w.buf = nil
}

func (w *PackWriter) start() {
	rand.Read(w.id[:]) // never fails
	if b, ok := w.p.buffers.Get().([]byte); ok {
		w.buf = b[:0]
	} else {
		w.buf = make([]byte, 0, w.p.r.opt.PackSize+ChunkSize+ChunkSize/8)
	}
	w.buf = append(w.buf, packMagic...)
}

// flush hands the pack to an upload, waiting while Options.Uploads are under way.
func (w *PackWriter) flush() {
	p, id, buf := w.p, w.id, w.buf
	w.buf = nil
	p.uploads.Go(func() error {
		if p.ctx.Err() != nil {
			return context.Cause(p.ctx)
		}
		// The pack's own hash is plain BLAKE3, keyed only in an encrypted
		// repository: it is of stored bytes.
		info := PackInfo{ID: id, Size: int64(len(buf)), Hash: p.r.keys.hash(buf)}
		if err := p.r.store.Put(p.ctx, id.key(), bytes.NewReader(buf)); err != nil {
			return fmt.Errorf("store pack %s: %w", id, err)
		}
		p.buffers.Put(buf) //lint:ignore SA6002 one allocation per pack is nothing
		p.mu.Lock()
		defer p.mu.Unlock()
		p.done = append(p.done, info)
		p.stored += info.Size
		return nil
	})
}

// Hash is the hash that a chunk of these plain bytes has in this repository.
func (r *Repository) Hash(plain []byte) Hash { return r.keys.hash(plain) }

// CheckPack reads a whole pack and compares it with what a manifest says of it.
func (r *Repository) CheckPack(ctx context.Context, info PackInfo) error {
	rc, err := r.store.Get(ctx, info.ID.key(), 0, -1)
	if err != nil {
		return fmt.Errorf("read pack %s: %w", info.ID, missing(err))
	}
	defer rc.Close()
	h := r.keys.hasher()
	n, err := copyBuffer(h, rc)
	if err != nil {
		return fmt.Errorf("read pack %s: %w", info.ID, missing(err))
	}
	if n != info.Size || sum(h) != info.Hash {
		return damaged("pack "+info.ID.String(), "its %d bytes do not match its hash", n)
	}
	return nil
}
