package repo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"pileus/internal/pg"
	"pileus/internal/progress"
)

// PruneOptions of Prune.
type PruneOptions struct {
	Now time.Time
	// Retention is how far back any moment of a cluster must stay restorable; 0:
	// nothing of the cluster is removed; SnapshotsOnly: everything that neither a snapshot
	// nor a backup under way keeps is.
	Retention func(cluster string) time.Duration
	// Grace is how long a pack stays marked before it is removed. It must be
	// longer than any backup takes whose lease could be lost.
	Grace    time.Duration
	DryRun   bool
	Progress progress.Reporter
}

// SnapshotsOnly is the retention of a cluster that is gone and of which only the
// snapshots are to stay.
const SnapshotsOnly = time.Duration(-1)

// PrunedBackup is a backup that retention does not keep.
type PrunedBackup struct {
	Cluster string    `json:"cluster"`
	ID      string    `json:"id"`
	Stopped time.Time `json:"stopped"`
	Size    int64     `json:"size"`
}

// PrunePlan is what is removed, or would be.
type PrunePlan struct {
	Backups      []PrunedBackup `json:"backups"`
	Segments     int64          `json:"segments"`
	Parts        int64          `json:"parts"`
	PacksMarked  int64          `json:"packs_marked"`
	PacksRemoved int64          `json:"packs_removed"`
	BytesMarked  int64          `json:"bytes_marked"`
	BytesRemoved int64          `json:"bytes_removed"`
	Notes        []string       `json:"notes,omitempty"`

	segments []keyedSegment
	parts    []keyedPart
}

type keyedSegment struct {
	cluster string
	segment pg.Segment
}

type keyedPart struct {
	cluster string
	part    Part
}

// pruner works a plan out and carries it out.
type pruner struct {
	r    *Repository
	o    PruneOptions
	plan PrunePlan
	busy []Holder        // backups under way
	gone map[string]bool // manifests that the plan removes, by key
}

// Prune removes backups and WAL that are needed neither to restore any moment within
// retention, nor by a snapshot, nor by a backup under way; and, in two steps
// that lie at least Grace apart, packs that no manifest names. Whoever turns a
// backup into a snapshot holds LeaseBackup with its ID in Keeps meanwhile. Killed at any
// point it leaves a repository that is whole: manifests go before packs, the
// oldest WAL goes first.
func Prune(ctx context.Context, r *Repository, o PruneOptions) (PrunePlan, error) {
	if o.Progress == nil {
		o.Progress = progress.Silent{}
	}
	p := &pruner{r: r, o: o, gone: map[string]bool{}}
	p.plan.Backups = []PrunedBackup{}
	if o.DryRun {
		err := p.run(ctx)
		return p.plan, err
	}
	err := r.WithLease(ctx, LeasePrune, "", nil, p.run)
	return p.plan, err
}

func (p *pruner) run(ctx context.Context) error {
	var err error
	// Whoever starts a backup after this look refers to the newest one at most,
	// which is always kept.
	if p.busy, err = p.r.Holders(ctx, LeaseBackup); err != nil {
		return err
	}
	for c, err := range p.r.Clusters(ctx) {
		if err != nil {
			if errors.Is(err, ErrDamaged) {
				p.note("cluster %s cannot be read and is left as it is: %v", c.Name, err)
				continue
			}
			return err
		}
		if err := p.cluster(ctx, c); err != nil {
			return err
		}
	}
	if !p.o.DryRun {
		if err := p.removeBackupsAndWAL(ctx); err != nil {
			return err
		}
	}
	return p.packs(ctx)
}

func (p *pruner) note(format string, args ...any) {
	p.plan.Notes = append(p.plan.Notes, fmt.Sprintf(format, args...))
}

// cluster decides which backups and which WAL of one cluster go.
func (p *pruner) cluster(ctx context.Context, c Cluster) error {
	retention := p.o.Retention(c.Name)
	if retention == 0 {
		return nil
	}
	var backups []Backup
	for b, err := range p.r.Backups(ctx, c.Name) {
		if errors.Is(err, ErrDamaged) {
			p.note("%s is left as it is, as backup %s cannot be read: %v", c.Name, b.ID, err)
			return nil
		} else if err != nil {
			return err
		}
		backups = append(backups, b)
	}
	if len(backups) == 0 && retention != SnapshotsOnly {
		return nil
	}
	held, err := p.held(ctx, c.Name)
	if err != nil {
		return err
	}
	anchor := anchorOf(backups, p.o.Now.Add(-retention))
	if retention == SnapshotsOnly {
		anchor = len(backups)
	}
	if anchor < 0 {
		return p.wal(ctx, c, backups, backups) // nothing is old enough; WAL from before the first backup is of no use
	}
	kept := []Backup{}
	for i, b := range backups {
		if i >= anchor || held[b.ID] {
			kept = append(kept, b)
			continue
		}
		p.plan.Backups = append(p.plan.Backups, PrunedBackup{Cluster: c.Name, ID: b.ID, Stopped: b.Stopped, Size: b.Size})
		p.gone[manifestKey(c.Name, b.ID)] = true
	}
	return p.wal(ctx, c, kept, backups[anchor:])
}

// anchorOf is the newest undamaged backup that was complete at horizon: with it and all
// after it every moment since horizon can be restored. -1: there is none. Backups are sorted by start.
func anchorOf(backups []Backup, horizon time.Time) int {
	anchor := -1
	for i, b := range backups {
		if b.DamagedPages == 0 && !b.Stopped.After(horizon) {
			anchor = i
		}
	}
	return anchor
}

// held lists the backups that snapshots and backups under way keep.
func (p *pruner) held(ctx context.Context, cluster string) (map[string]bool, error) {
	held := map[string]bool{}
	for s, err := range p.r.Snapshots(ctx, cluster) {
		if err != nil {
			return nil, err // what a snapshot keeps must be known before anything goes
		}
		held[s.Backup] = true
	}
	for _, h := range p.busy {
		for _, id := range h.Keeps {
			held[id] = true
		}
	}
	return held, nil
}

// wal decides which WAL goes: what lies before every backup of the window, but
// for what the other kept backups need to become consistent.
func (p *pruner) wal(ctx context.Context, c Cluster, kept, window []Backup) error {
	oldest := pg.LSN(math.MaxUint64)
	for _, b := range window {
		oldest = min(oldest, b.StartLSN)
	}
	needed := func(s pg.Segment) bool {
		if s.End() > oldest {
			return true
		}
		for _, b := range kept {
			// On any timeline: an ancestor's segment may stand in for it.
			if s.End() > b.StartLSN && s.Start() < b.StopLSN {
				return true
			}
		}
		return false
	}
	tlis, err := p.r.Timelines(ctx, c.Name)
	if err != nil {
		return err
	}
	for _, tli := range tlis {
		for s, err := range p.r.Segments(ctx, c.Name, tli, c.SegmentSize, 0) {
			if err != nil {
				return err
			}
			if !needed(s) {
				p.plan.segments = append(p.plan.segments, keyedSegment{c.Name, s})
				p.plan.Segments++
			}
		}
	}
	return p.partsOf(ctx, c, needed)
}

// partsOf lets parts go that their whole segment has replaced, or that are too old.
func (p *pruner) partsOf(ctx context.Context, c Cluster, needed func(pg.Segment) bool) error {
	segs, err := p.r.PartSegments(ctx, c.Name, c.SegmentSize)
	if err != nil {
		return err
	}
	for _, s := range segs {
		whole, err := p.r.HasSegment(ctx, c.Name, s)
		if err != nil {
			return err
		}
		if !whole && needed(s) {
			continue
		}
		parts, err := p.r.Parts(ctx, c.Name, s)
		if err != nil {
			return err
		}
		for _, part := range parts {
			p.plan.parts = append(p.plan.parts, keyedPart{c.Name, part})
			p.plan.Parts++
		}
	}
	return nil
}

func (p *pruner) removeBackupsAndWAL(ctx context.Context) error {
	p.o.Progress.Stage("remove backups and WAL", 0)
	for _, b := range p.plan.Backups {
		if err := p.r.store.Delete(ctx, manifestKey(b.Cluster, b.ID)); err != nil {
			return fmt.Errorf("remove backup %s: %w", b.ID, err)
		}
	}
	slices.SortStableFunc(p.plan.segments, func(a, b keyedSegment) int {
		if a.segment.Start() < b.segment.Start() {
			return -1
		} else if a.segment.Start() > b.segment.Start() {
			return 1
		}
		return 0
	})
	for _, s := range p.plan.segments {
		if err := p.r.DeleteSegment(ctx, s.cluster, s.segment); err != nil {
			return fmt.Errorf("remove WAL segment %s: %w", s.segment, err)
		}
	}
	for _, part := range p.plan.parts {
		if err := p.r.DeletePart(ctx, part.cluster, part.part); err != nil {
			return fmt.Errorf("remove a part of %s: %w", part.part.Segment, err)
		}
	}
	return nil
}
