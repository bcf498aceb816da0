package backup

import (
	"context"

	"pileus/internal/repo"
)

// parent is what a new backup may refer to instead of storing it again. Memory:
// some 300 bytes for each file of the parent. Page maps are read one at a time.
type parent struct {
	repo  *repo.Repository
	packs []repo.PackInfo
	files map[string]repo.Entry
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
	patched map[int]bool // chunks that patches lie over; they are never equal to anything
}

// file finds the parent's version of path; nil if there is none or it cannot be read, which
// only costs space.
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
	f.chunks, f.patched = n.Chunks, map[int]bool{}
	for _, patch := range n.Patches {
		for _, page := range patch.Pages {
			f.patched[int(int64(page)*repo.PageSize/repo.ChunkSize)] = true
		}
	}
	return f
}

// same finds a stored chunk with this very content at the same place of the parent's file.
func (f *parentFile) same(index, length int, hash repo.Hash) (repo.Ref, bool) {
	if f == nil || index >= len(f.chunks) || f.patched[index] {
		return repo.Ref{}, false
	}
	c := f.chunks[index]
	return c.Ref, !c.Zero && int(c.Length) == length && c.Hash == hash
}
