package restore

import (
	"math/rand/v2"
	"testing"

	"pileus/internal/progress"
	"pileus/internal/repo"
	"pileus/internal/store"
)

// BenchmarkWrite restores one file of 256 MiB that compresses to about a half.
func BenchmarkWrite(b *testing.B) {
	st, err := store.OpenLocal(b.TempDir(), store.LocalOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	r, err := repo.Init(b.Context(), st, nil, repo.Options{})
	if err != nil {
		b.Fatal(err)
	}
	const size = 256 << 20
	p := r.NewPacker(b.Context())
	w := p.Writer()
	rng := rand.New(rand.NewPCG(1, 2))
	piece := make([]byte, repo.ChunkSize)
	n := &repo.Node{Size: size}
	for range size / repo.ChunkSize {
		for i := 0; i < len(piece); i += 16 {
			piece[i], piece[i+1], piece[i+7], piece[i+9] = byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32()), byte(i>>8)
		}
		ref, err := w.Add(piece)
		if err != nil {
			b.Fatal(err)
		}
		n.Chunks = append(n.Chunks, repo.Chunk{Ref: ref})
	}
	node, err := w.PutNode(n)
	if err != nil {
		b.Fatal(err)
	}
	control, err := w.Add([]byte("control"))
	if err != nil {
		b.Fatal(err)
	}
	w.Close()
	closePacker(b, p)
	entries := entriesOf(repo.Entry{Path: "global", Type: repo.TypeDir, Mode: 0o700},
		repo.Entry{Path: controlPath, Type: repo.TypeFile, Size: 7, Chunk: &control},
		repo.Entry{Path: "f", Type: repo.TypeFile, Mode: 0o600, Size: size, Node: &node})
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		out := writer{repo: r, place: &place{dataDir: b.TempDir()}, parallel: 4, report: progress.Silent{}}
		if err := out.all(b.Context(), entries); err != nil {
			b.Fatal(err)
		}
	}
}
