package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"pileus/internal/changes"
	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/progress"
	"pileus/internal/repo"
	"pileus/internal/wal"
)

// Mode is how the files are read.
type Mode string

// Modes.
const (
	ModeAuto   Mode = "auto" // files if the data directory is on this host, stream otherwise
	ModeFiles  Mode = "files"
	ModeStream Mode = "stream"
)

// ErrOtherHost: the data directory is not to be had on this host.
var ErrOtherHost = errors.New("the server's data directory cannot be read on this host")

// Options of Run. Repo, Cluster, SQL, Replication and WaitForWAL are required.
type Options struct {
	Repo    *repo.Repository
	Cluster string // identifier
	// SQL and Replication open sessions to the server.
	SQL         func(context.Context) (*postgres.Conn, error)
	Replication func(context.Context) (*postgres.ReplConn, error)
	// WaitForWAL returns when the WAL from start to stop is durable in the repository.
	WaitForWAL func(ctx context.Context, tli pg.TimelineID, start, stop pg.LSN) error
	Mode       Mode
	DataDir    string       // where the data directory lies on this host; empty: where the server says
	Spread     bool         // spread the checkpoint over time instead of taking it at once
	Workers    int          // 0: number of cores
	Parent     *repo.Backup // whose content need not be stored again; nil: none
	Full       bool         // read every page, also where Parent and WAL tell which ones changed
	MaxRate    int64        // bytes per second of the cluster's files, read or received; 0: no limit
	Nice       bool         // give way to others for CPU and disk, where the system lets threads do that
	Label      string       // for backup_label; empty: pileus and the ID
	Progress   progress.Reporter
	Tool       string // version of the program
}

// run is one backup on its way.
type run struct {
	Options
	info   postgres.Info
	known  repo.Cluster // what the repository knows of the cluster
	head   repo.Backup
	parent *parent
	// changed is what changed since the parent, nil where that is not known.
	changed *changes.Set
	ignore  func(*wal.Record) bool // records that tests take out of sight
	// trusting has a test believe the server in all that it leaves out.
	trusting bool
	result   result
	packer   *repo.Packer
	pace     *rate.Limiter           // of what is asked of the server's disk; nil: no limit
	noted    sync.Once               // says that priorities stay
	abort    context.CancelCauseFunc // ends all work of the run, uploads included
}

// Run takes one backup and returns its manifest's head. Damaged pages do not fail it: see
// DamagedPages. Errors: *repo.IdentityError if the identifier belongs to another
// database, before anything is stored; ErrOtherHost in files mode;
// postgres.ErrNotPrivileged or a *postgres.ConnectError, with the statement that helps.
func Run(ctx context.Context, o Options) (repo.Backup, error) {
	return start(ctx, &run{Options: o})
}

func start(ctx context.Context, r *run) (repo.Backup, error) {
	o := &r.Options
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = progress.Silent{}
	}
	r.pace = newPace(o.MaxRate)
	o.Progress.Stage("look at the server", 0)
	sql, err := o.SQL(ctx)
	if err != nil {
		return repo.Backup{}, err
	}
	defer sql.Close(context.WithoutCancel(ctx))
	if r.info, err = sql.Info(ctx); err != nil {
		return repo.Backup{}, err
	}
	if err := r.register(ctx); err != nil {
		return repo.Backup{}, err
	}
	host, _ := os.Hostname()
	started := r.info.Clock
	r.head = repo.Backup{
		ID: repo.NewBackupID(started), Cluster: o.Cluster, SystemIdentifier: r.info.SystemIdentifier, Version: r.info.VersionNum,
		SegmentSize: r.info.WALSegmentSize, Checksums: r.info.DataChecksums, Started: started, Host: host, PageSize: pg.PageSize,
		DataDirectory: r.info.DataDirectory, Tool: o.Tool,
	}
	if r.head.DatabaseNames, err = databases(ctx, sql); err != nil {
		return repo.Backup{}, err
	}
	if r.Label == "" {
		r.Label = "pileus " + r.head.ID
	}
	if r.parent, err = loadParent(ctx, o.Repo, o.Parent); err != nil {
		o.Progress.Note("the parent backup cannot be read, so every chunk is stored: %v", err)
		r.parent, r.head.WhyFull = &parent{}, fmt.Sprintf("backup %s cannot be read: %v", o.Parent.ID, err)
	} else if o.Parent != nil {
		r.head.Parent = o.Parent.ID
	}
	err = r.take(ctx, sql)
	if lost := (*parentError)(nil); errors.As(err, &lost) {
		o.Progress.Note("the backup begins again, with every page: %v", lost)
		r.parent, r.result = &parent{}, result{}
		r.head.Parent, r.head.Incremental, r.head.WhyFull = "", false, lost.Error()
		err = r.take(ctx, sql)
	}
	if err != nil {
		return repo.Backup{}, fmt.Errorf("back up %s: %w", o.Cluster, err)
	}
	return r.head, nil
}

// register refuses a server that is not the cluster the identifier stands for.
func (r *run) register(ctx context.Context) error {
	if r.info.SystemIdentifier == 0 || r.info.Timeline == 0 {
		c, err := r.Replication(ctx)
		if err != nil {
			return err
		}
		defer c.Close(context.WithoutCancel(ctx))
		s, err := c.IdentifySystem(ctx)
		if err != nil {
			return err
		}
		r.info.SystemIdentifier, r.info.Timeline = s.Identifier, s.Timeline
	}
	if r.info.BlockSize != pg.PageSize {
		return fmt.Errorf("the server has pages of %d bytes; only the usual %d are supported", r.info.BlockSize, pg.PageSize)
	}
	var err error
	r.known, err = r.Repo.EnsureCluster(ctx, repo.Cluster{Name: r.Cluster, SystemIdentifier: r.info.SystemIdentifier,
		SegmentSize: r.info.WALSegmentSize, Major: r.info.Major, Created: r.info.Clock.Truncate(time.Second)})
	return err
}

// take copies the files by the mode that fits, waits for the WAL, and writes the manifest.
func (r *run) take(ctx context.Context, sql *postgres.Conn) (err error) {
	ctx, r.abort = context.WithCancelCause(ctx)
	r.packer = r.Repo.NewPacker(ctx)
	defer func() {
		if err != nil {
			if cause := context.Cause(ctx); errors.Is(err, context.Canceled) && cause != nil {
				err = cause // what made the others stop
			}
			r.abort(err)
			_, _ = r.packer.Close() // nobody needs the uploads, but they must have ended
		}
		r.abort(nil)
	}()
	if err := r.copy(ctx, sql); err != nil {
		return err
	}
	packs, err := r.packer.Close()
	if err != nil {
		return err
	}
	r.Progress.Stage("wait for WAL", 0)
	if err := r.WaitForWAL(ctx, r.head.Timeline, r.head.StartLSN, r.head.StopLSN); err != nil {
		return fmt.Errorf("WAL from %s to %s did not reach the repository: %w", r.head.StartLSN, r.head.StopLSN, err)
	}
	r.finish()
	r.Progress.Stage("write the manifest", 0)
	return r.Repo.WriteManifest(ctx, r.head, append(packs, r.parent.packs...), r.result.entries)
}

// finish brings what the workers found into the order and form of a manifest.
func (r *run) finish() {
	s := &r.result
	s.entries = strangers(s.entries, r.head.Tablespaces)
	slices.SortFunc(s.entries, func(a, b repo.Entry) int { return cmp.Compare(a.Path, b.Path) })
	slices.SortFunc(s.damage, func(a, b repo.Damage) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Block, b.Block))
	})
	r.head.Read = s.read.Load()
	r.head.Stored, r.head.Damage, r.head.DamagedPages = r.packer.Stored(), s.damage, s.damaged
	for _, e := range s.entries {
		if e.Type == repo.TypeFile {
			r.head.Files++
			r.head.Size += e.Size
		}
	}
}

// copy copies by the mode that was asked for or that fits.
func (r *run) copy(ctx context.Context, sql *postgres.Conn) error {
	why := r.whyNotFiles()
	switch r.Mode {
	case ModeStream:
		return r.copyBy(ctx, ModeStream, sql)
	case ModeFiles:
		if why != nil {
			return why
		}
		return r.copyBy(ctx, ModeFiles, sql)
	case ModeAuto, "":
	default:
		return fmt.Errorf("%q is not a way to take a backup (auto, files, stream)", r.Mode)
	}
	if why == nil {
		if why = r.copyBy(ctx, ModeFiles, sql); !errors.Is(why, ErrOtherHost) {
			return why
		}
	}
	r.Progress.Note("backup over the replication protocol, as the files cannot be read directly: %v", why)
	return r.copyBy(ctx, ModeStream, sql)
}

func (r *run) copyBy(ctx context.Context, mode Mode, sql *postgres.Conn) error {
	if mode == ModeFiles {
		r.head.Method = repo.MethodFiles
		return r.copyFiles(ctx, sql)
	}
	r.head.Method = repo.MethodStream
	return r.copyStream(ctx, sql)
}

func (r *run) dataDir() string {
	if r.DataDir != "" {
		return r.DataDir
	}
	return r.info.DataDirectory
}

func readControl(dir string) (pg.Control, error) {
	b, err := os.ReadFile(filepath.Join(dir, pg.ControlFile))
	if err != nil {
		return pg.Control{}, err
	}
	return pg.ParseControl(b)
}
