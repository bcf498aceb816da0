package pg

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// PageSize is the size in bytes of a data page. Pileus supports PostgreSQL's
// default only; the control file's BlockSize tells when a cluster has another.
const PageSize = 8192

// PagesPerSegment is how many pages each file of a large relation holds, so
// that a file is at most 1 GiB.
const PagesPerSegment = 131072

// pageHeaderSize is the size of the fixed part of struct PageHeaderData
// (src/include/storage/bufpage.h):
//
//	0 LSN high half   8 checksum   12 lower    16 special
//	4 LSN low half   10 flags      14 upper    18 page size | layout version
const pageHeaderSize = 24

// pageFlagBits are the flags that PostgreSQL 13 to 18 know (bufpage.h, PD_VALID_FLAG_BITS).
const pageFlagBits = 0x0007

// PageHeader reads the header of a page. It is a view of at least 24 bytes.
type PageHeader []byte

// LSN is the position just past the last WAL record that changed the page.
func (h PageHeader) LSN() LSN {
	return LSN(binary.LittleEndian.Uint32(h))<<32 | LSN(binary.LittleEndian.Uint32(h[4:]))
}

// Checksum is the stored checksum.
func (h PageHeader) Checksum() uint16 { return binary.LittleEndian.Uint16(h[8:]) }

// Flags are the page's flag bits.
func (h PageHeader) Flags() uint16 { return binary.LittleEndian.Uint16(h[10:]) }

// Lower is the offset of the start of free space.
func (h PageHeader) Lower() uint16 { return binary.LittleEndian.Uint16(h[12:]) }

// Upper is the offset of the end of free space; zero on a page never initialised.
func (h PageHeader) Upper() uint16 { return binary.LittleEndian.Uint16(h[14:]) }

// Special is the offset of the access method's own area.
func (h PageHeader) Special() uint16 { return binary.LittleEndian.Uint16(h[16:]) }

// Size is the page size that the page itself names, in bytes.
func (h PageHeader) Size() int { return int(binary.LittleEndian.Uint16(h[18:]) &^ 0xFF) }

// Version is the page layout version: 4 in all supported versions.
func (h PageHeader) Version() int { return int(h[18]) }

var zeroPage [PageSize]byte

// IsNewPage tells whether the page is all zero, as PostgreSQL leaves pages that
// a file was extended by and that were never initialised. They have no checksum.
func IsNewPage(page []byte) bool {
	return len(page) == PageSize && bytes.Equal(page, zeroPage[:])
}

// PageError says why a page is not sound.
type PageError struct {
	Block  uint32 // within the relation fork
	LSN    LSN    // as the page's header has it
	Reason string
}

// Error names the block, the page's LSN and the reason.
func (e *PageError) Error() string {
	return fmt.Sprintf("block %d (page LSN %s): %s", e.Block, e.LSN, e.Reason)
}

// CheckPage verifies a page of a cluster with data checksums, as the server
// does when it reads one: either all zero, or with the right checksum and a
// sane header. Block is the number within the relation fork, not within the
// file: segment number * PagesPerSegment + block in file. The error is a
// *PageError. A page read while the server writes it can fail; read it again,
// or disregard it when its LSN is past the backup's start.
func CheckPage(page []byte, block uint32) error {
	if len(page) != PageSize {
		return &PageError{Block: block, Reason: fmt.Sprintf("page is %d bytes long, expected %d", len(page), PageSize)}
	}
	h := PageHeader(page)
	if h.Upper() == 0 {
		if IsNewPage(page) {
			return nil
		}
		return &PageError{Block: block, LSN: h.LSN(), Reason: "header says never initialised, yet the page is not all zero"}
	}
	if want, got := h.Checksum(), Checksum(page, block); want != got {
		return &PageError{Block: block, LSN: h.LSN(), Reason: fmt.Sprintf("checksum is %04X, computed %04X", want, got)}
	}
	return checkPageHeader(h, block)
}

// CheckPageHeader verifies what can be verified of a page of a cluster without
// data checksums: either all zero, or with a sane header. The error is a *PageError.
func CheckPageHeader(page []byte, block uint32) error {
	if len(page) == PageSize && PageHeader(page).Upper() != 0 {
		return checkPageHeader(page, block)
	}
	return CheckPage(page, block) // wrong length, or never initialised
}

func checkPageHeader(h PageHeader, block uint32) error {
	lower, upper, special := h.Lower(), h.Upper(), h.Special()
	if h.Flags()&^pageFlagBits == 0 && lower >= pageHeaderSize && lower <= upper && upper <= special &&
		special <= PageSize && special%8 == 0 && h.Size() == PageSize {
		return nil
	}
	return &PageError{Block: block, LSN: h.LSN(), Reason: fmt.Sprintf(
		"impossible header: flags %#x, lower %d, upper %d, special %d, size %d", h.Flags(), lower, upper, special, h.Size())}
}
