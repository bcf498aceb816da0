package backup

import (
	"context"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// parent is what a new backup may refer to instead of storing it again. Memory:
// some 300 bytes for each file of the parent. Page maps are read one at a time.
type parent struct {
	repo  *repo.Repository
	packs []repo.PackInfo
	files map[string]repo.Entry

	damage map[string][]uint32 // pages that were damaged then
}

// loadParent reads the parent's manifest; nil makes an empty parent.
func loadParent(ctx context.Context, r *repo.Repository, b *repo.Backup) (*parent, error) {
	p := &parent{repo: r, files: map[string]repo.Entry{}}
	if b == nil {
		return p, nil
	}
	m, err := r.OpenManifest(ctx, b.Cluster, b.ID)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	p.packs = m.Packs()
	p.damage = map[string][]uint32{}
	for _, d := range b.Damage {
		p.damage[d.Path] = append(p.damage[d.Path], uint32(d.Block))
	}
	for e, err := range m.Entries() {
		if err != nil {
			return nil, err
		}
		if e.Chunk != nil || e.Node != nil {
			p.files[e.Path] = e
		}
	}
	return p, nil
}

// parentFile is the parent's version of one file.
type parentFile struct {
	entry   repo.Entry
	chunks  []repo.Chunk
	patches map[int][]repo.Patch // by chunk, older ones first; a chunk that is patched is equal to none
	across  bool                 // a patch lies over several chunks: of no use for new patches
}

// file finds the parent's version of path; nil if there is none or it cannot be read, which
// only costs time and space.
func (p *parent) file(ctx context.Context, path string) *parentFile {
	e, ok := p.files[path]
	if !ok {
		return nil
	}
	f := &parentFile{entry: e}
	if e.Chunk != nil {
		f.chunks = []repo.Chunk{{Ref: *e.Chunk}}
		return f
	}
	n, err := p.repo.ReadNode(ctx, *e.Node)
	if err != nil {
		return nil
	}
	f.chunks, f.patches = n.Chunks, make(map[int][]repo.Patch, len(n.Patches))
	for _, patch := range n.Patches {
		first, last := chunkOf(patch.Pages[0]), chunkOf(patch.Pages[len(patch.Pages)-1])
		for i := first; i <= last; i++ {
			f.patches[i] = append(f.patches[i], patch)
		}
		f.across = f.across || first != last
	}
	return f
}

// fill reads what chunk i of f was to its place in buf, but for the pages that buf already has.
func (p *parent) fill(ctx context.Context, f *parentFile, i int, has mask, buf []byte) error {
	old := make([]byte, repo.ChunkSize)
	if i < len(f.chunks) && !f.chunks[i].Zero {
		b, err := p.repo.ReadChunk(ctx, nil, f.chunks[i].Ref)
		if err != nil {
			return err
		}
		copy(old, b)
	}
	for _, patch := range f.patches[i] {
		b, err := p.repo.ReadChunk(ctx, nil, patch.Ref)
		if err != nil {
			return err
		}
		for k, page := range patch.Pages {
			if chunkOf(page) == i {
				copy(old[page%pagesPerChunk*pg.PageSize:], b[k*pg.PageSize:min((k+1)*pg.PageSize, len(b))])
			}
		}
	}
	clear(old[max(0, min(repo.ChunkSize, f.entry.Size-int64(i)*repo.ChunkSize)):]) // a chunk may reach behind the end
	for at, n := range (^has).runs(0) {
		copy(buf[at*pg.PageSize:(at+n)*pg.PageSize], old[at*pg.PageSize:])
	}
	return nil
}

// patchable tells whether patches can be laid over the file's chunks.
func (f *parentFile) patchable() bool { return f != nil && !f.across }

// same finds a stored chunk with this very content at the same place of the parent's file.
func (f *parentFile) same(index, length int, hash repo.Hash) (repo.Ref, bool) {
	if f == nil || index >= len(f.chunks) || f.patches[index] != nil {
		return repo.Ref{}, false
	}
	c := f.chunks[index]
	return c.Ref, !c.Zero && int(c.Length) == length && c.Hash == hash
}
