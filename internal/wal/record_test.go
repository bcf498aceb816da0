package wal

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"pileus/internal/pg"
)

// sealed is a whole record around body, with a right length and CRC.
func sealed(rmgr RmgrID, info uint8, prev pg.LSN, body []byte) []byte {
	b := make([]byte, recordHeader, recordHeader+len(body))
	b = append(b, body...)
	le := binary.LittleEndian
	le.PutUint32(b, uint32(len(b)))
	le.PutUint32(b[4:], 4711)
	le.PutUint64(b[8:], uint64(prev))
	b[16], b[17] = info, byte(rmgr)
	le.PutUint32(b[20:], crc32.Update(crc32.Checksum(b[recordHeader:], castagnoli), castagnoli, b[:20]))
	return b
}

// mainData is the body of a record that has nothing else.
func mainData(b []byte) []byte {
	if len(b) < 256 {
		return append([]byte{idMainShort, byte(len(b))}, b...)
	}
	return append(binary.LittleEndian.AppendUint32([]byte{idMainLong}, uint32(len(b))), b...)
}

// FuzzRecord takes apart records with a right CRC and any body, which no server
// writes but a broken disk or a foe could.
func FuzzRecord(f *testing.F) {
	f.Add(uint8(15), uint8(RmgrTransaction), uint8(xactHasInfo), mainData(make([]byte, 300)))
	f.Add(uint8(18), uint8(RmgrTransaction), uint8(xactCommitPrepared|xactHasInfo), mainData([]byte("\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\x01\x00\x00\x00")))
	f.Add(uint8(13), uint8(RmgrTransaction), uint8(xactPrepare), mainData(make([]byte, 100)))
	f.Add(uint8(14), uint8(RmgrHeap), uint8(0), []byte("\x00\x10\x00\x00\x04\x00\x08\x00\x07\x00\x01\x7f\x06\x00\x00\x05\x00\x00\x00\x10\x40\x00\x00\x01\x00\x00\x00abcd"))
	f.Add(uint8(17), uint8(RmgrXLOG), uint8(xlogRestorePoint), mainData(make([]byte, 72)))
	f.Add(uint8(5), uint8(RmgrStorage), uint8(storageCreate|infoSpecialRelUpdate), mainData(make([]byte, 16)))
	f.Add(uint8(0), uint8(RmgrStorage), uint8(storageTruncate|infoSpecialRelUpdate), mainData(make([]byte, 20)))
	f.Add(uint8(0), uint8(RmgrDatabase), uint8(databaseDrop14), mainData([]byte("\x05\x00\x00\x00\x01\x00\x00\x00\x7f\x06\x00\x00")))
	f.Add(uint8(3), uint8(RmgrDatabase), uint8(databaseDrop), mainData([]byte("\x05\x00\x00\x00\xff\xff\xff\x7f\x7f\x06\x00\x00")))
	f.Add(uint8(3), uint8(RmgrTablespace), uint8(tablespaceCreate), mainData([]byte("\x05\x40\x00\x00/srv/fast\x00")))
	f.Add(uint8(3), uint8(RmgrRelMap), uint8(0), mainData([]byte("\x05\x00\x00\x00\x7f\x06\x00\x00\x10\x00\x00\x00\x17\x27\x59\x00\x01\x00\x00\x00\xeb\x04\x00\x00\x01\x40\x00\x00")))
	f.Fuzz(func(t *testing.T, major, rmgr, info uint8, body []byte) {
		r := Record{LSN: 0x1000028, Major: 13 + int(major%6)}
		if r.parse(sealed(RmgrID(rmgr), info, 0x1000000, body), &RmgrSet{}) != nil {
			return
		}
		size := 0
		for _, b := range r.Blocks {
			size += len(b.Image) + len(b.Data)
		}
		if size+len(r.MainData) > len(body) {
			t.Errorf("%d bytes of data in a body of %d", size+len(r.MainData), len(body))
		}
		if c, _, err := ParseCommit(&r); err == nil && 4*len(c.SubXids)+12*len(c.Dropped)+len(c.GID) > len(r.MainData) {
			t.Errorf("%+v out of %d bytes", c, len(r.MainData))
		}
		_, _, _ = ParseRestorePoint(&r)
		_, _, _ = ParseCheckpoint(&r)
		_, _, _ = ParseEndOfRecovery(&r)
		_, _, _ = ParseBackupEnd(&r)
		_, _, _ = ParseOverwrite(&r)
		_, _, _ = ParseParameterChange(&r)
		_, _, _ = ParseStorageCreate(&r)
		_, _, _ = ParseStorageTruncate(&r)
		_, _, _ = ParseDatabaseCreate(&r)
		_, _, _ = ParseTablespaceCreate(&r)
		_, _, _ = ParseTablespaceDrop(&r)
		if d, _, err := ParseDatabaseDrop(&r); err == nil && 4*len(d.Tablespaces) > len(r.MainData) {
			t.Errorf("%+v out of %d bytes", d, len(r.MainData))
		}
		if m, _, err := ParseRelationMap(&r); err == nil && 8*len(m.Files) > len(r.MainData) {
			t.Errorf("%+v out of %d bytes", m, len(r.MainData))
		}
	})
}
