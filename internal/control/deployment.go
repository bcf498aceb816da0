package control

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"time"

	"filippo.io/age"

	"pileus/internal/config"
	"pileus/internal/postgres"
	"pileus/internal/repo"
	"pileus/internal/store"
)

// PassphraseVariable is the environment variable that holds the passphrase of an
// encrypted repository.
const PassphraseVariable = "PILEUS_PASSPHRASE"

// ConfigError: the configuration or a flag is wrong; nothing was changed.
type ConfigError struct{ Err error }

func (e *ConfigError) Error() string { return e.Err.Error() }

func (e *ConfigError) Unwrap() error { return e.Err }

// Deployment is one pileus.yaml with its repository open. It may be used
// concurrently.
type Deployment struct {
	Config  *config.Config
	Repo    *repo.Repository
	Version string // of this program
}

// LoadConfig finds and reads the configuration. path is what --config named, or empty.
func LoadConfig(path string) (*config.Config, error) {
	found, err := config.Find(path)
	if err != nil {
		return nil, &ConfigError{err}
	}
	cfg, err := config.Load(found)
	if err != nil {
		return nil, &ConfigError{err}
	}
	return cfg, nil
}

// How long a command tries again when the repository cannot be reached, before
// it says so.
const (
	Patient = 5 * time.Minute // for a person's command, which would have to be started again
	Brief   = 5 * time.Second // for one that has a way to go on without, and must tell soon
)

// Open opens the repository that the configuration names.
func Open(ctx context.Context, cfg *config.Config, version string, patience time.Duration) (*Deployment, error) {
	st, err := openStore(ctx, cfg.Repository, false, patience)
	if err != nil {
		return nil, err
	}
	ids, err := identities(cfg.Repository)
	if err != nil {
		return nil, err
	}
	opt, err := writerOptions(cfg)
	if err != nil {
		return nil, err
	}
	r, err := repo.Open(ctx, st, ids, opt)
	if err != nil {
		return nil, fmt.Errorf("open the repository at %s: %w", cfg.Repository.URL, err)
	}
	return &Deployment{Config: cfg, Repo: r, Version: version}, nil
}

// With is the same deployment with one more cluster, for who keeps clusters that the
// configuration does not name. It shares the repository.
func (d *Deployment) With(c config.Cluster) *Deployment {
	cfg := *d.Config
	cfg.Clusters = maps.Clone(cfg.Clusters)
	cfg.Clusters[c.Name] = c
	more := *d
	more.Config = &cfg
	return &more
}

// Remembering is the same deployment, for who looks at backups again and again.
func (d *Deployment) Remembering() *Deployment {
	again := *d
	again.Repo = d.Repo.Remembering()
	return &again
}

func openStore(ctx context.Context, c config.Repository, create bool, patience time.Duration) (store.Store, error) {
	st, err := store.Open(ctx, c.URL, store.Options{Create: create, S3: store.S3Options{
		Endpoint: c.S3.Endpoint, Region: c.S3.Region, PathStyle: c.S3.PathStyle}})
	if err != nil {
		return nil, fmt.Errorf("open the repository's store: %w", err)
	}
	return store.WithRetry(st, store.RetryPolicy{MaxElapsed: patience}), nil
}

func writerOptions(cfg *config.Config) (repo.Options, error) {
	level, err := repo.ParseLevel(cfg.Repository.Compression.Level)
	if err != nil {
		return repo.Options{}, &ConfigError{err}
	}
	return repo.Options{
		PackSize:   cfg.Repository.PackSize,
		Level:      level,
		NoCompress: cfg.Repository.Compression.Algorithm == "none",
		Workers:    cfg.WorkerCount(),
	}, nil
}

// identities gathers what may unlock the repository: the host's key file first,
// as trying a passphrase takes a second by design.
func identities(c config.Repository) ([]age.Identity, error) {
	passphrase, err := passphrase(c)
	if err != nil {
		return nil, err
	}
	return repo.LoadIdentities(c.KeyFile, passphrase)
}

func passphrase(c config.Repository) (string, error) {
	if p := os.Getenv(PassphraseVariable); p != "" {
		return p, nil
	}
	return readSecret(c.PassphraseFile)
}

// readSecret reads a file that holds one secret and at most one newline after it.
func readSecret(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", &ConfigError{fmt.Errorf("read a secret: %w", err)}
	}
	s := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if s == "" {
		return "", &ConfigError{fmt.Errorf("%s is empty", path)}
	}
	return s, nil
}

// connector opens sessions to one cluster's server.
type connector struct {
	dsn      string
	password string
}

func newConnector(c config.Cluster) (connector, error) {
	password, err := readSecret(c.PasswordFile)
	return connector{dsn: c.Connection, password: password}, err
}

// SQL opens an administrative session.
func (c connector) SQL(ctx context.Context) (*postgres.Conn, error) {
	return postgres.Connect(ctx, c.dsn, postgres.Options{Password: c.password})
}

// Replication opens a session of the replication protocol.
func (c connector) Replication(ctx context.Context) (*postgres.ReplConn, error) {
	return postgres.ConnectReplication(ctx, c.dsn, postgres.Options{Password: c.password})
}

// cluster looks a configured cluster up by name.
func (d *Deployment) cluster(name string) (config.Cluster, connector, error) {
	c, err := d.Config.Cluster(name)
	if err != nil {
		return c, connector{}, &ConfigError{err}
	}
	conn, err := newConnector(c)
	return c, conn, err
}
