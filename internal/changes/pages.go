package changes

import (
	"math/bits"
	"slices"
)

// A bag holds blocks of 512 MiB of a relation: sorted numbers while they are few,
// one bit each from there on.
type bag struct {
	high uint16   // of the blocks' numbers
	few  []uint16 // sorted; nil once bits are there
	many *[1 << 16 / 64]uint64
}

// mostFew is how many numbers take as much room as the bits.
const mostFew = 1 << 16 / 16

func (b *bag) add(low uint16) {
	if b.many != nil {
		b.many[low>>6] |= 1 << (low & 63)
		return
	}
	if n := len(b.few); n == 0 || b.few[n-1] < low { // mostly they come in order
		b.few = append(b.few, low)
	} else if at, found := slices.BinarySearch(b.few, low); !found {
		b.few = slices.Insert(b.few, at, low)
	}
	if len(b.few) > mostFew {
		b.many = new([1 << 16 / 64]uint64)
		for _, low := range b.few {
			b.many[low>>6] |= 1 << (low & 63)
		}
		b.few = nil
	}
}

func (b *bag) join(other *bag) {
	if b.many != nil && other.many != nil {
		for i, w := range other.many {
			b.many[i] |= w
		}
		return
	}
	for low := range other.all() {
		b.add(low)
	}
}

// all yields the numbers in order.
func (b *bag) all() func(func(uint16) bool) {
	return func(yield func(uint16) bool) {
		if b.many == nil {
			for _, low := range b.few {
				if !yield(low) {
					return
				}
			}
			return
		}
		for i, w := range b.many {
			for ; w != 0; w &= w - 1 {
				if !yield(uint16(i<<6 + bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}

// pages is a set of block numbers.
type pages struct {
	bags []*bag // by high
}

func (p *pages) bag(high uint16) *bag {
	at, found := slices.BinarySearchFunc(p.bags, high, func(b *bag, high uint16) int { return int(b.high) - int(high) })
	if !found {
		p.bags = slices.Insert(p.bags, at, &bag{high: high})
	}
	return p.bags[at]
}

func (p *pages) add(block uint32) { p.bag(uint16(block >> 16)).add(uint16(block)) }

func (p *pages) join(other *pages) {
	for _, b := range other.bags {
		p.bag(b.high).join(b)
	}
}

// between appends the blocks from first up to end, less first, to out, in order.
func (p *pages) between(out []uint32, first, end uint32) []uint32 {
	for _, b := range p.bags {
		base := uint32(b.high) << 16
		if base >= end || base+(1<<16-1) < first {
			continue
		}
		for low := range b.all() {
			if block := base + uint32(low); block >= first && block < end {
				out = append(out, block-first)
			}
		}
	}
	return out
}
