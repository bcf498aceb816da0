package fence

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// What a server says to a role that it knows and does not let in. A wrong password, an unknown host or a
// full server prove nothing.
const (
	codeNoLogin   = "28000" // invalid_authorization_specification: the role may not log in
	codeNoConnect = "42501" // insufficient_privilege: no CONNECT on the database
)

// Probe connects as a role that must be refused. Its answer is the server's refusal. Any other failure is an error, since
// it proves nothing; so is success.
func Probe(ctx context.Context, config *pgx.ConnConfig) (string, error) {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err == nil {
		conn.Close(context.WithoutCancel(ctx))
		return "", fmt.Errorf("%w: %s could connect to %s", errOpen, config.User, config.Database)
	}
	var refused *pgconn.PgError
	if errors.As(err, &refused) && (refused.Code == codeNoLogin || refused.Code == codeNoConnect) {
		return refused.Message, nil
	}
	return "", fmt.Errorf("the probe of the fence as %s proves nothing: %w", config.User, err)
}
