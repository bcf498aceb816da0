package fleet

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Clusters lists the living clusters, by identifier.
func (f *Fleet) Clusters(ctx context.Context) ([]Cluster, error) {
	out := f.living()
	for i := range out {
		f.window(ctx, &out[i], fresh)
	}
	return out, nil
}

// living lists the living clusters without their windows, by identifier.
func (f *Fleet) living() []Cluster {
	f.mu.Lock()
	var out []Cluster
	for _, c := range f.clusters {
		out = append(out, f.seen(c))
	}
	for _, c := range f.attached {
		if c.Attached {
			out = append(out, f.seen(c))
		}
	}
	f.mu.Unlock()
	slices.SortFunc(out, func(a, b Cluster) int { return cmp.Compare(a.Identifier, b.Identifier) })
	return out
}

// Cluster is one living cluster, by its identifier or ARN.
func (f *Fleet) Cluster(ctx context.Context, idOrARN string) (Cluster, error) {
	f.mu.Lock()
	c, err := f.find(idOrARN)
	if err != nil {
		f.mu.Unlock()
		return Cluster{}, err
	}
	out := f.seen(c)
	f.mu.Unlock()
	f.window(ctx, &out, fresh)
	return out, nil
}

// seen is a cluster with what is derived from other documents. The caller holds mu.
func (f *Fleet) seen(c *Cluster) Cluster {
	out := c.clone()
	out.ARN = f.arn(kindCluster, c.Identifier)
	if !c.Attached {
		out.Endpoint = f.host(c.SubnetGroup)
		out.ReaderHost = out.Endpoint
	} else if conf, ok := f.o.Deployment.Config.Clusters[c.Archive]; ok {
		if at, err := pgconn.ParseConfig(conf.Connection); err == nil {
			out.Endpoint, out.ReaderHost, out.Port = at.Host, at.Host, int(at.Port)
		}
		out.RetentionDays = max(1, int(conf.Retention.Hours()/24))
	}
	for _, i := range f.members(c.ResourceID) {
		out.Members = append(out.Members, Member{Instance: i.Identifier, Writer: !i.Reader && i.Status != StatusPromoting, Tier: i.Tier, InSync: !c.ParametersPending})
	}
	return out
}

// members lists the instances of a cluster, the writer first. The caller holds mu.
func (f *Fleet) members(cluster string) []*Instance {
	var out []*Instance
	for _, i := range f.instances {
		if i.Cluster == cluster {
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(a, b *Instance) int {
		if a.Reader != b.Reader {
			if b.Reader {
				return -1
			}
			return 1
		}
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Identifier, b.Identifier))
	})
	return out
}

// window fills in what the repository says. A repository that does not answer leaves
// it empty: nothing can be restored now.
func (f *Fleet) window(ctx context.Context, c *Cluster, age time.Duration) {
	v, err := f.catalog.within(ctx, c.Archive, age)
	if err != nil {
		f.o.Log.Warn("the repository does not say what can be restored", "cluster", c.Identifier, "error", err)
		return
	}
	c.Earliest, c.Latest = v.Window.Earliest, v.Window.Latest
	if n := len(v.Backups); n > 0 {
		c.StorageBytes = v.Backups[n-1].Size
	}
}
