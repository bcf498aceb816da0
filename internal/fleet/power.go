package fleet

import (
	"context"
	"fmt"
)

// StopCluster begins to stop a cluster's servers. Its backups stay.
func (f *Fleet) StopCluster(ctx context.Context, id string) (Cluster, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.findManaged(id, "stopping it")
	if err != nil {
		return Cluster{}, err
	}
	if err := idle(c, "stopped", StatusAvailable); err != nil {
		return Cluster{}, err
	}
	if err := f.begin(c, StatusStopping, Operation{Kind: OpStop}); err != nil {
		return Cluster{}, err
	}
	return f.seen(c), nil
}

func (f *Fleet) doStop(ctx context.Context, c Cluster) error {
	if err := f.rejoin(ctx, c); err != nil {
		f.o.Log.Warn("a server is stopped without a receiver: the WAL since it was last received is in its data directory only", "cluster", c.Identifier, "error", err)
	}
	f.stopReaders(ctx, c)
	if err := f.halt(ctx, c); err != nil {
		return fmt.Errorf("stop the server: %w", err)
	}
	return nil
}

// StartCluster begins to start a stopped cluster's servers.
func (f *Fleet) StartCluster(ctx context.Context, id string) (Cluster, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.findManaged(id, "starting it")
	if err != nil {
		return Cluster{}, err
	}
	if err := idle(c, "started", StatusStopped); err != nil {
		return Cluster{}, err
	}
	if err := f.begin(c, StatusStarting, Operation{Kind: OpStart}); err != nil {
		return Cluster{}, err
	}
	return f.seen(c), nil
}

func (f *Fleet) doStart(ctx context.Context, c Cluster) error {
	s, spec, err := f.server(ctx, c)
	if err != nil {
		return err
	}
	if _, err := s.Configure(ctx, spec); err != nil {
		return fmt.Errorf("write the server's settings: %w", err)
	}
	if err := s.Start(ctx); err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	f.update(c.ResourceID, func(c *Cluster) { c.ParametersPending = false })
	f.startReaders(c)
	return nil
}
