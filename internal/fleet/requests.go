package fleet

import (
	"time"

	"pileus/internal/pg"
)

// Settings are what create, restore and modify have in common. A nil pointer means: not
// given.
type Settings struct {
	Port               *int
	SubnetGroup        *string
	ParameterGroup     *string
	SecurityGroups     []string
	RetentionDays      *int
	BackupWindow       *string
	MaintenanceWindow  *string
	DeletionProtection *bool
	CopyTagsToSnapshot *bool
	AutoMinorUpgrade   *bool
	IAMAuth            *bool
	EngineMode         *string
	StorageType        *string
	ServerlessMin      *float64
	ServerlessMax      *float64
	LogExports         []string
	KMSKeyID           *string
	Encrypted          *bool
	AvailabilityZones  []string
	InstanceClass      *string // of a Multi-AZ DB cluster; these four are kept, without effect
	AllocatedStorage   *int    // GiB
	IOPS               *int
	Public             *bool
}

// CreateCluster asks for a new, empty cluster.
type CreateCluster struct {
	Identifier     string
	Engine         string
	EngineVersion  string // empty: the newest installed
	MasterUsername string
	MasterPassword string
	DatabaseName   string
	Tags           []Tag
	Settings
}

// ModifyCluster asks for changes. Immediately false leaves those that disturb clients
// for the maintenance window.
type ModifyCluster struct {
	Identifier     string
	NewIdentifier  string
	MasterPassword string
	EngineVersion  string
	Immediately    bool
	EnableLogs     []string
	DisableLogs    []string
	Settings
}

// DeleteCluster asks for the end of a cluster. Exactly one of SkipFinalSnapshot and
// FinalSnapshot is given.
type DeleteCluster struct {
	Identifier        string
	SkipFinalSnapshot bool
	FinalSnapshot     string
	RetainBackups     bool // keep the automated backups for their retention period
}

// RestoreToPointInTime asks for a new cluster as a cluster was at a moment.
type RestoreToPointInTime struct {
	Identifier       string
	Source           string // identifier or ARN; or
	SourceResourceID string // also of a deleted cluster
	Time             time.Time
	Latest           bool
	RestoreType      string // full-copy, copy-on-write or empty
	// What RDS has no word for: through the commit of a transaction or up to an LSN, or just before it.
	XID       uint64
	LSN       pg.LSN
	Exclusive bool
	Tags      []Tag
	Settings
}

// RestoreFromSnapshot asks for a new cluster as a snapshot holds it.
type RestoreFromSnapshot struct {
	Identifier    string
	Snapshot      string // identifier or ARN
	Engine        string
	EngineVersion string
	DatabaseName  string
	Tags          []Tag
	Settings
}

// CreateSnapshot asks for a snapshot of a cluster.
type CreateSnapshot struct {
	Identifier string
	Cluster    string
	Tags       []Tag
}

// CopySnapshot asks for another snapshot of the same backup.
type CopySnapshot struct {
	Source   string // identifier or ARN
	Target   string
	CopyTags bool
	Tags     []Tag
}

// SnapshotQuery narrows a list of snapshots. Zero fields do not.
type SnapshotQuery struct {
	Identifier string // identifier or ARN
	Cluster    string // identifier or ARN
	ResourceID string // of the cluster
	Type       SnapshotType
}

// CreateInstance asks for a member of a cluster.
type CreateInstance struct {
	Identifier  string
	Cluster     string
	Class       string
	Engine      string
	Tier        *int
	Public      *bool
	AutoMinor   *bool
	Maintenance *string
	Zone        *string
	ParamGroup  *string
	CopyTags    *bool
	Monitoring  *int
	Insights    *bool
	Tags        []Tag
}

// ModifyInstance asks for changes of a member.
type ModifyInstance struct {
	Identifier    string
	NewIdentifier string
	Class         string
	Immediately   bool
	Tier          *int
	Public        *bool
	AutoMinor     *bool
	Maintenance   *string
	ParamGroup    *string
	CopyTags      *bool
	Monitoring    *int
	Insights      *bool
}

// ParameterChange sets one parameter of a group.
type ParameterChange struct {
	Name      string
	Value     string
	Immediate bool // it is to apply without a restart; refused of a static one
}
