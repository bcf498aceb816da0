package backup

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// listedDamage is how many damaged pages a manifest names; all are counted.
const listedDamage = 1000

// file is one regular file on its way into the repository. Its chunks may be
// worked on by several workers; who finishes the last one finishes the file.
type file struct {
	entry  repo.Entry
	pages  bool   // has pages with checksums
	first  uint32 // number of its first block within the relation fork
	chunks []repo.Chunk
	left   atomic.Int64 // chunks not worked on yet
	shared atomic.Int64 // chunks that are the parent's

	// Set where only changed pages are read; by chunk.
	wanted  []mask
	patches [][]repo.Patch

	once   sync.Once
	parent *parentFile

	mu   sync.Mutex
	size int64 // where the file ended, as far as was seen
	gone bool  // it vanished before anything was read
}

func (r *run) newFile(path string, mode uint32, size int64) *file {
	f := &file{entry: repo.Entry{Path: path, Type: repo.TypeFile, Mode: mode, Size: size}, size: size,
		chunks: make([]repo.Chunk, (size+repo.ChunkSize-1)/repo.ChunkSize)}
	f.left.Store(int64(len(f.chunks)))
	if r.info.DataChecksums && pg.HasPages(path) {
		if p, ok := pg.ParseRelationPath(path); ok {
			f.pages, f.first = true, p.FirstBlock()
		}
	}
	return f
}

// endsAt records where the file ended if the n bytes that were read of the chunk at
// offset are fewer than it was listed to have.
func (f *file) endsAt(offset int64, n int) {
	if int64(n) >= min(repo.ChunkSize, f.entry.Size-offset) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.size = min(f.size, offset+int64(n))
}

// result gathers what the workers found.
type result struct {
	mu      sync.Mutex
	entries []repo.Entry
	damage  []repo.Damage // the first ones that were found
	damaged int64         // all of them
	read    atomic.Int64  // bytes of files that were read
}

func (s *result) add(e repo.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = append(s.entries, e)
}

func (s *result) bad(d repo.Damage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.damaged++
	if len(s.damage) < listedDamage {
		s.damage = append(s.damage, d)
	}
}

// worker turns chunks into references. Each has its own pack.
type worker struct {
	r *run
	w *repo.PackWriter
}

// crew runs feed beside one goroutine of work per worker until all have ended. When one
// fails the others are stopped. After a success last still has a worker, and then the packs that
// are not full are stored; after a failure they are not.
func (r *run) crew(feed func() error, work, last func(*worker) error) error {
	var g errgroup.Group // it is the run's context that stops the others, because it stops uploads as well
	start := func(f func() error) {
		g.Go(func() error {
			err := f()
			if err != nil {
				r.abort(err)
			}
			return err
		})
	}
	start(feed)
	crew := make([]*worker, r.Workers)
	for i := range crew {
		crew[i] = &worker{r: r, w: r.packer.Writer()}
		start(func() error {
			r.yield()
			return work(crew[i])
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := last(crew[0]); err != nil {
		return err
	}
	for _, w := range crew {
		w.w.Close()
	}
	return nil
}

var zeroChunk [repo.ChunkSize]byte

// chunk stores chunk index of f, or refers to the parent's. Empty data means
// that the file ended before it. The pages have been checked already.
func (w *worker) chunk(ctx context.Context, f *file, index int, data []byte) error {
	f.lookUp(ctx, w.r.parent)
	switch c := &f.chunks[index]; {
	case len(data) == 0:
	case bytes.Equal(data, zeroChunk[:len(data)]):
		c.Zero = true
	default:
		hash := w.r.Repo.Hash(data)
		if ref, ok := f.parent.same(index, len(data), hash); ok {
			c.Ref = ref
			f.shared.Add(1)
			break
		}
		ref, err := w.w.AddHashed(data, hash)
		if err != nil {
			return fmt.Errorf("store %s: %w", f.entry.Path, err)
		}
		c.Ref = ref
	}
	w.r.Progress.Add(int64(len(data)))
	return w.chunkDone(f)
}

// chunkDone finishes the file with its last chunk.
func (w *worker) chunkDone(f *file) error {
	if f.left.Add(-1) == 0 {
		return w.finish(f)
	}
	return nil
}

// lookUp reads the parent's version of f, once.
func (f *file) lookUp(ctx context.Context, p *parent) *parentFile {
	f.once.Do(func() { f.parent = p.file(ctx, f.entry.Path) })
	return f.parent
}

// finish turns a file whose chunks are done into a manifest entry.
func (w *worker) finish(f *file) error {
	if f.gone {
		return nil
	}
	e := f.entry
	e.Size = f.size
	chunks := f.chunks[:(e.Size+repo.ChunkSize-1)/repo.ChunkSize]
	switch {
	case len(chunks) == 0, len(chunks) == 1 && chunks[0].Zero:
		// No content, or only zero bytes: the size says it all.
	case len(chunks) == 1 && int64(chunks[0].Length) == e.Size:
		e.Chunk = &chunks[0].Ref
	case f.patches == nil && f.parent != nil && f.parent.entry.Node != nil && f.parent.entry.Size == e.Size && len(f.parent.patches) == 0 &&
		len(f.parent.chunks) == len(chunks) && sameZeros(chunks, f.parent.chunks, f.shared.Load()):
		e.Node, e.Packs = f.parent.entry.Node, f.parent.entry.Packs
	default:
		n := &repo.Node{Size: e.Size, Chunks: chunks}
		for _, over := range f.patches {
			n.Patches = append(n.Patches, over...)
		}
		ref, err := w.w.PutNode(n)
		if err != nil {
			return fmt.Errorf("store the page map of %s: %w", e.Path, err)
		}
		e.Node, e.Packs = &ref, n.Packs()
	}
	w.r.result.add(e)
	return nil
}

// sameZeros tells whether the chunks that are not shared are zero in both.
func sameZeros(now, before []repo.Chunk, shared int64) bool {
	zeros := int64(0)
	for i := range now {
		if now[i].Zero {
			if !before[i].Zero {
				return false
			}
			zeros++
		}
	}
	return zeros+shared == int64(len(now))
}
