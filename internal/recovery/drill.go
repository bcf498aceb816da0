package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Drill rehearses: it restores a cluster to the latest moment, or to a random one of its window, as a throwaway
// cluster, validates that, deletes it, and writes down how long it took. The source is neither halted nor fenced.
func (b *Runbook) Drill(ctx context.Context, cluster string, random bool) (Drill, error) {
	now := time.Now().UTC()
	d := Drill{Run: newRunID(now), Cluster: cluster, At: now, Target: Target{Latest: true}}
	release, err := b.hold(cluster + ".drill")
	if err != nil {
		return d, err
	}
	defer release()
	env, err := newEnvironment(ctx, b.o.Config)
	if err != nil {
		return d, err
	}
	s, err := env.source(ctx, cluster)
	if err != nil {
		return d, err
	}
	if problem, err := s.check(ctx, env, d.Target); err != nil || problem != "" {
		return d, errors.Join(err, errors.New(problem))
	}
	if random && s.Latest.After(s.Earliest) {
		d.Target = Target{Time: s.Earliest.Add(time.Duration(rand.Int64N(int64(s.Latest.Sub(s.Earliest)) + 1))).Truncate(time.Microsecond)}
	}
	d.RPO = max(0, now.Sub(s.Latest))
	name := strings.ToLower("drill-" + d.Run[len(d.Run)-6:] + "-" + cluster)
	w := &work{Runbook: b, env: env, step: StepRestore, run: Run{ID: d.Run, Cluster: cluster, New: strings.TrimRight(name[:min(len(name), 60)], "-"), Target: d.Target, Created: now}}
	err = b.rehearse(ctx, w, s, &d)
	// What was made for the drill goes, whatever came of it.
	derr := w.deleteNew(context.WithoutCancel(ctx))
	if derr != nil {
		derr = fmt.Errorf("delete the throwaway cluster %s: %w", w.run.New, derr)
	}
	if err = errors.Join(err, derr); err != nil {
		d.OK, d.Problem = false, err.Error()
	}
	return d, errors.Join(err, b.o.Journal.SaveDrill(context.WithoutCancel(ctx), d))
}

func (b *Runbook) rehearse(ctx context.Context, w *work, s source, d *Drill) error {
	// The throwaway cluster is not the source's heir: its tags would make it look like one.
	if err := w.ask(ctx, s); err != nil {
		return err
	}
	c, err := w.available(ctx, w.run.New)
	if err != nil {
		return err
	}
	if _, err := w.instance(ctx, s, c); err != nil {
		return err
	}
	d.Restored = time.Since(d.At)
	w.step = StepValidate
	if d.Validated, err = w.env.validate(ctx, placeOf(c), d.Target.Time); err != nil {
		return err
	}
	d.RTO = time.Since(d.At)
	if w.env.cumulus != nil {
		if d.Counts, err = w.env.countRows(ctx, placeOf(c)); err != nil {
			return err
		}
	}
	if bad := d.Validated.failed(); len(bad) > 0 {
		return fmt.Errorf("the rehearsed data is not as expected: %s", strings.Join(bad, "; "))
	}
	d.OK = true
	return nil
}

// SaveDrill keeps the outcome of a drill.
func (j *Journal) SaveDrill(ctx context.Context, d Drill) error {
	doc, err := json.Marshal(d)
	if err == nil {
		_, err = j.db.ExecContext(ctx, "INSERT INTO drill (at, cluster, document) VALUES (?, ?, ?)", d.At.UnixMicro(), d.Cluster, string(doc))
	}
	if err != nil {
		return fmt.Errorf("write down the drill: %w", err)
	}
	return nil
}

// Drills lists the drills of a cluster, or of all if it is empty, newest first.
func (j *Journal) Drills(ctx context.Context, cluster string) ([]Drill, error) {
	out := []Drill{}
	err := j.each(ctx, "SELECT document FROM drill WHERE ? = '' OR cluster = ? ORDER BY at DESC, id DESC", []any{cluster, cluster}, func(doc string) error {
		var d Drill
		err := json.Unmarshal([]byte(doc), &d)
		out = append(out, d)
		return err
	})
	return out, err
}
