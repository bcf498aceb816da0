// Package ledger keeps what happened and what was tried: events, the audit log and
// the schedule, in a SQLite file. It holds history only; losing it loses no backup
// and no cluster.
package ledger

import (
	"context"
	"time"
)

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
	From, To   time.Time
	Categories []string
}

type Ledger struct{}

func (l *Ledger) AddEvent(ctx context.Context, e Event) error                             { return nil }
func (l *Ledger) Events(ctx context.Context, q EventQuery) ([]Event, error)               { return nil, nil }
func (l *Ledger) Attempt(ctx context.Context, c, k string, at time.Time, err error) error { return nil }
func (l *Ledger) LastAttempt(ctx context.Context, c, k string) (Attempt, error) {
	return Attempt{}, nil
}

type Attempt struct {
	At       time.Time
	Failures int
	Err      string
}
