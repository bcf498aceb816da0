package config

import (
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// field is one key: what it means, what it is if absent, and how it is read.
type field struct {
	key string
	doc string
	// standard is the value that stands for an absent key, as one would write it;
	// empty if there is none. That the two agree is a test.
	standard string
	// read stores the value or says what it must be instead. Nil in a section.
	read func(d *decoder, node ast.Node) error
	// fields are the keys of a section.
	fields []field
}

const (
	mebibyte = 1 << 20
	gibibyte = 1 << 30
	tebibyte = 1 << 40
)

func newConfig() *Config {
	return &Config{
		Repository: Repository{
			PackSize:    16 * mebibyte,
			Compression: Compression{Algorithm: "zstd", Level: "fastest"},
		},
		Serve:    newServe(),
		Recovery: newRecovery(),
		Defaults: newCluster(),
		Clusters: map[string]Cluster{},
	}
}

func newCluster() Cluster {
	return Cluster{
		DataDir:    DataDirAuto,
		Retention:  7 * day,
		Checkpoint: "fast",
		WAL: WAL{
			FlushInterval:    time.Second,
			SpoolMax:         4 * gibibyte,
			PrimaryRetainMax: 8 * gibibyte,
			PushQueueMax:     16 * gibibyte,
			SlotCreate:       true,
		},
	}
}

// topFields are the keys of the file except `defaults` and `clusters`, whose
// reading depends on each other.
func topFields(c *Config) []field {
	return []field{
		{
			key: "repository", doc: "Where backups and WAL are kept.",
			fields: repositoryFields(&c.Repository),
		},
		{
			key: "state_dir", standard: "",
			doc: "This host's spool and locks. WAL waits here while the repository is unreachable, so the folder needs room " +
				"for wal.spool_max of each cluster. Without it: $XDG_STATE_HOME/pileus or ~/.local/state/pileus.",
			read: readPath(&c.StateDir),
		},
		{
			key: "workers", standard: "0",
			doc:  "How many chunks are worked on at once; 0 is one for each core. At most 256.",
			read: readInt(&c.Workers, 0, 256),
		},
		{
			key: "serve", doc: "What `pileus serve` listens on, and what the servers that it runs may use.",
			fields: serveFields(&c.Serve),
		},
		{
			key: "recovery", doc: "What `pileus recover`, `pileus fence` and `pileus drill` need to know about the application. One file describes one.",
			fields: recoveryFields(&c.Recovery),
		},
	}
}

func repositoryFields(r *Repository) []field {
	return []field{
		{
			key: "url",
			doc: "A local folder, or s3://bucket/prefix, gs://bucket/prefix or azblob://container/prefix. Credentials come " +
				"from the environment, as for the provider's own tools; never write them here.",
			read: readURL(&r.URL),
		},
		{
			key: "s3", doc: "For S3 servers other than Amazon's.",
			fields: []field{
				{key: "endpoint", doc: "The server's URL, such as https://s3.example.org:9000.", read: readEndpoint(&r.S3.Endpoint)},
				{key: "region", doc: "The region; without it the environment decides.", read: readText(&r.S3.Region)},
				{
					key: "path_style", standard: "false",
					doc:  "Put the bucket's name in the path and not in the host name.",
					read: readBool(&r.S3.PathStyle),
				},
			},
		},
		{
			key: "key_file",
			doc: "This host's age identity, which unlocks an encrypted repository. Keep a copy elsewhere: without a key an " +
				"encrypted repository is lost.",
			read: readPath(&r.KeyFile),
		},
		{
			key:  "passphrase_file",
			doc:  "A file with the passphrase of an encrypted repository; or set PILEUS_PASSPHRASE in the environment.",
			read: readPath(&r.PassphraseFile),
		},
		{
			key: "pack_size", standard: "16MiB",
			doc:  "The size of the objects that chunks are gathered in, 4MiB to 128MiB.",
			read: readSize(&r.PackSize, 4*mebibyte, 128*mebibyte),
		},
		{
			key: "compression", doc: "How chunks and WAL are compressed.",
			fields: []field{
				{
					key: "algorithm", standard: "zstd", doc: "zstd or none.",
					read: readChoice(&r.Compression.Algorithm, "zstd", "none"),
				},
				{
					key: "level", standard: "fastest", doc: "fastest, default, better or best.",
					read: readChoice(&r.Compression.Level, "fastest", "default", "better", "best"),
				},
			},
		},
	}
}

// sharedFields are the keys that both `defaults` and each cluster may have.
func sharedFields(c *Cluster) []field {
	return []field{
		{
			key: "retention", standard: "7d",
			doc:  "How far back any moment can be restored, 1d to 35d.",
			read: readDuration(&c.Retention, day, 35*day),
		},
		{
			key:  "bin_dir",
			doc:  "Where this PostgreSQL's programs are (postgres, pg_ctl); without it they are looked for.",
			read: readPath(&c.BinDir),
		},
		{
			key: "checkpoint", standard: "fast",
			doc:  "The checkpoint at the start of a backup: fast begins at once, spread spares the server's disks.",
			read: readChoice(&c.Checkpoint, "fast", "spread"),
		},
		{
			key: "max_rate", standard: NoLimit,
			doc: "How much a backup takes from the cluster's files, or receives, in a second: 64KiB to 1TiB, or none for no limit. " +
				"`pileus backup --max-rate` takes precedence.",
			read: readRate(&c.MaxRate),
		},
		{
			key: "nice", standard: "false",
			doc:  "Whether a backup's workers give way to other programs for CPU and disk. Linux only.",
			read: readBool(&c.Nice),
		},
		{
			key: "wal", doc: "The write-ahead log: receiving, spooling and its bounds.",
			fields: walFields(&c.WAL),
		},
	}
}

func walFields(w *WAL) []field {
	return []field{
		{
			key: "flush_interval", standard: "1s",
			doc:  "The longest that received WAL waits before it is in the repository, 10ms to 1m.",
			read: readDuration(&w.FlushInterval, 10*time.Millisecond, time.Minute),
		},
		{
			key: "spool_max", standard: "4GiB",
			doc:  "The most WAL kept on this host while the repository is unreachable, 64MiB to 1PiB.",
			read: readSize(&w.SpoolMax, 64*mebibyte, 1024*tebibyte),
		},
		{
			key: "primary_retain_max", standard: "8GiB",
			doc: "The most WAL that the primary may hold for Pileus, 64MiB to 1PiB. Beyond it Pileus lets the primary go " +
				"on, and the next backup closes the gap: a lost window is better than a full disk.",
			read: readSize(&w.PrimaryRetainMax, 64*mebibyte, 1024*tebibyte),
		},
		{
			key: "push_queue_max", standard: "16GiB",
			doc:  "The most WAL that may wait for `pileus wal push`, 64MiB to 1PiB.",
			read: readSize(&w.PushQueueMax, 64*mebibyte, 1024*tebibyte),
		},
		{
			key: "slot_create", standard: "true",
			doc:  "Whether `pileus wal receive` creates the replication slot if it is not there.",
			read: readBool(&w.SlotCreate),
		},
	}
}

// ownFields are the keys that make sense for one cluster only.
func ownFields(c *Cluster) []field {
	return []field{
		{
			key: "connection",
			doc: "How to reach the server, as for psql: host=... dbname=postgres user=..., or a postgresql:// URL. The role " +
				"needs the REPLICATION attribute; `pileus check` tells what is missing.",
			read: readConnection(&c.Connection),
		},
		{
			key:  "password_file",
			doc:  "A file with the password and nothing else, readable by its owner only; PGPASSFILE and ~/.pgpass work too.",
			read: readPath(&c.PasswordFile),
		},
		{
			key: "data_dir", standard: DataDirAuto,
			doc: "auto asks the server and reads the files directly if they are on this host; never copies over the " +
				"replication protocol; or the data directory's path on this host.",
			read: readDataDir(&c.DataDir),
		},
		{
			key:  "slot",
			doc:  "The replication slot; without it pileus_ and the cluster's name, with underscores for hyphens.",
			read: readSlot(&c.Slot),
		},
	}
}

func clusterFields(c *Cluster) []field { return append(ownFields(c), sharedFields(c)...) }

// secretKeys must not be in the file. Each comes with the place that it belongs to.
var secretKeys = map[string]string{
	"password":          "put it in a file of its own and name that as password_file, or use PGPASSFILE",
	"passphrase":        "put it in a file of its own and name that as passphrase_file, or set PILEUS_PASSPHRASE",
	"secret":            "put an access key's in a file of its own and name that as secret_file; set a cloud's in the environment",
	"token":             "set it in the environment",
	"access_key":        "set AWS_ACCESS_KEY_ID in the environment, or use a profile or a role",
	"access_key_id":     "set AWS_ACCESS_KEY_ID in the environment, or use a profile or a role",
	"secret_key":        "set AWS_SECRET_ACCESS_KEY in the environment, or use a profile or a role",
	"secret_access_key": "set AWS_SECRET_ACCESS_KEY in the environment, or use a profile or a role",
}

// secretAdvice tells where the secret that key asks for belongs; false if it is none.
func secretAdvice(key string) (string, bool) {
	advice, ok := secretKeys[strings.ReplaceAll(strings.ToLower(key), "-", "_")]
	return advice, ok
}
