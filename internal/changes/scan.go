package changes

import (
	"context"
	"fmt"
	"iter"

	"golang.org/x/sync/errgroup"

	"pileus/internal/archive"
	"pileus/internal/pg"
	"pileus/internal/wal"
)

// laneSegments is how many segments one worker decodes in a row. At a lane's end a
// worker reads on to the end of the last record, so short lanes read much twice.
const laneSegments = 4

// Bytes of a page, and of the header that a segment's first page begins with, the longest.
const (
	pageSize      = 8192
	maxPageHeader = 40
)

// Scanner reads WAL and gathers what it changes.
type Scanner struct {
	// Pieces reads WAL from a position to another without a hole, as archive.Reader does.
	Pieces  func(ctx context.Context, from, to pg.LSN) iter.Seq2[archive.Piece, error]
	Decoder wal.Config // Major and SegmentSize are required
	Workers int        // at least 1
	// Ignore leaves records out, for tests that prove that each kind counts; nil: none.
	Ignore func(*wal.Record) bool
}

// Result is what a scan found.
type Result struct {
	*Set
	Records int64 // decoded
	Bytes   int64 // of WAL in the range
}

// Scan gathers what the WAL changes between two positions, each of which is where a
// record starts. Errors: *Reason, *wal.DamageError, *wal.EndOfWALError, and those of Pieces.
func (s *Scanner) Scan(ctx context.Context, from, to pg.LSN) (Result, error) {
	if from > to {
		return Result{}, fmt.Errorf("look for changes in WAL: it cannot be read backwards, from %s to %s", from, to)
	}
	var lanes []*lane
	for at := from; at < to; {
		end := at - at%pg.LSN(s.Decoder.SegmentSize) + laneSegments*pg.LSN(s.Decoder.SegmentSize)
		lanes = append(lanes, &lane{from: at, end: min(end, to), to: to})
		at = end
	}
	sets := make(chan *Set, s.Workers)
	for range s.Workers {
		sets <- NewSet()
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(s.Workers)
	for _, l := range lanes {
		g.Go(func() error {
			set := <-sets // there are as many as workers
			defer func() { sets <- set }()
			return s.decode(ctx, l, set)
		})
	}
	if err := g.Wait(); err != nil {
		return Result{}, err
	}
	r := Result{Set: <-sets, Bytes: int64(to - from)}
	for range s.Workers - 1 {
		r.Join(<-sets)
	}
	r.Records = count(lanes)
	return r, linked(lanes, from, to)
}

// lane is WAL in which records start that one worker decodes: from from to end, and on
// up to to as far as the last of them reaches.
type lane struct {
	from, end, to pg.LSN

	records     int64
	prev        pg.LSN // of the record before the first
	last, until pg.LSN // start and end of the last record
}

// decode adds a lane's records to set.
func (s *Scanner) decode(ctx context.Context, l *lane, set *Set) error {
	d, err := wal.NewDecoder(s.Decoder)
	if err != nil {
		return err
	}
	for _, part := range [][2]pg.LSN{{l.from, l.end}, {l.end, l.to}} {
		for p, err := range s.Pieces(ctx, part[0], part[1]) {
			if err != nil {
				return err
			}
			if err := d.Feed(p.LSN, p.Data); err != nil {
				return err
			}
			if done, err := s.take(d, l, set); done || err != nil {
				return err
			}
		}
		if !d.Pending() { // what begins behind the lane's end is the next lane's
			break
		}
	}
	return ctx.Err()
}

// take adds the records that a piece completed; done says that one begins behind the lane's end.
func (s *Scanner) take(d *wal.Decoder, l *lane, set *Set) (done bool, err error) {
	for {
		r, ok, err := d.Next()
		if err != nil || !ok {
			return false, err
		}
		if r.LSN >= l.end {
			return true, nil
		}
		if l.records == 0 {
			l.prev = r.Prev
		}
		l.records++
		l.last, l.until = r.LSN, r.End
		if s.Ignore != nil && s.Ignore(r) {
			continue
		}
		if err := set.Apply(r); err != nil {
			return false, err
		}
	}
}

func count(lanes []*lane) (records int64) {
	for _, l := range lanes {
		records += l.records
	}
	return records
}

// linked proves that no record was lost between lanes nor before the range's end.
func linked(lanes []*lane, from, to pg.LSN) error {
	last, until := pg.LSN(0), from
	for _, l := range lanes {
		if l.records == 0 {
			continue // all of it is the rest of a record that began before
		}
		if last != 0 && l.prev != last {
			return &wal.DamageError{LSN: l.from, Reason: fmt.Sprintf("the record before is at %s, but was read at %s", l.prev, last)}
		}
		last, until = l.last, l.until
	}
	if headed := until%pageSize == 0 && to-until <= maxPageHeader; until != to && !headed {
		return &wal.EndOfWALError{LSN: until, Reason: fmt.Sprintf("no record ends at %s", to)}
	}
	return nil
}
