package recovery

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Rehearser drills by a schedule, and tells Prometheus how old the last proof is.
type Rehearser struct {
	book     *Runbook
	every    time.Duration
	clusters []string

	proven, age, rto, failed *prometheus.Desc
}

// Times of the schedule: between two looks, and after a drill that failed.
const (
	drillLook  = 10 * time.Second
	drillAgain = time.Hour
)

// NewRehearser makes one of what the configuration says; nil if it says nothing.
func NewRehearser(b *Runbook) *Rehearser {
	c := b.o.Config.Recovery
	if c.DrillEvery == 0 {
		return nil
	}
	d := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("pileus_drill_"+name, help, []string{"cluster"}, nil)
	}
	return &Rehearser{book: b, every: c.DrillEvery, clusters: c.DrillClusters,
		proven: d("last_success_timestamp_seconds", "When a recovery was last proven."),
		age:    d("last_success_age_seconds", "How long ago a recovery was last proven."),
		rto:    d("last_rto_seconds", "How long the last proven recovery took until a validated cluster served."),
		failed: d("failed", "1 if the last drill failed."),
	}
}

// Run drills when it is time, until ctx ends.
func (r *Rehearser) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(drillLook, r.every)):
		}
		for _, cluster := range r.clusters {
			if !r.due(ctx, cluster) {
				continue
			}
			log := r.book.o.Log.With("cluster", cluster)
			if d, err := r.book.Drill(ctx, cluster, true); err != nil && ctx.Err() == nil {
				log.Error("the drill failed", "run", d.Run, "error", err)
			} else if err == nil {
				log.Info("a recovery was proven", "run", d.Run, "to", d.Target.String(), "rto", d.RTO.String())
			}
		}
	}
}

func (r *Rehearser) due(ctx context.Context, cluster string) bool {
	all, err := r.book.o.Journal.Drills(ctx, cluster)
	if err != nil {
		r.book.o.Log.Error("the drills so far cannot be read", "cluster", cluster, "error", err)
		return false
	}
	if len(all) == 0 {
		return true
	}
	wait := r.every
	if !all[0].OK {
		wait = min(wait, drillAgain)
	}
	return time.Since(all[0].At) >= wait
}

// Describe implements prometheus.Collector.
func (r *Rehearser) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{r.proven, r.age, r.rto, r.failed} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. A cluster that was never drilled has no figures.
func (r *Rehearser) Collect(ch chan<- prometheus.Metric) {
	put := func(d *prometheus.Desc, v float64, cluster string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, cluster)
	}
	ctx, cancel := context.WithTimeout(context.Background(), drillLook)
	defer cancel()
	for _, cluster := range r.clusters {
		all, err := r.book.o.Journal.Drills(ctx, cluster)
		if err != nil || len(all) == 0 {
			continue
		}
		failed := 0.0
		if !all[0].OK {
			failed = 1
		}
		put(r.failed, failed, cluster)
		for _, d := range all {
			if d.OK {
				put(r.proven, float64(d.At.UnixMilli())/1000, cluster)
				put(r.age, time.Since(d.At).Seconds(), cluster)
				put(r.rto, d.RTO.Seconds(), cluster)
				break
			}
		}
	}
}
