package repo

import "context"

// PutNode stores a page map as a chunk and returns where it lies. A map larger
// than a chunk may be does not occur: a 1 GiB file has some 200 KiB of map.
func (w *PackWriter) PutNode(n *Node) (Ref, error) {
	b, err := n.MarshalBinary()
	if err != nil {
		return Ref{}, err
	}
	return w.Add(b)
}

// ReadNode reads the page map at ref.
func (r *Repository) ReadNode(ctx context.Context, ref Ref) (*Node, error) {
	b, err := r.ReadChunk(ctx, nil, ref)
	if err != nil {
		return nil, err
	}
	n, err := ParseNode(b)
	if err != nil {
		return nil, damaged(ref.String(), "%v", err)
	}
	return n, nil
}
