package damage

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"pileus/internal/archive"
	"pileus/internal/pg"
	"pileus/internal/progress"
	"pileus/internal/repo"
	"pileus/internal/wal"
)

// Options says what to scan and what to look for.
type Options struct {
	Repo    *repo.Repository
	Cluster repo.Cluster
	Filter  Filter
	Keep    int // of the largest transactions; 0: 100
	// Interval of the report's buckets; 0: none.
	Interval time.Duration
	Workers  int // 0: one for each core
	Progress progress.Reporter
}

// ErrNothing: the repository has no backup from which the WAL could be read.
var ErrNothing = errors.New("there is no backup to begin at: the catalogs that name tables are read from one")

// Scan reads the WAL from the newest backup that was complete before the filter's begin, or else from the oldest, along
// the newest timeline, to its end. What cannot be read, such as a gap, ends the scan early; Report.Stopped then says
// where and why. Errors: ErrNothing, and those of the store.
func Scan(ctx context.Context, o Options) (Report, error) {
	if o.Keep == 0 {
		o.Keep = 100
	}
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = progress.Silent{}
	}
	p, err := prepare(ctx, &o)
	if err != nil {
		return Report{}, err
	}
	m := newMerger(o.Filter, p.names, o.Keep, o.Interval)
	m.report.From, m.report.To, m.report.StartLSN = o.Filter.From, o.Filter.To, p.base.StartLSN
	o.Progress.Stage("read WAL", int64(p.end-p.base.StartLSN))
	if err := run(ctx, &p.source, m, p.base.StartLSN, p.end, o); err != nil {
		return Report{}, err
	}
	return m.finish(), nil
}

// prepared is what a scan knows before it reads WAL.
type prepared struct {
	base   repo.Backup // at whose start it begins
	end    pg.LSN      // where the WAL ends
	names  *names
	source source
}

func prepare(ctx context.Context, o *Options) (*prepared, error) {
	window, err := archive.RestorableWindow(ctx, o.Repo, o.Cluster)
	if err != nil {
		return nil, err
	}
	tli, err := archive.NewestTimeline(ctx, o.Repo, o.Cluster.Name)
	if err != nil {
		return nil, err
	}
	history, err := archive.History(ctx, o.Repo, o.Cluster.Name, tli)
	if err != nil {
		return nil, err
	}
	base, err := begin(ctx, *o, history)
	if err != nil {
		return nil, err
	}
	n, err := fromBackup(ctx, o.Repo, base)
	if err != nil {
		return nil, err
	}
	end := window.LatestLSN
	if durable, err := archive.DurableEnd(ctx, o.Repo, o.Cluster, tli); err == nil {
		end = max(end, durable)
	}
	reader := &archive.Reader{Repo: o.Repo, Cluster: o.Cluster, Path: history, Decoded: true}
	catalogs, moved := n.catalogs(), false
	for file := range catalogs {
		moved = moved || file >= firstUserOID
	}
	return &prepared{base: base, end: end, names: n, source: source{pieces: reader.Pieces, catalogs: catalogs, moved: moved, images: &wal.Images{},
		decoder: wal.Config{SystemID: o.Cluster.SystemIdentifier, SegmentSize: o.Cluster.SegmentSize, Major: base.Version / 10000, PassOver: indifferent}}}, nil
}

// indifferent are the resource managers of which the scan only counts the bytes.
var indifferent = wal.Rmgrs(wal.RmgrStorage, wal.RmgrCLOG, wal.RmgrTablespace, wal.RmgrMultiXact, wal.RmgrBtree, wal.RmgrHash, wal.RmgrGin, wal.RmgrGist,
	wal.RmgrSequence, wal.RmgrSPGist, wal.RmgrBRIN, wal.RmgrCommitTs, wal.RmgrReplicationOrigin, wal.RmgrGeneric, wal.RmgrLogicalMessage)

// begin is the backup to begin at: the newest on the path that was complete at the filter's begin, or the oldest.
func begin(ctx context.Context, o Options, path pg.History) (repo.Backup, error) {
	var best *repo.Backup
	for b, err := range o.Repo.Backups(ctx, o.Cluster.Name) {
		if errors.Is(err, repo.ErrDamaged) {
			continue
		} else if err != nil {
			return repo.Backup{}, err
		}
		if left, ok := path.End(b.Timeline); !path.Contains(b.Timeline) || ok && b.StopLSN > left {
			continue
		}
		if best == nil || !b.Stopped.After(o.Filter.From) {
			best = &b
		}
	}
	if best == nil {
		return repo.Backup{}, fmt.Errorf("cluster %s: %w", o.Cluster.Name, ErrNothing)
	}
	return *best, nil
}

// run decodes lanes side by side and merges them one after the other.
func run(ctx context.Context, s *source, m *merger, from, to pg.LSN, o Options) error {
	type future struct {
		*lane
		done chan struct{}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	queue := make(chan future, o.Workers) // bounds what waits to be merged
	g, gctx := errgroup.WithContext(ctx)
	slots := make(chan struct{}, o.Workers)
	g.Go(func() error {
		defer close(queue)
		for at := from; at < to; {
			size := pg.LSN(o.Cluster.SegmentSize)
			end := min(at-at%size+max(size, laneBytes/size*size), to)
			f := future{&lane{from: at, end: end, to: to}, make(chan struct{})}
			select {
			case slots <- struct{}{}:
			case <-gctx.Done():
				return nil
			}
			g.Go(func() error {
				defer func() { <-slots; close(f.done) }()
				s.decode(gctx, f.lane)
				return nil
			})
			select {
			case queue <- f:
			case <-gctx.Done():
				return nil
			}
			at = end
		}
		return nil
	})
	stopped := merge(ctx, m, func(yield func(*lane) bool) {
		for f := range queue {
			<-f.done
			if !yield(f.lane) {
				return
			}
			s.done(f.lane)
			o.Progress.Add(int64(f.end - f.from))
		}
	})
	cancel()
	for range queue {
	}
	return errors.Join(g.Wait(), stopped)
}

// merge takes the lanes until one says that it could not be read to its end.
func merge(ctx context.Context, m *merger, lanes func(func(*lane) bool)) error {
	var last pg.LSN
	var fatal error
	lanes(func(l *lane) bool {
		if ctx.Err() != nil {
			fatal = ctx.Err()
			return false
		}
		if l.records > 0 && last != 0 && l.prev != last {
			m.report.Stopped = fmt.Sprintf("the record before %s is at %s, and was read at %s: the WAL between is not what belongs there", l.from, l.prev, last)
			return false
		}
		m.lane(l)
		if l.records > 0 {
			last = l.last
		}
		if l.err == nil {
			return true
		}
		if fatal = ending(l.err); fatal == nil {
			m.report.Stopped = fmt.Sprintf("the WAL was read to %s: %v", l.until, l.err)
		}
		return false
	})
	return fatal
}

// ending tells errors that say something about the WAL, nil, from those that ended the scan.
func ending(err error) error {
	var gap *archive.GapError
	var damage *wal.DamageError
	var end *wal.EndOfWALError
	if errors.As(err, &gap) || errors.As(err, &damage) || errors.As(err, &end) || errors.Is(err, repo.ErrDamaged) {
		return nil
	}
	return err
}
