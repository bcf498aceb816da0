package fence

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Session is one that had to end.
type Session struct {
	PID         int       `json:"pid"`
	Role        string    `json:"role"`
	Application string    `json:"application,omitempty"`
	Address     string    `json:"address,omitempty"`
	Kind        string    `json:"kind"` // as in pg_stat_activity.backend_type
	Since       time.Time `json:"since"`
}

// Prepared is a transaction that was prepared and is neither committed nor rolled back.
type Prepared struct {
	GID   string    `json:"gid"`
	Owner string    `json:"owner"`
	Since time.Time `json:"since"`
}

// PreparedError: what prepared transactions hold can be committed although nobody can connect any more, and whoever
// prepared them may count on it.
type PreparedError struct {
	Database     string
	Transactions []Prepared
}

func (e *PreparedError) Error() string {
	var names []string
	for _, p := range e.Transactions {
		names = append(names, fmt.Sprintf("%q of %s since %s", p.GID, p.Owner, p.Since.UTC().Format(time.RFC3339)))
	}
	return fmt.Sprintf("%s has prepared transactions: %s. Have their coordinator commit them or roll them back, or set recovery.prepared_transactions to rollback, and go on", e.Database, strings.Join(names, ", "))
}

// Close takes access away as s says, in one transaction; done twice, it changes nothing. conn is as for Observe.
func Close(ctx context.Context, conn *pgx.Conn, t Target, s State) error {
	now, err := grants(ctx, conn, t.Database)
	if err != nil {
		return fmt.Errorf("read who may connect to %s: %w", t.Database, err)
	}
	keep := append([]string{s.Admin}, t.Exempt...)
	var steps []string
	on := " ON DATABASE " + ident(t.Database)
	for _, role := range keep {
		steps = append(steps, "GRANT CONNECT"+on+" TO "+ident(role))
	}
	for _, g := range now {
		// TEMPORARY alone lets nobody in; CREATE needs a connection as well.
		if g.Privilege == "CONNECT" && !slices.Contains(keep, g.Grantee) {
			steps = append(steps, "REVOKE CONNECT"+on+" FROM "+ident(g.Grantee))
		}
	}
	for _, role := range s.Roles {
		steps = append(steps, "ALTER ROLE "+ident(role)+" NOLOGIN")
	}
	if err := run(ctx, conn, steps); err != nil {
		return fmt.Errorf("take access to %s away: %w", t.Database, err)
	}
	left, err := canConnect(ctx, conn, t, s.Admin)
	if err != nil {
		return fmt.Errorf("read who may still connect to %s: %w", t.Database, err)
	}
	if len(left) > 0 {
		return fmt.Errorf("%s may still connect to %s: name them under recovery.exempt_roles if they must, or take LOGIN from them", strings.Join(left, ", "), t.Database)
	}
	return nil
}

// run executes statements in one transaction.
func run(ctx context.Context, conn *pgx.Conn, steps []string) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) // nothing to roll back once it is committed
	for _, step := range steps {
		if _, err := tx.Exec(ctx, step); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
	}
	return tx.Commit(ctx)
}

// What an administrator without pg_read_all_stats may not see of a session is NULL; it is a session all the same.
const sessionsOf = `SELECT pid, usename, coalesce(application_name, ''), coalesce(host(client_addr), ''), coalesce(backend_type, 'client backend'), coalesce(backend_start, 'epoch')
	FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid() AND coalesce(backend_type, 'client backend') IN ('client backend', 'walsender')
	AND usename IS NOT NULL AND usename <> ALL ($2) ORDER BY backend_start, pid`

// Sessions lists those on the target that do not belong to the administrator or the exempt.
func Sessions(ctx context.Context, conn *pgx.Conn, t Target, admin string) ([]Session, error) {
	rows, err := conn.Query(ctx, sessionsOf, t.Database, append([]string{admin}, t.Exempt...))
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (s Session, err error) {
		err = r.Scan(&s.PID, &s.Role, &s.Application, &s.Address, &s.Kind, &s.Since)
		return s, err
	})
	return slices.DeleteFunc(all, func(s Session) bool { return reserved(s.Role) }), err
}

// PreparedOn lists the prepared transactions of a database.
func PreparedOn(ctx context.Context, conn *pgx.Conn, database string) ([]Prepared, error) {
	rows, err := conn.Query(ctx, "SELECT gid, owner, prepared FROM pg_prepared_xacts WHERE database = $1 ORDER BY prepared", database)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (p Prepared, err error) {
		err = r.Scan(&p.GID, &p.Owner, &p.Since)
		return p, err
	})
}

// Ways to deal with prepared transactions.
const (
	RefusePrepared   = "refuse"
	RollbackPrepared = "rollback"
)

// Bounds of ending sessions.
const (
	sessionDeadline = 60 * time.Second
	sessionPause    = 100 * time.Millisecond
)

// EndSessions terminates sessions until none is left, and returns those that it ended. Prepared transactions
// are refused (*PreparedError), or rolled back through inside, a session of the administrator on the database itself.
func EndSessions(ctx context.Context, conn *pgx.Conn, t Target, admin, prepared string, inside func(context.Context) (*pgx.Conn, error)) ([]Session, error) {
	ended := map[int]Session{}
	list := func() []Session {
		out := make([]Session, 0, len(ended))
		for _, s := range ended {
			out = append(out, s)
		}
		slices.SortFunc(out, func(a, b Session) int { return a.Since.Compare(b.Since) })
		return out
	}
	deadline := time.Now().Add(sessionDeadline)
	for {
		left, err := Sessions(ctx, conn, t, admin)
		if err != nil {
			return list(), fmt.Errorf("list the sessions on %s: %w", t.Database, err)
		}
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			return list(), fmt.Errorf("%d sessions on %s do not end, the oldest of %s (process %d): look at it in pg_stat_activity, end it, and go on", len(left), t.Database, left[0].Role, left[0].PID)
		}
		for _, s := range left {
			if _, err := conn.Exec(ctx, "SELECT pg_terminate_backend($1)", s.PID); err != nil {
				return list(), fmt.Errorf("end the session %d of %s on %s: %w", s.PID, s.Role, t.Database, err)
			}
			ended[s.PID] = s
		}
		select {
		case <-ctx.Done():
			return list(), ctx.Err()
		case <-time.After(sessionPause):
		}
	}
	return list(), endPrepared(ctx, conn, t.Database, prepared, inside)
}

func endPrepared(ctx context.Context, conn *pgx.Conn, database, how string, inside func(context.Context) (*pgx.Conn, error)) error {
	left, err := PreparedOn(ctx, conn, database)
	if err != nil || len(left) == 0 {
		return err
	}
	if how != RollbackPrepared {
		return &PreparedError{Database: database, Transactions: left}
	}
	in, err := inside(ctx)
	if err != nil {
		return fmt.Errorf("connect to %s to roll prepared transactions back: %w", database, err)
	}
	defer in.Close(context.WithoutCancel(ctx))
	for _, p := range left {
		if _, err := in.Exec(ctx, "ROLLBACK PREPARED "+literal(p.GID)); err != nil {
			return fmt.Errorf("roll the prepared transaction %q of %s back: %w", p.GID, p.Owner, err)
		}
	}
	return nil
}

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// Lift gives access back as s says it was, in one transaction, and proves it; done twice, it changes nothing.
func Lift(ctx context.Context, conn *pgx.Conn, s State) error {
	now, err := grants(ctx, conn, s.Database)
	if err != nil {
		return fmt.Errorf("read who may connect to %s: %w", s.Database, err)
	}
	var steps []string
	on := " ON DATABASE " + ident(s.Database)
	for _, g := range now {
		if !slices.Contains(s.Grants, g) {
			steps = append(steps, "REVOKE "+g.Privilege+on+" FROM "+ident(g.Grantee))
		}
	}
	for _, g := range s.Grants {
		option := ""
		if g.Grantable {
			option = " WITH GRANT OPTION"
		}
		// Granting what is there changes nothing; what was revoked above with its option is given again.
		steps = append(steps, "GRANT "+g.Privilege+on+" TO "+ident(g.Grantee)+option)
	}
	for _, role := range s.Roles {
		steps = append(steps, "ALTER ROLE "+ident(role)+" LOGIN")
	}
	if err := run(ctx, conn, steps); err != nil {
		return fmt.Errorf("give access to %s back: %w", s.Database, err)
	}
	if now, err = grants(ctx, conn, s.Database); err != nil {
		return fmt.Errorf("read who may connect to %s: %w", s.Database, err)
	}
	if !slices.Equal(now, s.Grants) {
		return fmt.Errorf("the rights on %s are %v after the fence was lifted, and were %v before: grant what is missing by hand", s.Database, now, s.Grants)
	}
	return nil
}

// Closed tells whether the fence of s holds now: no ordinary role may connect, and no session is left.
func Closed(ctx context.Context, conn *pgx.Conn, t Target, s State) (bool, error) {
	roles, err := canConnect(ctx, conn, t, s.Admin)
	if err != nil || len(roles) > 0 {
		return false, err
	}
	sessions, err := Sessions(ctx, conn, t, s.Admin)
	return len(sessions) == 0, err
}

// errOpen: a probe got in.
var errOpen = errors.New("the fence does not hold")

// Restored tells whether a cluster that was restored came back fenced: nobody has CONNECT but those that stay, although
// others had before.
func Restored(ctx context.Context, conn *pgx.Conn, t Target, s State) (bool, error) {
	now, err := grants(ctx, conn, t.Database)
	if err != nil {
		return false, fmt.Errorf("read who may connect to %s: %w", t.Database, err)
	}
	keep := append([]string{s.Admin}, t.Exempt...)
	others := func(all []Grant) bool {
		return slices.ContainsFunc(all, func(g Grant) bool { return g.Privilege == "CONNECT" && !slices.Contains(keep, g.Grantee) })
	}
	return others(s.Grants) && !others(now), nil
}
