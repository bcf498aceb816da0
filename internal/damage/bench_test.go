package damage

import (
	"context"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"filippo.io/age"

	"pileus/internal/archive"
	"pileus/internal/pg"
	"pileus/internal/repo"
	"pileus/internal/store"
	"pileus/internal/wal"
)

// BenchmarkStages measures what the scan is made of, each stage on one core and over the same WAL: that of the first cluster of
// the repository in the folder $PILEUS_BENCH_REPO. `bench/find --keep` makes one, and says how to call this.
// Bytes are those of WAL, not of the objects.
func BenchmarkStages(b *testing.B) {
	dir := os.Getenv("PILEUS_BENCH_REPO")
	if dir == "" {
		b.Skip("PILEUS_BENCH_REPO names no repository; `bench/find --keep` makes one")
	}
	ctx := b.Context()
	r, c := benchRepository(b, dir)
	o := Options{Repo: r, Cluster: c, Keep: 100, Workers: 1}
	p, err := prepare(ctx, &o)
	if err != nil {
		b.Fatal(err)
	}
	segments := benchSegments(b, p)
	total := int64(len(segments)) * c.SegmentSize
	b.Run("whole", func(b *testing.B) {
		b.SetBytes(total)
		for b.Loop() {
			if _, err := Scan(ctx, Options{Repo: r, Cluster: c}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("start", func(b *testing.B) {
		for b.Loop() {
			if _, err := prepare(ctx, &o); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("objects", func(b *testing.B) {
		b.SetBytes(total)
		for b.Loop() {
			for _, err := range p.source.pieces(ctx, segments[0].LSN, p.end) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	few := segments[len(segments)/2 : len(segments)/2+4]
	size := pg.LSN(c.SegmentSize)
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(few)) * c.SegmentSize)
		for b.Loop() {
			d, err := wal.NewDecoder(p.source.decoder)
			if err != nil {
				b.Fatal(err)
			}
			for _, s := range few {
				if err := d.Feed(s.LSN, s.Data); err != nil {
					b.Fatal(err)
				}
				for {
					_, ok, err := d.Next()
					if err != nil {
						b.Fatal(err)
					}
					if !ok {
						break
					}
				}
			}
		}
	})
	memory := source{decoder: p.source.decoder, catalogs: p.source.catalogs, moved: p.source.moved, images: p.source.images}
	memory.pieces = func(_ context.Context, from, to pg.LSN) iter.Seq2[archive.Piece, error] {
		return func(yield func(archive.Piece, error) bool) {
			for _, s := range few {
				if s.LSN >= from && s.LSN < to && !yield(s, nil) {
					return
				}
			}
		}
	}
	b.Run("count", func(b *testing.B) { // decodes as well
		b.SetBytes(int64(len(few)) * c.SegmentSize)
		b.ReportAllocs()
		for b.Loop() {
			l := &lane{from: few[0].LSN, end: few[0].LSN + 4*size, to: few[0].LSN + 4*size}
			memory.decode(ctx, l)
			if l.err != nil || l.records == 0 {
				b.Fatal(l.records, l.err)
			}
			l.parts.all(func(_ uint32, p *part) { l.parts.again(p) })
			memory.done(l)
		}
	})
}

func benchRepository(b *testing.B, dir string) (*repo.Repository, repo.Cluster) {
	b.Helper()
	st, err := store.Open(b.Context(), dir, store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	var ids []age.Identity
	r, err := repo.Open(b.Context(), st, ids, repo.Options{Workers: 2})
	if err != nil {
		b.Fatal(err)
	}
	clusters, err := filepath.Glob(filepath.Join(dir, "clusters", "*"))
	if err != nil || len(clusters) == 0 {
		b.Fatal(clusters, err)
	}
	c, err := r.Cluster(b.Context(), filepath.Base(clusters[0]))
	if err != nil {
		b.Fatal(err)
	}
	return r, c
}

// benchSegments reads the whole segments into memory.
func benchSegments(b *testing.B, p *prepared) (all []archive.Piece) {
	b.Helper()
	size := pg.LSN(p.source.decoder.SegmentSize)
	from := p.base.StartLSN + size - p.base.StartLSN%size
	to := p.end - p.end%size
	for piece, err := range p.source.pieces(b.Context(), from, to) {
		if err != nil {
			b.Fatal(err)
		}
		if piece.LSN%size == 0 {
			all = append(all, archive.Piece{LSN: piece.LSN})
		}
		last := &all[len(all)-1]
		last.Data = append(slices.Grow(last.Data, int(size)-len(last.Data)), piece.Data...)
	}
	if len(all) < 8 {
		b.Fatalf("%d segments are too few", len(all))
	}
	return all
}
