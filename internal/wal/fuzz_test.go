package wal_test

import (
	"errors"
	"testing"

	"pileus/internal/pg"
	"pileus/internal/wal"
)

// FuzzDecoder changes real WAL: the decoder may refuse it, but it has to stop,
// to keep its memory in bounds, and to cut into pieces must make no difference.
func FuzzDecoder(f *testing.F) {
	for _, major := range majors {
		_, b := recorded(f, major)
		f.Add(b[:4*8192], uint16(8192), uint32(0), byte(0))
		f.Add(b[:2*8192+100], uint16(1), uint32(9000), byte(0x80))
		f.Add(b[8192:3*8192], uint16(77), uint32(40), byte(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, piece uint16, at uint32, change byte) {
		if len(b) < 24 {
			return
		}
		b = append([]byte(nil), b...)
		b[int(at)%len(b)] ^= change
		start := addressOf(b) &^ 8191
		run := func(piece int) (records []string, result string) {
			prev := pg.LSN(0)
			err := decode(t, wal.Config{SegmentSize: pg.MinSegmentSize}, start, b, max(1, piece), func(r *wal.Record) {
				if r.LSN < start || r.End <= r.LSN || prev != 0 && r.Prev != prev {
					t.Errorf("record at %s, end %s, prev %s after %s", r.LSN, r.End, r.Prev, prev)
				}
				prev = r.LSN
				records = append(records, line(r))
				parseAll(r)
			})
			var end *wal.EndOfWALError
			var damage *wal.DamageError
			if err != nil && !errors.As(err, &end) && !errors.As(err, &damage) {
				t.Errorf("untyped error %v", err)
			}
			if err != nil {
				result = err.Error()
			}
			return records, result
		}
		whole, err1 := run(len(b))
		pieces, err2 := run(int(piece))
		if len(whole) != len(pieces) || err1 != err2 {
			t.Errorf("%d records and %q at once, %d and %q in pieces of %d", len(whole), err1, len(pieces), err2, piece)
		}
	})
}

func parseAll(r *wal.Record) {
	_, _, _ = wal.ParseCommit(r)
	_, _, _ = wal.ParseRestorePoint(r)
	_, _, _ = wal.ParseCheckpoint(r)
	_, _, _ = wal.ParseEndOfRecovery(r)
	_, _, _ = wal.ParseBackupEnd(r)
	_, _, _ = wal.ParseParameterChange(r)
	_, _, _ = wal.ParseStorageCreate(r)
	_, _, _ = wal.ParseStorageTruncate(r)
	_, _, _ = wal.ParseDatabaseCreate(r)
	_, _, _ = wal.ParseDatabaseDrop(r)
	_, _, _ = wal.ParseTablespaceCreate(r)
	_, _, _ = wal.ParseTablespaceDrop(r)
	_, _, _ = wal.ParseRelationMap(r)
}
