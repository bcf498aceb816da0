package fleet

import (
	"time"

	"pileus/internal/pg"
)

// Status is the state of a cluster, instance or snapshot, as AWS names it.
type Status string

// The states, see the package comment.
const (
	StatusCreating  Status = "creating"
	StatusAvailable Status = "available"
	StatusBackingUp Status = "backing-up"
	StatusModifying Status = "modifying"
	StatusRenaming  Status = "renaming"
	StatusResetting Status = "resetting-master-credentials"
	StatusStarting  Status = "starting"
	StatusStopping  Status = "stopping"
	StatusStopped   Status = "stopped"
	StatusRebooting Status = "rebooting"
	StatusDeleting  Status = "deleting"
	StatusFailed    Status = "failed"
	StatusRetained  Status = "retained" // of the automated backups of a deleted cluster
	StatusActive    Status = "active"   // of the automated backups of a living one
	StatusPromoting Status = "promoting"
)

// Tag is a key with a value; keys are unique on a resource.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Cluster is a DB cluster.
type Cluster struct {
	Identifier string `json:"identifier"`  // lower case; may change
	ResourceID string `json:"resource_id"` // cluster- and 26 characters; never changes
	Attached   bool   `json:"-"`           // in pileus.yaml
	Status     Status `json:"status"`
	// Archive is the cluster's name in the repository. It is the first identifier,
	// or, where another cluster used that before, that with a part of ResourceID.
	Archive string    `json:"archive"`
	Created time.Time `json:"created"`

	Engine         string `json:"engine"`         // aurora-postgresql or postgres, as it was created
	EngineVersion  string `json:"engine_version"` // for example 15.18
	DatabaseName   string `json:"database_name,omitempty"`
	MasterUsername string `json:"master_username"`
	Port           int    `json:"port"`
	StorageType    string `json:"storage_type,omitempty"`
	EngineMode     string `json:"engine_mode,omitempty"` // provisioned unless given
	KMSKeyID       string `json:"kms_key_id,omitempty"`
	Encrypted      bool   `json:"encrypted,omitempty"` // as asked for; the repository's encryption is its own
	IAMAuth        bool   `json:"iam_auth,omitempty"`  // always refused to be true
	// ServerlessMin and ServerlessMax are kept for clients that set them; they have no effect.
	ServerlessMin float64 `json:"serverless_min,omitempty"`
	ServerlessMax float64 `json:"serverless_max,omitempty"`

	RetentionDays      int    `json:"retention_days"`     // 1 to 35
	BackupWindow       string `json:"backup_window"`      // hh24:mi-hh24:mi, UTC
	MaintenanceWindow  string `json:"maintenance_window"` // ddd:hh24:mi-ddd:hh24:mi, UTC
	DeletionProtection bool   `json:"deletion_protection,omitempty"`
	CopyTagsToSnapshot bool   `json:"copy_tags_to_snapshot,omitempty"`
	AutoMinorUpgrade   bool   `json:"auto_minor_upgrade,omitempty"`

	SubnetGroup       string   `json:"subnet_group"`
	ParameterGroup    string   `json:"parameter_group"`
	ParametersPending bool     `json:"parameters_pending,omitempty"` // until a restart
	SecurityGroups    []string `json:"security_groups"`
	AvailabilityZones []string `json:"availability_zones,omitempty"` // as asked for
	LogExports        []string `json:"log_exports,omitempty"`        // as asked for
	InstanceClass     string   `json:"instance_class,omitempty"`     // as asked for
	AllocatedStorage  int      `json:"allocated_storage,omitempty"`  // GiB, as asked for
	IOPS              int      `json:"iops,omitempty"`               // as asked for
	Public            bool     `json:"public,omitempty"`             // as asked for
	Tags              []Tag    `json:"tags,omitempty"`

	Pending   *Pending   `json:"pending,omitempty"`
	Operation *Operation `json:"operation,omitempty"` // under way
	Problem   string     `json:"problem,omitempty"`   // why it is failed
	Deleted   time.Time  `json:"deleted,omitzero"`    // of one that is retained
	Dropped   bool       `json:"dropped,omitempty"`   // deleted, and its automated backups are to go
	// Password is the SCRAM-SHA-256 verifier of the master user until it is set in the server.
	Password string `json:"password_verifier,omitempty"`

	// What follows is derived when the cluster is shown.
	Members      []Member  `json:"-"`
	ARN          string    `json:"-"`
	Endpoint     string    `json:"-"` // host name or address of the writer; empty until there is one
	ReaderHost   string    `json:"-"`
	Earliest     time.Time `json:"-"` // EarliestRestorableTime; zero if nothing can be restored
	Latest       time.Time `json:"-"` // LatestRestorableTime; zero as above
	StorageBytes int64     `json:"-"` // size of the newest backup's files
}

// Member is an instance as a part of its cluster.
type Member struct {
	Instance string
	Writer   bool
	Tier     int
	InSync   bool // of the cluster parameter group
}

// Pending are changes that wait for the maintenance window.
type Pending struct {
	Password       string `json:"password_verifier,omitempty"`
	Identifier     string `json:"identifier,omitempty"`
	RetentionDays  int    `json:"retention_days,omitempty"`
	EngineVersion  string `json:"engine_version,omitempty"`
	ParameterGroup string `json:"parameter_group,omitempty"`
	Port           int    `json:"port,omitempty"`
}

// OperationKind names what is being done to a cluster.
type OperationKind string

// The operations.
const (
	OpCreate   OperationKind = "create"
	OpRestore  OperationKind = "restore"
	OpModify   OperationKind = "modify"
	OpStart    OperationKind = "start"
	OpStop     OperationKind = "stop"
	OpDelete   OperationKind = "delete"
	OpSnapshot OperationKind = "snapshot"
	OpReboot   OperationKind = "reboot"
)

// Operation is what a cluster is being brought to, with all that doing it again needs.
type Operation struct {
	Kind    OperationKind `json:"kind"`
	Started time.Time     `json:"started"`
	From    Status        `json:"from"` // state to go back to when it fails

	Restore       *RestoreSource `json:"restore,omitempty"`
	NewIdentifier string         `json:"new_identifier,omitempty"`
	FinalSnapshot string         `json:"final_snapshot,omitempty"`
	RetainBackups bool           `json:"retain_backups,omitempty"`
	Immediately   bool           `json:"immediately,omitempty"` // carry out what is pending, too
	Snapshot      string         `json:"snapshot,omitempty"`
}

// RestoreSource says what a cluster is restored from. Exactly one of Time, LSN, XID, Latest,
// Backup is set.
type RestoreSource struct {
	Cluster   string    `json:"cluster"` // name in the repository
	Backup    string    `json:"backup,omitempty"`
	Time      time.Time `json:"time,omitzero"`
	LSN       pg.LSN    `json:"lsn,omitzero"`
	XID       uint64    `json:"xid,omitempty"`
	Exclusive bool      `json:"exclusive,omitempty"` // of XID or LSN
	Latest    bool      `json:"latest,omitempty"`
}

// Instance is a DB instance of a cluster.
type Instance struct {
	Identifier   string    `json:"identifier"`
	ResourceID   string    `json:"resource_id"` // db- and 26 characters
	Cluster      string    `json:"cluster"`     // ResourceID of its cluster
	Created      time.Time `json:"created"`
	Status       Status    `json:"status"`
	Class        string    `json:"class"`          // as asked for; kept, without effect
	Tier         int       `json:"tier"`           // promotion tier, 0 to 15
	Port         int       `json:"port,omitempty"` // of a reader's server; a writer has the cluster's
	Reader       bool      `json:"reader,omitempty"`
	Public       bool      `json:"public,omitempty"`
	AutoMinor    bool      `json:"auto_minor,omitempty"`
	Maintenance  string    `json:"maintenance_window,omitempty"`
	Zone         string    `json:"zone,omitempty"`
	ParamGroup   string    `json:"parameter_group,omitempty"`
	CopyTags     bool      `json:"copy_tags,omitempty"`
	Monitoring   int       `json:"monitoring,omitempty"` // seconds; kept, without effect
	Insights     bool      `json:"insights,omitempty"`   // kept, without effect
	Tags         []Tag     `json:"tags,omitempty"`
	Problem      string    `json:"problem,omitempty"`
	NewIdentity  string    `json:"new_identifier,omitempty"` // while it is renamed
	ClusterView  Cluster   `json:"-"`
	ARN          string    `json:"-"`
	EndpointHost string    `json:"-"`
}

// SnapshotType says who made a snapshot.
type SnapshotType string

// The types.
const (
	SnapshotManual    SnapshotType = "manual"
	SnapshotAutomated SnapshotType = "automated" // a backup of the schedule, named rds:CLUSTER-YYYY-MM-DD-HH-MM
)

// Snapshot is a DB cluster snapshot: a name for a backup, with what the cluster was.
type Snapshot struct {
	Identifier string       `json:"identifier"` // lower case
	Type       SnapshotType `json:"type"`
	Status     Status       `json:"status"`
	Percent    int          `json:"percent"` // of the backup that makes it, 0 to 100
	Created    time.Time    `json:"created"`
	Backup     string       `json:"backup,omitempty"`    // ID in the repository, once there is one
	Archive    string       `json:"archive"`             // the cluster's name in the repository
	Source     string       `json:"source,omitempty"`    // ARN of the snapshot it is a copy of
	Scheduled  bool         `json:"scheduled,omitempty"` // it is of a backup of the schedule, by a copy
	// Cluster is the cluster as it was.
	Cluster Cluster `json:"cluster"`
	Tags    []Tag   `json:"tags,omitempty"`
	// Shared are the accounts that attribute "restore" names; kept, without effect.
	Shared  []string `json:"shared,omitempty"`
	Problem string   `json:"problem,omitempty"`
	ARN     string   `json:"-"`
	Bytes   int64    `json:"bytes,omitempty"` // size of the files in the backup
}

// AutomatedBackup is the restorable window of a cluster that lives, or was deleted
// with its backups retained.
type AutomatedBackup struct {
	Cluster  Cluster // as it is or was; Earliest and Latest are the window
	Status   Status  // StatusActive or StatusRetained
	Retained time.Time
}

// SubnetGroup names addresses to listen on.
type SubnetGroup struct {
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Subnets     []string `json:"subnets"`
	Tags        []Tag    `json:"tags,omitempty"`
	ARN         string   `json:"-"`
}

// ParameterGroup is a set of settings for the servers of one family.
type ParameterGroup struct {
	Name        string            `json:"name"`
	Family      string            `json:"family"` // for example aurora-postgresql15 or postgres15
	Description string            `json:"description"`
	Parameters  map[string]string `json:"parameters,omitempty"` // that were set
	Tags        []Tag             `json:"tags,omitempty"`
	ARN         string            `json:"-"`
}

// Parameter is one setting that a family has.
type Parameter struct {
	Name        string
	Value       string // empty: the engine's own default
	Description string
	Source      string // user, system or engine-default
	DataType    string // boolean, integer, float, string, list
	Allowed     string
	Static      bool // applies after a restart
	Modifiable  bool

	low, high string // of Allowed, of a number
}

// EngineVersion is a PostgreSQL that is installed here.
type EngineVersion struct {
	Engine  string
	Version string // for example 15.18
	Major   int
	Family  string
	Default bool
}
