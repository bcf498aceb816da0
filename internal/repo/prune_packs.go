package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"pileus/internal/store"
)

// leaseSlack is taken off the start of a backup under way: packs that are older
// were not written by it, even if clocks differ.
const leaseSlack = time.Hour

// mark is one line of a mark object: a pack that no manifest named at that time.
type mark struct {
	Pack PackID `json:"pack"`
}

// packs marks what nothing names, and removes what was marked long enough ago and
// is still named by nothing.
func (p *pruner) packs(ctx context.Context) error {
	p.o.Progress.Stage("look for unused packs", 0)
	now, err := p.r.storeClock(ctx)
	if err != nil {
		return err
	}
	named, ok, err := p.named(ctx)
	if err != nil {
		return err
	}
	if !ok {
		return nil // said in a note
	}
	young := now.Add(-p.o.Grace)
	for _, h := range p.busy {
		if since := h.Since.Add(-leaseSlack); since.Before(young) {
			young = since
		}
	}
	marked, ripe, old, err := p.marks(ctx, now)
	if err != nil {
		return err
	}
	var fresh []PackID
	for info, err := range p.r.store.List(ctx, "packs/") {
		if err != nil {
			return fmt.Errorf("list packs: %w", err)
		}
		var id PackID
		if err := id.UnmarshalText([]byte(info.Key[strings.LastIndexByte(info.Key, '/')+1:])); err != nil {
			continue
		}
		switch {
		case named[id], !info.Modified.Before(young) && p.o.Grace > 0, len(p.busy) > 0 && !info.Modified.Before(young):
		case ripe[id]:
			p.plan.PacksRemoved++
			p.plan.BytesRemoved += info.Size
			if p.o.DryRun {
				continue
			}
			if err := p.r.store.Delete(ctx, info.Key); err != nil {
				return fmt.Errorf("remove pack %s: %w", id, err)
			}
		case !marked[id]:
			fresh = append(fresh, id)
			p.plan.PacksMarked++
			p.plan.BytesMarked += info.Size
		}
	}
	if p.o.DryRun {
		return nil
	}
	if err := p.putMarks(ctx, now, fresh); err != nil {
		return err
	}
	for _, key := range old { // what they marked is removed, or is named again
		if err := p.r.store.Delete(ctx, key); err != nil {
			return fmt.Errorf("remove %s: %w", key, err)
		}
	}
	return nil
}

// named gathers the packs of every manifest that stays. ok is false if one
// cannot be read: then it is not known what it needs, and no pack may go.
func (p *pruner) named(ctx context.Context) (packs map[PackID]bool, ok bool, err error) {
	packs, ok = map[PackID]bool{}, true
	for info, err := range p.r.store.List(ctx, "clusters/") {
		if err != nil {
			return nil, false, fmt.Errorf("list manifests: %w", err)
		}
		f := strings.Split(info.Key, "/")
		if len(f) != 4 || f[2] != "backups" || p.gone[info.Key] {
			continue
		}
		list, err := p.packsOf(ctx, f[1], f[3])
		switch {
		case errors.Is(err, ErrNotFound):
			continue
		case errors.Is(err, ErrDamaged):
			p.note("no pack is removed, as the manifest of backup %s of %s cannot be read: %v", f[3], f[1], err)
			ok = false
			continue
		case err != nil:
			return nil, false, err
		}
		for _, pack := range list {
			packs[pack.ID] = true
		}
	}
	return packs, ok, nil
}

// packsOf lists the packs that a manifest names, after reading it to its end:
// only there its hash tells whether the list can be believed.
func (p *pruner) packsOf(ctx context.Context, cluster, id string) ([]PackInfo, error) {
	m, err := p.r.OpenManifest(ctx, cluster, id)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	for _, err := range m.Entries() {
		if err != nil {
			return nil, err
		}
	}
	return m.Packs(), nil
}

// marks reads what earlier runs marked: all of it, and that which is ripe, with
// the mark objects that hold only ripe ones.
func (p *pruner) marks(ctx context.Context, now time.Time) (marked, ripe map[PackID]bool, old []string, err error) {
	marked, ripe = map[PackID]bool{}, map[PackID]bool{}
	for info, err := range p.r.store.List(ctx, "prune/") {
		if err != nil {
			return nil, nil, nil, fmt.Errorf("list marked packs: %w", err)
		}
		text, err := p.r.readObject(ctx, info.Key, KindPrune)
		if errors.Is(err, ErrDamaged) {
			p.note("%s cannot be read and is ignored: %v", info.Key, err)
			continue
		} else if err != nil {
			return nil, nil, nil, err
		}
		isRipe := now.Sub(info.Modified) >= p.o.Grace
		if isRipe {
			old = append(old, info.Key)
		}
		dec := json.NewDecoder(bytes.NewReader(text))
		for {
			var m mark
			if err := dec.Decode(&m); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, nil, nil, damaged(info.Key, "%v", err)
			}
			marked[m.Pack] = true
			if isRipe {
				ripe[m.Pack] = true
			}
		}
	}
	return marked, ripe, old, nil
}

func (p *pruner) putMarks(ctx context.Context, now time.Time, packs []PackID) error {
	if len(packs) == 0 {
		return nil
	}
	key := "prune/" + now.UTC().Format("20060102T150405Z") + "-" + randomHex(4)
	err := p.r.putObject(ctx, key, KindPrune, func(w io.Writer) error {
		enc := json.NewEncoder(w)
		for _, id := range packs {
			if err := enc.Encode(mark{id}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("mark unused packs: %w", err)
	}
	return nil
}

// storeClock is the store's own time: that of an object just written.
func (r *Repository) storeClock(ctx context.Context) (time.Time, error) {
	key := "leases/clock/" + randomHex(8)
	if err := r.store.Put(ctx, key, strings.NewReader(key)); err != nil {
		return time.Time{}, fmt.Errorf("read the store's clock: %w", err)
	}
	info, err := r.store.Stat(ctx, key)
	if derr := r.store.Delete(ctx, key); err == nil {
		err = derr
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return time.Time{}, fmt.Errorf("read the store's clock: %w", err)
	}
	return info.Modified, nil
}
