package backup

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"pileus/internal/pg"
	"pileus/internal/repo"
	"pileus/internal/store"
	"pileus/internal/store/storetest"
)

// sink is a store that forgets packs, so that a benchmark measures the way to it.
type sink struct {
	store.Store
}

func (s sink) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if len(key) > 6 && key[:6] == "packs/" {
		_, err := body.Seek(0, io.SeekEnd)
		return err
	}
	return s.Store.Put(ctx, key, body)
}

func (s sink) List(ctx context.Context, prefix string) iter.Seq2[store.Info, error] {
	return s.Store.List(ctx, prefix)
}

// accounts fills a page as pgbench fills pgbench_accounts: 61 rows with an 84 byte
// filler of spaces.
func accounts(block uint32, rnd *rand.Rand) []byte {
	p := make([]byte, pg.PageSize)
	le := binary.LittleEndian
	le.PutUint32(p[4:], 500)
	upper := pg.PageSize
	for i := range 61 {
		upper -= 128
		row := p[upper:]
		le.PutUint32(row, 700+rnd.Uint32N(1000)) // xmin
		le.PutUint16(row[8:], uint16(block))
		le.PutUint16(row[10:], uint16(i+1))
		le.PutUint32(row[18:], 0x18000904)
		le.PutUint32(row[24:], block*61+uint32(i))
		le.PutUint32(row[28:], block/1640)
		le.PutUint32(row[32:], rnd.Uint32N(10000)-5000)
		row[36] = 0xAB
		copy(row[37:], bytes.Repeat([]byte{' '}, 84))
		le.PutUint32(p[24+4*i:], uint32(upper)|1<<15|uint32(121)<<17)
	}
	le.PutUint16(p[12:], 24+4*61)
	le.PutUint16(p[14:], uint16(upper))
	le.PutUint16(p[16:], pg.PageSize)
	le.PutUint16(p[18:], pg.PageSize|4)
	le.PutUint16(p[8:], pg.Checksum(p, block))
	return p
}

// BenchmarkFiles reads a synthetic data directory of 512 MiB, which is in the
// page cache after the first turn, into packs that are dropped. Bytes are those of the data directory.
func BenchmarkFiles(b *testing.B) {
	const size, files = 512 << 20, 8
	dir := b.TempDir()
	rnd := rand.New(rand.NewPCG(1, 2))
	if err := os.MkdirAll(filepath.Join(dir, "base", "5"), 0o700); err != nil {
		b.Fatal(err)
	}
	for i := range files {
		f, err := os.Create(filepath.Join(dir, "base", "5", fmt.Sprint(16384+i)))
		if err != nil {
			b.Fatal(err)
		}
		for block := range uint32(size / files / pg.PageSize) {
			if _, err := f.Write(accounts(block, rnd)); err != nil {
				b.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			r, err := repo.Init(b.Context(), sink{storetest.NewMem(b)}, nil, repo.Options{Workers: workers})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				f := newFolder(b, r)
				f.r.DataDir, f.r.Workers = dir, workers
				head := f.store(f.list())
				if head.DamagedPages != 0 {
					b.Fatal(head.Damage)
				}
				b.ReportMetric(float64(size)/float64(head.Stored), "ratio")
			}
		})
	}
}
