package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pileus/internal/pg"
	"pileus/internal/pgtest"
	"pileus/internal/postgres"
	"pileus/internal/repo"
	"pileus/internal/store"
	"pileus/internal/store/storetest"
)

// theCluster is the identifier of the cluster in the tests.
const theCluster = "lab"

// lab is a repository whose store can be made to fail, and a server.
type lab struct {
	t      *testing.T
	server *pgtest.Server
	dir    string // of the repository
	store  *storetest.Faulty
	repo   *repo.Repository
	state  string
}

func newLab(t *testing.T, v pgtest.Version, opts ...pgtest.Option) *lab {
	t.Helper()
	l := newRepository(t)
	l.server = pgtest.Start(t, v, opts...)
	return l
}

func newRepository(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, dir: filepath.Join(t.TempDir(), "repository"), state: t.TempDir()}
	local, err := store.OpenLocal(l.dir, store.LocalOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { local.Close() })
	l.store = storetest.NewFaulty(local)
	if l.repo, err = repo.Init(t.Context(), l.store, nil, repo.Options{}); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lab) check(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// options receive from a server in a hurry.
func (l *lab) options(s *pgtest.Server) ReceiverOptions {
	return ReceiverOptions{
		Repo: l.repo, Cluster: theCluster, Slot: "pileus", CreateSlot: true, StateDir: l.state,
		SQL: func(ctx context.Context) (*postgres.Conn, error) {
			return postgres.Connect(ctx, s.DSN(), postgres.Options{})
		},
		Replication: func(ctx context.Context) (*postgres.ReplConn, error) {
			return postgres.ConnectReplication(ctx, s.DSN(), postgres.Options{})
		},
		FlushInterval: 50 * time.Millisecond, WatermarkInterval: 200 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(testLog{l.t}, nil)),
	}
}

type testLog struct{ t *testing.T }

func (w testLog) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// receiving is a Receive that runs beside the test.
type receiving struct {
	l    *lab
	stop context.CancelFunc
	done chan struct{}
	err  error // once done is closed
}

func (l *lab) receive(o ReceiverOptions) *receiving {
	l.t.Helper()
	ctx, cancel := context.WithCancel(l.t.Context())
	r := &receiving{l: l, stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = Receive(ctx, o)
	}()
	l.t.Cleanup(func() { cancel(); <-r.done })
	return r
}

// end stops it, and expects its good end.
func (r *receiving) end() {
	r.l.t.Helper()
	r.stop()
	<-r.done
	if r.err != nil {
		r.l.t.Fatalf("the receiver ended with %v", r.err)
	}
}

func (l *lab) cluster() repo.Cluster {
	l.t.Helper()
	c, err := l.repo.Cluster(l.t.Context(), theCluster)
	l.check(err)
	return c
}

func (l *lab) status() Status {
	l.t.Helper()
	s, err := ReadStatus(l.state, theCluster)
	l.check(err)
	if s == nil {
		return Status{}
	}
	return *s
}

// until waits for a state of the receiver.
func (l *lab) until(what string, ok func(Status) bool) {
	l.t.Helper()
	pgtest.WaitFor(l.t, what, func() bool { return ok(l.status()) })
}

// durableTo waits until the repository holds the timeline's WAL to lsn.
func (l *lab) durableTo(tli pg.TimelineID, lsn pg.LSN) {
	l.t.Helper()
	pgtest.WaitFor(l.t, "WAL to "+lsn.String()+" in the repository", func() bool {
		c, err := l.repo.Cluster(l.t.Context(), theCluster)
		if err != nil {
			return false
		}
		end, err := DurableEnd(l.t.Context(), l.repo, c, tli)
		return err == nil && end >= lsn
	})
}

// stored reads what the repository holds of a segment; nil if nothing.
func (l *lab) stored(seg pg.Segment) []byte {
	l.t.Helper()
	rc, err := openStored(l.t.Context(), l.repo, l.cluster(), seg)
	if errors.Is(err, errUnstored) {
		return nil
	}
	l.check(err)
	defer rc.Close()
	b, err := io.ReadAll(rc)
	l.check(err)
	return b
}

// same compares the archive with pg_wal, byte for byte, from a position to another.
func (l *lab) same(s *pgtest.Server, tli pg.TimelineID, from, to pg.LSN) {
	l.t.Helper()
	size := l.cluster().SegmentSize
	for seg := pg.SegmentAt(tli, from, size); seg.Start() < to; seg = seg.Next() {
		want, err := os.ReadFile(filepath.Join(s.Instance.DataDir, "pg_wal", seg.Name()))
		l.check(err)
		got := l.stored(seg)
		n := min(int64(to-seg.Start()), seg.Size)
		if int64(len(got)) < n {
			l.t.Fatalf("%s: %d bytes are in the repository, %d must be", seg, len(got), n)
		}
		if !bytes.Equal(got[:n], want[:n]) {
			l.t.Fatalf("%s differs from the server's", seg)
		}
	}
}

// continuous expects one unbroken stretch of WAL on the timeline and returns it.
func (l *lab) continuous(tli pg.TimelineID) Range {
	l.t.Helper()
	all, err := Coverage(l.t.Context(), l.repo, l.cluster())
	l.check(err)
	var mine []Range
	for _, r := range all {
		if r.Timeline == tli {
			mine = append(mine, r)
		}
	}
	if len(mine) != 1 {
		l.t.Fatalf("the WAL of timeline %d is %v, want one stretch", tli, mine)
	}
	return mine[0]
}

// load writes some megabytes of WAL and returns where it ends.
func load(s *pgtest.Server, rows string) pg.LSN {
	s.Exec("CREATE TABLE IF NOT EXISTS load (n bigserial, t text); INSERT INTO load (t) SELECT repeat(md5(i::text), 20) FROM generate_series(1, " + rows + ") i")
	return s.LSN()
}
