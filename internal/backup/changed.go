package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// pagesPerChunk is how many pages a chunk has: as many as a mask has bits.
const pagesPerChunk = repo.ChunkSize / pg.PageSize

// nearby is how many pages that nobody asked for are read along, rather than
// reading what lies before and behind it one by one.
const nearby = 1

// mostPatches is how many patches lie over a chunk at the most. It bounds page maps: to
// 2 MiB for a file of 1 GiB.
const mostPatches = 8

// mask names pages of one chunk; bit 0 is its first.
type mask uint32

// share refers to the parent's version of f where nothing changed. Otherwise it tells f which
// pages to read, unless all of them must be.
func (r *run) share(f *file) (shared bool) {
	old, known := r.parent.files[f.entry.Path]
	path, relation := pg.ParseRelationPath(f.entry.Path)
	size := f.entry.Size
	if r.changed == nil || !known || !relation || size%pg.PageSize != 0 || old.Size%pg.PageSize != 0 || r.changed.Whole(path) {
		return false
	}
	length := uint32(size / pg.PageSize)
	pages := r.changed.Pages(path, length, uint32(old.Size/pg.PageSize))
	for _, page := range r.parent.damage[f.entry.Path] { // it may have been mended without a trace
		if page < length {
			pages = append(pages, page)
		}
	}
	if len(pages) == 0 && old.Size == size {
		r.keep(f, old)
		return true
	}
	if old.Node == nil || len(f.chunks) == 1 {
		return false // too little to be worth a page map
	}
	f.wanted, f.patches = make([]mask, len(f.chunks)), make([][]repo.Patch, len(f.chunks))
	for _, page := range pages {
		f.wanted[page/pagesPerChunk] |= 1 << (page % pagesPerChunk)
	}
	return false
}

// keep takes the parent's version of f, which is the same.
func (r *run) keep(f *file, old repo.Entry) {
	f.entry.Chunk, f.entry.Node, f.entry.Packs = old.Chunk, old.Node, old.Packs
	r.result.add(f.entry)
	r.Progress.Add(f.entry.Size)
}

// patch brings chunk i of a file up to date of which some pages changed: the parent's chunk
// as it is, or with one patch more over it, or stored anew.
func (w *worker) patch(ctx context.Context, h *horizon, s *source, i int, buf []byte) error {
	valid := min(pagesPerChunk, int(s.entry.Size/pg.PageSize)-i*pagesPerChunk)
	wanted, under := layers(s.parent.patches[i], s.wanted[i], valid)
	if 2*bits.OnesCount32(uint32(wanted)) > valid {
		data, err := w.readChunk(ctx, h, s, i, buf)
		if err != nil {
			return err
		}
		clear(buf[len(data) : valid*pg.PageSize]) // what was cut off meanwhile is cut off by replay
		return w.chunk(ctx, s.file, i, buf[:valid*pg.PageSize])
	}
	if err := w.readPages(ctx, h, s, i, wanted, buf); err != nil {
		return err
	}
	if err := w.lay(s.file, i, wanted, under, buf); err != nil {
		return err
	}
	w.r.Progress.Add(int64(valid) * pg.PageSize)
	return w.chunkDone(s.file)
}

// lay makes chunk i of f the parent's with the patches under and one more: the wanted pages, which lie at their
// places in buf.
func (w *worker) lay(f *file, i int, wanted mask, under []repo.Patch, buf []byte) error {
	f.chunks[i] = repo.Chunk{Zero: true} // behind the parent's end
	if i < len(f.parent.chunks) {
		f.chunks[i] = f.parent.chunks[i]
	}
	f.patches[i] = under
	if wanted == 0 {
		return nil
	}
	var pages []uint32
	data := buf[:0]
	for at, n := range wanted.runs(0) {
		for k := at; k < at+n; k++ {
			pages = append(pages, uint32(i*pagesPerChunk+k))
		}
		data = append(data, buf[at*pg.PageSize:(at+n)*pg.PageSize]...) // never behind where it is read from
	}
	ref, err := w.w.AddHashed(data, w.r.Repo.Hash(data))
	if err != nil {
		return fmt.Errorf("store %s: %w", f.entry.Path, err)
	}
	f.patches[i] = append(under, repo.Patch{Pages: pages, Ref: ref})
	return nil
}

// layers decides which of the parent's patches over a chunk stay, and which pages are read and laid
// over them: the ones that changed. Where the patches would become many, or hold more than the chunk of
// valid pages itself, one takes their place; as it does for one that reaches behind the file's end.
func layers(before []repo.Patch, changed mask, valid int) (wanted mask, under []repo.Patch) {
	if changed == 0 && len(before) == 0 {
		return 0, nil
	}
	all, pages, stale := changed, bits.OnesCount32(uint32(changed)), false
	for _, p := range before {
		m := maskOf(p.Pages)
		all |= m
		stale = stale || m>>valid != 0
		if m&^changed != 0 { // else nothing of it counts any more
			under = append(under, p)
			pages += len(p.Pages)
		}
	}
	if stale || changed != 0 && (len(under) >= mostPatches || pages > valid) {
		return all & (1<<valid - 1), nil
	}
	return changed, under
}

func chunkOf(page uint32) int { return int(page / pagesPerChunk) }

// maskOf names pages that are all in one chunk.
func maskOf(pages []uint32) (m mask) {
	for _, page := range pages {
		m |= 1 << (page % pagesPerChunk)
	}
	return m
}

// readPages reads and checks pages of chunk i to their places in buf.
func (w *worker) readPages(ctx context.Context, h *horizon, s *source, i int, wanted mask, buf []byte) error {
	start := int64(i) * repo.ChunkSize
	for at, n := range wanted.runs(nearby) {
		run := buf[at*pg.PageSize : (at+n)*pg.PageSize]
		if err := w.r.await(ctx, len(run)); err != nil {
			return err
		}
		got, err := s.f.ReadAt(run, start+int64(at)*pg.PageSize)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		clear(run[got:])
		w.r.result.read.Add(int64(got))
	}
	if !s.pages {
		return nil
	}
	for at, n := range wanted.runs(0) {
		c := check{r: w.r, h: h, f: s.file, offset: start + int64(at)*pg.PageSize, data: buf[at*pg.PageSize : (at+n)*pg.PageSize], again: s.again}
		if err := c.pages(ctx); err != nil {
			return err
		}
	}
	return nil
}

// runs yields where pages follow one another with at most gap others in between, and how many
// there are.
func (m mask) runs(gap int) func(func(at, n int) bool) {
	return func(yield func(at, n int) bool) {
		for m != 0 {
			at := bits.TrailingZeros32(uint32(m))
			end := at + 1
			for m &^= 1 << at; m != 0 && bits.TrailingZeros32(uint32(m)) <= end+gap; {
				end = bits.TrailingZeros32(uint32(m)) + 1
				m &^= 1 << (end - 1)
			}
			if !yield(at, end-at) {
				return
			}
		}
	}
}
