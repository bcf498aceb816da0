package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"path"
	"testing"

	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/repo"
)

// increment is a server's archive with one file of which it sends some pages.
func increment(t *testing.T, name string, length uint32, blocks []uint32, pages [][]byte) *tar.Reader {
	t.Helper()
	var file []byte
	for _, word := range append([]uint32{0xD3AE1F0D, uint32(len(blocks)), length}, blocks...) {
		file = binary.LittleEndian.AppendUint32(file, word)
	}
	if len(blocks) > 0 {
		file = append(file, make([]byte, pg.PageSize-len(file))...)
	}
	for _, p := range pages {
		file = append(file, p...)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	dir, base := path.Split(name)
	err := w.WriteHeader(&tar.Header{Name: dir + postgres.IncrementalPrefix + base, Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(file))})
	if err == nil {
		_, err = w.Write(file)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tar.NewReader(&b)
}

// receive takes one archive as the server's increment to the parent.
func (f *folder) receive(archive *tar.Reader, cuts map[pg.RelFile]uint32) repo.Backup {
	f.t.Helper()
	ctx, abort := context.WithCancelCause(f.t.Context())
	defer abort(nil)
	f.r.abort, f.r.packer, f.r.head.Incremental = abort, f.repo.NewPacker(ctx), true
	s := &stream{r: f.r, cuts: cuts, pieces: make(chan piece, 1), free: make(chan []byte, 2)}
	for range cap(s.free) {
		s.free <- noise(repo.ChunkSize) // what an earlier piece left there must not matter
	}
	err := f.r.crew(
		func() error { defer close(s.pieces); return s.unpack(ctx, archive, "") },
		func(w *worker) error { return s.work(ctx, f.h, w) },
		func(*worker) error { return nil })
	if err != nil {
		f.t.Fatal(err)
	}
	packs, err := f.r.packer.Close()
	if err != nil {
		f.t.Fatal(err)
	}
	f.r.finish()
	if err := f.repo.WriteManifest(ctx, f.r.head, append(packs, f.r.parent.packs...), f.r.result.entries); err != nil {
		f.t.Fatal(err)
	}
	return f.r.head
}

// TestIncrementsAddUp changes, cuts and lengthens one file in round after round, and keeps beside it what it is.
func TestIncrementsAddUp(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	const name = "base/5/16384.1"
	rel, _ := pg.ParseRelationPath(name)
	for range 20 {
		_, r := newStore(t)
		f := newFolder(t, r)
		var model [][]byte
		for b := range 1 + rng.IntN(200) {
			model = append(model, page(rel.FirstBlock()+uint32(b), 500, 'a'))
		}
		f.write(name, bytes.Join(model, nil))
		last := f.store(f.list())
		for round := range 12 {
			f.reset(&last)
			cuts := map[pg.RelFile]uint32{}
			kept := len(model)
			if rng.IntN(3) == 0 {
				kept -= rng.IntN(min(kept, []int{20, 200}[rng.IntN(2)]))
				cuts[rel.RelFile] = rel.FirstBlock() + uint32(kept)
			}
			now := make([][]byte, kept+rng.IntN(3)*rng.IntN(20))
			share := rng.IntN(1 + []int{0, 3, 30, 100}[rng.IntN(4)]) // of pages that are sent, in percent
			var blocks []uint32
			var sent [][]byte
			for b := range now {
				switch {
				case rng.IntN(100) < share:
					now[b] = page(rel.FirstBlock()+uint32(b), 500, byte('b'+round))
					blocks, sent = append(blocks, uint32(b)), append(sent, now[b])
				case b < kept:
					now[b] = model[b]
				default:
					now[b] = make([]byte, pg.PageSize)
				}
			}
			model = now
			last = f.receive(increment(t, name, uint32(len(now)), blocks, sent), cuts)
			f.want(name, bytes.Join(model, nil))
			if last.DamagedPages != 0 {
				t.Errorf("%+v", last.Damage)
			}
			if e := f.entry(name); e.Node != nil {
				n, err := r.ReadNode(t.Context(), *e.Node)
				if err != nil || len(n.Patches) > mostPatches*len(n.Chunks) {
					t.Errorf("%d patches over %d chunks, %v", len(n.Patches), len(n.Chunks), err)
				}
			}
			if t.Failed() {
				t.Fatalf("round %d: %d pages, %d sent, %d kept", round, len(now), len(sent), kept)
			}
		}
	}
}
