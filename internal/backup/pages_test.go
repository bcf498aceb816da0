package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

func TestWhatBecomesOfABadPage(t *testing.T) {
	old, fresh := page(0, 500, 1), page(0, 1500, 2)
	torn := append(bytes.Clone(old[:4096]), fresh[4096:]...)
	tornNew := append(bytes.Clone(fresh[:4096]), old[4096:]...)
	far := page(0, 9000, 1)
	far[5000]++
	again := func(p []byte, err error) func(context.Context, []byte, int64) error {
		return func(_ context.Context, to []byte, _ int64) error { copy(to, p); return err }
	}
	for _, c := range []struct {
		name   string
		page   []byte
		again  func(context.Context, []byte, int64) error
		late   bool
		damage int64
		want   []byte
	}{
		{"sound", old, nil, false, 0, old},
		{"zero", make([]byte, pg.PageSize), nil, false, 0, make([]byte, pg.PageSize)},
		{"changed since the start", tornNew, nil, false, 0, tornNew},
		{"torn, then whole", torn, again(fresh, nil), false, 0, fresh},
		{"torn, whole after the end", torn, again(fresh, nil), true, 0, torn},
		{"torn without WAL, whole after the end", torn, again(old, nil), true, 0, old},
		{"torn for ever", torn, again(torn, nil), false, 1, torn},
		{"a position that WAL has not reached", far, again(far, nil), false, 1, far},
		{"truncated meanwhile", torn, again(nil, errShrunk), false, 0, torn},
		{"not to be read again", torn, again(nil, errBlind), true, 1, torn},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &run{}
			r.info.DataChecksums = true
			h := &horizon{start: 1000, ask: func(context.Context) (pg.LSN, error) { return 2000, nil }}
			data := bytes.Clone(c.page)
			k := check{r: r, h: h, f: r.newFile("base/5/16384", 0o600, pg.PageSize), data: data, again: c.again, late: c.late}
			if err := k.pages(t.Context()); err != nil {
				t.Fatal(err)
			}
			if r.result.damaged != c.damage || int64(len(r.result.damage)) != c.damage {
				t.Errorf("%d damaged pages, expected %d: %v", r.result.damaged, c.damage, r.result.damage)
			}
			if !bytes.Equal(data, c.want) {
				t.Error("another page is stored than the one expected")
			}
		})
	}
}

func TestAFailureIsNotTakenForDamage(t *testing.T) {
	broken := errors.New("the connection is gone")
	torn := page(0, 1500, 1)
	torn[5000]++
	r := &run{}
	r.info.DataChecksums = true
	h := &horizon{start: 1000, ask: func(context.Context) (pg.LSN, error) { return 0, broken }}
	k := check{r: r, h: h, f: r.newFile("base/5/16384", 0o600, pg.PageSize), data: torn}
	if err := k.pages(t.Context()); !errors.Is(err, broken) || r.result.damaged != 0 {
		t.Fatalf("error %v, %d damaged pages", err, r.result.damaged)
	}
}

func TestDamageIsListedUpToABoundAndCounted(t *testing.T) {
	_, r := newStore(t)
	f := newFolder(t, r)
	b := pages(1500, 500)
	for i := range 1500 {
		if i != 7 {
			b[i*pg.PageSize+6000]++
		}
	}
	f.write("base/5/16384.2", nil)
	f.write("base/5/16385", b)
	got := f.store(f.list())
	if got.DamagedPages != 1499 || len(got.Damage) != listedDamage {
		t.Errorf("%d damaged pages, %d listed", got.DamagedPages, len(got.Damage))
	}
	f.want("base/5/16385", b) // stored as it is
	first := got.Damage[0]
	if first.Path != "base/5/16385" || first.LSN != 500 || first.Expected == first.Found {
		t.Errorf("first damage: %+v", first)
	}
}

func TestBlocksAreCountedWithinTheRelation(t *testing.T) {
	_, r := newStore(t)
	f := newFolder(t, r)
	var b []byte
	for i := range uint32(40) {
		b = append(b, page(2*pg.PagesPerSegment+i, 500, byte(i))...)
	}
	f.write("base/5/16384.2", b)
	f.write("base/5/16384.3", b)
	got := f.store(f.list())
	if got.DamagedPages != 40 {
		t.Fatalf("%d damaged pages instead of all of the segment that bears another's", got.DamagedPages)
	}
	for i, d := range got.Damage {
		if d.Path != "base/5/16384.3" || d.Block != int64(i) {
			t.Errorf("damage %d: %+v", i, d)
		}
	}
}

func TestAChildStoresOnlyWhatIsNew(t *testing.T) {
	st, r := newStore(t)
	f := newFolder(t, r)
	const c = repo.ChunkSize
	same, changed, sparse, grown := noise(5*c), noise(5*c), make([]byte, 4*c), noise(2*c)
	copy(sparse[2*c:], "island")
	f.write("same", same)
	f.write("same.small", same[:100])
	f.write("changed", changed)
	f.write("sparse", sparse)
	f.write("grown", grown)
	first := f.store(f.list())
	before := map[string]repo.Entry{}
	for _, e := range f.r.result.entries {
		before[e.Path] = e
	}

	changed[3*c+5]++
	grown = append(grown, noise(100)...)
	f.write("changed", changed)
	f.write("grown", grown)
	f.reset(&first)
	second := f.store(f.list())
	if *f.entry("same").Node != *before["same"].Node || *f.entry("sparse").Node != *before["sparse"].Node {
		t.Error("the page map of a file that did not change is stored again")
	}
	if *f.entry("same.small").Chunk != *before["same.small"].Chunk {
		t.Error("a small file that did not change is stored again")
	}
	if second.Stored < c || second.Stored > c+8192 {
		t.Errorf("the second backup stored %d bytes for one chunk of %d and some", second.Stored, c)
	}
	for name, b := range map[string][]byte{"same": same, "same.small": same[:100], "changed": changed, "sparse": sparse, "grown": grown} {
		f.want(name, b)
	}
	packs := 0
	for _, err := range st.List(t.Context(), "packs/") {
		if err != nil {
			t.Fatal(err)
		}
		packs++
	}
	f.reset(&second)
	if third := f.store(f.list()); third.Stored != 0 {
		t.Errorf("a backup of nothing new stored %d bytes", third.Stored)
	}
	materialise(t, r, f.r.head)
	for _, err := range st.List(t.Context(), "packs/") {
		if err != nil {
			t.Fatal(err)
		}
		packs--
	}
	if packs != 0 {
		t.Errorf("a backup of nothing new made %d packs", -packs)
	}
}

// A chunk of the parent that patches lie over is not what the file holds.
func TestAPatchedChunkOfTheParentIsNotReused(t *testing.T) {
	_, r := newStore(t)
	f := newFolder(t, r)
	const c = repo.ChunkSize
	b := noise(3 * c)
	f.write("rel", b)
	f.store(f.list())
	e := f.entry("rel")
	n, err := r.ReadNode(t.Context(), *e.Node)
	if err != nil {
		t.Fatal(err)
	}
	p := r.NewPacker(t.Context())
	w := p.Writer()
	ref, err := w.Add(noise(repo.PageSize))
	if err != nil {
		t.Fatal(err)
	}
	n.Patches = []repo.Patch{{Pages: []uint32{c / repo.PageSize}, Ref: ref}}
	node, err := w.PutNode(n)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	packs, err := p.Close()
	if err != nil {
		t.Fatal(err)
	}
	var all []repo.PackInfo
	m, err := r.OpenManifest(t.Context(), "lab", f.r.head.ID)
	if err != nil {
		t.Fatal(err)
	}
	all = append(packs, m.Packs()...)
	m.Close()
	parent := repo.Backup{ID: fmt.Sprint(f.r.head.ID, "-patched"), Cluster: "lab"}
	e.Node, e.Packs = &node, n.Packs()
	if err := r.WriteManifest(t.Context(), parent, all, []repo.Entry{e}); err != nil {
		t.Fatal(err)
	}

	f.reset(&parent) // the file holds what it did before the patch
	child := f.store(f.list())
	f.want("rel", b)
	if child.Stored < c || child.Stored > c+8192 {
		t.Errorf("%d bytes were stored instead of the patched chunk alone", child.Stored)
	}
	if *f.entry("rel").Node == node {
		t.Error("the page map with the patch was reused")
	}
}
