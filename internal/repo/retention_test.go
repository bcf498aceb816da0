package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"pileus/internal/pg"
	"pileus/internal/store"
	"pileus/internal/store/storetest"
)

const (
	day         = 24 * time.Hour
	testSegment = int64(1 << 20)
)

// history is a made-up life of a cluster: a WAL segment every six hours, backups,
// some of them damaged or kept by snapshots.
type history struct {
	r       *Repository
	backups []Backup
}

var historyBegan = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// lsnAt is the WAL position at a time: a segment every six hours.
func lsnAt(t time.Time) pg.LSN {
	return pg.LSN(t.Sub(historyBegan)/(6*time.Hour)+1) * pg.LSN(testSegment)
}

func (h *history) backup(t testing.TB, at time.Time, damaged bool) {
	b := Backup{ID: NewBackupID(at), Cluster: "c", SegmentSize: testSegment, Timeline: 1, Started: at, Stopped: at.Add(time.Minute), CompleteTo: at,
		StartLSN: lsnAt(at) + 100, StopLSN: lsnAt(at) + 5000}
	if damaged {
		b.DamagedPages = 1
	}
	content := fmt.Appendf(nil, "content of %s", b.ID)
	h.backups = append(h.backups, putBackup(t, h.r, b, map[string][]byte{"base/1": bytes.Repeat(content, 100)}))
}

// check is the oracle: every moment since the horizon, and every snapshot, must
// have a readable backup with all of its packs and all WAL up to that moment.
func (h *history) check(ctx context.Context, horizon, now time.Time) error {
	usable := func(b Backup, until pg.LSN) error {
		m, err := h.r.OpenManifest(ctx, "c", b.ID)
		if err != nil {
			return err
		}
		defer m.Close()
		for _, p := range m.Packs() {
			if err := h.r.CheckPack(ctx, p); err != nil {
				return err
			}
		}
		for s := pg.SegmentAt(1, b.StartLSN, testSegment); s.Start() < until; s = s.Next() {
			if ok, err := h.r.HasSegment(ctx, "c", s); err != nil || !ok {
				return fmt.Errorf("segment %s is gone: %w", s, errors.Join(err, ErrNotFound))
			}
		}
		return nil
	}
	for at := horizon; at.Before(now); at = at.Add(5 * time.Hour) {
		var before []Backup
		for _, b := range h.backups {
			if b.DamagedPages == 0 && !b.Stopped.After(at) {
				before = append(before, b)
			}
		}
		if len(before) == 0 {
			continue // never was restorable
		}
		if err := usable(before[len(before)-1], lsnAt(at)); err != nil {
			return fmt.Errorf("%s cannot be restored any more: %w", at, err)
		}
	}
	for s, err := range h.r.Snapshots(ctx, "c") {
		if err != nil {
			return err
		}
		for _, b := range h.backups {
			if b.ID == s.Backup {
				if err := usable(b, b.StopLSN); err != nil {
					return fmt.Errorf("snapshot %s cannot be restored any more: %w", s.Name, err)
				}
			}
		}
	}
	return nil
}

// Whatever happens, and wherever a prune is killed, nothing that retention or a
// snapshot keeps is lost.
func TestPruneKeepsWhatIsNeeded(t *testing.T) {
	segment := make([]byte, testSegment)
	rapid.Check(t, func(rt *rapid.T) {
		mem := storetest.NewMem(t)
		r, err := Init(t.Context(), mem, nil, Options{})
		if err != nil {
			rt.Fatal(err)
		}
		if _, err := r.EnsureCluster(t.Context(), Cluster{Name: "c", SystemIdentifier: 1, SegmentSize: testSegment}); err != nil {
			rt.Fatal(err)
		}
		h := &history{r: r}
		days := rapid.IntRange(2, 14).Draw(rt, "days")
		now := historyBegan.Add(time.Duration(days) * day)
		for s := pg.SegmentAt(1, lsnAt(historyBegan), testSegment); s.Start() <= lsnAt(now); s = s.Next() {
			if err := r.PutSegment(t.Context(), "c", s, bytes.NewReader(segment)); err != nil {
				rt.Fatal(err)
			}
		}
		at := historyBegan
		for i := 0; ; i++ {
			at = at.Add(time.Duration(rapid.IntRange(3, 40).Draw(rt, "hours")) * time.Hour)
			if at.After(now) {
				break
			}
			h.backup(t, at, rapid.IntRange(0, 4).Draw(rt, "damage") == 0)
			if rapid.IntRange(0, 3).Draw(rt, "snapshot") == 0 {
				if err := r.PutSnapshot(t.Context(), Snapshot{Name: fmt.Sprintf("s%d", i), Cluster: "c", Backup: h.backups[len(h.backups)-1].ID}); err != nil {
					rt.Fatal(err)
				}
			}
		}
		retention := time.Duration(rapid.IntRange(1, 8).Draw(rt, "retention")) * day
		for range rapid.IntRange(1, 5).Draw(rt, "prunes") {
			faulty := storetest.NewFaulty(mem)
			if rapid.Bool().Draw(rt, "killed") {
				left := rapid.IntRange(0, 12).Draw(rt, "deletions")
				faulty.Inject(storetest.Fault{Op: storetest.Delete, Skip: left, Times: -1, Before: store.ErrUnavailable})
			}
			pruner, err := Open(t.Context(), faulty, nil, Options{})
			if err != nil {
				rt.Fatal(err)
			}
			o := PruneOptions{Now: now, Retention: func(string) time.Duration { return retention }}
			if _, err := Prune(t.Context(), pruner, o); err != nil && !errors.Is(err, store.ErrUnavailable) {
				rt.Fatal(err)
			}
			clearLeases(rt, mem)
			if err := h.check(t.Context(), now.Add(-retention), now); err != nil {
				rt.Fatal(err)
			}
		}
	})
}

// clearLeases does what time would: a killed prune's lease is abandoned.
func clearLeases(t *rapid.T, st store.Store) {
	ctx := context.Background()
	var keys []string
	for info, err := range st.List(ctx, "leases/") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	for _, key := range keys {
		if err := st.Delete(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
}

// A prune that nothing stops removes what is old, in two steps.
func TestPruneRemovesWhatIsOld(t *testing.T) {
	r, st := newTestRepo(t, false, Options{})
	if _, err := r.EnsureCluster(t.Context(), Cluster{Name: "c", SystemIdentifier: 1, SegmentSize: testSegment}); err != nil {
		t.Fatal(err)
	}
	h := &history{r: r}
	now := historyBegan.Add(10 * day)
	for s := pg.SegmentAt(1, lsnAt(historyBegan), testSegment); s.Start() <= lsnAt(now); s = s.Next() {
		if err := r.PutSegment(t.Context(), "c", s, bytes.NewReader(make([]byte, testSegment))); err != nil {
			t.Fatal(err)
		}
	}
	for d := range 10 {
		h.backup(t, historyBegan.Add(time.Duration(d)*day), false)
	}
	o := PruneOptions{Now: now, Retention: func(string) time.Duration { return 3 * day }, DryRun: true}
	dry, err := Prune(t.Context(), r, o)
	if err != nil || len(dry.Backups) != 6 || dry.Segments == 0 || dry.PacksMarked != 6 {
		t.Fatalf("dry run: %+v, %v", dry, err)
	}
	count := func(prefix string) (n int) {
		for _, err := range st.List(t.Context(), prefix) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	if count("packs/") != 10 || count("clusters/c/backups/") != 10 {
		t.Fatal("a dry run removed something")
	}
	o.DryRun = false
	for i, want := range []int{10, 4} {
		plan, err := Prune(t.Context(), r, o)
		if err != nil {
			t.Fatal(err)
		}
		if n := count("packs/"); n != want || count("clusters/c/backups/") != 4 {
			t.Errorf("after prune %d: %d packs, plan %+v", i, n, plan)
		}
	}
	if err := h.check(t.Context(), now.Add(-3*day), now); err != nil {
		t.Error(err)
	}
	// A pack of a backup under way is not touched, however unnamed it is.
	err = r.WithLease(t.Context(), LeaseBackup, "c", nil, func(ctx context.Context) error {
		p := r.NewPacker(ctx)
		w := p.Writer()
		if _, err := w.Add([]byte("not yet in a manifest")); err != nil {
			return err
		}
		w.Close()
		if _, err := p.Close(); err != nil {
			return err
		}
		for range 3 {
			if plan, err := Prune(ctx, r, o); err != nil || plan.PacksMarked+plan.PacksRemoved != 0 {
				return fmt.Errorf("plan %+v: %w", plan, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	// With a manifest that cannot be read nobody knows what it needs.
	st.Corrupt(manifestKey("c", h.backups[9].ID), func(b []byte) []byte { return b[:len(b)-1] })
	before := count("packs/")
	for range 2 {
		if plan, err := Prune(t.Context(), r, o); err != nil || len(plan.Notes) == 0 {
			t.Errorf("plan %+v, %v", plan, err)
		}
	}
	if count("packs/") != before {
		t.Error("packs were removed although a manifest cannot be read")
	}
}

func TestLeasesExclude(t *testing.T) {
	r, _ := newTestRepo(t, false, Options{})
	ctx := t.Context()
	err := r.WithLease(ctx, LeaseBackup, "c", []string{"parent"}, func(ctx context.Context) error {
		var held *HeldError
		if err := r.WithLease(ctx, LeaseBackup, "c", nil, func(context.Context) error { return nil }); !errors.As(err, &held) {
			t.Errorf("a second backup of the cluster: %v", err)
		}
		if err := r.WithLease(ctx, LeaseBackup, "other", nil, func(context.Context) error { return nil }); err != nil {
			t.Errorf("a backup of another cluster: %v", err)
		}
		holders, err := r.Holders(ctx, LeaseBackup)
		if err != nil || len(holders) != 1 || holders[0].Keeps[0] != "parent" {
			t.Errorf("holders %+v, %v", holders, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if holders, err := r.Holders(ctx, LeaseBackup); err != nil || len(holders) != 0 {
		t.Errorf("after the end: %+v, %v", holders, err)
	}
	if err := r.WithLease(ctx, LeaseBackup, "c", nil, func(context.Context) error { return nil }); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
