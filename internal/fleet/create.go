package fleet

import (
	"context"
	"fmt"

	"pileus/internal/dbserver"
)

// CreateCluster begins to create an empty cluster.
func (f *Fleet) CreateCluster(ctx context.Context, q CreateCluster) (Cluster, error) {
	if err := checkIdentifier("DBClusterIdentifier", q.Identifier); err != nil {
		return Cluster{}, err
	}
	version, err := f.resolveVersion(ctx, q.Engine, q.EngineVersion)
	if err != nil {
		return Cluster{}, err
	}
	if err := checkMasterUsername(q.MasterUsername); err != nil {
		return Cluster{}, err
	}
	if err := checkPassword(q.MasterPassword); err != nil {
		return Cluster{}, err
	}
	if err := checkDatabaseName(q.DatabaseName); err != nil {
		return Cluster{}, err
	}
	if err := checkTags(q.Tags); err != nil {
		return Cluster{}, err
	}
	verifier, err := dbserver.Verifier(q.MasterPassword)
	if err != nil {
		return Cluster{}, fmt.Errorf("prepare the master password: %w", err)
	}
	c := f.newCluster(q.Identifier, q.Engine, version)
	c.MasterUsername, c.DatabaseName, c.Password, c.Tags = q.MasterUsername, q.DatabaseName, verifier, mergeTags(nil, q.Tags)
	c.Operation = &Operation{Kind: OpCreate, Started: f.now(), From: StatusFailed}
	return f.found(ctx, c, q.Settings)
}

// found makes a new cluster's document durable and begins its operation.
func (f *Fleet) found(ctx context.Context, c *Cluster, s Settings) (Cluster, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.unused(c.Identifier); err != nil {
		return Cluster{}, err
	}
	if err := f.complete(ctx, c, s); err != nil {
		return Cluster{}, err
	}
	if err := f.docs.clusters.save(c.ResourceID, c); err != nil {
		return Cluster{}, err
	}
	f.clusters[c.ResourceID] = c
	f.perform(c.ResourceID)
	return f.seen(c), nil
}

// doCreate makes the server of a new cluster. What an attempt before left is removed.
func (f *Fleet) doCreate(ctx context.Context, c Cluster) error {
	s, spec, err := f.server(ctx, c)
	if err != nil {
		return err
	}
	if err := s.Init(ctx, spec); err != nil {
		return fmt.Errorf("create the database: %w", err)
	}
	if err := s.Start(ctx); err != nil {
		return fmt.Errorf("start the new server: %w", err)
	}
	return f.welcome(ctx, c, s)
}

// welcome gives a running server its master user and database, and clears the password from the document.
func (f *Fleet) welcome(ctx context.Context, c Cluster, s *dbserver.Server) error {
	if c.Password != "" {
		if err := s.SetMaster(ctx, c.MasterUsername, c.Password); err != nil {
			return fmt.Errorf("create the master user %s: %w", c.MasterUsername, err)
		}
	}
	if c.Operation != nil && c.Operation.Kind == OpCreate && c.DatabaseName != "" {
		if err := s.CreateDatabase(ctx, c.DatabaseName, c.MasterUsername); err != nil {
			return fmt.Errorf("create database %s: %w", c.DatabaseName, err)
		}
	}
	f.update(c.ResourceID, func(c *Cluster) { c.Password = "" })
	return nil
}
