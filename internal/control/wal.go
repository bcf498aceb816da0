package control

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"pileus/internal/archive"
	"pileus/internal/config"
	"pileus/internal/repo"
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

// Push stores one file of pg_wal. The first segment registers the cluster.
func (d *Deployment) Push(ctx context.Context, name, path string, log *slog.Logger) error {
	c, err := d.Config.Cluster(name)
	if err != nil {
		return &ConfigError{err}
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
	if err != nil {
		return err
	}
	return archive.Push(ctx, d.Repo, cl, path, archive.PushOptions{StateDir: d.Config.StateDir, QueueMax: c.WAL.PushQueueMax, Log: log})
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

// Probe tries whether WAL of the cluster could be fetched by whoever runs this.
func (d *Deployment) Probe(ctx context.Context, cluster string) error {
	_, err := d.Repo.Cluster(ctx, cluster)
	return err
}
