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
	"time"

	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/progress"
	"pileus/internal/repo"
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
	Parent     *repo.Backup // of the same cluster, or nil
	Label      string       // for backup_label; empty: pileus and the ID
	Progress   progress.Reporter
	Tool       string // version of the program
}

// run is one backup on its way.
type run struct {
	Options
	info   postgres.Info
	head   repo.Backup
	parent *parent
	result result
	packer *repo.Packer
}

// Run takes one backup and returns its manifest's head. Damaged pages do not fail it: see
// DamagedPages. Errors: *repo.IdentityError if the identifier belongs to another
// database; ErrOtherHost in files mode.
func Run(ctx context.Context, o Options) (repo.Backup, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = progress.Silent{}
	}
	r := &run{Options: o}
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
	for _, ts := range r.info.Tablespaces {
		r.head.Tablespaces = append(r.head.Tablespaces, repo.Tablespace{OID: ts.OID, Name: ts.Name, Location: ts.Location})
	}
	if r.head.DatabaseNames, err = databases(ctx, sql); err != nil {
		return repo.Backup{}, err
	}
	if r.Label == "" {
		r.Label = "pileus " + r.head.ID
	}
	if r.parent, err = loadParent(ctx, o.Repo, o.Parent); err != nil {
		o.Progress.Note("the parent backup cannot be read, so every chunk is stored: %v", err)
		r.parent = &parent{}
	} else if o.Parent != nil {
		r.head.Parent = o.Parent.ID
	}
	if err := r.take(ctx, sql); err != nil {
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
	_, err := r.Repo.EnsureCluster(ctx, repo.Cluster{Name: r.Cluster, SystemIdentifier: r.info.SystemIdentifier,
		SegmentSize: r.info.WALSegmentSize, Major: r.info.Major, Created: r.info.Clock.Truncate(time.Second)})
	return err
}

// take copies the files by the mode that fits, waits for the WAL, and writes the manifest.
func (r *run) take(ctx context.Context, sql *postgres.Conn) error {
	r.packer = r.Repo.NewPacker(ctx)
	defer r.packer.Close() // after a failure: its uploads must have ended
	mode := r.Mode
	if mode == ModeAuto || mode == "" {
		mode = ModeFiles
		if why := r.whyNotFiles(); why != nil {
			mode = ModeStream
			r.Progress.Note("backup over the replication protocol: %v", why)
		}
	}
	err := r.copyBy(ctx, mode, sql)
	if errors.Is(err, ErrOtherHost) && r.Mode != ModeFiles && mode == ModeFiles {
		r.Progress.Note("backup over the replication protocol: %v", err)
		r.result = result{}
		err = r.copyBy(ctx, ModeStream, sql)
	}
	if err != nil {
		return err
	}
	r.Progress.Stage("wait for WAL", 0)
	if err := r.WaitForWAL(ctx, r.head.Timeline, r.head.StartLSN, r.head.StopLSN); err != nil {
		return fmt.Errorf("WAL from %s to %s did not reach the repository: %w", r.head.StartLSN, r.head.StopLSN, err)
	}
	packs, err := r.packer.Close()
	if err != nil {
		return err
	}
	r.head.Stored, r.head.Size = r.packer.Stored(), r.result.size
	r.head.Damage, r.head.DamagedPages = r.result.damage, r.result.damaged
	r.head.Files = r.result.files
	slices.SortFunc(r.result.entries, func(a, b repo.Entry) int { return cmp.Compare(a.Path, b.Path) })
	r.Progress.Stage("write the manifest", 0)
	return r.Repo.WriteManifest(ctx, r.head, append(packs, r.parent.packs...), r.result.entries)
}

func (r *run) copyBy(ctx context.Context, mode Mode, sql *postgres.Conn) error {
	if mode == ModeFiles {
		r.head.Method = repo.MethodFiles
		return r.copyFiles(ctx, sql)
	}
	r.head.Method = repo.MethodStream
	return r.copyStream(ctx, sql)
}

// whyNotFiles says what speaks against files mode, as far as that can be told
// before the backup starts; nil if nothing does.
func (r *run) whyNotFiles() error {
	dir := r.dataDir()
	switch {
	case dir == "":
		return errors.New("the role may not see where the data directory is (GRANT pg_read_all_settings TO it)")
	case !r.info.Privileges.BackupStart || !r.info.Privileges.BackupStop:
		return fmt.Errorf("the role may not start and stop backups (%s)", r.grantBackup())
	}
	c, err := readControl(dir)
	if err != nil {
		return fmt.Errorf("%s cannot be read here: %w", dir, err)
	}
	if c.SystemID != r.info.SystemIdentifier {
		return fmt.Errorf("%s on this host belongs to another cluster", dir)
	}
	return nil
}

// grantBackup is the statement that lets the role take backups in files mode.
func (r *run) grantBackup() string {
	if r.info.Major < 15 {
		return fmt.Sprintf("GRANT EXECUTE ON FUNCTION pg_start_backup(text, boolean, boolean), pg_stop_backup(boolean, boolean) TO %s", postgres.QuoteIdent(r.info.User))
	}
	return fmt.Sprintf("GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO %s", postgres.QuoteIdent(r.info.User))
}

func (r *run) dataDir() string {
	if r.DataDir != "" {
		return r.DataDir
	}
	return r.info.DataDirectory
}

func readControl(dir string) (pg.Control, error) {
	b, err := os.ReadFile(filepath.Join(dir, controlFile))
	if err != nil {
		return pg.Control{}, err
	}
	return pg.ParseControl(b)
}

func databases(ctx context.Context, sql *postgres.Conn) (map[uint32]string, error) {
	rows, err := sql.SQL().Query(ctx, `SELECT oid, datname::text FROM pg_database`)
	if err != nil {
		return nil, fmt.Errorf("list databases: %w", err)
	}
	defer rows.Close()
	out := map[uint32]string{}
	for rows.Next() {
		var oid uint32
		var name string
		if err := rows.Scan(&oid, &name); err != nil {
			return nil, fmt.Errorf("list databases: %w", err)
		}
		out[oid] = name
	}
	return out, rows.Err()
}

// clock is the server's, in UTC.
func clock(ctx context.Context, sql *postgres.Conn) (t time.Time, err error) {
	if err = sql.SQL().QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&t); err != nil {
		return t, fmt.Errorf("read the server's clock: %w", err)
	}
	return t.UTC(), nil
}
