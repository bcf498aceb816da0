package ledger

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Keep is how long events are kept.
const Keep = 14 * 24 * time.Hour

// Event is something that happened to a resource.
type Event struct {
	Time       time.Time `json:"time"`
	SourceType string    `json:"source_type"` // db-cluster, db-instance, db-cluster-snapshot, db-parameter-group
	Source     string    `json:"source"`      // identifier
	ARN        string    `json:"arn"`
	Categories []string  `json:"categories"` // creation, deletion, failure, notification, backup, recovery, maintenance, failover, configuration change
	Message    string    `json:"message"`
}

// EventQuery narrows a list of events. Zero fields do not.
type EventQuery struct {
	SourceType string
	Source     string
	From, To   time.Time // both included
	Categories []string  // any of them
}

// AddEvent notes an event, and forgets those that are too old.
func (l *Ledger) AddEvent(ctx context.Context, e Event) error {
	_, err := l.db.ExecContext(ctx, "INSERT INTO event (at, source_type, source, arn, categories, message) VALUES (?, ?, ?, ?, ?, ?)",
		e.Time.UnixMicro(), e.SourceType, e.Source, e.ARN, strings.Join(e.Categories, ","), e.Message)
	if err != nil {
		return fmt.Errorf("note an event: %w", err)
	}
	return l.sweep(ctx)
}

func (l *Ledger) sweep(ctx context.Context) error {
	if _, err := l.db.ExecContext(ctx, "DELETE FROM event WHERE at < ?", time.Now().Add(-Keep).UnixMicro()); err != nil {
		return fmt.Errorf("forget old events: %w", err)
	}
	return nil
}

// Events lists events, oldest first.
func (l *Ledger) Events(ctx context.Context, q EventQuery) ([]Event, error) {
	where, args := []string{"1"}, []any{}
	cond := func(text string, arg any) { where, args = append(where, text), append(args, arg) }
	if q.SourceType != "" {
		cond("source_type = ?", q.SourceType)
	}
	if q.Source != "" {
		cond("source = ?", q.Source)
	}
	if !q.From.IsZero() {
		cond("at >= ?", q.From.UnixMicro())
	}
	if !q.To.IsZero() {
		cond("at <= ?", q.To.UnixMicro())
	}
	if len(q.Categories) > 0 {
		var any []string
		for _, c := range q.Categories {
			any, args = append(any, "(',' || categories || ',') LIKE ?"), append(args, "%,"+c+",%")
		}
		where = append(where, "("+strings.Join(any, " OR ")+")")
	}
	rows, err := l.db.QueryContext(ctx, "SELECT at, source_type, source, arn, categories, message FROM event WHERE "+strings.Join(where, " AND ")+" ORDER BY at, id", args...)
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	defer rows.Close()
	out := []Event{}
	for rows.Next() {
		var e Event
		var at int64
		var categories string
		if err := rows.Scan(&at, &e.SourceType, &e.Source, &e.ARN, &categories, &e.Message); err != nil {
			return nil, fmt.Errorf("list events: %w", err)
		}
		e.Time, e.Categories = time.UnixMicro(at).UTC(), strings.Split(categories, ",")
		out = append(out, e)
	}
	return out, rows.Err()
}
