package backup

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pileus/internal/pg"
	"pileus/internal/pgtest"
	"pileus/internal/postgres"
	"pileus/internal/repo"
	"pileus/internal/store/storetest"
)

// lab is a server, and a repository whose store can be made to fail.
type lab struct {
	t      *testing.T
	server *pgtest.Server
	store  *storetest.Faulty
	repo   *repo.Repository
	notes  *notes
}

func newStore(t testing.TB) (*storetest.Faulty, *repo.Repository) {
	t.Helper()
	st := storetest.NewFaulty(storetest.NewMem(t))
	r, err := repo.Init(t.Context(), st, nil, repo.Options{PackSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return st, r
}

func newLab(t *testing.T, v pgtest.Version, opts ...pgtest.Option) *lab {
	t.Helper()
	l := &lab{t: t, server: pgtest.Start(t, v, opts...), notes: &notes{t: t}}
	l.store, l.repo = newStore(t)
	return l
}

func (l *lab) check(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// options are those of a superuser; the WAL is taken to be there.
func (l *lab) options(mode Mode) Options {
	return l.optionsAs(mode, "postgres")
}

func (l *lab) optionsAs(mode Mode, user string) Options {
	dsn := postgres.DSN(l.server.Dir, l.server.Port, user, "postgres")
	return Options{Repo: l.repo, Cluster: "lab", Mode: mode, Workers: 2, Tool: "test", Progress: l.notes,
		SQL: func(ctx context.Context) (*postgres.Conn, error) {
			return postgres.Connect(ctx, dsn, postgres.Options{})
		},
		Replication: func(ctx context.Context) (*postgres.ReplConn, error) {
			return postgres.ConnectReplication(ctx, dsn, postgres.Options{})
		},
		WaitForWAL: func(context.Context, pg.TimelineID, pg.LSN, pg.LSN) error { return nil },
	}
}

func (l *lab) run(o Options) repo.Backup {
	l.t.Helper()
	b, err := Run(l.t.Context(), o)
	l.check(err)
	return b
}

// count is how many objects of the repository have a key that starts so.
func (l *lab) count(prefix string) (n int) {
	l.t.Helper()
	for _, err := range l.store.List(context.Background(), prefix) {
		l.check(err)
		n++
	}
	return n
}

// notes keeps what a person would read.
type notes struct {
	t     testing.TB
	lines syncLines
	stage func(string)
}

func (n *notes) Stage(name string, _ int64) {
	if n.stage != nil {
		n.stage(name)
	}
}
func (n *notes) Add(int64) {}
func (n *notes) Note(format string, args ...any) {
	n.lines.add(format, args...)
}

// materialise writes the files of a backup below a new folder, checking all that it reads.
func materialise(t testing.TB, r *repo.Repository, b repo.Backup) string {
	t.Helper()
	dir := t.TempDir()
	m, err := r.OpenManifest(t.Context(), b.Cluster, b.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for e, err := range m.Entries() {
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.FromSlash(e.Path))
		if e.Type == repo.TypeDir {
			err = os.Mkdir(path, 0o700)
		} else {
			err = os.WriteFile(path, content(t, r, e), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range m.Packs() {
		if err := r.CheckPack(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// content puts a file together as Entry and Node say.
func content(t testing.TB, r *repo.Repository, e repo.Entry) []byte {
	t.Helper()
	out := make([]byte, e.Size)
	read := func(ref repo.Ref) []byte {
		b, err := r.ReadChunk(t.Context(), nil, ref)
		if err != nil {
			t.Fatalf("%s: %v", e.Path, err)
		}
		return b
	}
	switch {
	case e.Chunk != nil:
		if n := copy(out, read(*e.Chunk)); int64(n) != e.Size {
			t.Fatalf("%s has %d bytes and a chunk of %d", e.Path, e.Size, n)
		}
	case e.Node != nil:
		n, err := r.ReadNode(t.Context(), *e.Node)
		if err != nil {
			t.Fatalf("%s: %v", e.Path, err)
		}
		if n.Size != e.Size {
			t.Fatalf("%s has %d bytes, its page map %d", e.Path, e.Size, n.Size)
		}
		for i, c := range n.Chunks {
			if !c.Zero {
				copy(out[int64(i)*repo.ChunkSize:], read(c.Ref))
			}
		}
		for _, p := range n.Patches {
			b := read(p.Ref)
			for _, page := range p.Pages {
				b = b[copy(out[int64(page)*repo.PageSize:], b[:min(len(b), repo.PageSize)]):]
			}
		}
	}
	return out
}

// sameRelations compares every relation file of a stopped server with the backup. ignore names
// databases' folders or files that may differ.
func (l *lab) sameRelations(dir string) (compared int) {
	l.t.Helper()
	root := l.server.Instance.DataDir
	for _, top := range []string{"base", "global", "pg_tblspc"} {
		l.compare(filepath.Join(root, top), top, dir, &compared)
	}
	return compared
}

func (l *lab) compare(full, name, dir string, compared *int) {
	l.t.Helper()
	entries, err := os.ReadDir(full)
	l.check(err)
	for _, e := range entries {
		full, name := filepath.Join(full, e.Name()), name+"/"+e.Name()
		info, err := os.Stat(full)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		l.check(err)
		if info.IsDir() {
			if !strings.Contains(name, "pgsql_tmp") {
				l.compare(full, name, dir, compared)
			}
			continue
		}
		rel, ok := pg.ParseRelationPath(name)
		if !ok || rel.Temp {
			continue
		}
		if init, ok := pg.InitFork(name); ok {
			if _, err := os.Stat(filepath.Join(root(full, name), init)); err == nil {
				if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
					l.t.Errorf("%s is of an unlogged relation and in the backup", name)
				}
				continue
			}
		}
		want, err := os.ReadFile(full)
		l.check(err)
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			l.t.Errorf("%v", err)
		} else if !bytes.Equal(got, want) {
			l.t.Errorf("%s differs: %d bytes in the backup, %d on disk", name, len(got), len(want))
		}
		*compared++
	}
}

func root(full, name string) string { return strings.TrimSuffix(full, "/"+name) }
