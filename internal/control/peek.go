package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"pileus/internal/config"
	"pileus/internal/dbserver"
	"pileus/internal/postgres"
	"pileus/internal/progress"
	"pileus/internal/repo"
	"pileus/internal/restore"
)

// PeekRequest is which moment to look at.
type PeekRequest struct {
	Cluster string // in the repository
	Target  restore.Target
	Dir     string // where the throwaway cluster goes; empty: the system's temporary folder
	BinDir  string
}

// Peek is a throwaway cluster at a moment, which nobody else can reach. Close removes it.
type Peek struct {
	Plan   restore.Plan
	server *dbserver.Server
	dir    string
	forget func(context.Context) error
}

// Peek restores a throwaway cluster and starts it, read-only.
func (d *Deployment) Peek(ctx context.Context, q PeekRequest, rep progress.Reporter) (_ *Peek, err error) {
	dir, err := os.MkdirTemp(q.Dir, "pileus-peek-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the throwaway cluster: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := os.Chmod(dir, 0o711); err != nil { // the server's account goes through
		return nil, err
	}
	b, err := d.newestVersion(ctx, q.Cluster)
	if err != nil {
		return nil, err
	}
	bins, err := postgres.FindBinaries(ctx, b.Version/10000, d.binDirs(q))
	if err != nil {
		return nil, err
	}
	owner, err := ServerAccount(d.Config.Serve)
	if err != nil {
		return nil, err
	}
	name := strings.ToLower("peek-" + filepath.Base(dir)[len("pileus-peek-"):])
	p := &Peek{server: dbserver.New(filepath.Join(dir, "server"), bins, owner), dir: dir,
		forget: func(ctx context.Context) error { return d.Repo.DeleteCluster(ctx, name) }}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close(context.WithoutCancel(ctx)))
		}
	}()
	if err := p.server.Prepare(ctx); err != nil {
		return nil, err
	}
	spaces := map[string]string{}
	for b, err := range d.Repo.Backups(ctx, q.Cluster) {
		if err != nil {
			continue // the plan tells of those that matter
		}
		for _, t := range b.Tablespaces {
			spaces[fmt.Sprint(t.OID)] = p.server.TablespaceDir(t.OID)
		}
	}
	request := RestoreRequest{Cluster: q.Cluster, As: name, DataDir: p.server.DataDir(), Target: q.Target, Tablespaces: spaces, BinDir: bins.Dir, Start: true, Hold: true}
	if os.Geteuid() == 0 {
		request.Owner = owner.Name
	}
	if p.Plan, err = d.PlanRestore(ctx, request, rep); err != nil {
		return nil, err
	}
	if _, err = d.Restore(ctx, p.Plan); err != nil {
		return nil, err
	}
	spec := dbserver.Spec{Name: name, Port: 5432, Hosts: []string{"localhost"}, Settings: map[string]string{"default_transaction_read_only": "on", "autovacuum": "off"}}
	if err = p.server.Adopt(ctx, spec); err != nil {
		return nil, fmt.Errorf("prepare the throwaway cluster: %w", err)
	}
	if err = p.server.Start(ctx); err != nil {
		return nil, fmt.Errorf("start the throwaway cluster: %w", err)
	}
	return p, nil
}

// DSN connects to a database of the throwaway cluster.
func (p *Peek) DSN(database string) string { return p.server.DSN(database) }

// Connect opens a session on it.
func (p *Peek) Connect(ctx context.Context, database string) (*postgres.Conn, error) {
	return p.server.Connect(ctx, database)
}

// Close stops the throwaway cluster and removes all of it.
func (p *Peek) Close(ctx context.Context) error {
	err := p.server.Remove(ctx)
	if ferr := p.forget(ctx); ferr != nil && !errors.Is(ferr, repo.ErrNotFound) {
		err = errors.Join(err, ferr)
	}
	return errors.Join(err, os.RemoveAll(p.dir))
}

// newestVersion is the newest backup of a cluster.
func (d *Deployment) newestVersion(ctx context.Context, cluster string) (repo.Backup, error) {
	if _, err := d.Repo.Cluster(ctx, cluster); errors.Is(err, repo.ErrNotFound) {
		return repo.Backup{}, &ConfigError{fmt.Errorf("cluster %s is not in the repository", cluster)}
	} else if err != nil {
		return repo.Backup{}, err
	}
	var newest *repo.Backup
	for b, err := range d.Repo.Backups(ctx, cluster) {
		if err == nil {
			newest = &b
		}
	}
	if newest == nil {
		return repo.Backup{}, fmt.Errorf("cluster %s: %w", cluster, restore.ErrNoBackup)
	}
	return *newest, nil
}

func (d *Deployment) binDirs(q PeekRequest) []string {
	if q.BinDir != "" {
		return []string{q.BinDir}
	}
	hints := d.Config.Serve.BinDirs
	if c, ok := d.Config.Clusters[q.Cluster]; ok && c.BinDir != "" {
		hints = append([]string{c.BinDir}, hints...)
	}
	return hints
}

// ServerAccount is whose servers are: this process's own, or where that is root the configured one.
func ServerAccount(c config.Serve) (*postgres.Owner, error) {
	if os.Geteuid() != 0 {
		return postgres.CurrentOwner()
	}
	o, err := postgres.LookupOwner(c.Owner)
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL refuses to run as root, and the account of `serve.owner` is not there: %w", err)
	}
	if o.UID == 0 {
		return nil, errors.New("PostgreSQL refuses to run as root: name another account in `serve.owner`")
	}
	return o, nil
}
