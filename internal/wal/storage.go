package wal

import "pileus/internal/pg"

// Kinds of records of RmgrStorage (storage_xlog.h).
const (
	storageCreate   = 0x10
	storageTruncate = 0x20
)

// What a truncation cuts: the bits of its flags.
const (
	truncateMain = 1 << 0
	truncateVM   = 1 << 1
	truncateFSM  = 1 << 2
)

// StorageCreate says that the first file of a fork was created, empty. A file of
// that name that an earlier relation left behind is no concern of this one.
type StorageCreate struct {
	File pg.RelFile
	Fork pg.Fork
}

// ParseStorageCreate reads the creation of a fork; ok is false for every other
// record. Unlogged relations are logged with their initialisation fork only.
func ParseStorageCreate(r *Record) (c StorageCreate, ok bool, err error) {
	if r.Rmgr != RmgrStorage || r.Op() != storageCreate {
		return c, false, nil
	}
	f := fields{b: r.MainData}
	c.File = f.relation()
	fork := f.u32()
	if err := finish(r, &f, "file creation"); err != nil {
		return c, true, err
	}
	if fork > uint32(pg.ForkInit) {
		return c, true, damage(r.LSN, "file creation names fork %d, which there is not", fork)
	}
	c.Fork = pg.Fork(fork)
	return c, true, nil
}

// StorageTruncate says that forks of a relation were cut. Blocks counts for the
// main fork; the other two keep what describes that many blocks.
type StorageTruncate struct {
	File          pg.RelFile
	Blocks        uint32 // that the main fork keeps
	Main, VM, FSM bool   // the forks that were cut
}

// ParseStorageTruncate reads a truncation; ok is false for every other record.
// The statement TRUNCATE writes one only where it may empty a file in place; otherwise
// it makes a new file and drops the old one as its transaction commits.
func ParseStorageTruncate(r *Record) (t StorageTruncate, ok bool, err error) {
	if r.Rmgr != RmgrStorage || r.Op() != storageTruncate {
		return t, false, nil
	}
	f := fields{b: r.MainData}
	t.Blocks, t.File = f.u32(), f.relation()
	flags := f.u32()
	t.Main, t.VM, t.FSM = flags&truncateMain != 0, flags&truncateVM != 0, flags&truncateFSM != 0
	return t, true, finish(r, &f, "truncation")
}
