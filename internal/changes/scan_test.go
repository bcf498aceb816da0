package changes

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pileus/internal/archive"
	"pileus/internal/pg"
	"pileus/internal/pgtest"
	"pileus/internal/wal"
)

const segmentSize = 1 << 20

// folder reads WAL out of a server's directory, in pieces that are cut anywhere. lost is a segment that
// is taken for missing.
type folder struct {
	dir  string
	lost uint64
}

var errLost = errors.New("segment is lost")

func (f folder) pieces(_ context.Context, from, to pg.LSN) iter.Seq2[archive.Piece, error] {
	return func(yield func(archive.Piece, error) bool) {
		size := 1
		for at := from; at < to; {
			seg := pg.SegmentAt(1, at, segmentSize)
			if seg.Number == f.lost {
				yield(archive.Piece{}, errLost)
				return
			}
			b, err := os.ReadFile(filepath.Join(f.dir, seg.Name()))
			if err != nil {
				yield(archive.Piece{}, err)
				return
			}
			for b = b[at-seg.Start() : min(to, seg.End())-seg.Start()]; len(b) > 0; size = size*5%300007 + 1 {
				n := min(size, len(b))
				if !yield(archive.Piece{LSN: at, Data: b[:n]}, nil) {
					return
				}
				at, b = at+pg.LSN(n), b[n:]
			}
		}
	}
}

func scanner(v pgtest.Version, f folder, workers int) *Scanner {
	return &Scanner{Pieces: f.pieces, Workers: workers, Decoder: wal.Config{SegmentSize: segmentSize, Major: v.Major}}
}

func TestWorkersFindTheSame(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		s := pgtest.Start(t, v, pgtest.WALSegmentSize(segmentSize), pgtest.With("wal_keep_size", "1GB"), pgtest.With("wal_level", "logical"))
		redo := func() pg.LSN {
			s.Checkpoint()
			lsn, err := pg.ParseLSN(s.Query("SELECT redo_lsn FROM pg_control_checkpoint()"))
			if err != nil {
				t.Fatal(err)
			}
			return lsn
		}
		from := redo()
		s.Exec("CREATE TABLE public.a AS SELECT i, repeat('x', 200) AS t FROM generate_series(1, 30000) i; CREATE INDEX ON public.a (i)")
		s.Exec("SELECT pg_logical_emit_message(true, 'test', repeat('pileus', 2000000))") // longer than lanes
		s.SwitchWAL()
		s.Exec("DELETE FROM public.a WHERE i % 10 = 0")
		to := redo()
		f := folder{dir: filepath.Join(s.Instance.DataDir, "pg_wal")}

		one, err := scanner(v, f, 1).Scan(t.Context(), from, to)
		if err != nil {
			t.Fatal(err)
		}
		many, err := scanner(v, f, 5).Scan(t.Context(), from, to)
		if err != nil {
			t.Fatal(err)
		}
		if one.Records != many.Records || one.Records < 30000 || one.Bytes != int64(to-from) || len(one.relations) < 3 {
			t.Errorf("%d records by one worker, %d by five", one.Records, many.Records)
		}
		for rel, r := range one.relations {
			if m := many.relations[rel]; m == nil || m.limit != r.limit {
				t.Errorf("%s: limit %v", rel, m)
			} else if d := cmp.Diff(r.pages.between(nil, 0, 1<<31), m.pages.between(nil, 0, 1<<31)); d != "" {
				t.Errorf("%s: %s", rel, d)
			}
		}

		f.lost = pg.SegmentAt(1, from, segmentSize).Number + 6
		if _, err := scanner(v, f, 2).Scan(t.Context(), from, to); !errors.Is(err, errLost) {
			t.Errorf("with a segment lost: %v", err)
		}
		f.lost = 0
		var end *wal.EndOfWALError
		if _, err := scanner(v, f, 2).Scan(t.Context(), from, to-8); !errors.As(err, &end) {
			t.Errorf("to where no record ends: %v", err)
		}
		if _, err := scanner(v, f, 2).Scan(t.Context(), to, from); err == nil {
			t.Error("backwards")
		}
		if r, err := scanner(v, f, 2).Scan(t.Context(), to, to); err != nil || r.Records != 0 {
			t.Errorf("of nothing: %+v, %v", r, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := scanner(v, f, 2).Scan(ctx, from, to); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %v", err)
		}
	})
}
