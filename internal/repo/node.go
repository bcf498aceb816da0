package repo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// PageSize is the unit of patches, in bytes.
const PageSize = 8 << 10

// MaxPatchPages is how many pages one patch holds at the most.
const MaxPatchPages = 32

// Node is the page map of one file: where each of its bytes lives. The file's
// content is zero bytes, over them the chunks, over them the patches one after the
// other, so that of a page in several the last one counts (see Visible); all of it cut at Size.
type Node struct {
	Size    int64   // bytes of the file
	Chunks  []Chunk // chunk i holds the file from i × ChunkSize
	Patches []Patch // older ones first, where they have pages in common
}

// Chunk is one aligned stretch of a file. Zero means all its bytes are zero and
// nothing is stored; the ref is empty then.
type Chunk struct {
	Zero bool
	Ref
}

// Patch holds changed pages: its expanded bytes are the pages one after the
// other, each PageSize long but for one that the end of the file cuts.
type Patch struct {
	Pages []uint32 // page numbers in the file, ascending, 1 to MaxPatchPages
	Ref
}

// The binary form of a node, integers as unsigned varints unless a width is given:
//
//	version (1 byte, = 1) | size | number of packs | packs (16 bytes each)
//	number of chunks | chunks: flag (1 byte: 0 zero, 1 raw, 2 zstd), and unless zero:
//	    pack index | offset | stored | length | hash (32 bytes)
//	number of patches | patches: number of pages | first page | differences …
//	    then as a chunk from flag on
const nodeVersion = 1

// MarshalBinary renders the node.
func (n *Node) MarshalBinary() ([]byte, error) {
	if err := n.check(); err != nil {
		return nil, err
	}
	index := map[PackID]uint64{}
	packs := n.Packs()
	b := make([]byte, 0, 64+16*len(packs)+48*(len(n.Chunks)+len(n.Patches)))
	b = append(b, nodeVersion)
	b = binary.AppendUvarint(b, uint64(n.Size))
	b = binary.AppendUvarint(b, uint64(len(packs)))
	for i, p := range packs {
		index[p] = uint64(i)
		b = append(b, p[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(n.Chunks)))
	for i := range n.Chunks {
		if n.Chunks[i].Zero {
			b = append(b, 0)
			continue
		}
		b = appendRef(b, &n.Chunks[i].Ref, index)
	}
	b = binary.AppendUvarint(b, uint64(len(n.Patches)))
	for i := range n.Patches {
		p := &n.Patches[i]
		b = binary.AppendUvarint(b, uint64(len(p.Pages)))
		last := uint32(0)
		for _, page := range p.Pages {
			b = binary.AppendUvarint(b, uint64(page-last))
			last = page
		}
		b = appendRef(b, &p.Ref, index)
	}
	return b, nil
}

func appendRef(b []byte, r *Ref, index map[PackID]uint64) []byte {
	b = append(b, byte(r.Codec)+1)
	b = binary.AppendUvarint(b, index[r.Pack])
	b = binary.AppendUvarint(b, uint64(r.Offset))
	b = binary.AppendUvarint(b, uint64(r.Stored))
	b = binary.AppendUvarint(b, uint64(r.Length))
	return append(b, r.Hash[:]...)
}

// Packs lists the packs that the node names, each once, in order of first use.
func (n *Node) Packs() []PackID {
	seen := map[PackID]bool{}
	var out []PackID
	add := func(p PackID) {
		if !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	for i := range n.Chunks {
		if !n.Chunks[i].Zero {
			add(n.Chunks[i].Pack)
		}
	}
	for i := range n.Patches {
		add(n.Patches[i].Pack)
	}
	return out
}

var errNode = errors.New("page map is malformed")

// check refuses a node that does not describe exactly one file.
func (n *Node) check() error {
	if n.Size < 0 || int64(len(n.Chunks)) > (n.Size+ChunkSize-1)/ChunkSize {
		return fmt.Errorf("%w: %d chunks for %d bytes", errNode, len(n.Chunks), n.Size)
	}
	for i := range n.Chunks {
		if c := &n.Chunks[i]; !c.Zero && (c.Length == 0 || c.Length > ChunkSize || c.Codec > CodecZstd) {
			return fmt.Errorf("%w: chunk %d", errNode, i)
		}
	}
	pages := (n.Size + PageSize - 1) / PageSize
	for i := range n.Patches {
		p := &n.Patches[i]
		if len(p.Pages) == 0 || len(p.Pages) > MaxPatchPages || p.Codec > CodecZstd ||
			!ascending(p.Pages) || int64(p.Pages[len(p.Pages)-1]) >= pages {
			return fmt.Errorf("%w: patch %d", errNode, i)
		}
		want := int64(len(p.Pages)) * PageSize
		if cut := n.Size % PageSize; cut != 0 && int64(p.Pages[len(p.Pages)-1]) == pages-1 {
			want -= PageSize - cut
		}
		if int64(p.Length) != want {
			return fmt.Errorf("%w: patch %d holds %d bytes for %d pages", errNode, i, p.Length, len(p.Pages))
		}
	}
	return nil
}

func ascending(pages []uint32) bool {
	for i := 1; i < len(pages); i++ {
		if pages[i] <= pages[i-1] {
			return false
		}
	}
	return true
}

// Hidden stands for a page of a patch that a later patch has as well.
const Hidden = ^uint32(0)

// Visible lists each patch's pages, with Hidden for those that do not count, so that the patches can be
// laid over the file in any order; nil for a patch none of whose pages counts.
func (n *Node) Visible() [][]uint32 {
	out, seen := make([][]uint32, len(n.Patches)), map[uint32]bool{}
	for i := len(n.Patches) - 1; i >= 0; i-- {
		pages, counts := slices.Clone(n.Patches[i].Pages), false
		for k, page := range pages {
			if seen[page] {
				pages[k] = Hidden
				continue
			}
			seen[page], counts = true, true
		}
		if counts {
			out[i] = pages
		}
	}
	return out
}

// ParseNode reads what MarshalBinary wrote.
func ParseNode(b []byte) (*Node, error) {
	d := nodeDecoder{b: b}
	if d.byte() != nodeVersion {
		return nil, fmt.Errorf("%w: unknown version", errNode)
	}
	n := &Node{Size: int64(d.uint())}
	packs := make([]PackID, d.count(16))
	for i := range packs {
		copy(packs[i][:], d.bytes(16))
	}
	n.Chunks = make([]Chunk, d.count(1))
	for i := range n.Chunks {
		n.Chunks[i].Zero = d.ref(&n.Chunks[i].Ref, packs)
	}
	n.Patches = make([]Patch, d.count(36))
	for i := range n.Patches {
		p := &n.Patches[i]
		p.Pages = make([]uint32, d.count(1))
		page := uint64(0)
		for k := range p.Pages {
			page += d.uint()
			if page > 1<<31 {
				return nil, fmt.Errorf("%w: page number", errNode)
			}
			p.Pages[k] = uint32(page)
		}
		if d.ref(&p.Ref, packs) {
			d.bad = true
		}
	}
	if d.bad || len(d.b) != 0 {
		return nil, fmt.Errorf("%w: it ends early or late", errNode)
	}
	return n, n.check()
}

type nodeDecoder struct {
	b   []byte
	bad bool
}

func (d *nodeDecoder) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *nodeDecoder) bytes(n int) []byte {
	if len(d.b) < n {
		d.bad, d.b = true, nil
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *nodeDecoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > 1<<62 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads a number of items that take at least size bytes each.
func (d *nodeDecoder) count(size int) int {
	v := d.uint()
	if v > uint64(len(d.b)/size) {
		d.bad, d.b = true, nil
		return 0
	}
	return int(v)
}

func (d *nodeDecoder) ref(r *Ref, packs []PackID) (zero bool) {
	flag := d.byte()
	if flag == 0 {
		return true
	}
	r.Codec = Codec(flag - 1)
	pack, offset, stored, length := d.uint(), d.uint(), d.uint(), d.uint()
	if pack >= uint64(len(packs)) || offset > 1<<31 || stored > 1<<31 || length > maxPlain {
		d.bad, d.b = true, nil
		return false
	}
	r.Pack, r.Offset, r.Stored, r.Length = packs[pack], uint32(offset), uint32(stored), uint32(length)
	copy(r.Hash[:], d.bytes(32))
	return false
}
