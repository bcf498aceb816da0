package pg

import "encoding/binary"

// The page checksum of src/include/storage/checksum_impl.h: the page is read
// as 64 rows of 32 little-endian words. Each column ("lane") is hashed by
// itself with a variant of FNV-1a,
//
//	h = (h ^ word) * prime ^ ((h ^ word) >> 17)
//
// from its own offset basis, then with two rows of zeros. The lanes are XORed
// together and with the block number, and reduced to 1..65535. The checksum
// field itself counts as zero.
const (
	checksumLanes = 32
	checksumRow   = checksumLanes * 4
	fnvPrime      = 16777619
)

var checksumBasis = [checksumLanes]uint32{
	0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
	0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
	0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
	0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
}

// Checksum computes the checksum that PostgreSQL stores in a page's header.
// Page has to be PageSize bytes long; block is its number within the relation
// fork. It is never zero.
func Checksum(page []byte, block uint32) uint16 {
	p := (*[PageSize]byte)(page)
	sum := block
	for lane := 0; lane < checksumLanes; lane += 8 {
		sum ^= eightLanes(p, lane)
	}
	return uint16(sum%65535) + 1
}

// eightLanes hashes the lanes from first on; eight accumulators fit in
// registers, and their multiplications overlap.
func eightLanes(p *[PageSize]byte, first int) uint32 {
	basis := checksumBasis[first : first+8]
	a, b, c, d := basis[0], basis[1], basis[2], basis[3]
	e, f, g, h := basis[4], basis[5], basis[6], basis[7]

	le := binary.LittleEndian
	off := first * 4
	if first == 0 {
		// The low half of word 2 is the checksum field.
		a, b, c, d = mix(a^le.Uint32(p[0:])), mix(b^le.Uint32(p[4:])), mix(c^le.Uint32(p[8:])&0xFFFF0000), mix(d^le.Uint32(p[12:]))
		e, f, g, h = mix(e^le.Uint32(p[16:])), mix(f^le.Uint32(p[20:])), mix(g^le.Uint32(p[24:])), mix(h^le.Uint32(p[28:]))
		off += checksumRow
	}
	for ; off <= PageSize-32; off += checksumRow {
		w := (*[32]byte)(p[off : off+32])
		a = mix(a ^ le.Uint32(w[0:]))
		b = mix(b ^ le.Uint32(w[4:]))
		c = mix(c ^ le.Uint32(w[8:]))
		d = mix(d ^ le.Uint32(w[12:]))
		e = mix(e ^ le.Uint32(w[16:]))
		f = mix(f ^ le.Uint32(w[20:]))
		g = mix(g ^ le.Uint32(w[24:]))
		h = mix(h ^ le.Uint32(w[28:]))
	}
	a, b, c, d = mix(mix(a)), mix(mix(b)), mix(mix(c)), mix(mix(d))
	e, f, g, h = mix(mix(e)), mix(mix(f)), mix(mix(g)), mix(mix(h))
	return a ^ b ^ c ^ d ^ e ^ f ^ g ^ h
}

func mix(v uint32) uint32 { return v*fnvPrime ^ v>>17 }
