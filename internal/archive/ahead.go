package archive

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// aheadFolder lies beside the file that a recovering server asks for, in its pg_wal. What is in it under a
// segment's name is whole and checked, and Fetch moves it instead of reading the repository.
const aheadFolder = "pileus_ahead"

// Segments that lie ready, and that are read at once.
const (
	aheadSegments = 8
	aheadReaders  = 2
)

// Ahead reads segments out of the repository before a recovering server asks for them,
// so that it does not wait for each. Disk: 8 segments. Memory: some 10 MiB.
type Ahead struct {
	Repo    *repo.Repository
	Cluster repo.Cluster
	Path    pg.History              // that the server follows
	Dir     string                  // its pg_wal
	Own     func(path string) error // gives a file to the server's account
}

// errUnfinished: what there is of a segment may become more.
var errUnfinished = errors.New("the segment is not whole")

// Run fetches the whole segments from from up to to, and ends with ctx. It leaves nothing behind.
// Where anything goes wrong it stops and says nothing: the server asks for that segment as well, and
// whoever answers then meets the same trouble.
func (a *Ahead) Run(ctx context.Context, from, to pg.LSN) {
	dir := filepath.Join(a.Dir, aheadFolder)
	if os.Mkdir(dir, 0o700) != nil || a.Own(dir) != nil {
		return
	}
	defer os.RemoveAll(dir)                 // should it fail, some space is lost until the server is backed up and restored
	more, enough := context.WithCancel(ctx) // what is being fetched is fetched to its end
	defer enough()
	var g errgroup.Group
	g.SetLimit(aheadReaders)
	for seg := pg.SegmentAt(a.Path.Timeline, from, a.Cluster.SegmentSize); seg.Start() < to && room(more, dir); seg = seg.Next() {
		s := seg
		s.Timeline = a.Path.TimelineAt(seg.End() - 1)
		g.Go(func() error {
			if a.ready(ctx, dir, s) != nil {
				enough()
			}
			return nil
		})
	}
	_ = g.Wait() // the goroutines end the feed instead
	<-ctx.Done()
}

// ready puts one segment into dir.
func (a *Ahead) ready(ctx context.Context, dir string, seg pg.Segment) error {
	whole, err := a.Repo.HasSegment(ctx, a.Cluster.Name, seg)
	if err != nil {
		return err
	}
	if !whole {
		return errUnfinished
	}
	name := filepath.Join(dir, seg.Name())
	if err := Fetch(ctx, a.Repo, a.Cluster, seg.Name(), name+".new"); err != nil {
		return err
	}
	if err := a.Own(name + ".new"); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// room waits until fewer segments lie ready than may; false: ctx ended.
func room(ctx context.Context, dir string) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if list, err := os.ReadDir(dir); err != nil {
			return false
		} else if len(list) < aheadSegments {
			return ctx.Err() == nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// takeAhead moves a segment that lies ready to dest, and removes those before it, which came too late.
func takeAhead(seg pg.Segment, dest string) bool {
	dir := filepath.Join(filepath.Dir(dest), aheadFolder)
	list, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range list {
		if s, err := pg.ParseSegmentName(e.Name(), seg.Size); err == nil && s.Timeline == seg.Timeline && s.Number < seg.Number {
			_ = os.Remove(filepath.Join(dir, e.Name())) // it only takes room
		}
	}
	return os.Rename(filepath.Join(dir, seg.Name()), dest) == nil
}
