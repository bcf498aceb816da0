package rdsapi

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"pileus/internal/fleet"
	"pileus/internal/ledger"
)

// fakeFleet notes what it is asked for and answers with resources of which every field is set. It
// must never be asked for what a request lacked or got wrong.
type fakeFleet struct {
	t   testing.TB
	err error // of all that changes something

	mu        sync.Mutex
	asked     []any
	clusters  []fleet.Cluster
	snapshots []fleet.Snapshot
}

// fill sets every field below v to something: texts to path, numbers to 7, times to one moment.
func fill(v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(path)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint64:
		v.SetUint(7)
	case reflect.Float64:
		v.SetFloat(7)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), path)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), path)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(signedAt))
			return
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				name := f.Name
				if path != "" && !f.Anonymous {
					name = path + "." + f.Name
				}
				if f.Anonymous {
					name = path
				}
				fill(v.Field(i), name)
			}
		}
	default:
		panic(fmt.Sprintf("%s is a %s", path, v.Kind()))
	}
}

// full is a value with every field set.
func full[T any](name string) T {
	var v T
	fill(reflect.ValueOf(&v).Elem(), name)
	return v
}

// note remembers a request, and returns a full answer or the fake's error.
func note[T any](f *fakeFleet, q any) (T, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, q)
	if f.err != nil {
		var none T
		return none, f.err
	}
	return full[T](""), nil
}

// last is the newest request.
func (f *fakeFleet) last() any {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.asked) == 0 {
		return nil
	}
	return f.asked[len(f.asked)-1]
}

func (f *fakeFleet) must(parameter, value string) {
	if value == "" {
		f.t.Errorf("the fleet was asked without a %s", parameter)
	}
}

// Requests that are no struct of the fleet's.
type (
	named2 struct{ what, name string }
	share  struct {
		name        string
		add, remove []string
	}
	tagging struct {
		arn  string
		tags []fleet.Tag
		keys []string
	}
	changing struct {
		group   string
		all     bool
		changes []fleet.ParameterChange
		names   []string
	}
	renaming struct {
		name, description string
		subnets           []string
	}
)

func (f *fakeFleet) Cluster(_ context.Context, id string) (fleet.Cluster, error) {
	f.must("identifier", id)
	return note[fleet.Cluster](f, named2{"cluster", id})
}
func (f *fakeFleet) Clusters(context.Context) ([]fleet.Cluster, error) {
	if f.clusters != nil {
		return f.clusters, nil
	}
	return []fleet.Cluster{full[fleet.Cluster]("")}, nil
}
func (f *fakeFleet) CreateCluster(_ context.Context, q fleet.CreateCluster) (fleet.Cluster, error) {
	f.must("DBClusterIdentifier", q.Identifier)
	return note[fleet.Cluster](f, q)
}
func (f *fakeFleet) ModifyCluster(_ context.Context, q fleet.ModifyCluster) (fleet.Cluster, error) {
	f.must("DBClusterIdentifier", q.Identifier)
	return note[fleet.Cluster](f, q)
}
func (f *fakeFleet) DeleteCluster(_ context.Context, q fleet.DeleteCluster) (fleet.Cluster, error) {
	f.must("DBClusterIdentifier", q.Identifier)
	return note[fleet.Cluster](f, q)
}
func (f *fakeFleet) StartCluster(_ context.Context, id string) (fleet.Cluster, error) {
	f.must("DBClusterIdentifier", id)
	return note[fleet.Cluster](f, named2{"start", id})
}
func (f *fakeFleet) StopCluster(_ context.Context, id string) (fleet.Cluster, error) {
	f.must("DBClusterIdentifier", id)
	return note[fleet.Cluster](f, named2{"stop", id})
}
func (f *fakeFleet) RestoreToPointInTime(_ context.Context, q fleet.RestoreToPointInTime) (fleet.Cluster, error) {
	return note[fleet.Cluster](f, q)
}
func (f *fakeFleet) RestoreFromSnapshot(_ context.Context, q fleet.RestoreFromSnapshot) (fleet.Cluster, error) {
	return note[fleet.Cluster](f, q)
}
func (f *fakeFleet) Snapshot(_ context.Context, id string) (fleet.Snapshot, error) {
	f.must("DBClusterSnapshotIdentifier", id)
	return note[fleet.Snapshot](f, named2{"snapshot", id})
}
func (f *fakeFleet) Snapshots(_ context.Context, q fleet.SnapshotQuery) ([]fleet.Snapshot, error) {
	if f.snapshots != nil {
		return f.snapshots, nil
	}
	one, err := note[fleet.Snapshot](f, q)
	return []fleet.Snapshot{one}, err
}
func (f *fakeFleet) CreateSnapshot(_ context.Context, q fleet.CreateSnapshot) (fleet.Snapshot, error) {
	f.must("DBClusterSnapshotIdentifier", q.Identifier)
	return note[fleet.Snapshot](f, q)
}
func (f *fakeFleet) CopySnapshot(_ context.Context, q fleet.CopySnapshot) (fleet.Snapshot, error) {
	f.must("source", q.Source)
	return note[fleet.Snapshot](f, q)
}
func (f *fakeFleet) DeleteSnapshot(_ context.Context, id string) (fleet.Snapshot, error) {
	f.must("DBClusterSnapshotIdentifier", id)
	return note[fleet.Snapshot](f, named2{"delete snapshot", id})
}
func (f *fakeFleet) ShareSnapshot(_ context.Context, id string, add, remove []string) (fleet.Snapshot, error) {
	return note[fleet.Snapshot](f, share{id, add, remove})
}
func (f *fakeFleet) AutomatedBackups(context.Context) ([]fleet.AutomatedBackup, error) {
	return []fleet.AutomatedBackup{full[fleet.AutomatedBackup]("")}, nil
}
func (f *fakeFleet) DeleteAutomatedBackup(_ context.Context, id string) (fleet.AutomatedBackup, error) {
	f.must("DbClusterResourceId", id)
	return note[fleet.AutomatedBackup](f, named2{"delete backup", id})
}
func (f *fakeFleet) Instance(_ context.Context, id string) (fleet.Instance, error) {
	f.must("DBInstanceIdentifier", id)
	return note[fleet.Instance](f, named2{"instance", id})
}
func (f *fakeFleet) Instances(context.Context) ([]fleet.Instance, error) {
	return []fleet.Instance{full[fleet.Instance]("")}, nil
}
func (f *fakeFleet) CreateInstance(_ context.Context, q fleet.CreateInstance) (fleet.Instance, error) {
	f.must("DBInstanceIdentifier", q.Identifier)
	return note[fleet.Instance](f, q)
}
func (f *fakeFleet) ModifyInstance(_ context.Context, q fleet.ModifyInstance) (fleet.Instance, error) {
	f.must("DBInstanceIdentifier", q.Identifier)
	return note[fleet.Instance](f, q)
}
func (f *fakeFleet) RebootInstance(_ context.Context, id string) (fleet.Instance, error) {
	f.must("DBInstanceIdentifier", id)
	return note[fleet.Instance](f, named2{"reboot", id})
}
func (f *fakeFleet) DeleteInstance(_ context.Context, id string) (fleet.Instance, error) {
	f.must("DBInstanceIdentifier", id)
	return note[fleet.Instance](f, named2{"delete instance", id})
}
func (f *fakeFleet) SubnetGroups(context.Context) ([]fleet.SubnetGroup, error) {
	return []fleet.SubnetGroup{full[fleet.SubnetGroup]("")}, nil
}
func (f *fakeFleet) CreateSubnetGroup(_ context.Context, g fleet.SubnetGroup) (fleet.SubnetGroup, error) {
	return note[fleet.SubnetGroup](f, g)
}
func (f *fakeFleet) ModifySubnetGroup(_ context.Context, name, description string, subnets []string) (fleet.SubnetGroup, error) {
	f.must("DBSubnetGroupName", name)
	return note[fleet.SubnetGroup](f, renaming{name, description, subnets})
}
func (f *fakeFleet) DeleteSubnetGroup(_ context.Context, name string) error {
	f.must("DBSubnetGroupName", name)
	_, err := note[string](f, named2{"delete subnet group", name})
	return err
}
func (f *fakeFleet) ParameterGroups(context.Context) ([]fleet.ParameterGroup, error) {
	return []fleet.ParameterGroup{full[fleet.ParameterGroup]("")}, nil
}
func (f *fakeFleet) CreateParameterGroup(_ context.Context, g fleet.ParameterGroup) (fleet.ParameterGroup, error) {
	return note[fleet.ParameterGroup](f, g)
}
func (f *fakeFleet) Parameters(_ context.Context, group, source string) ([]fleet.Parameter, error) {
	f.must("DBClusterParameterGroupName", group)
	one, err := note[fleet.Parameter](f, named2{"parameters " + source, group})
	return []fleet.Parameter{one}, err
}
func (f *fakeFleet) ModifyParameterGroup(_ context.Context, name string, changes []fleet.ParameterChange) error {
	f.must("DBClusterParameterGroupName", name)
	_, err := note[string](f, changing{group: name, changes: changes})
	return err
}
func (f *fakeFleet) ResetParameterGroup(_ context.Context, name string, all bool, names []string) error {
	f.must("DBClusterParameterGroupName", name)
	_, err := note[string](f, changing{group: name, all: all, names: names})
	return err
}
func (f *fakeFleet) DeleteParameterGroup(_ context.Context, name string) error {
	f.must("DBClusterParameterGroupName", name)
	_, err := note[string](f, named2{"delete parameter group", name})
	return err
}
func (f *fakeFleet) Tags(_ context.Context, arn string) ([]fleet.Tag, error) {
	f.must("ResourceName", arn)
	one, err := note[fleet.Tag](f, named2{"tags", arn})
	return []fleet.Tag{one}, err
}
func (f *fakeFleet) AddTags(_ context.Context, arn string, tags []fleet.Tag) error {
	f.must("ResourceName", arn)
	_, err := note[string](f, tagging{arn: arn, tags: tags})
	return err
}
func (f *fakeFleet) RemoveTags(_ context.Context, arn string, keys []string) error {
	f.must("ResourceName", arn)
	_, err := note[string](f, tagging{arn: arn, keys: keys})
	return err
}
func (f *fakeFleet) EngineVersions(context.Context) ([]fleet.EngineVersion, error) {
	return []fleet.EngineVersion{full[fleet.EngineVersion]("")}, nil
}
func (f *fakeFleet) Events(_ context.Context, q ledger.EventQuery) ([]ledger.Event, error) {
	one, err := note[ledger.Event](f, q)
	return []ledger.Event{one}, err
}
