package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"pileus/internal/pg"
	"pileus/internal/progress"
)

// VerifyOptions of Verify.
type VerifyOptions struct {
	Cluster string // only this one; empty: all
	// ReadData is the part of packs and WAL segments that is read back, 0 to 1,
	// chosen at random. With 1 every chunk of each cluster's newest backup is also expanded
	// and compared with its own hash.
	ReadData float64
	Workers  int
	Progress progress.Reporter
	Seed     uint64 // of the choice
}

// Problem is one thing that is not as it was written.
type Problem struct {
	Object  string   `json:"object"`
	What    string   `json:"what"`
	Cluster string   `json:"cluster,omitempty"`
	Backups []string `json:"backups,omitempty"` // that it hits
	Do      string   `json:"do,omitempty"`
}

// VerifyReport is what Verify looked at, and what it found.
type VerifyReport struct {
	Backups   int64     `json:"backups"`
	Packs     int64     `json:"packs"`
	Chunks    int64     `json:"chunks"`
	Segments  int64     `json:"segments"`
	ReadBytes int64     `json:"read_bytes"`
	Problems  []Problem `json:"problems"`
}

const doNewBackup = "take a new full backup (pileus backup --full); a copy of the repository may still have the object"

// verifier gathers the report. Its maps are written by one goroutine at a time.
type verifier struct {
	r    *Repository
	o    VerifyOptions
	rng  *rand.Rand
	size map[PackID]int64 // packs that are in the store
	info map[PackID]PackInfo
	uses map[PackID]map[string][]string // pack → cluster → backups

	mu     sync.Mutex
	report VerifyReport
}

// Verify checks what the repository holds. Damage is in the report and does not
// stop it; an error means that it could not look. Memory grows with the number of
// packs and segments, some 200 bytes each.
func Verify(ctx context.Context, r *Repository, o VerifyOptions) (VerifyReport, error) {
	if o.Progress == nil {
		o.Progress = progress.Silent{}
	}
	o.Workers = max(o.Workers, 1)
	v := &verifier{r: r, o: o, rng: rand.New(rand.NewPCG(o.Seed, 0)), size: map[PackID]int64{}, info: map[PackID]PackInfo{}, uses: map[PackID]map[string][]string{}}
	v.report.Problems = []Problem{}
	if err := v.listPacks(ctx); err != nil {
		return v.report, err
	}
	for c, err := range r.Clusters(ctx) {
		if o.Cluster != "" && c.Name != o.Cluster {
			continue
		}
		if errors.Is(err, ErrDamaged) {
			v.problem(Problem{Object: clusterKey(c.Name), What: err.Error(), Cluster: c.Name, Do: "restore this object from a copy of the repository"})
			continue
		} else if err != nil {
			return v.report, err
		}
		if err := v.cluster(ctx, c); err != nil {
			return v.report, err
		}
	}
	return v.report, v.packs(ctx)
}

func (v *verifier) problem(p Problem) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Problems = append(v.report.Problems, p)
}

func (v *verifier) read(n int64) {
	v.o.Progress.Add(n)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.ReadBytes += n
}

func (v *verifier) listPacks(ctx context.Context) error {
	v.o.Progress.Stage("list packs", 0)
	for info, err := range v.r.store.List(ctx, "packs/") {
		if err != nil {
			return fmt.Errorf("list packs: %w", err)
		}
		var id PackID
		if err := id.UnmarshalText([]byte(info.Key[strings.LastIndexByte(info.Key, '/')+1:])); err == nil {
			v.size[id] = info.Size
		}
	}
	return nil
}

// cluster checks a cluster's backups, snapshots and WAL.
func (v *verifier) cluster(ctx context.Context, c Cluster) error {
	v.o.Progress.Stage("backups of "+c.Name, 0)
	heads := map[string]Backup{}
	var order []string
	for b, err := range v.r.Backups(ctx, c.Name) {
		if errors.Is(err, ErrDamaged) {
			v.problem(Problem{Object: manifestKey(c.Name, b.ID), What: err.Error(), Cluster: c.Name, Backups: []string{b.ID}, Do: doNewBackup})
			continue
		} else if err != nil {
			return err
		}
		heads[b.ID] = b
		order = append(order, b.ID)
	}
	for i, id := range order {
		if err := v.backup(ctx, heads[id], v.o.ReadData >= 1 && i == len(order)-1); err != nil {
			return err
		}
	}
	for s, err := range v.r.Snapshots(ctx, c.Name) {
		if errors.Is(err, ErrDamaged) {
			v.problem(Problem{Object: snapshotKey(c.Name, s.Name), What: err.Error(), Cluster: c.Name})
			continue
		} else if err != nil {
			return err
		}
		if _, ok := heads[s.Backup]; !ok {
			v.problem(Problem{Object: snapshotKey(c.Name, s.Name), What: "its backup " + s.Backup + " is missing or unreadable", Cluster: c.Name, Backups: []string{s.Backup}})
		}
	}
	return v.wal(ctx, c, heads)
}

// backup reads one manifest to its end, and every page map it names.
func (v *verifier) backup(ctx context.Context, b Backup, chunks bool) error {
	v.report.Backups++
	m, err := v.r.OpenManifest(ctx, b.Cluster, b.ID)
	if err != nil {
		return v.damage(err, manifestKey(b.Cluster, b.ID), b)
	}
	defer m.Close()
	for _, p := range m.Packs() {
		v.info[p.ID] = p
		if v.uses[p.ID] == nil {
			v.uses[p.ID] = map[string][]string{}
		}
		v.uses[p.ID][b.Cluster] = append(v.uses[p.ID][b.Cluster], b.ID)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(v.o.Workers)
	var broken error
	for e, err := range m.Entries() {
		if err != nil {
			broken = err
			break
		}
		g.Go(func() error {
			err := v.entry(gctx, e, chunks)
			return v.damage(err, fmt.Sprintf("%s of backup %s", e.Path, b.ID), b)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return v.damage(broken, manifestKey(b.Cluster, b.ID), b)
}

// damage turns damage into a problem and passes other errors on.
func (v *verifier) damage(err error, object string, b Backup) error {
	if errors.Is(err, ErrDamaged) || errors.Is(err, ErrNotFound) || errors.Is(err, errNode) {
		v.problem(Problem{Object: object, What: err.Error(), Cluster: b.Cluster, Backups: []string{b.ID}, Do: doNewBackup})
		return nil
	}
	return err
}

// entry checks that a file's references make sense, and with chunks their content.
func (v *verifier) entry(ctx context.Context, e Entry, chunks bool) error {
	var refs []Ref
	switch {
	case e.Chunk != nil:
		refs = []Ref{*e.Chunk}
	case e.Node != nil:
		if err := v.bounds(*e.Node); err != nil {
			return err
		}
		if _, ok := v.size[e.Node.Pack]; !ok {
			return nil // the missing pack is reported by itself
		}
		n, err := v.r.ReadNode(ctx, *e.Node)
		if err != nil {
			return err
		}
		if n.Size != e.Size {
			return damaged(e.Path, "its page map is of %d bytes, the file has %d", n.Size, e.Size)
		}
		for _, p := range n.Packs() {
			if !slices.Contains(e.Packs, p) {
				return damaged(e.Path, "its page map names pack %s, which the manifest does not", p)
			}
		}
		for _, c := range n.Chunks {
			if !c.Zero {
				refs = append(refs, c.Ref)
			}
		}
		for _, p := range n.Patches {
			refs = append(refs, p.Ref)
		}
	}
	var buf []byte
	for _, ref := range refs {
		if err := v.bounds(ref); err != nil {
			return err
		}
		if _, ok := v.size[ref.Pack]; !ok || !chunks {
			continue
		}
		var err error
		if buf, err = v.r.ReadChunk(ctx, buf[:0], ref); err != nil {
			return err
		}
		v.read(int64(ref.Stored))
	}
	v.mu.Lock()
	v.report.Chunks += int64(len(refs))
	v.mu.Unlock()
	return nil
}

// bounds refuses a reference that points outside of its pack.
func (v *verifier) bounds(ref Ref) error {
	if size, ok := v.size[ref.Pack]; ok && (int64(ref.Offset) < int64(len(packMagic)) || int64(ref.Offset)+int64(ref.Stored) > size) {
		return damaged(ref.String(), "the pack has %d bytes", size)
	}
	return nil
}

// packs checks every pack that a manifest names: that it is there, its size, and
// of the chosen ones the content.
func (v *verifier) packs(ctx context.Context) error {
	var ids []PackID
	var total int64
	for id := range v.info {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b PackID) int { return slices.Compare(a[:], b[:]) })
	var chosen []PackID
	for _, id := range ids {
		v.report.Packs++
		want := v.info[id]
		if have, ok := v.size[id]; !ok {
			v.packProblem(id, "it is missing")
		} else if have != want.Size {
			v.packProblem(id, fmt.Sprintf("it has %d bytes, and had %d", have, want.Size))
		} else if v.rng.Float64() < v.o.ReadData {
			chosen = append(chosen, id)
			total += want.Size
		}
	}
	v.o.Progress.Stage("read packs", total)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(v.o.Workers)
	for _, id := range chosen {
		g.Go(func() error {
			err := v.r.CheckPack(gctx, v.info[id])
			if errors.Is(err, ErrDamaged) {
				v.packProblem(id, err.Error())
				return nil
			}
			v.read(v.info[id].Size)
			return err
		})
	}
	return g.Wait()
}

func (v *verifier) packProblem(id PackID, what string) {
	for cluster, backups := range v.uses[id] {
		v.problem(Problem{Object: id.key(), What: what, Cluster: cluster, Backups: backups, Do: doNewBackup})
	}
}

// wal checks that each backup has the WAL to become consistent, and reads chosen segments.
func (v *verifier) wal(ctx context.Context, c Cluster, heads map[string]Backup) error {
	v.o.Progress.Stage("WAL of "+c.Name, 0)
	tlis, err := v.r.Timelines(ctx, c.Name)
	if err != nil {
		return err
	}
	have := map[pg.Segment]bool{}
	for _, tli := range tlis {
		for s, err := range v.r.Segments(ctx, c.Name, tli, c.SegmentSize, 0) {
			if err != nil {
				return err
			}
			have[s] = true
			v.report.Segments++
			if v.rng.Float64() < v.o.ReadData {
				if err := v.segment(ctx, c, s); err != nil {
					return err
				}
			}
		}
	}
	for id, b := range heads {
		for s := pg.SegmentAt(b.Timeline, b.StartLSN, c.SegmentSize); s.Start() < b.StopLSN; s = s.Next() {
			if have[s] {
				continue
			}
			parts, err := v.r.Parts(ctx, c.Name, s)
			if err != nil {
				return err
			}
			if end := s.Start() + pg.LSN(PartsEnd(parts)); end < min(s.End(), b.StopLSN) {
				v.problem(Problem{Object: segmentKey(c.Name, s), What: "it is missing", Cluster: c.Name, Backups: []string{id}, Do: "the backup cannot be restored without it: take a new one"})
			}
		}
	}
	return nil
}

func (v *verifier) segment(ctx context.Context, c Cluster, s pg.Segment) error {
	rc, err := v.r.OpenSegment(ctx, c.Name, s)
	var n int64
	if err == nil {
		n, err = copyBuffer(io.Discard, rc)
		rc.Close()
	}
	v.read(n)
	if errors.Is(err, ErrDamaged) || (err == nil && n != s.Size) {
		what := fmt.Sprintf("it holds %d bytes", n)
		if err != nil {
			what = err.Error()
		}
		v.problem(Problem{Object: segmentKey(c.Name, s), What: what, Cluster: c.Name, Do: "moments after it can be restored only from a backup that is newer: take one now"})
		return nil
	}
	if errors.Is(err, ErrNotFound) {
		return nil // pruned meanwhile
	}
	return err
}
