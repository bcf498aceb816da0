package control

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"pileus/internal/archive"
	"pileus/internal/config"
	"pileus/internal/repo"
	"pileus/internal/store"
)

func (d *Deployment) receiverOptions(c config.Cluster, conn connector, log *slog.Logger) archive.ReceiverOptions {
	return archive.ReceiverOptions{
		Repo: d.Repo, Cluster: c.Name, SQL: conn.SQL, Replication: conn.Replication, Slot: c.Slot, CreateSlot: c.WAL.SlotCreate,
		StateDir: d.Config.StateDir, FlushInterval: c.WAL.FlushInterval, SpoolMax: c.WAL.SpoolMax,
		PrimaryRetainMax: c.WAL.PrimaryRetainMax, Log: log,
	}
}

// Receive streams WAL into the repository until ctx ends.
func (d *Deployment) Receive(ctx context.Context, name string, log *slog.Logger) error {
	c, conn, err := d.cluster(name)
	if err != nil {
		return err
	}
	return archive.Receive(ctx, d.receiverOptions(c, conn, log))
}

// Push stores one file of pg_wal, for archive_command. The first segment registers the
// cluster. It opens the repository itself, as one that is away counts as well
// when a segment is given up to save the database; see archive.Push.
func Push(ctx context.Context, cfg *config.Config, version, name, path string, log *slog.Logger) error {
	c, err := cfg.Cluster(name)
	if err != nil {
		return &ConfigError{err}
	}
	o := archive.PushOptions{StateDir: cfg.StateDir, QueueMax: c.WAL.PushQueueMax, Log: log}
	d, err := Open(ctx, cfg, version, Brief)
	if errors.Is(err, store.ErrUnavailable) || errors.Is(err, repo.ErrNoRepository) { // its disk may not be mounted
		return archive.GiveUp(c.Name, path, err, o)
	} else if err != nil {
		return err
	}
	cl, err := d.Repo.Cluster(ctx, c.Name)
	if errors.Is(err, repo.ErrNotFound) {
		var id uint64
		var size int64
		if id, size, err = archive.IdentifySegment(path); err != nil {
			return err
		}
		cl, err = d.Repo.EnsureCluster(ctx, repo.Cluster{Name: c.Name, SystemIdentifier: id, SegmentSize: size, Created: time.Now().UTC().Truncate(time.Second)})
	}
	if errors.Is(err, store.ErrUnavailable) {
		return archive.GiveUp(c.Name, path, err, o)
	} else if err != nil {
		return err
	}
	return archive.Push(ctx, d.Repo, cl, path, o)
}

// FetchRequest is one call of restore_command.
type FetchRequest struct {
	Cluster string // in the repository; it need not be configured
	File    string
	Dest    string
}

// Fetch writes one file of the archive. archive.ErrNoSuchFile is the end of the
// WAL; any other error must stop recovery.
func (d *Deployment) Fetch(ctx context.Context, q FetchRequest) error {
	cl, err := d.Repo.Cluster(ctx, q.Cluster)
	if err != nil {
		return err
	}
	return archive.Fetch(ctx, d.Repo, cl, q.File, q.Dest)
}

// Probe tries whether WAL of the cluster, or of any if it is empty, could be fetched by whoever runs this.
func (d *Deployment) Probe(ctx context.Context, cluster string) error {
	if cluster == "" {
		for _, err := range d.Repo.Clusters(ctx) {
			return err
		}
		return nil
	}
	_, err := d.Repo.Cluster(ctx, cluster)
	return err
}
