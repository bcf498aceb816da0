package pg

import (
	"fmt"
	"strconv"
	"strings"
)

// TimelineID numbers a branch of WAL history, from 1. In file names it is
// hexadecimal.
type TimelineID uint32

// WAL segment sizes that initdb accepts, in bytes; always a power of two.
const (
	MinSegmentSize     int64 = 1 << 20
	MaxSegmentSize     int64 = 1 << 30
	DefaultSegmentSize int64 = 16 << 20
)

// Segment is one WAL file of one timeline.
type Segment struct {
	Timeline TimelineID
	Number   uint64 // counted from the start of the log in units of Size
	Size     int64  // bytes, see MinSegmentSize
}

// SegmentAt is the segment of timeline tli that holds the byte at lsn.
func SegmentAt(tli TimelineID, lsn LSN, size int64) Segment {
	return Segment{Timeline: tli, Number: uint64(lsn) / uint64(size), Size: size}
}

// ValidSegmentSize tells whether size is one that initdb accepts.
func ValidSegmentSize(size int64) bool {
	return size >= MinSegmentSize && size <= MaxSegmentSize && size&(size-1) == 0
}

// Start is the LSN of the segment's first byte.
func (s Segment) Start() LSN { return LSN(s.Number * uint64(s.Size)) }

// End is the LSN just past the segment's last byte.
func (s Segment) End() LSN { return s.Start() + LSN(s.Size) }

// Next is the following segment of the same timeline.
func (s Segment) Next() Segment { s.Number++; return s }

// Name is the file name in pg_wal: 24 hexadecimal digits.
func (s Segment) Name() string {
	perLog := uint64(1<<32) / uint64(s.Size)
	return fmt.Sprintf("%08X%08X%08X", uint32(s.Timeline), uint32(s.Number/perLog), uint32(s.Number%perLog))
}

// String is Name.
func (s Segment) String() string { return s.Name() }

// ParseSegmentName reads a segment's file name, given the cluster's segment size.
func ParseSegmentName(name string, size int64) (Segment, error) {
	if !IsSegmentName(name) {
		return Segment{}, fmt.Errorf("%q is not the name of a WAL segment (24 hexadecimal digits)", name)
	}
	if !ValidSegmentSize(size) {
		return Segment{}, fmt.Errorf("%d bytes is not a WAL segment size", size)
	}
	tli, _ := strconv.ParseUint(name[:8], 16, 32)
	log, _ := strconv.ParseUint(name[8:16], 16, 32)
	seg, _ := strconv.ParseUint(name[16:], 16, 32)
	perLog := uint64(1<<32) / uint64(size)
	if tli == 0 || seg >= perLog {
		return Segment{}, fmt.Errorf("%q is not the name of a WAL segment of %d bytes", name, size)
	}
	return Segment{Timeline: TimelineID(tli), Number: log*perLog + seg, Size: size}, nil
}

// IsSegmentName tells whether name has the form of a complete WAL segment's name.
func IsSegmentName(name string) bool { return len(name) == 24 && isUpperHex(name) }

// HistoryName is the file name of a timeline's history, for example 00000002.history.
func HistoryName(tli TimelineID) string { return fmt.Sprintf("%08X.history", uint32(tli)) }

// ParseHistoryName reads the timeline out of a history file's name.
func ParseHistoryName(name string) (TimelineID, bool) {
	digits, ok := strings.CutSuffix(name, ".history")
	if !ok || len(digits) != 8 || !isUpperHex(digits) {
		return 0, false
	}
	tli, _ := strconv.ParseUint(digits, 16, 32)
	return TimelineID(tli), tli != 0
}

func isUpperHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}
