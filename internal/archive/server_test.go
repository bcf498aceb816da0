package archive

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pileus/internal/pg"
	"pileus/internal/pgtest"
	"pileus/internal/repo"
)

// What a real server wrote comes back as it was, and is found to be complete.
func TestPushAndFetchOfAServersWAL(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		l := newLab(t, v, pgtest.WALSegmentSize(1<<20), pgtest.With("wal_keep_size", "1GB"))
		from := l.server.LSN()
		l.server.Exec("CREATE TABLE clock (t timestamptz)")
		load(l.server, "6000")
		l.server.Exec("INSERT INTO clock SELECT clock_timestamp()")
		to := l.server.LSN()
		l.server.SwitchWAL()
		walDir := filepath.Join(l.server.Instance.DataDir, "pg_wal")
		first := pg.SegmentAt(1, from, 1<<20)
		id, size, err := IdentifySegment(filepath.Join(walDir, first.Name()))
		l.check(err)
		c := repo.Cluster{Name: theCluster, SystemIdentifier: id, SegmentSize: size, Major: v.Major}
		l.check(l.repo.CreateCluster(t.Context(), c))
		end := pg.LSN(0)
		for seg := first; seg.Start() < to; seg = seg.Next() {
			path := filepath.Join(walDir, seg.Name())
			l.check(Push(t.Context(), l.repo, c, path, PushOptions{StateDir: l.state}))
			want, err := os.ReadFile(path)
			l.check(err)
			if got, err := l.fetch(c, seg.Name()); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s came back different (%v)", seg, err)
			}
			end = seg.End()
		}
		unfinished := pg.SegmentAt(1, end, size)
		var file *FileError
		if err := Push(t.Context(), l.repo, c, filepath.Join(walDir, unfinished.Name()), PushOptions{StateDir: l.state}); !errors.As(err, &file) {
			t.Errorf("the segment that is being written: %v", err)
		}
		if _, err := l.fetch(c, unfinished.Name()); !errors.Is(err, ErrNoSuchFile) {
			t.Errorf("behind the end: %v", err)
		}
		b := repo.Backup{ID: "b", Cluster: c.Name, Timeline: 1, StartLSN: first.Start(), StopLSN: from, SegmentSize: size, Stopped: time.Now().UTC().Add(-time.Hour)}
		l.check(l.repo.WriteManifest(t.Context(), b, nil, nil))
		w, err := RestorableWindow(t.Context(), l.repo, c)
		l.check(err)
		text := l.server.Query("SELECT to_char(max(t) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.USZ') FROM clock")
		inserted, err := time.Parse(time.RFC3339Nano, text)
		l.check(err)
		if w.LatestCommit.Before(inserted) || w.Latest.After(time.Now()) || w.LatestLSN < to || len(w.Problems)+len(w.Gaps) > 0 {
			t.Errorf("%+v, want a commit after %s and WAL to %s", w, inserted, to)
		}
	})
}
