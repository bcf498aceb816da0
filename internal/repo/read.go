package repo

import "context"

// ReadEntry reads a whole file of a backup, checked, into memory.
func (r *Repository) ReadEntry(ctx context.Context, e Entry) ([]byte, error) {
	switch {
	case e.Chunk != nil:
		return r.ReadChunk(ctx, nil, *e.Chunk)
	case e.Node == nil:
		return make([]byte, e.Size), nil
	}
	n, err := r.ReadNode(ctx, *e.Node)
	if err != nil {
		return nil, err
	}
	out := make([]byte, n.Size)
	for i := range n.Chunks {
		if n.Chunks[i].Zero {
			continue
		}
		b, err := r.ReadChunk(ctx, nil, n.Chunks[i].Ref)
		if err != nil {
			return nil, err
		}
		copy(out[min(int64(i)*ChunkSize, n.Size):], b)
	}
	for i := range n.Patches { // older ones first: the last counts
		p := &n.Patches[i]
		b, err := r.ReadChunk(ctx, nil, p.Ref)
		if err != nil {
			return nil, err
		}
		for k, page := range p.Pages {
			from := min(k*PageSize, len(b))
			copy(out[min(int64(page)*PageSize, n.Size):], b[from:min(from+PageSize, len(b))])
		}
	}
	return out, nil
}
