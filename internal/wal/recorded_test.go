package wal_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"testing"

	"pileus/internal/pg"
	"pileus/internal/wal"
)

// recordSegment keeps the segment that ends by the workload's switch.
func recordSegment(t *testing.T, s *server, control pg.Control, major int) {
	t.Helper()
	for _, seg := range s.segments(t, 1, control.WALSegmentSize) {
		b := s.read(t, seg)
		info, err := wal.CheckSegment(bytes.NewReader(b), seg, 0)
		if err != nil || !info.Switched || info.Commits == 0 {
			continue
		}
		var z bytes.Buffer
		w, _ := gzip.NewWriterLevel(&z, gzip.BestCompression)
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(recordedFile(major), z.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Error("no segment ends by a switch")
}

func recordedFile(major int) string { return fmt.Sprintf("testdata/wal-%d.gz", major) }

// recorded is a segment of 1 MiB that a server of each version wrote.
func recorded(t testing.TB, major int) (pg.Segment, []byte) {
	t.Helper()
	f, err := os.Open(recordedFile(major))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return pg.SegmentAt(1, addressOf(b), pg.MinSegmentSize), b
}

func addressOf(page []byte) pg.LSN {
	var l pg.LSN
	for i := range 8 {
		l |= pg.LSN(page[8+i]) << (8 * i)
	}
	return l
}

// decode feeds b in pieces, shows each record to see, and returns the error that
// ended it.
func decode(t testing.TB, cfg wal.Config, lsn pg.LSN, b []byte, piece int, see func(*wal.Record)) error {
	t.Helper()
	d, err := wal.NewDecoder(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for len(b) > 0 {
		n := min(piece, len(b))
		if err := d.Feed(lsn, b[:n:n]); err != nil {
			t.Fatal(err)
		}
		for {
			r, ok, err := d.Next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			see(r)
		}
		lsn, b = lsn+pg.LSN(n), b[n:]
	}
	if d.Position() != lsn {
		t.Errorf("position is %s after feeding up to %s", d.Position(), lsn)
	}
	return nil
}

func TestRecordedWAL(t *testing.T) {
	for _, major := range majors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			seg, b := recorded(t, major)
			info, err := wal.CheckSegment(bytes.NewReader(b), seg, 0)
			if err != nil {
				t.Fatal(err)
			}
			if info.Major != major || !info.Switched || info.Commits < 5 || info.Records < 100 || info.End != seg.End() || info.SystemID == 0 {
				t.Errorf("%+v", info)
			}
			var whole []string
			var starts []pg.LSN
			points, commits, gids := 0, 0, 0
			err = decode(t, wal.Config{SegmentSize: seg.Size}, seg.Start(), b, len(b), func(r *wal.Record) {
				whole, starts = append(whole, line(r)), append(starts, r.LSN)
				if _, ok, err := wal.ParseRestorePoint(r); ok && err == nil {
					points++
				}
				if c, ok, err := wal.ParseCommit(r); err != nil {
					t.Error(err)
				} else if ok && c.Kind.Committed() {
					commits++
				} else if ok && c.GID != "" {
					gids++
				}
			})
			if err != nil || points != 1 || commits != info.Commits || len(whole) != info.Records {
				t.Errorf("%d restore points, %d commits, %d records, %v", points, commits, len(whole), err)
			}
			if starts[0] != info.FirstRecord || starts[len(starts)-1] != info.LastRecord {
				t.Errorf("%+v, but records from %s to %s", info, starts[0], starts[len(starts)-1])
			}
			for _, piece := range []int{1, 7, 24, 4096, 8192, 8200, 100_000} {
				i := 0
				err := decode(t, wal.Config{SegmentSize: seg.Size, Timeline: 1}, seg.Start(), b, piece, func(r *wal.Record) {
					if i >= len(whole) || line(r) != whole[i] {
						t.Fatalf("in pieces of %d: record %d is %s", piece, i, line(r))
					}
					i++
				})
				if err != nil || i != len(whole) {
					t.Errorf("in pieces of %d: %d of %d records, %v", piece, i, len(whole), err)
				}
			}
			// From any record on, and from any page on, the same records follow.
			for i := 0; i < len(starts); i += 37 {
				at, k := int(starts[i]-seg.Start()), i
				if page := at &^ 8191; i%2 == 0 {
					for at = page; k > 0 && starts[k-1] >= seg.Start()+pg.LSN(page); k-- {
					}
				}
				cfg := wal.Config{SegmentSize: seg.Size, Major: major}
				err := decode(t, cfg, seg.Start()+pg.LSN(at), b[at:], 10_000, func(r *wal.Record) {
					if line(r) != whole[k] {
						t.Fatalf("from %d on: record %d is %s, expected %s", at, k, line(r), whole[k])
					}
					k++
				})
				if err != nil || k != len(whole) {
					t.Errorf("from %d on: %d of %d records, %v", at, k, len(whole), err)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, major := range majors {
		b.Run(fmt.Sprint(major), func(b *testing.B) {
			seg, data := recorded(b, major)
			info, err := wal.CheckSegment(bytes.NewReader(data), seg, 0)
			if err != nil {
				b.Fatal(err)
			}
			data = data[:info.LastRecord-seg.Start()] // without the unused rest
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if err := decode(b, wal.Config{SegmentSize: seg.Size}, seg.Start(), data, 256<<10, func(*wal.Record) {}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(data))/float64(info.Records), "bytes/record")
		})
	}
}
