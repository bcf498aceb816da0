package dbserver

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pileus/internal/postgres"
)

// scramRounds is PostgreSQL's own number of iterations.
const scramRounds = 4096

// Verifier is what PostgreSQL stores of a password of printable ASCII characters, which need
// no preparation: SCRAM-SHA-256$ROUNDS:SALT$STORED:SERVER (RFC 5802, RFC 7677).
func Verifier(password string) (string, error) {
	salt := make([]byte, 16)
	rand.Read(salt)
	return verifier(password, salt)
}

func verifier(password string, salt []byte) (string, error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, scramRounds, sha256.Size)
	if err != nil {
		return "", err
	}
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", scramRounds, b64(salt), b64(stored[:]), b64(mac("Server Key"))), nil
}

// quiet keeps what a session does out of the server's log, whatever the parameter
// group says: a verifier is a secret, too.
const quiet = "SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_duration = off; SET log_min_error_statement = 'panic'; SET track_activities = off"

// SetMaster creates the master user, or gives the one that is there another password. It is an ordinary
// administrator: it makes databases and roles, and is no superuser.
func (s *Server) SetMaster(ctx context.Context, name, verifier string) error {
	conn, err := s.Connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	run := func(sql string) error {
		if _, err := conn.SQL().Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", strings.SplitN(sql, " PASSWORD ", 2)[0], err)
		}
		return nil
	}
	if err := run(quiet); err != nil {
		return err
	}
	var there bool
	if err := conn.SQL().QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", name).Scan(&there); err != nil {
		return err
	}
	role, secret := postgres.QuoteIdent(name), postgres.QuoteLiteral(verifier)
	if there {
		return run("ALTER ROLE " + role + " LOGIN PASSWORD " + secret)
	}
	steps := []string{
		"BEGIN",
		"CREATE ROLE " + role + " LOGIN CREATEDB CREATEROLE PASSWORD " + secret,
		"GRANT pg_monitor, pg_signal_backend TO " + role + " WITH ADMIN OPTION",
		"GRANT ALL ON DATABASE postgres TO " + role,
		"GRANT ALL ON SCHEMA public TO " + role + " WITH GRANT OPTION",
	}
	if conn.Major() >= 15 {
		steps = append(steps, "GRANT pg_checkpoint TO "+role+" WITH ADMIN OPTION")
	}
	for _, sql := range append(steps, "COMMIT") {
		if err := run(sql); err != nil {
			return err
		}
	}
	return nil
}

// CreateDatabase makes a database for an owner, unless there is one of that name.
func (s *Server) CreateDatabase(ctx context.Context, name, owner string) error {
	conn, err := s.Connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var there bool
	if err := conn.SQL().QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&there); err != nil || there {
		return err
	}
	_, err = conn.SQL().Exec(ctx, "CREATE DATABASE "+postgres.QuoteIdent(name)+" OWNER "+postgres.QuoteIdent(owner))
	return err
}

// slotPatience is how long the server may take to notice that who used a slot is gone.
const slotPatience = 30 * time.Second

// objectInUse is the SQLSTATE of a slot that is active.
const objectInUse = "55006"

// DropSlot removes a replication slot; that it is not there is fine. It waits a while for a connection that
// uses it to end.
func (s *Server) DropSlot(ctx context.Context, slot string) error {
	conn, err := s.Connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	wait, cancel := context.WithTimeout(ctx, slotPatience)
	defer cancel()
	for {
		_, err := conn.SQL().Exec(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1", slot)
		var used *pgconn.PgError
		if !errors.As(err, &used) || used.Code != objectInUse {
			return err
		}
		select {
		case <-wait.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// WaitReceiver waits until the WAL is streamed to Pileus.
func (s *Server) WaitReceiver(ctx context.Context) error {
	for {
		conn, err := s.Connect(ctx, "postgres")
		streaming := false
		if err == nil {
			err = conn.SQL().QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming')", postgres.DefaultApplicationName).Scan(&streaming)
			conn.Close(context.WithoutCancel(ctx))
		}
		if err == nil && streaming {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(errors.New("nobody receives the server's WAL"), err, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// adminRole is run in single-user mode, where no name of a superuser is needed and nobody
// else can connect.
const adminRole = `DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '` + Admin + `') THEN CREATE ROLE ` + Admin + ` NOLOGIN; END IF; END $$;
ALTER ROLE ` + Admin + ` SUPERUSER LOGIN REPLICATION CONNECTION LIMIT -1 PASSWORD NULL VALID UNTIL 'infinity';
ALTER ROLE ` + Admin + ` RESET ALL;
`

// Adopt takes over the data directory of a restored cluster whose server is stopped: it gets Pileus's role and
// settings. The source's own settings stay where those do not contradict.
func (s *Server) Adopt(ctx context.Context, spec Spec) error {
	if err := s.instance().SingleUser(ctx, "postgres", adminRole); err != nil {
		return fmt.Errorf("give Pileus its role: %w", err)
	}
	if err := s.include(); err != nil {
		return err
	}
	_, err := s.Configure(ctx, spec)
	return err
}
