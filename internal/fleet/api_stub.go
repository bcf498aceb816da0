package fleet

import (
	"context"
	"time"

	"pileus/internal/ledger"
)

func (f *Fleet) CreateCluster(ctx context.Context, q CreateCluster) (Cluster, error) { panic("x") }
func (f *Fleet) Clusters(ctx context.Context) ([]Cluster, error)                     { panic("x") }
func (f *Fleet) Cluster(ctx context.Context, idOrARN string) (Cluster, error)        { panic("x") }
func (f *Fleet) ModifyCluster(ctx context.Context, q ModifyCluster) (Cluster, error) { panic("x") }
func (f *Fleet) DeleteCluster(ctx context.Context, q DeleteCluster) (Cluster, error) { panic("x") }
func (f *Fleet) StartCluster(ctx context.Context, id string) (Cluster, error)        { panic("x") }
func (f *Fleet) StopCluster(ctx context.Context, id string) (Cluster, error)         { panic("x") }
func (f *Fleet) RestoreToPointInTime(ctx context.Context, q RestoreToPointInTime) (Cluster, error) {
	panic("x")
}
func (f *Fleet) RestoreFromSnapshot(ctx context.Context, q RestoreFromSnapshot) (Cluster, error) {
	panic("x")
}
func (f *Fleet) CreateSnapshot(ctx context.Context, q CreateSnapshot) (Snapshot, error) { panic("x") }
func (f *Fleet) Snapshots(ctx context.Context, q SnapshotQuery) ([]Snapshot, error)     { panic("x") }
func (f *Fleet) CopySnapshot(ctx context.Context, q CopySnapshot) (Snapshot, error)     { panic("x") }
func (f *Fleet) DeleteSnapshot(ctx context.Context, id string) (Snapshot, error)        { panic("x") }
func (f *Fleet) ShareSnapshot(ctx context.Context, id string, add, remove []string) (Snapshot, error) {
	panic("x")
}
func (f *Fleet) AutomatedBackups(ctx context.Context) ([]AutomatedBackup, error) { panic("x") }
func (f *Fleet) DeleteAutomatedBackup(ctx context.Context, resourceID string) (AutomatedBackup, error) {
	panic("x")
}
func (f *Fleet) CreateInstance(ctx context.Context, q CreateInstance) (Instance, error) { panic("x") }
func (f *Fleet) Instances(ctx context.Context) ([]Instance, error)                      { panic("x") }
func (f *Fleet) Instance(ctx context.Context, idOrARN string) (Instance, error)         { panic("x") }
func (f *Fleet) ModifyInstance(ctx context.Context, q ModifyInstance) (Instance, error) { panic("x") }
func (f *Fleet) DeleteInstance(ctx context.Context, id string) (Instance, error)        { panic("x") }
func (f *Fleet) CreateSubnetGroup(ctx context.Context, g SubnetGroup) (SubnetGroup, error) {
	panic("x")
}
func (f *Fleet) SubnetGroups(ctx context.Context) ([]SubnetGroup, error) { panic("x") }
func (f *Fleet) ModifySubnetGroup(ctx context.Context, name, description string, subnets []string) (SubnetGroup, error) {
	panic("x")
}
func (f *Fleet) DeleteSubnetGroup(ctx context.Context, name string) error { panic("x") }
func (f *Fleet) CreateParameterGroup(ctx context.Context, g ParameterGroup) (ParameterGroup, error) {
	panic("x")
}
func (f *Fleet) ParameterGroups(ctx context.Context) ([]ParameterGroup, error) { panic("x") }
func (f *Fleet) Parameters(ctx context.Context, group, source string) ([]Parameter, error) {
	panic("x")
}
func (f *Fleet) ModifyParameterGroup(ctx context.Context, name string, set map[string]string, immediate bool) error {
	panic("x")
}
func (f *Fleet) ResetParameterGroup(ctx context.Context, name string, all bool, names []string) error {
	panic("x")
}
func (f *Fleet) DeleteParameterGroup(ctx context.Context, name string) error             { panic("x") }
func (f *Fleet) AddTags(ctx context.Context, arn string, tags []Tag) error               { panic("x") }
func (f *Fleet) RemoveTags(ctx context.Context, arn string, keys []string) error         { panic("x") }
func (f *Fleet) Tags(ctx context.Context, arn string) ([]Tag, error)                     { panic("x") }
func (f *Fleet) Events(ctx context.Context, q ledger.EventQuery) ([]ledger.Event, error) { panic("x") }
func (f *Fleet) EngineVersions(ctx context.Context) ([]EngineVersion, error)             { panic("x") }
func (f *Fleet) Health(ctx context.Context) ([]Health, error)                            { panic("x") }

// Health is what `pileus status` and the metrics say about one cluster.
type Health struct {
	Cluster     Cluster
	Protected   bool
	Since       time.Time // of Protected
	Why         []string  // if it is not, one sentence each, with what to do
	WALLagBytes int64     // -1: unknown
	WALLag      time.Duration
	LastBackup  time.Time
	BackupBytes int64 // that the newest backup added to the repository
	Failures    int   // of backups, one after another
	SlotBytes   int64 // WAL that the server keeps for Pileus; -1: unknown
}
