package rdsapi

import (
	"context"

	"pileus/internal/fleet"
	"pileus/internal/ledger"
)

// Fleet is what the API speaks for. An error that is a *fleet.Fault is told to the client; any other is
// logged, and the client learns only that there is one. What changes something answers when
// the change is durable. All may be called concurrently. Identifiers may be ARNs where the API
// takes either.
type Fleet interface {
	Clusters
	Restores
	Snapshots
	Backups
	Instances
	SubnetGroups
	ParameterGroups
	Tags
	Catalogue
}

// Clusters are the DB clusters; lists are sorted by identifier.
type Clusters interface {
	Cluster(ctx context.Context, idOrARN string) (fleet.Cluster, error)
	Clusters(ctx context.Context) ([]fleet.Cluster, error)
	CreateCluster(ctx context.Context, q fleet.CreateCluster) (fleet.Cluster, error)
	ModifyCluster(ctx context.Context, q fleet.ModifyCluster) (fleet.Cluster, error)
	DeleteCluster(ctx context.Context, q fleet.DeleteCluster) (fleet.Cluster, error)
	StartCluster(ctx context.Context, idOrARN string) (fleet.Cluster, error)
	StopCluster(ctx context.Context, idOrARN string) (fleet.Cluster, error)
}

// Restores make a cluster of what another one was.
type Restores interface {
	RestoreToPointInTime(ctx context.Context, q fleet.RestoreToPointInTime) (fleet.Cluster, error)
	RestoreFromSnapshot(ctx context.Context, q fleet.RestoreFromSnapshot) (fleet.Cluster, error)
}

// Snapshots are the DB cluster snapshots; lists are sorted by creation, then identifier.
type Snapshots interface {
	Snapshot(ctx context.Context, idOrARN string) (fleet.Snapshot, error)
	Snapshots(ctx context.Context, q fleet.SnapshotQuery) ([]fleet.Snapshot, error)
	CreateSnapshot(ctx context.Context, q fleet.CreateSnapshot) (fleet.Snapshot, error)
	CopySnapshot(ctx context.Context, q fleet.CopySnapshot) (fleet.Snapshot, error)
	DeleteSnapshot(ctx context.Context, idOrARN string) (fleet.Snapshot, error)
	ShareSnapshot(ctx context.Context, idOrARN string, add, remove []string) (fleet.Snapshot, error)
}

// Backups are the automated backups; the list is sorted by the name in the repository.
type Backups interface {
	AutomatedBackups(ctx context.Context) ([]fleet.AutomatedBackup, error)
	DeleteAutomatedBackup(ctx context.Context, resourceID string) (fleet.AutomatedBackup, error)
}

// Instances are the members of clusters; the list is sorted by identifier.
type Instances interface {
	Instance(ctx context.Context, idOrARN string) (fleet.Instance, error)
	Instances(ctx context.Context) ([]fleet.Instance, error)
	CreateInstance(ctx context.Context, q fleet.CreateInstance) (fleet.Instance, error)
	ModifyInstance(ctx context.Context, q fleet.ModifyInstance) (fleet.Instance, error)
	RebootInstance(ctx context.Context, idOrARN string) (fleet.Instance, error)
	DeleteInstance(ctx context.Context, idOrARN string) (fleet.Instance, error)
}

// SubnetGroups are sorted by name.
type SubnetGroups interface {
	SubnetGroups(ctx context.Context) ([]fleet.SubnetGroup, error)
	CreateSubnetGroup(ctx context.Context, g fleet.SubnetGroup) (fleet.SubnetGroup, error)
	ModifySubnetGroup(ctx context.Context, name, description string, subnets []string) (fleet.SubnetGroup, error)
	DeleteSubnetGroup(ctx context.Context, name string) error
}

// ParameterGroups are the DB cluster parameter groups; lists are sorted by name.
type ParameterGroups interface {
	ParameterGroups(ctx context.Context) ([]fleet.ParameterGroup, error)
	CreateParameterGroup(ctx context.Context, g fleet.ParameterGroup) (fleet.ParameterGroup, error)
	Parameters(ctx context.Context, group, source string) ([]fleet.Parameter, error)
	ModifyParameterGroup(ctx context.Context, name string, changes []fleet.ParameterChange) error
	ResetParameterGroup(ctx context.Context, name string, all bool, parameters []string) error
	DeleteParameterGroup(ctx context.Context, name string) error
}

// Tags are those of any resource, by its ARN.
type Tags interface {
	Tags(ctx context.Context, arn string) ([]fleet.Tag, error)
	AddTags(ctx context.Context, arn string, tags []fleet.Tag) error
	RemoveTags(ctx context.Context, arn string, keys []string) error
}

// Catalogue is what there is and what happened: versions sorted as they are offered, events by time.
type Catalogue interface {
	EngineVersions(ctx context.Context) ([]fleet.EngineVersion, error)
	Events(ctx context.Context, q ledger.EventQuery) ([]ledger.Event, error)
}
