package restore

import (
	"context"
	"errors"
	"time"

	"pileus/internal/pg"
	"pileus/internal/progress"
	"pileus/internal/repo"
)

// Commit is one committed transaction.
type Commit struct {
	XID  uint32    `json:"xid"`
	LSN  pg.LSN    `json:"lsn"` // of its commit record
	Time time.Time `json:"time"`
}

// position is what was seen up to some record.
type position struct {
	last     Record // the last record, but for switches; zero: none
	boundary Record // the last record that is a boundary; zero: none
	commit   *Commit
	end      pg.LSN    // just past the last record of any kind
	switched bool      // the last record was a switch
	timed    time.Time // the latest time that any record carries
}

func (p *position) see(r *Record) {
	p.end, p.switched = r.End, r.Kind == RecordSwitch
	if r.Kind != RecordSwitch {
		p.last = *r
		p.last.Subs = nil
	}
	if r.boundary() {
		p.boundary = p.last
	}
	if r.Kind == RecordCommit {
		p.commit = &Commit{XID: r.XID, LSN: r.LSN, Time: r.Time}
	}
	if r.Time.After(p.timed) {
		p.timed = r.Time
	}
}

// Headers of WAL pages, in bytes (SizeOfXLogShortPHD, SizeOfXLogLongPHD). A server
// whose last record ends at a page's end may report the position behind the next header.
const (
	walPage         = 8 << 10
	shortPageHeader = 24
	longPageHeader  = 40
)

// reach is the largest LSN that a server whose WAL ends here may have reported.
func (p *position) reach(segmentSize int64) pg.LSN {
	end := uint64(p.end)
	size := uint64(segmentSize)
	if p.switched && size > 0 && end%size != 0 {
		end += size - end%size
	}
	switch {
	case size > 0 && end%size == 0:
		end += longPageHeader
	case end%walPage == 0:
		end += shortPageHeader
	}
	return pg.LSN(end)
}

// cut is where a scan decided to stop.
type cut struct {
	at    position // all that is replayed, were it not for after
	after bool     // the record that decided is the last of at; else it is excluded
	bound pg.LSN   // nothing from here on is replayed
	next  *Commit  // the first commit that is excluded, if it was seen
}

// scanResult is what one scan of the WAL found.
type scanResult struct {
	found  *cut
	points []Point  // all restore points of the wanted name, the cut is at the first
	ended  position // how far it read
	eof    bool     // the durable WAL was read to its end
	gap    error    // *GapError, or an error that wraps repo.ErrDamaged: it could not be read on
}

// peek is how far the scan goes on behind the cut to name the first commit that
// is excluded, in bytes of WAL.
const peek = 32 << 20

// errStopScan ends a scan that has found what it looks for and needs no more.
var errStopScan = errors.New("scan ended")

// scan reads WAL along path from the LSN from, until the target is decided, the
// WAL ends, or limit is reached (0: no limit).
func scan(ctx context.Context, wal WAL, path pg.History, from, limit pg.LSN, t Target, report progress.Reporter) (scanResult, error) {
	s := scanner{target: t, limit: limit, from: from, report: report}
	s.pos.end = from
	for rec, err := range wal.Records(ctx, path, from) {
		if err == nil {
			err = s.record(&rec)
		}
		if errors.Is(err, errStopScan) {
			return s.result(), nil
		}
		if err != nil {
			return s.failed(ctx, err)
		}
	}
	s.res.eof = true
	return s.result(), ctx.Err()
}

type scanner struct {
	target   Target
	limit    pg.LSN
	from     pg.LSN
	report   progress.Reporter
	pos      position
	res      scanResult
	reported pg.LSN
}

func (s *scanner) failed(ctx context.Context, err error) (scanResult, error) {
	if cerr := ctx.Err(); cerr != nil {
		return s.res, cerr
	}
	var gap *GapError
	if errors.As(err, &gap) || errors.Is(err, repo.ErrDamaged) {
		// Behind the cut it is of no interest: recovery does not go there.
		s.res.gap = err
		return s.result(), nil
	}
	return s.res, err
}

func (s *scanner) result() scanResult {
	s.flush()
	s.res.ended = s.pos
	return s.res
}

// flush reports the bytes read since the last report; record by record would cost more than reading.
func (s *scanner) flush() {
	if s.reported == 0 {
		s.reported = s.from
	}
	if s.pos.end > s.reported {
		s.report.Add(int64(s.pos.end - s.reported))
		s.reported = s.pos.end
	}
}

func (s *scanner) record(r *Record) error {
	if s.limit != 0 && r.LSN >= s.limit && s.res.found == nil {
		return errStopScan
	}
	if c := s.res.found; c != nil {
		if err := s.behind(c, r); err != nil {
			return err
		}
	} else if err := s.decide(r); err != nil {
		return err
	}
	s.pos.see(r)
	if s.res.found != nil && s.res.found.after && s.res.found.bound == r.End {
		s.res.found.at = s.pos
	}
	if s.pos.end-s.reported >= 4<<20 || s.reported == 0 {
		s.flush()
	}
	return nil
}

// behind looks at a record that is not replayed, for what the plan tells about it.
func (s *scanner) behind(c *cut, r *Record) error {
	if c.next == nil && r.Kind == RecordCommit {
		c.next = &Commit{XID: r.XID, LSN: r.LSN, Time: r.Time}
	}
	if s.target.Kind == ToName {
		s.named(r) // to the end: another one of that name makes it ambiguous
		if s.limit != 0 && r.LSN >= s.limit {
			return errStopScan
		}
		return nil
	}
	if c.next != nil || r.LSN > c.bound+peek {
		return errStopScan
	}
	return nil
}

func (s *scanner) named(r *Record) bool {
	if r.Kind != RecordRestorePoint || r.Name != s.target.Name {
		return false
	}
	s.res.points = append(s.res.points, Point{LSN: r.LSN, Time: r.Time})
	return true
}

// decide sets the cut if r is where the target stops.
func (s *scanner) decide(r *Record) error {
	t := s.target
	before, after := false, false
	switch t.Kind {
	case ToTime:
		before = r.boundary() && (r.Time.After(t.Time) || t.Exclusive && r.Time.Equal(t.Time))
	case ToLSN:
		before, after = t.Exclusive && r.LSN >= t.LSN, r.LSN >= t.LSN
	case ToName:
		after = s.named(r)
	case ToXID:
		match, err := s.transaction(r)
		if err != nil {
			return err
		}
		before, after = match && t.Exclusive, match
	case ToSnapshot, ToBackup: // up to the limit
	}
	switch {
	case before:
		s.res.found = &cut{at: s.pos, bound: r.LSN}
		if r.Kind == RecordCommit {
			s.res.found.next = &Commit{XID: r.XID, LSN: r.LSN, Time: r.Time}
			return errStopScan
		}
	case after:
		s.res.found = &cut{after: true, bound: r.End}
	}
	return nil
}
