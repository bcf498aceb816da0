package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pileus/internal/pg"
	"pileus/internal/pgtest"
	"pileus/internal/postgres"
	"pileus/internal/repo"
	"pileus/internal/store"
)

// source is the name of the cluster that the tests restore from.
const source = "source"

// lab is a server, a repository, and a folder that restore_command copies WAL from.
// Its backups and archive are made in the simplest way there is, by other code
// than what the program uses.
type lab struct {
	t      *testing.T
	server *pgtest.Server
	repo   *repo.Repository
	store  *store.Local
	dir    string // the repository
	folder string // WAL as files
	home   string // where clusters are restored to
	sysID  uint64
}

func newRepo(t *testing.T) (*repo.Repository, *store.Local, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "repo")
	st, err := store.OpenLocal(dir, store.LocalOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	r, err := repo.Init(t.Context(), st, nil, repo.Options{PackSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return r, st, dir
}

func newLab(t *testing.T, v pgtest.Version, opts ...pgtest.Option) *lab {
	t.Helper()
	l := &lab{t: t, server: pgtest.Start(t, v, append(opts, pgtest.With("wal_level", "replica"), pgtest.With("max_prepared_transactions", "5"))...)}
	l.repo, l.store, l.dir = newRepo(t)
	l.folder, l.home = pgtest.TempDir(t), pgtest.TempDir(t)
	if err := os.Chmod(l.folder, 0o755); err != nil {
		t.Fatal(err)
	}
	c := l.connect()
	info, err := c.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.sysID = info.SystemIdentifier
	if err := l.repo.CreateCluster(t.Context(), repo.Cluster{Name: source, SystemIdentifier: l.sysID, SegmentSize: info.WALSegmentSize, Major: info.Major}); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lab) connect() *postgres.Conn {
	l.t.Helper()
	c, err := postgres.Connect(l.t.Context(), l.server.DSN(), postgres.Options{})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func (l *lab) check(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// backup takes a base backup; during runs while it is under way.
func (l *lab) backup(during func()) repo.Backup {
	l.t.Helper()
	ctx := l.t.Context()
	c := l.connect()
	info, err := c.Info(ctx)
	l.check(err)
	b := repo.Backup{ID: repo.NewBackupID(time.Now()), Cluster: source, SystemIdentifier: l.sysID, Version: info.VersionNum,
		SegmentSize: info.WALSegmentSize, Timeline: info.Timeline, Started: time.Now(), Method: repo.MethodFiles, DataDirectory: info.DataDirectory}
	for _, ts := range info.Tablespaces {
		b.Tablespaces = append(b.Tablespaces, repo.Tablespace{OID: ts.OID, Name: ts.Name, Location: ts.Location})
	}
	b.StartLSN, err = c.StartBackup(ctx, "test", true)
	l.check(err)
	packer := l.repo.NewPacker(ctx)
	w := packer.Writer()
	entries := l.copyTree(w, info.DataDirectory, "", nil)
	if during != nil {
		during()
	}
	entries = append(entries, l.copyFile(w, filepath.Join(info.DataDirectory, controlPath), controlPath))
	stop, err := c.StopBackup(ctx)
	l.check(err)
	w.Close()
	packs, err := packer.Close()
	l.check(err)
	b.StopLSN, b.Label, b.TablespaceMap = stop.LSN, string(stop.Label), string(stop.TablespaceMap)
	again, err := c.Info(ctx)
	l.check(err)
	b.Stopped = again.Clock
	l.check(l.repo.WriteManifest(ctx, b, packs, entries))
	return b
}

func (l *lab) copyTree(w *repo.PackWriter, root, name string, out []repo.Entry) []repo.Entry {
	l.t.Helper()
	list, err := os.ReadDir(filepath.Join(root, name))
	l.check(err)
	for _, d := range list {
		path := strings.TrimPrefix(name+"/"+d.Name(), "/")
		fi, err := os.Stat(filepath.Join(root, path))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		l.check(err)
		how := pg.Excluded(path, fi.IsDir())
		switch {
		case how == pg.Skipped || path == controlPath:
		case fi.IsDir():
			out = append(out, repo.Entry{Path: path, Type: repo.TypeDir, Mode: uint32(fi.Mode().Perm())})
			if how == pg.Included {
				out = l.copyTree(w, root, path, out)
			}
		case fi.Mode().IsRegular():
			out = append(out, l.copyFile(w, filepath.Join(root, path), path))
		}
	}
	return out
}

func (l *lab) copyFile(w *repo.PackWriter, from, name string) repo.Entry {
	l.t.Helper()
	content, err := os.ReadFile(from)
	l.check(err)
	return storeFile(l.t, w, name, content)
}

// storeFile stores one file whole, in a chunk or a page map.
func storeFile(t *testing.T, w *repo.PackWriter, name string, content []byte) repo.Entry {
	t.Helper()
	e := repo.Entry{Path: name, Type: repo.TypeFile, Mode: 0o600, Size: int64(len(content))}
	if len(content) == 0 {
		return e
	}
	n := &repo.Node{Size: e.Size}
	for at := 0; at < len(content); at += repo.ChunkSize {
		piece := content[at:min(at+repo.ChunkSize, len(content))]
		if len(bytes.Trim(piece, "\x00")) == 0 {
			n.Chunks = append(n.Chunks, repo.Chunk{Zero: true})
			continue
		}
		ref, err := w.Add(piece)
		if err != nil {
			t.Fatal(err)
		}
		n.Chunks = append(n.Chunks, repo.Chunk{Ref: ref})
	}
	if len(n.Chunks) == 1 {
		if !n.Chunks[0].Zero {
			e.Chunk = &n.Chunks[0].Ref
		}
		return e
	}
	ref, err := w.PutNode(n)
	if err != nil {
		t.Fatal(err)
	}
	e.Node, e.Packs = &ref, n.Packs()
	return e
}

// archive stores all WAL that is flushed: whole segments, and the beginning of the last one as a part.
func (l *lab) archive() {
	l.t.Helper()
	flush := l.server.LSN()
	dir := filepath.Join(l.server.Instance.DataDir, "pg_wal")
	list, err := os.ReadDir(dir)
	l.check(err)
	cluster, err := l.repo.Cluster(l.t.Context(), source)
	l.check(err)
	for _, d := range list {
		if tli, ok := pg.ParseHistoryName(d.Name()); ok {
			content, err := os.ReadFile(filepath.Join(dir, d.Name()))
			l.check(err)
			l.check(l.repo.PutHistory(l.t.Context(), source, tli, content))
			l.check(os.WriteFile(filepath.Join(l.folder, d.Name()), content, 0o644))
			continue
		}
		if !pg.IsSegmentName(d.Name()) {
			continue
		}
		s, err := pg.ParseSegmentName(d.Name(), cluster.SegmentSize)
		l.check(err)
		if s.Start() >= flush {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, d.Name()))
		l.check(err)
		if s.End() <= flush {
			l.check(l.repo.PutSegment(l.t.Context(), source, s, bytes.NewReader(content)))
		} else {
			n := int64(flush - s.Start())
			clear(content[n:])
			l.check(l.repo.PutPart(l.t.Context(), source, repo.Part{Segment: s, To: n}, content[:n]))
		}
		l.check(os.WriteFile(filepath.Join(l.folder, d.Name()), content, 0o644))
	}
}

// request restores to the target in a directory of its own, and starts the cluster.
func (l *lab) request(name string, target Target) Request {
	return Request{Repo: l.repo, Source: source, NewCluster: name, DataDir: filepath.Join(l.home, name), Target: target,
		Owner: pgtest.Owner(l.t).Name, BinDirs: []string{l.server.Version.Binaries.Dir}, Start: true, Port: pgtest.FreePort(l.t), SocketDir: l.home,
		RestoreCommand: fmt.Sprintf("cp %s/%%f %%p", l.folder)}
}

// restore plans and runs; the new server is stopped after the test.
func (l *lab) restore(r Request) (Result, error) {
	l.t.Helper()
	p, err := NewPlan(l.t.Context(), r)
	if err != nil {
		return Result{}, err
	}
	res, err := Run(l.t.Context(), p, Options{})
	if res.Started {
		l.t.Cleanup(func() {
			in := postgres.Instance{DataDir: r.DataDir}
			if err := in.Stop(context.Background(), postgres.StopImmediate); err != nil {
				l.t.Error(err)
			}
		})
	}
	return res, err
}

// ask runs one query in a restored cluster.
func (l *lab) ask(res Result, query string) string {
	l.t.Helper()
	c, err := pgx.Connect(l.t.Context(), postgres.DSN(res.Socket, res.Port, "postgres", "postgres"))
	l.check(err)
	defer c.Close(context.Background())
	out, err := c.PgConn().Exec(l.t.Context(), query).ReadAll()
	l.check(err)
	last := out[len(out)-1]
	if len(last.Rows) == 0 {
		return ""
	}
	return string(last.Rows[0][0])
}

// step is what is known of one committed row of the ledger.
type step struct {
	xid    uint64
	before pg.LSN    // of the end of WAL before its transaction
	after  pg.LSN    // just behind its commit
	time   time.Time // after its commit and before the next
}

// steps commits rows first to last, each in a transaction of its own.
func (l *lab) steps(first, last int) map[int]step {
	l.t.Helper()
	ctx := l.t.Context()
	c := l.connect()
	out := map[int]step{}
	for n := first; n <= last; n++ {
		var s step
		var xid int64
		var before, after string
		l.check(c.SQL().QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&before))
		l.check(c.SQL().QueryRow(ctx, fmt.Sprintf("INSERT INTO public.ledger VALUES (%d) RETURNING (pg_current_xact_id()::text)::bigint", n)).Scan(&xid))
		l.check(c.SQL().QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text, clock_timestamp()").Scan(&after, &s.time))
		var err error
		s.xid = uint64(xid)
		s.before, err = pg.ParseLSN(before)
		l.check(err)
		s.after, err = pg.ParseLSN(after)
		l.check(err)
		out[n] = s
	}
	return out
}
