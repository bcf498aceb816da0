package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"pileus/internal/pg"
	"pileus/internal/store"
)

// Cluster is the identity of one cluster in the repository. It is written once,
// so that another database under the same name is refused, never mixed in.
type Cluster struct {
	Name             string    `json:"name"` // identifier
	SystemIdentifier uint64    `json:"system_identifier,string"`
	SegmentSize      int64     `json:"wal_segment_size"` // bytes
	Major            int       `json:"major"`            // when first seen
	Created          time.Time `json:"created"`
	Parent           *Parent   `json:"parent,omitempty"` // set when it was restored from another
}

// Parent says which cluster, backup and moment a restored cluster came from.
type Parent struct {
	Cluster  string        `json:"cluster"`
	Backup   string        `json:"backup"`
	Timeline pg.TimelineID `json:"timeline"`
	LSN      pg.LSN        `json:"lsn"`  // end of the last record that was replayed
	Time     time.Time     `json:"time"` // of the last commit that was replayed
}

// IdentityError: the name belongs to another database.
type IdentityError struct {
	Name        string
	Have, Given uint64
	HaveSegment int64
	Segment     int64
}

func (e *IdentityError) Error() string {
	if e.Have == e.Given {
		return fmt.Sprintf("cluster %s is in the repository with WAL segments of %d bytes, the server has %d: give the changed database a new identifier", e.Name, e.HaveSegment, e.Segment)
	}
	return fmt.Sprintf("identifier %s is used in the repository by another database (system identifier %d, this server has %d): choose another identifier, nothing was changed", e.Name, e.Have, e.Given)
}

func clusterKey(name string) string { return "clusters/" + name + "/cluster" }

// Cluster reads a cluster's identity. Absent: ErrNotFound.
func (r *Repository) Cluster(ctx context.Context, name string) (Cluster, error) {
	var c Cluster
	b, err := r.readObject(ctx, clusterKey(name), KindCluster)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, damaged(clusterKey(name), "%v", err)
	}
	return c, nil
}

// EnsureCluster registers the cluster, or checks that the one of that name is
// the same database (*IdentityError if not) and returns what is registered.
func (r *Repository) EnsureCluster(ctx context.Context, c Cluster) (Cluster, error) {
	have, err := r.Cluster(ctx, c.Name)
	if errors.Is(err, ErrNotFound) {
		if err = r.CreateCluster(ctx, c); err == nil {
			return c, nil
		}
		if !errors.Is(err, store.ErrExists) {
			return c, err
		}
		have, err = r.Cluster(ctx, c.Name)
	}
	if err != nil {
		return c, err
	}
	if have.SystemIdentifier != c.SystemIdentifier || have.SegmentSize != c.SegmentSize {
		return have, &IdentityError{Name: c.Name, Have: have.SystemIdentifier, Given: c.SystemIdentifier,
			HaveSegment: have.SegmentSize, Segment: c.SegmentSize}
	}
	return have, nil
}

// CreateCluster registers a cluster under a name that must be new (store.ErrExists).
func (r *Repository) CreateCluster(ctx context.Context, c Cluster) error {
	err := r.putObject(ctx, clusterKey(c.Name), KindCluster, func(w io.Writer) error { return json.NewEncoder(w).Encode(c) })
	if err != nil {
		return fmt.Errorf("register cluster %s: %w", c.Name, err)
	}
	return nil
}

// DeleteCluster forgets a cluster's registration. It refuses while the cluster
// has backups or WAL: it is for a restore that did not come to its end.
func (r *Repository) DeleteCluster(ctx context.Context, name string) error {
	for info, err := range r.store.List(ctx, "clusters/"+name+"/") {
		if err != nil {
			return err
		}
		if info.Key != clusterKey(name) {
			return fmt.Errorf("cluster %s has backups or WAL in the repository; it was not removed", name)
		}
	}
	return r.store.Delete(ctx, clusterKey(name))
}

// Clusters yields every registered cluster, by name. One whose identity cannot be
// read is an error with its name set, and does not end the list.
func (r *Repository) Clusters(ctx context.Context) iter.Seq2[Cluster, error] {
	return func(yield func(Cluster, error) bool) {
		for info, err := range r.store.List(ctx, "clusters/") {
			if err != nil {
				yield(Cluster{}, fmt.Errorf("list clusters: %w", err))
				return
			}
			name, rest, _ := strings.Cut(strings.TrimPrefix(info.Key, "clusters/"), "/")
			if rest != "cluster" {
				continue
			}
			c, err := r.Cluster(ctx, name)
			c.Name = name
			if !yield(c, err) {
				return
			}
		}
	}
}
