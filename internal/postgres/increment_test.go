package postgres

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"testing"
	"testing/iotest"

	"pileus/internal/pg"
)

// incrementalFile is one as the server makes it, with the words in front of the block numbers as given.
func incrementalFile(magic, count, length uint32, blocks ...uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, magic)
	b = binary.LittleEndian.AppendUint32(b, count)
	b = binary.LittleEndian.AppendUint32(b, length)
	for _, n := range blocks {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	if len(blocks) > 0 {
		b = append(b, make([]byte, -len(b)&(pg.PageSize-1))...)
	}
	for _, n := range blocks {
		b = append(b, bytes.Repeat([]byte{byte(n)}, pg.PageSize)...)
	}
	return b
}

func TestIncrementalHead(t *testing.T) {
	many := make([]uint32, 5000) // a head of three pages
	for i := range many {
		many[i] = uint32(3 * i)
	}
	for _, blocks := range [][]uint32{nil, {0}, {6}, {0, 1, 5, 6}, many} {
		length := uint32(7)
		if len(blocks) > 4 {
			length = pg.PagesPerSegment
		}
		file := incrementalFile(incrementalMagic, uint32(len(blocks)), length, blocks...)
		r := iotest.HalfReader(bytes.NewReader(file))
		h, err := ReadIncrementalHead(r, int64(len(file)))
		if err != nil || h.Length != length || len(h.Blocks) != len(blocks) {
			t.Fatalf("%d blocks of %d, %v; want %d of %d", len(h.Blocks), h.Length, err, len(blocks), length)
		}
		for _, want := range blocks {
			page := make([]byte, pg.PageSize)
			if _, err := io.ReadFull(r, page); err != nil || page[0] != byte(want) {
				t.Fatalf("block %d begins with %d, %v", want, page[0], err)
			}
		}
	}
	// Some servers name more blocks than a file can have.
	h, err := ReadIncrementalHead(bytes.NewReader(incrementalFile(incrementalMagic, 0, 200000)), 12)
	if err != nil || h.Length != pg.PagesPerSegment {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestIncrementalHeadRefused(t *testing.T) {
	for what, file := range map[string][]byte{
		"nothing":         nil,
		"a cut head":      incrementalFile(incrementalMagic, 1, 7, 3)[:100],
		"another magic":   incrementalFile(incrementalMagic+1, 1, 7, 3),
		"more than told":  incrementalFile(incrementalMagic, 1, 7, 3, 4),
		"less than told":  incrementalFile(incrementalMagic, 2, 7, 3),
		"more than fit":   incrementalFile(incrementalMagic, 1<<31, 1<<31, 3),
		"behind the end":  incrementalFile(incrementalMagic, 1, 7, 7),
		"out of order":    incrementalFile(incrementalMagic, 2, 7, 4, 3),
		"one block twice": incrementalFile(incrementalMagic, 2, 7, 3, 3),
	} {
		if h, err := ReadIncrementalHead(bytes.NewReader(file), int64(len(file))); err == nil {
			t.Errorf("%s was taken for %+v", what, h)
		}
	}
	file := incrementalFile(incrementalMagic, 1, 7, 3)
	if h, err := ReadIncrementalHead(bytes.NewReader(file[:100]), int64(len(file))); err == nil {
		t.Errorf("a stream that breaks off was taken for %+v", h)
	}
}

func FuzzIncrementalHead(f *testing.F) {
	f.Add(incrementalFile(incrementalMagic, 0, 7))
	f.Add(incrementalFile(incrementalMagic, 2, 7, 3, 6))
	f.Add(incrementalFile(incrementalMagic, 1<<31, 1<<31, 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		h, err := ReadIncrementalHead(r, int64(len(b)))
		if err != nil {
			return
		}
		if r.Len() != len(h.Blocks)*pg.PageSize {
			t.Errorf("%d bytes follow the head of %d blocks", r.Len(), len(h.Blocks))
		}
		for i, block := range h.Blocks {
			if block >= h.Length || i > 0 && block <= h.Blocks[i-1] || h.Length > pg.PagesPerSegment {
				t.Errorf("block %d of %d", block, h.Length)
			}
		}
	})
}

func TestBackupManifestIsPostgresForm(t *testing.T) {
	for _, files := range []map[string]int64{{}, {"base/5/16384": 8192}, {"base/5/16384": 8192, `odd"name`: 0}} {
		var b bytes.Buffer
		m := BackupManifest{SystemIdentifier: 1<<63 + 7, Timeline: 3, Start: 0x2000028, End: 0x1_00000000, Files: maps.All(files)}
		if err := m.write(&b); err != nil {
			t.Fatal(err)
		}
		var got struct {
			Version int    `json:"PostgreSQL-Backup-Manifest-Version"`
			System  uint64 `json:"System-Identifier"`
			Files   []struct {
				Path string
				Size int64
			}
			Ranges []struct {
				Timeline int
				Start    string `json:"Start-LSN"`
				End      string `json:"End-LSN"`
			} `json:"WAL-Ranges"`
			Sum string `json:"Manifest-Checksum"`
		}
		if err := json.Unmarshal(b.Bytes(), &got); err != nil {
			t.Fatalf("%v in\n%s", err, b.Bytes())
		}
		if got.Version != 2 || got.System != 1<<63+7 || len(got.Files) != len(files) || len(got.Ranges) != 1 ||
			got.Ranges[0].Timeline != 3 || got.Ranges[0].Start != "0/2000028" || got.Ranges[0].End != "1/0" {
			t.Errorf("%s", b.Bytes())
		}
		for _, f := range got.Files {
			if size, ok := files[f.Path]; !ok || size != f.Size {
				t.Errorf("%s has %d bytes, not %d", f.Path, f.Size, size)
			}
		}
		// The checksum is of all lines but the last.
		rest := b.Bytes()[:bytes.LastIndexByte(b.Bytes()[:b.Len()-1], '\n')+1]
		if want := fmt.Sprintf("%x", sha256.Sum256(rest)); got.Sum != want {
			t.Errorf("checksum %s, want %s", got.Sum, want)
		}
	}
}
