package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"pileus/internal/control"
	"pileus/internal/ledger"
	"pileus/internal/postgres"
)

// Options is what a fleet works with.
type Options struct {
	Deployment *control.Deployment
	Ledger     *ledger.Ledger
	StateDir   string // of the documents
	DataRoot   string // of the managed clusters' servers
	Region     string
	Account    string // 12 digits
	// FirstPort to LastPort are given to servers that no port was asked for.
	FirstPort, LastPort int
	Owner               *postgres.Owner // account of the servers
	BinDirs             []string        // where to look for PostgreSQL first
	// SecurityGroups are address ranges by the ID that the API knows them by. There is
	// always one named default.
	SecurityGroups map[string][]netip.Prefix
	// Subnets are addresses to listen on, by ID. There is always one.
	Subnets map[string]netip.Addr
	// BackupWindow is for clusters that name none; empty: spread over the night.
	BackupWindow string
	Log          *slog.Logger
	Now          func() time.Time // nil: time.Now
}

// Fleet is all that `pileus serve` keeps. Its methods may be called concurrently, between Open and
// the end of Run; those that change something answer when the change is durable,
// and the work goes on in Run's care.
type Fleet struct {
	o          Options
	catalog    *catalog
	engines    *engines
	parameters *parameters

	mu       sync.Mutex
	state                        // guarded by mu
	runtimes map[string]*runtime // by ResourceID
	failing  map[string]string   // what last went wrong with a background job, by its name

	lifetime context.Context // of Run; set before ready is closed
	ready    chan struct{}
	work     sync.WaitGroup // operations and runtimes
}

// state is what the documents say.
type state struct {
	clusters        map[string]*Cluster        // managed ones, by ResourceID
	attached        map[string]*Cluster        // by name in the configuration
	retained        map[string]*Cluster        // deleted ones with automated backups, by ResourceID
	instances       map[string]*Instance       // by ResourceID
	snapshots       map[string]*Snapshot       // by identifier
	subnetGroups    map[string]*SubnetGroup    // by name
	parameterGroups map[string]*ParameterGroup // by name

	docs struct {
		clusters, attached, retained documents[Cluster]
		instances                    documents[Instance]
		snapshots                    documents[Snapshot]
		subnetGroups                 documents[SubnetGroup]
		parameterGroups              documents[ParameterGroup]
	}
}

// Open reads the documents. Nothing is started before Run.
func Open(ctx context.Context, o Options) (*Fleet, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	f := &Fleet{o: o, catalog: newCatalog(o.Deployment, o.Now), engines: newEngines(o.BinDirs, o.Now), runtimes: map[string]*runtime{},
		parameters: &parameters{owner: o.Owner, known: map[int][]Parameter{}},
		failing:    map[string]string{}, ready: make(chan struct{})}
	if err := f.load(); err != nil {
		return nil, err
	}
	if err := f.attach(ctx); err != nil {
		return nil, err
	}
	return f, nil
}

// openKind opens the folder of one kind of documents and reads it.
func openKind[T any](root, name string, docs *documents[T], all *map[string]*T) error {
	var err error
	if *docs, err = openDocuments[T](filepath.Join(root, name)); err != nil {
		return err
	}
	*all, err = docs.all()
	return err
}

func (f *Fleet) load() error {
	root, s := f.o.StateDir, &f.state
	return errors.Join(
		openKind(root, "clusters", &s.docs.clusters, &s.clusters),
		openKind(root, "attached", &s.docs.attached, &s.attached),
		openKind(root, "retained", &s.docs.retained, &s.retained),
		openKind(root, "instances", &s.docs.instances, &s.instances),
		openKind(root, "snapshots", &s.docs.snapshots, &s.snapshots),
		openKind(root, "subnet-groups", &s.docs.subnetGroups, &s.subnetGroups),
		openKind(root, "parameter-groups", &s.docs.parameterGroups, &s.parameterGroups),
	)
}

// now is the time as everything here sees it.
func (f *Fleet) now() time.Time { return f.o.Now().UTC() }

// save writes the document of a cluster. The caller holds mu.
func (f *Fleet) save(c *Cluster) error {
	if c.Attached {
		return f.docs.attached.save(c.Archive, c)
	}
	return f.docs.clusters.save(c.ResourceID, c)
}

// update changes a cluster's document; a cluster that is gone meanwhile is left so.
func (f *Fleet) update(id string, change func(*Cluster)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.byResourceID(id)
	if c == nil {
		return
	}
	change(c)
	if err := f.save(c); err != nil {
		// What was done is done; the document follows with the next change, and a
		// restart before that does the operation again.
		f.o.Log.Error("a cluster's document could not be saved", "cluster", c.Identifier, "error", err)
	}
}

// snapshotOf copies a cluster's document, to be read without the lock.
func (f *Fleet) snapshotOf(id string) (Cluster, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.byResourceID(id)
	if c == nil {
		return Cluster{}, false
	}
	return c.clone(), true
}

// byResourceID finds a living cluster. The caller holds mu.
func (f *Fleet) byResourceID(id string) *Cluster {
	if c, ok := f.clusters[id]; ok {
		return c
	}
	for _, c := range f.attached {
		if c.ResourceID == id {
			return c
		}
	}
	return nil
}

// find looks a living cluster up by its identifier or ARN. The caller holds mu.
func (f *Fleet) find(idOrARN string) (*Cluster, error) {
	id, err := f.identifierOf(kindCluster, idOrARN)
	if err != nil {
		return nil, err
	}
	if c := f.named(id); c != nil {
		return c, nil
	}
	for _, c := range f.clusters {
		if c.ResourceID == idOrARN {
			return c, nil
		}
	}
	return nil, fault(CodeClusterNotFound, "DBCluster %s not found.", idOrARN)
}

// named finds a living cluster by its identifier, nil if there is none. The caller holds mu.
func (f *Fleet) named(id string) *Cluster {
	for _, c := range f.clusters {
		if c.Identifier == id {
			return c
		}
	}
	if c, ok := f.attached[id]; ok && c.Attached {
		return c
	}
	return nil
}

// findManaged looks up a cluster that may be changed. The caller holds mu.
func (f *Fleet) findManaged(idOrARN, toDo string) (*Cluster, error) {
	c, err := f.find(idOrARN)
	if err == nil && c.Attached {
		err = fault(CodeClusterState, "DB cluster %s is attached: it belongs to %s, which names its connection, and %s is for its owner to do.", c.Identifier, f.o.Deployment.Config.Path, toDo)
	}
	return c, err
}

// unused checks that no cluster has the identifier. The caller holds mu.
func (f *Fleet) unused(id string) error {
	if f.named(id) != nil {
		return fault(CodeClusterExists, "DB cluster %s already exists.", id)
	}
	for _, c := range f.clusters {
		if c.Operation != nil && c.Operation.NewIdentifier == id || c.Pending != nil && c.Pending.Identifier == id {
			return fault(CodeClusterExists, "DB cluster %s is being renamed to %s.", c.Identifier, id)
		}
	}
	return nil
}

// event notes what happened to a resource; it is history, so that it cannot be
// noted is logged and no more.
func (f *Fleet) event(kind, id, category, format string, args ...any) {
	types := map[string]string{kindCluster: "db-cluster", kindSnapshot: "db-cluster-snapshot", kindInstance: "db-instance", kindParameterGroup: "db-parameter-group"}
	e := ledger.Event{Time: f.now(), SourceType: types[kind], Source: id, ARN: f.arn(kind, id), Categories: []string{category}, Message: fmt.Sprintf(format, args...)}
	f.o.Log.Info(e.Message, "resource", e.ARN, "category", category)
	if err := f.o.Ledger.AddEvent(context.Background(), e); err != nil {
		f.o.Log.Error("an event could not be noted", "error", err)
	}
}

// Events lists what happened, oldest first.
func (f *Fleet) Events(ctx context.Context, q ledger.EventQuery) ([]ledger.Event, error) {
	return f.o.Ledger.Events(ctx, q)
}

// clone copies a document with all that it refers to.
func (c *Cluster) clone() Cluster {
	out := *c
	out.AvailabilityZones = append([]string(nil), c.AvailabilityZones...)
	out.SecurityGroups = append([]string(nil), c.SecurityGroups...)
	out.LogExports = append([]string(nil), c.LogExports...)
	out.Tags = append([]Tag(nil), c.Tags...)
	if c.Pending != nil {
		p := *c.Pending
		out.Pending = &p
	}
	if c.Operation != nil {
		o := *c.Operation
		out.Operation = &o
	}
	return out
}
