package service

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// collector turns the newest look into metrics.
type collector struct {
	w *watch

	protected, earliest, latest, lagBytes, lagSeconds, backupTime, backupAge, backupBytes, storedBytes, failures, slotBytes, repository, looked *prometheus.Desc
}

// metrics serves what Prometheus reads.
func (w *watch) metrics(more ...prometheus.Collector) http.Handler {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("pileus_"+name, help, labels, nil)
	}
	c := &collector{w: w,
		protected:   d("cluster_protected", "1 if everything committed can be restored as it should; 0 if not, or not known.", "cluster"),
		earliest:    d("restorable_earliest_timestamp_seconds", "Begin of the restorable window.", "cluster"),
		latest:      d("restorable_latest_timestamp_seconds", "End of the restorable window.", "cluster"),
		lagBytes:    d("wal_lag_bytes", "WAL of the server that is not durable in the repository.", "cluster"),
		lagSeconds:  d("wal_lag_seconds", "How far the end of the restorable window is behind, while WAL is missing.", "cluster"),
		backupTime:  d("last_backup_timestamp_seconds", "When the newest backup was complete.", "cluster"),
		backupAge:   d("last_backup_age_seconds", "How long ago the newest backup was complete.", "cluster"),
		backupBytes: d("last_backup_bytes", "Size of the files in the newest backup.", "cluster"),
		storedBytes: d("last_backup_stored_bytes", "What the newest backup added to the repository.", "cluster"),
		failures:    d("backup_failures", "Automated backups that failed since the last that succeeded.", "cluster"),
		slotBytes:   d("slot_retained_bytes", "WAL that the server keeps for Pileus.", "cluster"),
		repository:  d("repository_bytes", "Size of all objects in the repository."),
		looked:      d("looked_timestamp_seconds", "When these figures were gathered."),
	}
	r := prometheus.NewRegistry()
	r.MustRegister(c, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.MustRegister(more...)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.protected, c.earliest, c.latest, c.lagBytes, c.lagSeconds, c.backupTime, c.backupAge, c.backupBytes, c.storedBytes, c.failures, c.slotBytes, c.repository, c.looked} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. What is not known is left out.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	put := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	at := func(d *prometheus.Desc, t time.Time, labels ...string) {
		if !t.IsZero() {
			put(d, float64(t.UnixMilli())/1000, labels...)
		}
	}
	at(c.looked, c.w.looked)
	if c.w.bytes >= 0 {
		put(c.repository, float64(c.w.bytes))
	}
	old := c.w.problem() != ""
	for _, h := range c.w.seen {
		id := h.Cluster.Identifier
		protected := 0.0
		if h.Protected && !old {
			protected = 1
		}
		put(c.protected, protected, id)
		at(c.earliest, h.Cluster.Earliest, id)
		at(c.latest, h.Cluster.Latest, id)
		at(c.backupTime, h.LastBackup, id)
		if !h.LastBackup.IsZero() {
			put(c.backupAge, time.Since(h.LastBackup).Seconds(), id)
			put(c.backupBytes, float64(h.BackupBytes), id)
			put(c.storedBytes, float64(h.StoredBytes), id)
		}
		if h.WALLagBytes >= 0 {
			put(c.lagBytes, float64(h.WALLagBytes), id)
			put(c.lagSeconds, h.WALLag.Seconds(), id)
		}
		if h.SlotBytes >= 0 {
			put(c.slotBytes, float64(h.SlotBytes), id)
		}
		put(c.failures, float64(h.Failures), id)
	}
}
