package config

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Config is one pileus.yaml with defaults filled in. Every path in it is absolute.
type Config struct {
	// Path is the file that was read.
	Path       string
	Repository Repository
	// StateDir holds the spool and the locks of this host.
	StateDir string
	// Workers is how many chunks are worked on at once; 0 means one for each core.
	// WorkerCount resolves it.
	Workers int
	// Serve is what `pileus serve` needs.
	Serve Serve
	// Recovery is what the runbook needs.
	Recovery Recovery
	// Defaults are what a cluster has that says nothing else: the `defaults` section.
	Defaults Cluster
	// Clusters are keyed by identifier, in lower case.
	Clusters map[string]Cluster
	// Warnings are what a person should see although the file is usable, one
	// sentence each.
	Warnings []string
}

// Repository says where backups and WAL are kept, and how.
type Repository struct {
	// URL is an absolute path of a local folder, or s3://, gs:// or azblob://
	// followed by bucket and prefix. It never holds credentials.
	URL string
	S3  S3
	// KeyFile is this host's age identity, which unlocks an encrypted repository;
	// empty if there is none.
	KeyFile string
	// PassphraseFile holds the passphrase of an encrypted repository; empty if
	// there is none. PILEUS_PASSPHRASE in the environment is the other way.
	PassphraseFile string
	// PackSize is the size in bytes that a pack is closed at.
	PackSize    int64
	Compression Compression
}

// S3 is what an S3 server that is not Amazon's needs to be reached.
type S3 struct {
	// Endpoint is the URL of the server; empty for Amazon's own.
	Endpoint string
	// Region is empty where the environment decides it.
	Region string
	// PathStyle puts the bucket in the path and not in the host name.
	PathStyle bool
}

// Compression says how chunks and WAL are compressed.
type Compression struct {
	Algorithm string // "zstd" or "none"
	Level     string // "fastest", "default", "better" or "best"
}

// What Cluster.DataDir may be beside a path.
const (
	// DataDirAuto asks the server for its data directory, and reads the files
	// directly if they are on this host.
	DataDirAuto = "auto"
	// DataDirNever always copies over the replication protocol.
	DataDirNever = "never"
)

// Cluster is one PostgreSQL server that Pileus protects.
type Cluster struct {
	// Name is the identifier, in lower case.
	Name string
	// Connection is a libpq connection string or URL, without a password.
	Connection string
	// PasswordFile holds the password and nothing else; empty if there is none.
	PasswordFile string
	// DataDir is DataDirAuto, DataDirNever or an absolute path on this host.
	DataDir string
	// Retention is how far back any moment can be restored.
	Retention time.Duration
	// Slot is the name of the physical replication slot.
	Slot string
	// BinDir holds this cluster's PostgreSQL programs; empty means: look for them.
	BinDir string
	// Checkpoint is "fast" or "spread": how the checkpoint at the start of a backup runs.
	Checkpoint string
	// MaxRate is how many bytes a second a backup takes from the cluster's files; 0 is no limit.
	MaxRate int64
	// Nice lets the workers of a backup give way to others for CPU and disk.
	Nice bool
	WAL  WAL
}

// WAL says how a cluster's write-ahead log is received, spooled and kept in bounds.
// Sizes are bytes.
type WAL struct {
	// FlushInterval is the longest that received WAL waits before it is in the repository.
	FlushInterval time.Duration
	// SpoolMax bounds the WAL kept on this host while the repository is unreachable.
	SpoolMax int64
	// PrimaryRetainMax bounds the WAL that the primary may hold for Pileus.
	PrimaryRetainMax int64
	// PushQueueMax bounds the WAL that waits for `pileus wal push`.
	PushQueueMax int64
	// SlotCreate lets `pileus wal receive` create the slot if it is not there.
	SlotCreate bool
}

// WorkerCount is how many workers to start: Workers, or one for each core.
func (c *Config) WorkerCount() int {
	if c.Workers > 0 {
		return c.Workers
	}
	return runtime.GOMAXPROCS(0)
}

// ClusterNames lists the clusters in order.
func (c *Config) ClusterNames() []string {
	names := make([]string, 0, len(c.Clusters))
	for name := range c.Clusters {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Cluster returns the cluster with that name, in any case. The error of an unknown
// one wraps ErrUnknownCluster and lists the known.
func (c *Config) Cluster(name string) (Cluster, error) {
	if cluster, ok := c.Clusters[strings.ToLower(name)]; ok {
		return cluster, nil
	}
	names := c.ClusterNames()
	if len(names) == 0 {
		return Cluster{}, fmt.Errorf("%w %q: %s names no cluster; add it under `clusters:`", ErrUnknownCluster, name, c.Path)
	}
	hint := ""
	if near := nearest(strings.ToLower(name), names); near != "" {
		hint = fmt.Sprintf("; did you mean %q?", near)
	}
	return Cluster{}, fmt.Errorf("%w %q: %s has %s%s", ErrUnknownCluster, name, c.Path, strings.Join(names, ", "), hint)
}
