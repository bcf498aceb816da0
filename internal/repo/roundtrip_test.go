package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"filippo.io/age"
	"pgregory.net/rapid"

	"pileus/internal/store/storetest"
)

// newTestRepo makes a repository in memory, sealed or not.
func newTestRepo(t testing.TB, sealed bool, opt Options) (*Repository, *storetest.Mem) {
	t.Helper()
	st := storetest.NewMem(t)
	var slots []KeySlot
	if sealed {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		slots = []KeySlot{{Name: "test", Recipients: []age.Recipient{id.Recipient()}}}
	}
	r, err := Init(t.Context(), st, slots, opt)
	if err != nil {
		t.Fatal(err)
	}
	return r, st
}

func both(t *testing.T, f func(t *testing.T, sealed bool)) {
	t.Run("plain", func(t *testing.T) { f(t, false) })
	t.Run("sealed", func(t *testing.T) { f(t, true) })
}

// someBytes are compressible in part.
func someBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		if i%3 == 0 {
			b[i] = byte(rng.Uint32())
		}
	}
	return b
}

func TestObjectsRoundTrip(t *testing.T) {
	both(t, func(t *testing.T, sealed bool) {
		r, _ := newTestRepo(t, sealed, Options{})
		rng := rand.New(rand.NewPCG(1, 1))
		for _, n := range []int{0, 1, 63, 64, frameSize - 1, frameSize, frameSize + 1, 3*frameSize + 17, spillAt + frameSize} {
			want := someBytes(rng, n)
			key := fmt.Sprintf("clusters/c/x%d", n)
			if err := r.putObject(t.Context(), key, KindPart, func(w io.Writer) error { _, err := w.Write(want); return err }); err != nil {
				t.Fatal(err)
			}
			got, err := r.readObject(t.Context(), key, KindPart)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes: got %d, %v", n, len(got), err)
			}
			if _, err := r.readObject(t.Context(), key, KindManifest); !errors.Is(err, ErrDamaged) {
				t.Errorf("an object of another kind was taken: %v", err)
			}
		}
	})
}

// Whatever byte of an object changes, or wherever it is cut, reading it fails as damage.
func TestDamagedObjectsAreNeverRead(t *testing.T) {
	both(t, func(t *testing.T, sealed bool) {
		r, st := newTestRepo(t, sealed, Options{})
		want := someBytes(rand.New(rand.NewPCG(2, 2)), 3000)
		const key = "clusters/c/cluster"
		if err := r.putObject(t.Context(), key, KindPart, func(w io.Writer) error { _, err := w.Write(want); return err }); err != nil {
			t.Fatal(err)
		}
		whole, err := readAll(t.Context(), st, key)
		if err != nil {
			t.Fatal(err)
		}
		for i := range whole {
			for what, change := range map[string]func([]byte) []byte{
				"flipped": func(b []byte) []byte { b = bytes.Clone(b); b[i] ^= 0x41; return b },
				"cut":     func(b []byte) []byte { return b[:i] },
			} {
				if i == 10 || i == 11 || (!sealed && i >= 12 && i < 24 && i > 20) {
					continue // reserved bytes of headers mean nothing
				}
				st.Corrupt(key, func([]byte) []byte { return change(whole) })
				got, err := r.readObject(t.Context(), key, KindPart)
				var format *FormatError
				if err == nil && bytes.Equal(got, want) && what == "flipped" {
					continue // a byte without meaning
				}
				if !errors.Is(err, ErrDamaged) && !errors.As(err, &format) {
					t.Fatalf("byte %d %s: %d bytes, %v", i, what, len(got), err)
				}
			}
		}
	})
}

func TestSealedObjectsStayWhereTheyAre(t *testing.T) {
	r, st := newTestRepo(t, true, Options{})
	for _, name := range []string{"a", "b"} {
		if err := r.PutHistory(t.Context(), name, 2, []byte("1\t0/1000000\t"+name)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := readAll(t.Context(), st, historyKey("b", 2))
	if err != nil {
		t.Fatal(err)
	}
	st.Corrupt(historyKey("a", 2), func([]byte) []byte { return b })
	if _, err := r.History(t.Context(), "a", 2); !errors.Is(err, ErrDamaged) {
		t.Errorf("an object of another name was taken: %v", err)
	}
	if bytes.Contains(b, []byte("0/1000000")) {
		t.Error("a sealed object shows its content")
	}
}

func TestNodesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := drawNode(t)
		b, err := n.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseNode(b)
		if err != nil {
			t.Fatal(err)
		}
		again, err := got.MarshalBinary()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("it changed: %v", err)
		}
	})
}

func drawNode(t *rapid.T) *Node {
	pages := rapid.IntRange(1, 200).Draw(t, "pages")
	n := &Node{Size: int64(pages)*PageSize - int64(rapid.IntRange(0, PageSize-1).Draw(t, "cut"))}
	packs := []PackID{{1}, {2}, {3}}
	ref := func(length int) Ref {
		r := Ref{Pack: rapid.SampledFrom(packs).Draw(t, "pack"), Offset: rapid.Uint32Range(8, 1<<24).Draw(t, "offset"),
			Stored: rapid.Uint32Range(1, 1<<18).Draw(t, "stored"), Length: uint32(length), Codec: Codec(rapid.IntRange(0, 1).Draw(t, "codec"))}
		r.Hash[0] = byte(length)
		return r
	}
	for at := int64(0); at < n.Size; at += ChunkSize {
		if rapid.Bool().Draw(t, "zero") {
			n.Chunks = append(n.Chunks, Chunk{Zero: true})
		} else {
			n.Chunks = append(n.Chunks, Chunk{Ref: ref(int(min(ChunkSize, n.Size-at)))})
		}
	}
	for page := 0; page < pages; {
		var p Patch
		length := 0
		for len(p.Pages) < MaxPatchPages && page < pages && rapid.IntRange(0, 3).Draw(t, "more") > 0 {
			p.Pages = append(p.Pages, uint32(page))
			length += int(min(PageSize, n.Size-int64(page)*PageSize))
			page += rapid.IntRange(1, 9).Draw(t, "step")
		}
		page++
		if len(p.Pages) > 0 {
			p.Ref = ref(length)
			n.Patches = append(n.Patches, p)
		}
	}
	return n
}

func FuzzParseNode(f *testing.F) {
	n := &Node{Size: 3 * PageSize, Chunks: []Chunk{{Ref: Ref{Length: 3 * PageSize, Stored: 9, Offset: 8}}},
		Patches: []Patch{{Pages: []uint32{1}, Ref: Ref{Length: PageSize, Stored: 5, Offset: 99}}}}
	b, err := n.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{nodeVersion, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := ParseNode(b)
		if err != nil {
			return
		}
		if _, err := n.MarshalBinary(); err != nil {
			t.Errorf("parsed and cannot be written: %v", err)
		}
	})
}

func FuzzObject(f *testing.F) {
	r, st := newTestRepo(f, false, Options{})
	if err := r.PutHistory(f.Context(), "c", 2, []byte("1\t0/1000000\tx")); err != nil {
		f.Fatal(err)
	}
	b, err := readAll(f.Context(), st, historyKey("c", 2))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		or, err := r.newObjectReader(bytes.NewReader(b), KindHistory, "k")
		if err == nil {
			_, err = io.Copy(io.Discard, or)
		}
		var format *FormatError
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.As(err, &format) {
			t.Errorf("neither whole nor damaged: %v", err)
		}
	})
}

// storeFile puts a file's bytes into packs as a backup does.
func storeFile(t testing.TB, w *PackWriter, path string, content []byte) Entry {
	t.Helper()
	e := Entry{Path: path, Type: TypeFile, Mode: 0o600, Size: int64(len(content))}
	n := &Node{Size: e.Size}
	for at := 0; at < len(content); at += ChunkSize {
		ref, err := w.Add(content[at:min(at+ChunkSize, len(content))])
		if err != nil {
			t.Fatal(err)
		}
		n.Chunks = append(n.Chunks, Chunk{Ref: ref})
	}
	if len(n.Chunks) == 1 {
		e.Chunk = &n.Chunks[0].Ref
	} else if len(n.Chunks) > 1 {
		ref, err := w.PutNode(n)
		if err != nil {
			t.Fatal(err)
		}
		e.Node, e.Packs = &ref, n.Packs()
	}
	return e
}

// loadFile reads a file back.
func loadFile(ctx context.Context, r *Repository, e Entry) ([]byte, error) {
	if e.Chunk != nil {
		return r.ReadChunk(ctx, nil, *e.Chunk)
	}
	if e.Node == nil {
		return make([]byte, e.Size), nil
	}
	n, err := r.ReadNode(ctx, *e.Node)
	if err != nil {
		return nil, err
	}
	var out []byte
	for _, c := range n.Chunks {
		if out, err = r.ReadChunk(ctx, out, c.Ref); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// putBackup makes a small backup of one cluster.
func putBackup(t testing.TB, r *Repository, head Backup, files map[string][]byte) Backup {
	t.Helper()
	p := r.NewPacker(t.Context())
	w := p.Writer()
	entries := []Entry{{Path: "base", Type: TypeDir, Mode: 0o700}}
	for path, content := range files {
		entries = append(entries, storeFile(t, w, path, content))
	}
	w.Close()
	packs, err := p.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.WriteManifest(t.Context(), head, packs, entries); err != nil {
		t.Fatal(err)
	}
	return head
}

func TestBackupsRoundTrip(t *testing.T) {
	both(t, func(t *testing.T, sealed bool) {
		r, st := newTestRepo(t, sealed, Options{PackSize: 300 << 10})
		if _, err := r.EnsureCluster(t.Context(), Cluster{Name: "c", SystemIdentifier: 1, SegmentSize: testSegment}); err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(3, 3))
		files := map[string][]byte{}
		for i := range 30 {
			files[fmt.Sprintf("base/%d", i)] = someBytes(rng, rng.IntN(3*ChunkSize))
		}
		b := putBackup(t, r, Backup{ID: "20260101T000000Z-aaaaaa", Cluster: "c", StartLSN: 1 << 24, StopLSN: 1<<24 + 99}, files)
		m, err := r.OpenManifest(t.Context(), "c", b.ID)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if m.StopLSN != b.StopLSN || m.Files != int64(len(files)) || len(m.Packs()) < 2 {
			t.Errorf("head %+v, %d packs", m.Backup, len(m.Packs()))
		}
		seen := 0
		for e, err := range m.Entries() {
			if err != nil {
				t.Fatal(err)
			}
			if e.Type == TypeDir {
				continue
			}
			seen++
			if got, err := loadFile(t.Context(), r, e); err != nil || !bytes.Equal(got, files[e.Path]) {
				t.Errorf("%s: %d bytes of %d, %v", e.Path, len(got), len(files[e.Path]), err)
			}
		}
		if seen != len(files) {
			t.Errorf("%d files of %d", seen, len(files))
		}
		for _, p := range m.Packs() {
			if err := r.CheckPack(t.Context(), p); err != nil {
				t.Error(err)
			}
			st.Corrupt(p.ID.key(), func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b })
			if err := r.CheckPack(t.Context(), p); !errors.Is(err, ErrDamaged) {
				t.Errorf("a flipped bit in a pack: %v", err)
			}
		}
		if rep, err := Verify(t.Context(), r, VerifyOptions{ReadData: 1, Workers: 2}); err != nil || len(rep.Problems) == 0 {
			t.Errorf("verify saw nothing: %+v, %v", rep, err)
		}
		// The packs are damaged, so each file is refused or right, never wrong.
		for e, err := range mustManifest(t, r, b).Entries() {
			if err != nil {
				t.Fatal(err)
			}
			if got, err := loadFile(t.Context(), r, e); err == nil && e.Type == TypeFile && !bytes.Equal(got, files[e.Path]) {
				t.Errorf("%s was read wrong", e.Path)
			} else if err != nil && !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: %v", e.Path, err)
			}
		}
	})
}

func mustManifest(t testing.TB, r *Repository, b Backup) *Manifest {
	t.Helper()
	m, err := r.OpenManifest(t.Context(), b.Cluster, b.ID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestManifestNeedsItsPacks(t *testing.T) {
	r, _ := newTestRepo(t, false, Options{})
	ref := Ref{Pack: PackID{9}, Length: 1, Stored: 1}
	err := r.WriteManifest(t.Context(), Backup{ID: "x", Cluster: "c"}, nil, []Entry{{Path: "f", Type: TypeFile, Size: 1, Chunk: &ref}})
	if err == nil || !strings.Contains(err.Error(), "was not stored") {
		t.Errorf("a manifest was written that names a pack nobody stored: %v", err)
	}
}
