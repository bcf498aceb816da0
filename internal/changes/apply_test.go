package changes

import (
	"encoding/binary"
	"errors"
	"testing"

	"pileus/internal/pg"
	"pileus/internal/wal"
)

// words is little-endian main data.
func words(n ...uint32) (b []byte) {
	for _, w := range n {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

func file(t *testing.T, path string) pg.RelationPath {
	t.Helper()
	p, ok := pg.ParseRelationPath(path)
	if !ok {
		t.Fatal(path)
	}
	return p
}

func TestRecordsOfFiles(t *testing.T) {
	const special = 0x01
	dropped := append(make([]byte, 8), words(1<<2, 1, 1663, 5, 100)...)
	for _, c := range []struct {
		name  string
		r     wal.Record
		whole []string // files that may have changed altogether
		part  []string // and those that have not
	}{
		{"create", wal.Record{Rmgr: wal.RmgrStorage, Info: 0x10 | special, MainData: words(1663, 5, 100, 0)}, []string{"base/5/100", "base/5/100.1"}, []string{"base/5/101"}},
		{"create an init fork", wal.Record{Rmgr: wal.RmgrStorage, Info: 0x10 | special, MainData: words(1663, 5, 100, 3)}, nil, []string{"base/5/100"}},
		{"truncate", wal.Record{Rmgr: wal.RmgrStorage, Info: 0x20 | special, MainData: words(140000, 1663, 5, 100, 7)}, []string{"base/5/100.2"}, []string{"base/5/100", "base/5/100.1"}},
		{"truncate but the main fork", wal.Record{Rmgr: wal.RmgrStorage, Info: 0x20 | special, MainData: words(0, 1663, 5, 100, 6)}, nil, []string{"base/5/100"}},
		{"copy a database", wal.Record{Rmgr: wal.RmgrDatabase, Info: 0x00 | special, MainData: words(6, 1663, 1, 1663)}, []string{"base/6/100"}, []string{"base/5/100", "base/1/100"}},
		{"create a database", wal.Record{Rmgr: wal.RmgrDatabase, Info: 0x10 | special, MainData: words(6, 1663)}, []string{"base/6/100"}, []string{"base/5/100"}},
		{"drop a database", wal.Record{Rmgr: wal.RmgrDatabase, Info: 0x20 | special, MainData: words(6, 2, 1663, 16400)}, []string{"base/6/100", "pg_tblspc/16400/PG_15_1/6/1"}, []string{"pg_tblspc/16400/PG_15_1/5/1"}},
		{"drop a database, up to 14", wal.Record{Major: 14, Rmgr: wal.RmgrDatabase, Info: 0x10 | special, MainData: words(6, 1, 1663)}, []string{"base/6/100"}, []string{"base/5/100"}},
		{"commit", wal.Record{Rmgr: wal.RmgrTransaction, Info: 0x80 | special, MainData: dropped}, []string{"base/5/100"}, []string{"base/5/101"}},
		{"abort", wal.Record{Rmgr: wal.RmgrTransaction, Info: 0xA0 | special, MainData: dropped}, []string{"base/5/100"}, []string{"base/5/101"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.r.Major == 0 {
				c.r.Major = 15
			}
			s := NewSet()
			if err := s.Apply(&c.r); err != nil {
				t.Fatal(err)
			}
			for _, path := range c.whole {
				if !s.Whole(file(t, path)) {
					t.Errorf("%s is not whole", path)
				}
			}
			for _, path := range c.part {
				if s.Whole(file(t, path)) {
					t.Errorf("%s is whole", path)
				}
			}
		})
	}
}

func TestBlocksOfTheMainForkOnly(t *testing.T) {
	s := NewSet()
	rel := pg.RelFile{Tablespace: 1663, Database: 5, Relation: 100}
	r := wal.Record{Major: 15, Rmgr: wal.RmgrHeap2, Blocks: []wal.BlockRef{
		{File: rel, Fork: pg.ForkVM, Block: 1}, {File: rel, Block: 2}, {File: rel, Fork: pg.ForkFSM, Block: 3}, {File: rel, Block: pg.PagesPerSegment + 4}}}
	if err := s.Apply(&r); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]uint32{"base/5/100": 2, "base/5/100.1": 4} {
		if got := s.Pages(file(t, path), 100, 100); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %v, want %d", path, got, want)
		}
	}
}

func TestWhatCannotBeToldIsAnError(t *testing.T) {
	for name, r := range map[string]wal.Record{
		"minimal WAL":                {Rmgr: wal.RmgrXLOG, Info: 0x60, MainData: words(100, 8, 10, 0, 64, 0, 0, 0)},
		"unknown file change":        {Rmgr: wal.RmgrID(130), Info: 0x11},
		"unknown storage record":     {Rmgr: wal.RmgrStorage, Info: 0x31},
		"unknown database record":    {Rmgr: wal.RmgrDatabase, Info: 0x51},
		"unknown transaction record": {Rmgr: wal.RmgrTransaction, Info: 0x51},
	} {
		r.Major, r.LSN = 15, 77
		var reason *Reason
		if err := NewSet().Apply(&r); !errors.As(err, &reason) || reason.LSN != 77 {
			t.Errorf("%s: %v", name, err)
		}
	}
	var damage *wal.DamageError
	if err := NewSet().Apply(&wal.Record{Major: 15, Rmgr: wal.RmgrStorage, Info: 0x11, MainData: words(1)}); !errors.As(err, &damage) {
		t.Errorf("a record that is too short: %v", err)
	}
	if err := NewSet().Apply(&wal.Record{Major: 15, Rmgr: wal.RmgrXLOG, Info: 0x60, MainData: words(100, 8, 10, 0, 64, 1, 0, 0)}); err != nil {
		t.Errorf("a change of settings that does not matter: %v", err)
	}
}
