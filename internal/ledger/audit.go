package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// AuditEntry is one request that was to change something: who, what, when, and what came of it.
type AuditEntry struct {
	Time          time.Time         `json:"time"`
	RequestID     string            `json:"request_id"`
	AccessKey     string            `json:"access_key"` // ID of it
	Role          string            `json:"role"`
	SourceAddress string            `json:"source_address"`
	Action        string            `json:"action"`
	Resource      string            `json:"resource"`
	Parameters    map[string]string `json:"parameters"` // without secrets
	Result        string            `json:"result"`     // ok, or the error's code
	Status        int               `json:"status"`     // of HTTP
}

// AuditQuery narrows the audit log. Zero fields do not.
type AuditQuery struct {
	From, To  time.Time // both included
	AccessKey string
	Action    string
	Limit     int // the newest so many
}

// Audit adds an entry. It is durable when Audit returns.
func (l *Ledger) Audit(ctx context.Context, e AuditEntry) error {
	parameters, err := json.Marshal(e.Parameters)
	if err != nil {
		return err
	}
	_, err = l.db.ExecContext(ctx, "INSERT INTO audit (at, request, access_key, role, address, action, resource, parameters, result, status) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		e.Time.UnixMicro(), e.RequestID, e.AccessKey, e.Role, e.SourceAddress, e.Action, e.Resource, string(parameters), e.Result, e.Status)
	if err != nil {
		return fmt.Errorf("add to the audit log: %w", err)
	}
	return nil
}

// AuditLog lists entries, newest first.
func (l *Ledger) AuditLog(ctx context.Context, q AuditQuery) ([]AuditEntry, error) {
	from, to, limit := q.From.UnixMicro(), q.To.UnixMicro(), q.Limit
	if q.To.IsZero() {
		to = 1 << 62
	}
	if limit <= 0 {
		limit = -1
	}
	rows, err := l.db.QueryContext(ctx, `SELECT at, request, access_key, role, address, action, resource, parameters, result, status FROM audit
		WHERE at >= ? AND at <= ? AND (? = '' OR access_key = ?) AND (? = '' OR action = ?) ORDER BY at DESC, id DESC LIMIT ?`,
		from, to, q.AccessKey, q.AccessKey, q.Action, q.Action, limit)
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	defer rows.Close()
	out := []AuditEntry{}
	for rows.Next() {
		var e AuditEntry
		var at int64
		var parameters string
		if err := rows.Scan(&at, &e.RequestID, &e.AccessKey, &e.Role, &e.SourceAddress, &e.Action, &e.Resource, &parameters, &e.Result, &e.Status); err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		if err := json.Unmarshal([]byte(parameters), &e.Parameters); err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		e.Time = time.UnixMicro(at).UTC()
		out = append(out, e)
	}
	return out, rows.Err()
}
