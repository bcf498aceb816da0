package pg

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"
)

// ControlFile is where a data directory keeps its control file.
const ControlFile = "global/pg_control"

// ControlFileSize is the size in bytes of the control file on disk. The part
// in use is smaller; the rest is zero.
const ControlFileSize = 8192

// DBState is what the control file says the cluster is doing.
type DBState uint32

// The states of a cluster, numbered as in the control file.
const (
	StateStartup DBState = iota
	StateShutDown
	StateShutDownInRecovery
	StateShuttingDown
	StateInCrashRecovery
	StateInArchiveRecovery
	StateInProduction
)

// String is the wording of pg_controldata.
func (s DBState) String() string {
	names := [...]string{
		"starting up", "shut down", "shut down in recovery", "shutting down",
		"in crash recovery", "in archive recovery", "in production",
	}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("unknown state %d", uint32(s))
}

// WALLevel is how much the server writes to its WAL.
type WALLevel uint32

// WAL levels, least first. Backup and archiving need at least replica.
const (
	WALLevelMinimal WALLevel = iota
	WALLevelReplica
	WALLevelLogical
)

// String is the value of the wal_level setting.
func (l WALLevel) String() string {
	names := [...]string{"minimal", "replica", "logical"}
	if int(l) < len(names) {
		return names[l]
	}
	return fmt.Sprintf("unknown level %d", uint32(l))
}

// Control is the content of global/pg_control.
type Control struct {
	SystemID       uint64 // made by initdb; the same in all copies of a cluster
	ControlVersion uint32 // 1300 for PostgreSQL 13 to 16, 1700 for 17, 1800 for 18
	CatalogVersion uint32 // date and serial, for example 202209061
	State          DBState
	Modified       time.Time // last write of the control file, whole seconds

	Checkpoint             LSN // the last checkpoint's record
	CheckpointRedo         LSN // where replay from that checkpoint begins
	CheckpointTimeline     TimelineID
	CheckpointPrevTimeline TimelineID
	CheckpointTime         time.Time // whole seconds

	MinRecoveryPoint         LSN        // replay has to reach it; zero outside archive recovery
	MinRecoveryPointTimeline TimelineID // zero with MinRecoveryPoint
	BackupStart              LSN        // redo point of the backup being recovered from; zero when none
	BackupEnd                LSN        // for a backup from a standby; zero when none
	BackupEndRequired        bool       // WAL has to hold the end-of-backup record

	// A server that recovers needs each Max setting at least this large.
	WALLevel             WALLevel
	WALLogHints          bool
	MaxConnections       int32
	MaxWorkerProcesses   int32
	MaxWALSenders        int32
	MaxPreparedXacts     int32
	MaxLocksPerXact      int32
	TrackCommitTimestamp bool

	BlockSize           uint32 // bytes
	RelSegmentBlocks    uint32 // blocks in each file of a large relation
	WALBlockSize        uint32 // bytes
	WALSegmentSize      int64  // bytes
	DataChecksumVersion uint32 // zero: pages carry no checksums
}

// DataChecksums tells whether data pages carry checksums.
func (c Control) DataChecksums() bool { return c.DataChecksumVersion != 0 }

// Major is the PostgreSQL major version of the released catalog version, and
// false for a catalog of no release from 13 to 18.
func (c Control) Major() (int, bool) {
	switch c.CatalogVersion {
	case 202007201:
		return 13, true
	case 202107181:
		return 14, true
	case 202209061:
		return 15, true
	case 202307071:
		return 16, true
	case 202406281:
		return 17, true
	case 202506291:
		return 18, true
	}
	return 0, false
}

// Layout of struct ControlFileData (src/include/catalog/pg_control.h), little
// endian, 8-byte alignment. It is the same from 13 to 17, where the checkpoint
// copy's wal_level of 17 fills what was padding; 18 adds one byte after the
// checksum version, which moves the CRC.
//
//	 0 system identifier      128 unlogged LSN             204 maxAlign
//	 8 control version        136 min recovery point       208 float format
//	12 catalog version        144   its timeline           216 block size
//	16 state                  152 backup start             220 blocks per file
//	24 time                   160 backup end               224 WAL block size
//	32 checkpoint             168 backup end required      228 WAL segment size
//	40 checkpoint copy:       172 wal_level                252 data checksum version
//	   +0 redo                176 wal_log_hints            288 CRC, up to 17
//	   +8 timeline            180 max_connections … 196    292 CRC, 18
//	  +12 previous timeline   200 track_commit_timestamp
//	  +64 time
const (
	controlCRC13     = 288
	controlCRC18     = 292
	controlVersion13 = 1300
	controlVersion17 = 1700
	controlVersion18 = 1800
)

// ParseControl reads the control file of PostgreSQL 13 to 18 and checks its
// CRC-32C. It takes the file's whole content or at least the 296 bytes in use.
func ParseControl(b []byte) (Control, error) {
	if len(b) < controlCRC18+4 {
		return Control{}, fmt.Errorf("control file is %d bytes long, expected %d: it is truncated", len(b), ControlFileSize)
	}
	le := binary.LittleEndian
	lsn := func(off int) LSN { return LSN(le.Uint64(b[off:])) }
	tli := func(off int) TimelineID { return TimelineID(le.Uint32(b[off:])) }
	i32 := func(off int) int32 { return int32(le.Uint32(b[off:])) }
	at := func(off int) time.Time { return time.Unix(int64(le.Uint64(b[off:])), 0).UTC() }

	c := Control{SystemID: le.Uint64(b), ControlVersion: le.Uint32(b[8:]), CatalogVersion: le.Uint32(b[12:])}
	crcAt := controlCRC13
	switch c.ControlVersion {
	case controlVersion13, controlVersion17:
	case controlVersion18:
		crcAt = controlCRC18
	default:
		return Control{}, fmt.Errorf("control file has version %d: expected that of PostgreSQL 13 to 18 (1300, 1700 or 1800)", c.ControlVersion)
	}
	if want, got := le.Uint32(b[crcAt:]), crc32.Checksum(b[:crcAt], crc32.MakeTable(crc32.Castagnoli)); want != got {
		return Control{}, fmt.Errorf("control file is damaged or was being written: CRC %08X, computed %08X", want, got)
	}

	c.State = DBState(le.Uint32(b[16:]))
	c.Modified = at(24)
	c.Checkpoint = lsn(32)
	c.CheckpointRedo = lsn(40)
	c.CheckpointTimeline = tli(48)
	c.CheckpointPrevTimeline = tli(52)
	c.CheckpointTime = at(104)
	c.MinRecoveryPoint = lsn(136)
	c.MinRecoveryPointTimeline = tli(144)
	c.BackupStart = lsn(152)
	c.BackupEnd = lsn(160)
	c.BackupEndRequired = b[168] != 0
	c.WALLevel = WALLevel(le.Uint32(b[172:]))
	c.WALLogHints = b[176] != 0
	c.MaxConnections = i32(180)
	c.MaxWorkerProcesses = i32(184)
	c.MaxWALSenders = i32(188)
	c.MaxPreparedXacts = i32(192)
	c.MaxLocksPerXact = i32(196)
	c.TrackCommitTimestamp = b[200] != 0
	c.BlockSize = le.Uint32(b[216:])
	c.RelSegmentBlocks = le.Uint32(b[220:])
	c.WALBlockSize = le.Uint32(b[224:])
	c.WALSegmentSize = int64(le.Uint32(b[228:]))
	c.DataChecksumVersion = le.Uint32(b[252:])

	if f := math.Float64frombits(le.Uint64(b[208:])); f != 1234567.0 {
		return Control{}, fmt.Errorf("control file has float format %v, expected 1234567: the cluster was made on another architecture", f)
	}
	if !ValidSegmentSize(c.WALSegmentSize) {
		return Control{}, fmt.Errorf("control file names a WAL segment size of %d bytes, which is not one that initdb accepts", c.WALSegmentSize)
	}
	return c, nil
}
