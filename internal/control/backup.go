package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"pileus/internal/archive"
	"pileus/internal/backup"
	"pileus/internal/config"
	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/progress"
	"pileus/internal/repo"
)

// BackupRequest is what a backup is to be.
type BackupRequest struct {
	Cluster  string
	Mode     string // auto, files, stream; empty: what data_dir says
	Full     bool   // store every chunk
	Label    string // for backup_label
	MaxRate  *int64 // bytes per second of the cluster's files, 0: no limit; nil: what max_rate says
	Snapshot string // keep it under this name
	About    []byte // JSON that the snapshot is to carry; nil: none
}

var snapshotName = regexp.MustCompile(`^[A-Za-z](-?[A-Za-z0-9])*$`)

// Backup takes a base backup and sees to it that the WAL it needs is in the
// repository: if nobody receives WAL it does so itself meanwhile.
func (d *Deployment) Backup(ctx context.Context, q BackupRequest, rep progress.Reporter) (repo.Backup, error) {
	c, conn, err := d.cluster(q.Cluster)
	if err != nil {
		return repo.Backup{}, err
	}
	if err := d.checkSnapshotName(ctx, c.Name, q.Snapshot); err != nil {
		return repo.Backup{}, err
	}
	parent, err := d.parent(ctx, c.Name, q.Full)
	if err != nil {
		return repo.Backup{}, err
	}
	var keeps []string
	if parent != nil {
		keeps = []string{parent.ID}
	}
	var b repo.Backup
	err = d.Repo.WithLease(ctx, repo.LeaseBackup, c.Name, keeps, func(ctx context.Context) error {
		if b, err = d.backupWithWAL(ctx, c, conn, q, parent, rep); err != nil {
			return err
		}
		if q.Snapshot == "" {
			return nil
		}
		return d.Repo.PutSnapshot(ctx, repo.Snapshot{Name: q.Snapshot, Cluster: c.Name, Backup: b.ID, LSN: b.StopLSN,
			Time: b.Stopped, Created: time.Now().UTC().Truncate(time.Second), About: q.About})
	})
	if err != nil {
		return b, err
	}
	return b, archive.ClearLost(d.Config.StateDir, c.Name)
}

// Keep gives a backup that is there one more snapshot.
func (d *Deployment) Keep(ctx context.Context, cluster, backup, snapshot string, about []byte) error {
	return d.Repo.WithLease(ctx, repo.LeaseBackup, cluster+"."+snapshot, []string{backup}, func(ctx context.Context) error {
		b, err := d.Repo.Backup(ctx, cluster, backup)
		if err != nil {
			return err
		}
		return d.Repo.PutSnapshot(ctx, repo.Snapshot{Name: snapshot, Cluster: cluster, Backup: b.ID, LSN: b.StopLSN,
			Time: b.Stopped, Created: time.Now().UTC().Truncate(time.Second), About: about})
	})
}

func (d *Deployment) checkSnapshotName(ctx context.Context, cluster, name string) error {
	if name == "" {
		return nil
	}
	if !snapshotName.MatchString(name) || len(name) > 255 {
		return &ConfigError{fmt.Errorf("%q cannot name a snapshot: use 1 to 255 letters, digits and single hyphens, a letter first", name)}
	}
	used, err := d.Repo.HasSnapshot(ctx, cluster, name)
	if used {
		return &ConfigError{fmt.Errorf("snapshot %s of %s exists already; nothing was done", name, cluster)}
	}
	return err
}

// parent is the backup that a new one can refer to: the newest.
func (d *Deployment) parent(ctx context.Context, cluster string, full bool) (*repo.Backup, error) {
	if full {
		return nil, nil
	}
	var newest *repo.Backup
	for b, err := range d.Repo.Backups(ctx, cluster) {
		if errors.Is(err, repo.ErrDamaged) {
			continue // `pileus verify` tells; a new backup must not hang on it
		} else if err != nil {
			return nil, err
		}
		newest = &b
	}
	if newest != nil {
		return newest, nil
	}
	return d.origin(ctx, cluster)
}

// origin is the backup that a restored cluster came from: its first own backup
// has most chunks in common with it.
func (d *Deployment) origin(ctx context.Context, cluster string) (*repo.Backup, error) {
	c, err := d.Repo.Cluster(ctx, cluster)
	if errors.Is(err, repo.ErrNotFound) || (err == nil && c.Parent == nil) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	b, err := d.Repo.Backup(ctx, c.Parent.Cluster, c.Parent.Backup)
	if errors.Is(err, repo.ErrNotFound) || errors.Is(err, repo.ErrDamaged) {
		return nil, nil // pruned, or of no use: then everything is stored
	}
	return &b, err
}

// backupWithWAL runs the backup, beside a receiver of its own if none is at work.
func (d *Deployment) backupWithWAL(ctx context.Context, c config.Cluster, conn connector, q BackupRequest, parent *repo.Backup, rep progress.Reporter) (repo.Backup, error) {
	archived, err := d.walArrives(ctx, c, conn)
	if err != nil {
		return repo.Backup{}, err
	}
	if archived {
		return d.takeBackup(ctx, c, conn, q, parent, rep)
	}
	// The receiver would try for ever; a role that may not replicate is told so now.
	try, err := conn.Replication(ctx)
	if err != nil {
		return repo.Backup{}, fmt.Errorf("the backup's WAL cannot be received: %w", err)
	}
	if err := try.Close(ctx); err != nil {
		return repo.Backup{}, err
	}
	rep.Note("no `pileus wal receive %s` is running: the backup's own WAL is received meanwhile, and the moments after it cannot be restored until one runs", c.Name)
	var b repo.Backup
	g, gctx := errgroup.WithContext(ctx)
	rctx, stop := context.WithCancel(gctx)
	defer stop()
	streaming := make(chan struct{}, 1)
	g.Go(func() error {
		o := d.receiverOptions(c, conn, slog.New(slog.NewTextHandler(io.Discard, nil)))
		o.Slot, o.Temporary = c.Slot+"_backup", true
		if len(o.Slot) > 63 {
			o.Slot = o.Slot[len(o.Slot)-63:]
		}
		o.Streaming = func() {
			select {
			case streaming <- struct{}{}:
			default:
			}
		}
		return archive.Receive(rctx, o)
	})
	g.Go(func() error {
		defer stop()
		select {
		case <-streaming:
		case <-rctx.Done():
			return context.Cause(rctx)
		case <-time.After(time.Minute):
			return errors.New("WAL cannot be streamed from the server; `pileus check` tells why")
		}
		var err error
		b, err = d.takeBackup(rctx, c, conn, q, parent, rep)
		return err
	})
	return b, g.Wait()
}

// walArrives tells whether somebody sees to it that WAL reaches the repository.
func (d *Deployment) walArrives(ctx context.Context, c config.Cluster, conn connector) (bool, error) {
	holders, err := d.Repo.Holders(ctx, repo.LeaseReceive)
	if err != nil {
		return false, err
	}
	for _, h := range holders {
		if h.Subject == c.Name {
			return true, nil
		}
	}
	sql, err := conn.SQL(ctx)
	if err != nil {
		return false, err
	}
	defer sql.Close(context.WithoutCancel(ctx))
	info, err := sql.Info(ctx)
	return pushes(info), err
}

// Pushes tells whether the cluster's own archive_command brings its WAL to Pileus.
func (d *Deployment) Pushes(ctx context.Context, name string) (bool, error) {
	info, err := d.Ask(ctx, name)
	return pushes(info), err
}

// Ask looks at a configured cluster's server.
func (d *Deployment) Ask(ctx context.Context, name string) (postgres.Info, error) {
	_, conn, err := d.cluster(name)
	if err != nil {
		return postgres.Info{}, err
	}
	sql, err := conn.SQL(ctx)
	if err != nil {
		return postgres.Info{}, err
	}
	defer sql.Close(context.WithoutCancel(ctx))
	return sql.Info(ctx)
}

// pushes tells whether the server's own archive_command brings WAL here.
func pushes(info postgres.Info) bool {
	return info.ArchiveMode != "off" && strings.Contains(info.ArchiveCommand, "wal push")
}

func (d *Deployment) takeBackup(ctx context.Context, c config.Cluster, conn connector, q BackupRequest, parent *repo.Backup, rep progress.Reporter) (repo.Backup, error) {
	o := backup.Options{
		Repo: d.Repo, Cluster: c.Name, SQL: conn.SQL, Replication: conn.Replication, Mode: backup.Mode(q.Mode),
		Spread: c.Checkpoint == "spread", Workers: d.Config.WorkerCount(), Parent: parent, Full: q.Full, Label: q.Label, MaxRate: c.MaxRate, Nice: c.Nice, Progress: rep, Tool: d.Version,
		WaitForWAL: func(ctx context.Context, tli pg.TimelineID, start, stop pg.LSN) error {
			return d.waitForWAL(ctx, c, conn, tli, start, stop)
		},
	}
	if q.MaxRate != nil {
		o.MaxRate = *q.MaxRate
	}
	switch c.DataDir {
	case config.DataDirAuto:
	case config.DataDirNever:
		if o.Mode == "" || o.Mode == backup.ModeAuto {
			o.Mode = backup.ModeStream
		}
	default:
		o.DataDir = c.DataDir
	}
	return backup.Run(ctx, o)
}

// walPatience is how long a backup waits for WAL that makes no headway.
const walPatience = 5 * time.Minute

// waitForWAL waits until the backup's WAL is in the repository. Where segments
// are pushed the current one is ended, or it would not come before it is full.
func (d *Deployment) waitForWAL(ctx context.Context, c config.Cluster, conn connector, tli pg.TimelineID, start, stop pg.LSN) error {
	cl, err := d.Repo.Cluster(ctx, c.Name)
	if err != nil {
		return err
	}
	sql, err := conn.SQL(ctx)
	if err != nil {
		return err
	}
	defer sql.Close(context.WithoutCancel(ctx))
	if info, err := sql.Info(ctx); err == nil && pushes(info) && info.Privileges.SwitchWAL && !info.InRecovery {
		if _, err := sql.SwitchWAL(ctx); err != nil {
			return err
		}
	}
	wctx, cancel := context.WithTimeoutCause(ctx, walPatience, errors.New("waited five minutes; is the receiver or archive_command working? `pileus check` tells"))
	defer cancel()
	return archive.WaitCovered(wctx, d.Repo, cl, tli, start, stop, 200*time.Millisecond)
}
