package wal

import (
	"errors"
	"fmt"
	"io"
	"time"

	"pileus/internal/pg"
)

// SegmentInfo is what a whole segment holds.
type SegmentInfo struct {
	Major       int
	SystemID    uint64
	FirstRecord pg.LSN // of those that start and end in the segment; zero: none
	LastRecord  pg.LSN // likewise
	End         pg.LSN // past the last of them
	Records     int
	Commits     int       // committed transactions, also prepared ones
	FirstCommit time.Time // the earliest time of a commit; zero: none
	LastCommit  time.Time // the latest
	Switched    bool      // ends by a switch: the rest is unused
}

// checkBuffer is how much CheckSegment reads at a time, in bytes.
const checkBuffer = 256 << 10

// CheckSegment verifies one segment file by itself, from its first byte to the
// end of r: that it has its full size and is seg, that every page header is
// right, and that every record wholly inside has the right CRC and follows the
// one before. A record may come in from the segment before and go on into the
// next; neither is counted, so that to know of every commit the segments have to
// be decoded in a row. System identifier 0 accepts any cluster.
//
// Only complete segments pass: an unfinished one (like a .partial, or the one
// a server is writing) ends early, which is an *EndOfWALError. Other errors are
// a *DamageError, or r's. All name the segment.
func CheckSegment(r io.Reader, seg pg.Segment, systemID uint64) (SegmentInfo, error) {
	d, err := NewDecoder(Config{SystemID: systemID, SegmentSize: seg.Size, Timeline: seg.Timeline})
	if err != nil {
		return SegmentInfo{}, err
	}
	info, err := checkSegment(r, seg, d)
	if err != nil {
		return SegmentInfo{}, fmt.Errorf("WAL segment %s is not complete and sound: %w", seg, err)
	}
	return info, nil
}

func checkSegment(r io.Reader, seg pg.Segment, d *Decoder) (SegmentInfo, error) {
	var info SegmentInfo
	buf := make([]byte, checkBuffer)
	for pos := seg.Start(); pos < seg.End(); {
		n, err := io.ReadFull(r, buf[:min(pg.LSN(len(buf)), seg.End()-pos)])
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return info, &EndOfWALError{LSN: d.End(), Reason: fmt.Sprintf("the file has only %d of %d bytes", int64(pos-seg.Start())+int64(n), seg.Size)}
		}
		if err != nil {
			return info, fmt.Errorf("read: %w", err)
		}
		if err := d.Feed(pos, buf[:n]); err != nil {
			return info, err
		}
		if err := info.take(d); err != nil {
			return info, err
		}
		pos += pg.LSN(n)
	}
	if n, err := io.ReadFull(r, buf[:1]); n > 0 {
		return info, damage(seg.End(), "the file is longer than %d bytes", seg.Size)
	} else if !errors.Is(err, io.EOF) {
		return info, fmt.Errorf("read: %w", err)
	}
	info.Major, info.SystemID, info.End = d.Major(), d.SystemID(), d.End()
	info.FirstRecord, _ = d.FirstRecord()
	info.LastRecord = d.LastRecord()
	return info, nil
}

// take counts what the decoder yields.
func (info *SegmentInfo) take(d *Decoder) error {
	for {
		rec, ok, err := d.Next()
		if err != nil || !ok {
			return err
		}
		info.Records++
		info.Switched = rec.IsSwitch()
		if kind, ok := commitKind(rec); !ok || !kind.Committed() {
			continue
		}
		c, _, err := ParseCommit(rec)
		if err != nil {
			return err
		}
		if info.Commits == 0 || c.Time.Before(info.FirstCommit) {
			info.FirstCommit = c.Time
		}
		if info.Commits == 0 || c.Time.After(info.LastCommit) {
			info.LastCommit = c.Time
		}
		info.Commits++
	}
}
