package restore

import (
	"bytes"
	"errors"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"pileus/internal/progress"
	"pileus/internal/repo"
)

func entriesOf(list ...repo.Entry) iter.Seq2[repo.Entry, error] {
	return func(yield func(repo.Entry, error) bool) {
		for _, e := range list {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// random is a run of bytes that does not compress.
func random(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// writeAll writes entries and a control file into a new directory.
func writeAll(t testing.TB, r *repo.Repository, w *repo.PackWriter, finish func(), entries ...repo.Entry) (string, error) {
	t.Helper()
	ref, err := w.Add([]byte("control"))
	if err != nil {
		t.Fatal(err)
	}
	entries = append(entries, repo.Entry{Path: "global", Type: repo.TypeDir, Mode: 0o700},
		repo.Entry{Path: controlPath, Type: repo.TypeFile, Mode: 0o600, Size: 7, Chunk: &ref})
	finish()
	dir := t.TempDir()
	out := writer{repo: r, place: &place{dataDir: dir}, parallel: 4, report: progress.Silent{}}
	if err := out.all(t.Context(), entriesOf(entries...)); err != nil {
		return dir, err
	}
	if _, err := os.Stat(filepath.Join(dir, controlPath)); err == nil {
		t.Error("the control file is there before everything else is")
	}
	return dir, out.writeControl(t.Context())
}

func TestWriteFilesOfEverySize(t *testing.T) {
	r, _, _ := newRepo(t)
	p := r.NewPacker(t.Context())
	w := p.Writer()
	rng := rand.New(rand.NewPCG(1, 2))
	want := map[string][]byte{}
	var entries []repo.Entry
	sizes := []int{0, 1, 63, 8191, 8192, 8193, repo.ChunkSize - 1, repo.ChunkSize, repo.ChunkSize + 1, 5*repo.ChunkSize + 77, 3 << 20}
	for i, n := range sizes {
		name := "f" + string(rune('a'+i))
		want[name] = random(rng, n)
		if n == 3<<20 {
			clear(want[name][repo.ChunkSize : 9*repo.ChunkSize])
		}
		entries = append(entries, storeFile(t, w, name, want[name]))
	}
	huge := repo.Entry{Path: "huge", Type: repo.TypeFile, Mode: 0o640, Size: 1 << 40} // all of it a hole
	entries = append(entries, huge)
	dir, err := writeAll(t, r, w, func() { w.Close(); closePacker(t, p) }, entries...)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range want {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s of %d bytes: %v, or other content", name, len(content), err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "huge"), &st); err != nil || st.Size != 1<<40 || st.Blocks*512 > 1<<20 || st.Mode&0o777 != 0o640 {
		t.Errorf("huge: %v, %d bytes, %d blocks, mode %o", err, st.Size, st.Blocks, st.Mode&0o777)
	}
}

func closePacker(t testing.TB, p *repo.Packer) {
	t.Helper()
	if _, err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWritePatchesOverChunks(t *testing.T) {
	r, _, _ := newRepo(t)
	rapid.Check(t, func(rt *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		size := rapid.IntRange(1, 5*repo.ChunkSize).Draw(rt, "size")
		want := random(rng, size)
		p := r.NewPacker(t.Context())
		w := p.Writer()
		n := &repo.Node{Size: int64(size)}
		for at := 0; at < size; at += repo.ChunkSize {
			piece := want[at:min(at+repo.ChunkSize, size)]
			if rapid.IntRange(0, 3).Draw(rt, "hole") == 0 {
				clear(piece)
				n.Chunks = append(n.Chunks, repo.Chunk{Zero: true})
				continue
			}
			ref, err := w.Add(piece)
			if err != nil {
				rt.Fatal(err)
			}
			n.Chunks = append(n.Chunks, repo.Chunk{Ref: ref})
		}
		pages := (size + repo.PageSize - 1) / repo.PageSize
		for range rapid.IntRange(1, 3).Draw(rt, "layers") { // a page may be in several patches
			chosen := rapid.SliceOfNDistinct(rapid.IntRange(0, pages-1), 0, min(pages, 20), rapid.ID).Draw(rt, "pages")
			marked := make([]bool, pages)
			for _, k := range chosen {
				marked[k] = true
			}
			var group []uint32
			flush := func() {
				if len(group) == 0 {
					return
				}
				var body []byte
				for _, k := range group {
					body = append(body, want[int(k)*repo.PageSize:min((int(k)+1)*repo.PageSize, size)]...)
				}
				ref, err := w.Add(body)
				if err != nil {
					rt.Fatal(err)
				}
				n.Patches = append(n.Patches, repo.Patch{Pages: group, Ref: ref})
				group = nil
			}
			for k, on := range marked {
				if !on {
					continue
				}
				copy(want[k*repo.PageSize:min((k+1)*repo.PageSize, size)], random(rng, repo.PageSize))
				group = append(group, uint32(k))
				if rapid.Bool().Draw(rt, "split") {
					flush()
				}
			}
			flush()
		}
		ref, err := w.PutNode(n)
		if err != nil {
			rt.Fatal(err)
		}
		dir, err := writeAll(t, r, w, func() { w.Close(); closePacker(t, p) }, repo.Entry{Path: "f", Type: repo.TypeFile, Mode: 0o600, Size: int64(size), Node: &ref})
		if err != nil {
			rt.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || !bytes.Equal(got, want) {
			rt.Fatalf("%v, or other content", err)
		}
	})
}

func TestWriteRefusesNamesThatLeadOut(t *testing.T) {
	for _, name := range []string{"../x", "/etc/x", "base/../../x", "pg_tblspc/99/PG_15/1", "a//b", ""} {
		w := writer{place: &place{dataDir: t.TempDir()}, report: progress.Silent{}}
		err := w.all(t.Context(), entriesOf(repo.Entry{Path: name, Type: repo.TypeFile}))
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%q: error %v, want it refused", name, err)
		}
	}
}

func TestWriteStopsAtDamage(t *testing.T) {
	r, _, repoDir := newRepo(t)
	p := r.NewPacker(t.Context())
	w := p.Writer()
	e := storeFile(t, w, "f", random(rand.New(rand.NewPCG(3, 4)), 3*repo.ChunkSize))
	dir, err := writeAll(t, r, w, func() { w.Close(); closePacker(t, p); flipPacks(t, repoDir, 1000) }, e)
	if !errors.Is(err, repo.ErrDamaged) || !strings.Contains(err.Error(), "f: ") {
		t.Fatalf("error %v, want the damage, with the file's name", err)
	}
	if _, err := os.Stat(filepath.Join(dir, controlPath)); err == nil {
		t.Error("there is a control file")
	}
}

// flipPacks changes the byte at offset of every pack.
func flipPacks(t testing.TB, repoDir string, offset int64) {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(repoDir, "packs", "*", "*"))
	if err != nil || len(packs) == 0 {
		t.Fatalf("no packs: %v", err)
	}
	for _, path := range packs {
		b, err := os.ReadFile(path)
		if err == nil && int64(len(b)) > offset {
			b[offset] ^= 0x40
			err = os.WriteFile(path, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
