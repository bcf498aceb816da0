package recovery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pileus/internal/cumulus"
	"pileus/internal/fence"
)

// FenceStatus is how a cluster's fence stands.
type FenceStatus struct {
	Cluster  string           `json:"cluster"`
	Database string           `json:"database"`
	Kept     *fence.State     `json:"kept,omitempty"` // what unfence would restore; nil: Pileus put no fence up
	Closed   bool             `json:"closed"`         // nobody but those that stay may connect, and nobody is
	Sessions []fence.Session  `json:"sessions,omitempty"`
	Prepared []fence.Prepared `json:"prepared_transactions,omitempty"`
}

// at finds where a cluster listens.
func (b *Runbook) at(ctx context.Context, cluster string) (*environment, Place, error) {
	env, err := newEnvironment(ctx, b.o.Config)
	if err != nil {
		return nil, Place{}, err
	}
	c, err := env.cluster(ctx, cluster)
	if err != nil {
		return nil, Place{}, err
	}
	if c == nil {
		return nil, Place{}, fmt.Errorf("there is no cluster %s", cluster)
	}
	return env, placeOf(c), nil
}

// Fence takes access to a cluster's database away, by itself, and proves it.
func (b *Runbook) Fence(ctx context.Context, cluster string) (Fenced, error) {
	release, err := b.hold(cluster)
	if err != nil {
		return Fenced{}, err
	}
	defer release()
	env, at, err := b.at(ctx, cluster)
	if err != nil {
		return Fenced{}, err
	}
	conn, err := env.admin(ctx, at)
	if err != nil {
		return Fenced{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	st, err := b.fences.Load(cluster)
	if errors.Is(err, fence.ErrNone) {
		if st, err = fence.Observe(ctx, conn, env.target()); err == nil {
			err = b.fences.Save(cluster, st)
		}
	}
	if err != nil {
		return Fenced{}, err
	}
	return raise(ctx, env, at, conn, st)
}

// Unfence gives access back as it was.
func (b *Runbook) Unfence(ctx context.Context, cluster string) (fence.State, error) {
	release, err := b.hold(cluster)
	if err != nil {
		return fence.State{}, err
	}
	defer release()
	st, err := b.fences.Load(cluster)
	if err != nil {
		return st, err
	}
	env, at, err := b.at(ctx, cluster)
	if err != nil {
		return st, err
	}
	if err := lift(ctx, env, at, st); err != nil {
		return st, err
	}
	return st, b.fences.Remove(cluster)
}

// FenceStatus looks how a cluster's fence stands, and changes nothing.
func (b *Runbook) FenceStatus(ctx context.Context, cluster string) (FenceStatus, error) {
	out := FenceStatus{Cluster: cluster, Database: b.o.Config.Recovery.Database}
	st, err := b.fences.Load(cluster)
	if err == nil {
		out.Kept = &st
	} else if !errors.Is(err, fence.ErrNone) {
		return out, err
	}
	env, at, err := b.at(ctx, cluster)
	if err != nil {
		return out, err
	}
	conn, err := env.admin(ctx, at)
	if err != nil {
		return out, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if out.Kept == nil {
		if st, err = fence.Observe(ctx, conn, env.target()); err != nil {
			return out, err
		}
	}
	if out.Closed, err = fence.Closed(ctx, conn, env.target(), st); err != nil {
		return out, err
	}
	if out.Sessions, err = fence.Sessions(ctx, conn, env.target(), st.Admin); err != nil {
		return out, err
	}
	out.Prepared, err = fence.PreparedOn(ctx, conn, env.c.Database)
	return out, err
}

// Drill is one rehearsal.
type Drill struct {
	Run       string        `json:"run"`
	Cluster   string        `json:"cluster"`
	Target    Target        `json:"target"`
	At        time.Time     `json:"at"`
	Restored  time.Duration `json:"restore_nanoseconds"` // until the throwaway cluster served
	RTO       time.Duration `json:"rto_nanoseconds"`     // until it was validated, too
	RPO       time.Duration `json:"rpo_nanoseconds"`     // how far the latest restorable moment was behind
	Validated Validated     `json:"validated"`
	// Counts are the rows of a Cumulus, which later recoveries are held against.
	Counts  cumulus.Counts `json:"counts,omitempty"`
	OK      bool           `json:"ok"`
	Problem string         `json:"problem,omitempty"`
}
