package backup

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/progress"
	"pileus/internal/repo"
)

type syncLines struct {
	mu   sync.Mutex
	list []string
}

func (s *syncLines) add(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, fmt.Sprintf(format, args...))
}

func (s *syncLines) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.list, "\n")
}

// folder is a made-up data directory, and a run that reads it without a server.
type folder struct {
	t       testing.TB
	dir     string
	repo    *repo.Repository
	r       *run
	h       *horizon
	control pg.Control
}

func newFolder(t testing.TB, r *repo.Repository) *folder {
	t.Helper()
	f := &folder{t: t, dir: t.TempDir(), repo: r}
	f.h = &horizon{start: 1000, ask: func(context.Context) (pg.LSN, error) { return 2000, nil }}
	f.write("pg_wal/000000010000000000000001", []byte("never stored"))
	f.reset(nil)
	return f
}

// reset begins a new backup.
func (f *folder) reset(parent *repo.Backup) {
	f.t.Helper()
	var err error
	f.r = &run{Options: Options{Repo: f.repo, Cluster: "lab", DataDir: f.dir, Workers: 2, Progress: progress.Silent{}},
		info: postgres.Info{Major: 15, DataChecksums: true}}
	f.r.head = repo.Backup{ID: repo.NewBackupID(f.r.head.Started) + rand.Text()[:4], Cluster: "lab"}
	if f.r.parent, err = loadParent(f.t.Context(), f.repo, parent); err != nil {
		f.t.Fatal(err)
	}
}

func (f *folder) write(name string, b []byte) {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// list lists the folder.
func (f *folder) list() *tree {
	f.t.Helper()
	tree, err := f.r.list(f.control, outside{})
	if err != nil {
		f.t.Fatal(err)
	}
	return tree
}

// store copies what was listed and writes a manifest.
func (f *folder) store(tree *tree) repo.Backup {
	f.t.Helper()
	ctx, abort := context.WithCancelCause(f.t.Context())
	defer abort(nil)
	f.r.abort, f.r.packer = abort, f.repo.NewPacker(ctx)
	jobs := make(chan job)
	err := f.r.crew(
		func() error { defer close(jobs); return tree.feed(ctx, f.r, jobs) },
		func(w *worker) error {
			buf := make([]byte, repo.ChunkSize)
			for j := range jobs {
				err := w.read(ctx, f.h, j, buf)
				j.s.release()
				if err != nil {
					return err
				}
			}
			return nil
		}, func(*worker) error { return nil })
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

func (f *folder) entry(name string) repo.Entry {
	f.t.Helper()
	i := slices.IndexFunc(f.r.result.entries, func(e repo.Entry) bool { return e.Path == name })
	if i < 0 {
		f.t.Fatalf("%s is not in the backup", name)
	}
	return f.r.result.entries[i]
}

func (f *folder) want(name string, b []byte) {
	f.t.Helper()
	if got := content(f.t, f.repo, f.entry(name)); string(got) != string(b) {
		f.t.Errorf("%s: %d bytes came back other than the %d that were stored", name, len(got), len(b))
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}

// page makes a page with a right checksum for its block.
func page(block uint32, lsn pg.LSN, fill byte) []byte {
	p := make([]byte, pg.PageSize)
	binary.LittleEndian.PutUint32(p, uint32(lsn>>32))
	binary.LittleEndian.PutUint32(p[4:], uint32(lsn))
	binary.LittleEndian.PutUint16(p[12:], 24)
	binary.LittleEndian.PutUint16(p[14:], 4096)
	binary.LittleEndian.PutUint16(p[16:], pg.PageSize)
	binary.LittleEndian.PutUint16(p[18:], pg.PageSize|4)
	for i := 4096; i < len(p); i++ {
		p[i] = fill
	}
	binary.LittleEndian.PutUint16(p[8:], pg.Checksum(p, block))
	return p
}

func pages(n int, lsn pg.LSN) []byte {
	var b []byte
	for i := range n {
		b = append(b, page(uint32(i), lsn, byte(i))...)
	}
	return b
}

func TestFilesComeBackByteForByte(t *testing.T) {
	_, r := newStore(t)
	f := newFolder(t, r)
	const c = repo.ChunkSize
	sparse := make([]byte, 5*c+17)
	copy(sparse[3*c+9:], "an island")
	cases := map[string][]byte{
		"empty": {}, "small": []byte("x"), "exact1": noise(c), "exact3": noise(3 * c), "exact40": noise(40 * c), "over": noise(c + 1), "under": noise(c - 1),
		"zero1": make([]byte, c), "zero.small": make([]byte, 9), "zero4": make([]byte, 4*c+5), "sparse": sparse,
		"text": []byte(strings.Repeat("PostgreSQL ", 100_000)), "base/5/1259": pages(70, 500),
		"base/5/1260": append(pages(3, 500), noise(100)...), // being extended
	}
	for name, b := range cases {
		f.write(name, b)
	}
	b := f.store(f.list())
	for name, b := range cases {
		f.want(name, b)
	}
	for _, name := range []string{"empty", "zero1", "zero.small"} {
		if e := f.entry(name); e.Chunk != nil || e.Node != nil {
			t.Errorf("%s is stored although its size says it all", name)
		}
	}
	if b.DamagedPages != 0 {
		t.Errorf("%d pages are called damaged: %v", b.DamagedPages, b.Damage)
	}
	dir := materialise(t, r, b)
	if got, err := os.ReadFile(filepath.Join(dir, "base/5/1259")); err != nil || len(got) != 70*pg.PageSize {
		t.Errorf("materialised %d bytes, %v", len(got), err)
	}
}

func TestFilesThatChangeBetweenListAndRead(t *testing.T) {
	_, r := newStore(t)
	f := newFolder(t, r)
	const c = repo.ChunkSize
	big := noise(40 * c)
	for _, name := range []string{"cut.empty", "cut.boundary", "cut.middle", "grown", "gone"} {
		f.write(name, big)
	}
	tree := f.list()
	for name, n := range map[string]int{"cut.empty": 0, "cut.boundary": 33 * c, "cut.middle": 2*c + 8192} {
		if err := os.Truncate(filepath.Join(f.dir, name), int64(n)); err != nil {
			t.Fatal(err)
		}
	}
	f.write("grown", append(slices.Clone(big), 1, 2, 3))
	if err := os.Remove(filepath.Join(f.dir, "gone")); err != nil {
		t.Fatal(err)
	}
	f.store(tree)
	f.want("cut.empty", nil)
	f.want("cut.boundary", big[:33*c])
	f.want("cut.middle", big[:2*c+8192])
	f.want("grown", big)
	if slices.ContainsFunc(f.r.result.entries, func(e repo.Entry) bool { return e.Path == "gone" }) {
		t.Error("a file that was removed before it was read is in the backup")
	}
}

func TestWhatBelongsToABackup(t *testing.T) {
	_, r := newStore(t)
	f := newFolder(t, r)
	f.control.CatalogVersion = 202209061
	elsewhere := t.TempDir()
	for name, keep := range map[string]bool{
		"PG_VERSION": true, "base/5/100": true, "base/5/200": false, "base/5/200_fsm": false, "base/5/200.1": false, "base/5/200_init": true,
		"base/5/t3_100": false, "base/pgsql_tmp/pgsql_tmp1.0": false, "global/pg_control": false, "postmaster.pid": false,
		"pg_wal/000000010000000000000001": false, "pg_xact/0000": true, "backup_label.old": false, "pg_stat_tmp/x": false, "pg_replslot/a/state": false,
	} {
		f.write(name, []byte("12345678"))
		defer func() {
			if got := slices.ContainsFunc(f.r.result.entries, func(e repo.Entry) bool { return e.Path == name }); got != keep {
				t.Errorf("%s in the backup: %t", name, got)
			}
		}()
	}
	if err := os.MkdirAll(filepath.Join(elsewhere, "PG_15_202209061", "5"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"PG_15_202209061/5/300", "PG_14_202107181/5/300", "note"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(elsewhere, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(elsewhere, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lines := &notes{t: t}
	f.r.Progress = lines
	f.write("pg_tblspc/17000/PG_15_202209061/5/400", []byte("in place"))
	f.r.head.Tablespaces = []repo.Tablespace{{OID: 16999}, {OID: 17000}}
	f.write("pg_tblspc/17001/PG_15_202209061/5/500", []byte("came later"))
	for link, to := range map[string]string{"pg_tblspc/16999": elsewhere, "archive": elsewhere, "dangling": "/nowhere/at/all", "linked.conf": filepath.Join(elsewhere, "note")} {
		if err := os.Symlink(to, filepath.Join(f.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(filepath.Join(f.dir, "pg_xact"), filepath.Join(elsewhere, "pg_xact")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(elsewhere, "pg_xact"), filepath.Join(f.dir, "pg_xact")); err != nil {
		t.Fatal(err)
	}
	f.store(f.list())
	f.want("linked.conf", []byte("x"))
	f.want("pg_xact/0000", []byte("12345678"))
	f.want("pg_tblspc/16999/PG_15_202209061/5/300", []byte("x"))
	f.want("pg_tblspc/17000/PG_15_202209061/5/400", []byte("in place"))
	last := ""
	for _, e := range f.r.result.entries {
		if e.Path <= last {
			t.Errorf("%s comes after %s", e.Path, last)
		}
		last = e.Path
		for _, not := range []string{"pg_tblspc/16999/PG_14", "pg_tblspc/16999/note", "pg_tblspc/17001", "archive", "dangling"} {
			if strings.HasPrefix(e.Path, not) {
				t.Errorf("%s is in the backup", e.Path)
			}
		}
	}
	for _, said := range []string{"archive is a link to a folder", "dangling is a link that leads nowhere"} {
		if !strings.Contains(lines.lines.String(), said) {
			t.Errorf("nobody is told that %s; notes: %s", said, &lines.lines)
		}
	}
}

func TestATablespaceThatCannotBeReadFailsTheBackup(t *testing.T) {
	_, r := newStore(t)
	f := newFolder(t, r)
	f.write("pg_tblspc/x", nil)
	if err := os.Symlink("/nowhere/at/all", filepath.Join(f.dir, "pg_tblspc/16999")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.r.list(f.control, outside{}); err == nil || !strings.Contains(err.Error(), "pg_tblspc/16999") {
		t.Fatalf("a backup without the tablespace was made: %v", err)
	}
}

func TestConfigurationOutsideOfTheDataDirectory(t *testing.T) {
	_, r := newStore(t)
	f := newFolder(t, r)
	etc := t.TempDir()
	for name, text := range map[string]string{"postgresql.conf": "include_dir = 'conf.d'\n", "pg_hba.conf": "local all all peer\n", "conf.d/a.conf": "work_mem = '5MB'\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(etc, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.write("pg_ident.conf", []byte("# inside\n"))
	tree, err := f.r.list(f.control, outside{filepath.Join(etc, "postgresql.conf"), filepath.Join(etc, "pg_hba.conf"), filepath.Join(f.dir, "pg_ident.conf")})
	if err != nil {
		t.Fatal(err)
	}
	f.store(tree)
	f.want("pileus_conf/postgresql.conf", []byte("include_dir = 'conf.d'\n"))
	f.want("pileus_conf/pg_hba.conf", []byte("local all all peer\n"))
	f.want("pileus_conf/conf.d/a.conf", []byte("work_mem = '5MB'\n"))
	f.want("pg_ident.conf", []byte("# inside\n"))
	f.entry("pileus_conf/conf.d")
	if slices.ContainsFunc(f.r.result.entries, func(e repo.Entry) bool { return e.Path == "pileus_conf/pg_ident.conf" }) {
		t.Error("a file of the data directory is in the backup twice")
	}
}
