package fence

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Grant is one right on a database.
type Grant struct {
	Grantee   string `json:"grantee"` // empty: PUBLIC
	Privilege string `json:"privilege"`
	Grantable bool   `json:"grantable,omitempty"`
}

// State is what a fence changes, as it was before.
type State struct {
	Database string    `json:"database"`
	Admin    string    `json:"administrator"`
	Owner    string    `json:"owner"`
	Saved    time.Time `json:"saved"`
	Grants   []Grant   `json:"grants"`
	Limit    int       `json:"connection_limit"` // -1: none; never changed, only told
	Roles    []string  `json:"roles"`            // that lose LOGIN
}

// Target says what is fenced, and who stays.
type Target struct {
	Database string
	Exempt   []string // roles that keep their access beside the administrator
	// Application is the role of the application, the only superuser that is kept out, if it is one: others keep
	// the server itself, and what protects it, working.
	Application string
}

// reserved are roles of the provider. RDS's own keep the service working, and cannot be altered.
func reserved(role string) bool {
	return strings.HasPrefix(role, "pg_") || strings.HasPrefix(role, "rds") || strings.HasPrefix(role, "pileus_")
}

// Observe reads what a fence of the target would have to save. conn is the administrator's, on another
// database of the cluster.
func Observe(ctx context.Context, conn *pgx.Conn, t Target) (State, error) {
	s := State{Database: t.Database, Saved: time.Now().UTC()}
	var current string
	err := conn.QueryRow(ctx, "SELECT current_database(), session_user").Scan(&current, &s.Admin)
	if err == nil && current == t.Database {
		return s, fmt.Errorf("the administrator must be connected to another database than %s to fence it: set recovery.maintenance_database", t.Database)
	}
	if err == nil {
		err = conn.QueryRow(ctx, "SELECT pg_get_userbyid(datdba), datconnlimit FROM pg_database WHERE datname = $1", t.Database).Scan(&s.Owner, &s.Limit)
	}
	if err == pgx.ErrNoRows {
		return s, fmt.Errorf("there is no database %s in this cluster: check recovery.database", t.Database)
	}
	if err == nil {
		s.Grants, err = grants(ctx, conn, t.Database)
	}
	if err == nil {
		s.Roles, err = connecting(ctx, conn, t, s)
	}
	if err != nil {
		return s, fmt.Errorf("read who may connect to %s: %w", t.Database, err)
	}
	return s, nil
}

func grants(ctx context.Context, conn *pgx.Conn, database string) ([]Grant, error) {
	rows, err := conn.Query(ctx, `SELECT DISTINCT CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee) END, a.privilege_type, a.is_grantable
		FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a WHERE d.datname = $1 ORDER BY 1, 2, 3`, database)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (g Grant, err error) {
		err = r.Scan(&g.Grantee, &g.Privilege, &g.Grantable)
		return g, err
	})
}

// connecting lists the roles that could log in and connect although CONNECT were revoked from everybody who is named in
// the grants: those who belong to the administrator or the exempt, and an application that is a superuser.
func connecting(ctx context.Context, conn *pgx.Conn, t Target, s State) ([]string, error) {
	keep := append([]string{s.Admin}, t.Exempt...)
	rows, err := conn.Query(ctx, `SELECT r.rolname FROM pg_roles r WHERE r.rolcanlogin AND r.rolname <> ALL ($1)
		AND (r.rolsuper AND r.rolname = $2 OR NOT r.rolsuper AND EXISTS (SELECT 1 FROM pg_roles k WHERE k.rolname = ANY ($1) AND pg_has_role(r.oid, k.oid, 'USAGE'))) ORDER BY 1`, keep, t.Application)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return slices.DeleteFunc(all, reserved), err
}

// canConnect lists the roles that may log in and have CONNECT, beside those that stay.
func canConnect(ctx context.Context, conn *pgx.Conn, t Target, admin string) ([]string, error) {
	keep := append([]string{admin}, t.Exempt...)
	rows, err := conn.Query(ctx, `SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname <> ALL ($1) AND (NOT rolsuper OR rolname = $3)
		AND has_database_privilege(oid, (SELECT oid FROM pg_database WHERE datname = $2), 'CONNECT') ORDER BY 1`, keep, t.Database, t.Application)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return slices.DeleteFunc(all, reserved), err
}

// Permitted tells what the administrator lacks to put up this fence: statements that a superuser or the owner
// would have to run first; none if he can.
func Permitted(ctx context.Context, conn *pgx.Conn, s State) ([]string, error) {
	var super, owns, create, signal bool
	var version int
	err := conn.QueryRow(ctx, `SELECT r.rolsuper, pg_has_role(r.oid, d.datdba, 'USAGE'), r.rolcreaterole, pg_has_role(r.oid, 'pg_signal_backend', 'USAGE'),
		current_setting('server_version_num')::int FROM pg_roles r, pg_database d WHERE r.rolname = session_user AND d.datname = $1`, s.Database).Scan(&super, &owns, &create, &signal, &version)
	if err != nil {
		return nil, fmt.Errorf("read what %s may do: %w", s.Admin, err)
	}
	if super {
		return nil, nil
	}
	var lacks []string
	if !owns {
		lacks = append(lacks, fmt.Sprintf("GRANT %s TO %s", ident(s.Owner), ident(s.Admin)))
	}
	if !signal {
		lacks = append(lacks, fmt.Sprintf("GRANT pg_signal_backend TO %s", ident(s.Admin)))
	}
	for _, role := range s.Roles {
		var isSuper, admin, under bool
		if err := conn.QueryRow(ctx, "SELECT rolsuper, pg_has_role(session_user, oid, 'USAGE WITH ADMIN OPTION'), pg_has_role(oid, session_user, 'MEMBER') FROM pg_roles WHERE rolname = $1", role).Scan(&isSuper, &admin, &under); err != nil {
			return nil, fmt.Errorf("read what %s may do: %w", s.Admin, err)
		}
		switch {
		case isSuper:
			lacks = append(lacks, fmt.Sprintf("ALTER ROLE %s NOSUPERUSER", ident(role)))
		case version >= 160000 && !admin && under: // he cannot be given the right over who belongs to him
			lacks = append(lacks, fmt.Sprintf("REVOKE %s FROM %s", ident(s.Admin), ident(role)))
		case version >= 160000 && !admin:
			lacks = append(lacks, fmt.Sprintf("GRANT %s TO %s WITH ADMIN OPTION", ident(role), ident(s.Admin)))
		case !create:
			lacks = append(lacks, fmt.Sprintf("ALTER ROLE %s CREATEROLE", ident(s.Admin)))
		}
	}
	slices.Sort(lacks)
	return slices.Compact(lacks), nil
}

func ident(name string) string {
	if name == "" {
		return "PUBLIC"
	}
	return pgx.Identifier{name}.Sanitize()
}
