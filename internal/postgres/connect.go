package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// DefaultApplicationName is what a server shows for our connections, and what
// synchronous_standby_names has to name for zero data loss.
const DefaultApplicationName = "pileus"

// defaultConnectTimeout bounds one attempt when the connection string does not.
const defaultConnectTimeout = 15 * time.Second

// Options completes a connection string.
type Options struct {
	// Password is used instead of any that the connection string, the
	// environment or a passfile holds. Empty: those are asked.
	Password string
	// ApplicationName is DefaultApplicationName when empty.
	ApplicationName string
}

// Conn is one administrative SQL session. It belongs to one goroutine at a time.
type Conn struct {
	sql     *pgx.Conn
	cfg     *pgconn.Config
	version int // server_version_num
}

// Connect opens an administrative session. dsn is a libpq keyword/value string or URI;
// what it leaves out comes from the PG* variables, the service file and the passfile, as in
// libpq. Timeouts that roles or databases set are switched off for the session and the search path is
// pinned to pg_catalog. Errors: a *ConnectError, or a plain error for an unreadable dsn.
func Connect(ctx context.Context, dsn string, opts Options) (*Conn, error) {
	cfg, err := parseConfig(dsn, opts)
	if err != nil {
		return nil, err
	}
	// pgx wants to see its own parse; the settings that count are then replaced.
	pcfg, err := pgx.ParseConfig("host=/")
	if err != nil {
		return nil, fmt.Errorf("prepare connection: %w", err)
	}
	pcfg.Config = *cfg
	pcfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	raw, err := pgx.ConnectConfig(ctx, pcfg)
	if err != nil {
		return nil, connectError(ctx, cfg, false, err)
	}
	c := &Conn{sql: raw, cfg: cfg}
	if err := c.prepare(ctx); err != nil {
		_ = raw.Close(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("prepare session on %s: %w", address(cfg), err)
	}
	return c, nil
}

func (c *Conn) prepare(ctx context.Context) error {
	const settings = `SELECT current_setting('server_version_num')::int,
		set_config('search_path', 'pg_catalog', false),
		set_config('lock_timeout', '0', false), set_config('idle_in_transaction_session_timeout', '0', false),
		set_config('DateStyle', 'ISO', false), set_config('TimeZone', 'UTC', false), set_config('bytea_output', 'hex', false)`
	rows, err := c.sql.Query(ctx, settings)
	if err != nil {
		return err
	}
	for rows.Next() {
		v, err := rows.Values()
		if err != nil {
			rows.Close()
			return err
		}
		n, _ := v[0].(int32)
		c.version = int(n)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if c.version < 130000 {
		return fmt.Errorf("the server is PostgreSQL %s, older than 13, the oldest that is supported: upgrade it", FormatVersion(c.version))
	}
	if c.version >= 140000 {
		if _, err := c.sql.Exec(ctx, "SET idle_session_timeout = 0"); err != nil {
			return err
		}
	}
	if c.version >= 170000 {
		_, err = c.sql.Exec(ctx, "SET transaction_timeout = 0")
	}
	return err
}

// Close ends the session; a backup that it holds open is aborted by the server.
func (c *Conn) Close(ctx context.Context) error { return c.sql.Close(ctx) }

// SQL is the session itself, for statements that this package has no method for.
func (c *Conn) SQL() *pgx.Conn { return c.sql }

// VersionNum is server_version_num, for example 150013.
func (c *Conn) VersionNum() int { return c.version }

// Major is the major version, for example 15.
func (c *Conn) Major() int { return c.version / 10000 }

// FormatVersion prints a server_version_num, for example 15.13.
func FormatVersion(num int) string {
	if num < 100000 {
		return fmt.Sprintf("%d.%d", num/10000, num/100%100)
	}
	return fmt.Sprintf("%d.%d", num/10000, num%10000)
}

// libpqOnly are connection parameters of libpq that are meant for the client;
// a server would refuse them as unknown settings.
var libpqOnly = []string{"gssencmode", "gssdelegation", "gsslib", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
	"tcp_user_timeout", "load_balance_hosts", "requiressl", "sslcompression", "sslcrl", "sslcrldir", "ssl_min_protocol_version",
	"ssl_max_protocol_version", "requirepeer", "fallback_application_name", "client_encoding", "replication", "krbsrvname"}

func parseConfig(dsn string, opts Options) (*pgconn.Config, error) {
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		// The cause is not wrapped: it may quote the connection string.
		return nil, fmt.Errorf("connection string is not usable: %s; expected for example \"host=db.example port=5432 user=pileus dbname=postgres\"",
			scrub(err.Error(), secrets(dsn, opts)...))
	}
	if opts.Password != "" {
		cfg.Password = opts.Password
	}
	for _, k := range libpqOnly {
		delete(cfg.RuntimeParams, k)
	}
	cfg.RuntimeParams["application_name"] = DefaultApplicationName
	if opts.ApplicationName != "" {
		cfg.RuntimeParams["application_name"] = opts.ApplicationName
	}
	cfg.RuntimeParams["client_encoding"] = "UTF8"
	// At start-up, because it would already cut off the statement that sets it.
	cfg.RuntimeParams["statement_timeout"] = "0"
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = defaultConnectTimeout
	}
	return cfg, nil
}

// secrets collects all texts that must not appear in a message about dsn.
func secrets(dsn string, opts Options) []string {
	found := []string{opts.Password, os.Getenv("PGPASSWORD"), os.Getenv("PGSSLPASSWORD")}
	if u, err := url.Parse(dsn); err == nil && u.User != nil {
		if p, ok := u.User.Password(); ok {
			found = append(found, p, url.QueryEscape(p), url.PathEscape(p))
		}
		found = append(found, u.Query().Get("password"), u.Query().Get("sslpassword"))
	}
	// A broken string cannot be parsed: take all that could follow the keyword.
	for _, key := range []string{"sslpassword", "password"} {
		for rest := dsn; ; {
			_, after, ok := strings.Cut(rest, key)
			if !ok {
				break
			}
			rest = after
			v := strings.TrimLeft(strings.TrimLeft(after, " "), "=")
			v = strings.TrimLeft(v, " '")
			if k := strings.IndexAny(v, " '&"); k >= 0 {
				v = v[:k]
			}
			found = append(found, v)
		}
	}
	if _, after, ok := strings.Cut(dsn, "://"); ok {
		if cred, _, ok := strings.Cut(after, "@"); ok {
			if _, p, ok := strings.Cut(cred, ":"); ok {
				found = append(found, p)
			}
		}
	}
	return found
}

func scrub(text string, secrets ...string) string {
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "xxxxx")
		}
	}
	return text
}

func connectError(ctx context.Context, cfg *pgconn.Config, replication bool, err error) error {
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("connect to %s: %w", address(cfg), ctx.Err())
	}
	e := &ConnectError{Kind: classify(err), Host: cfg.Host, Port: cfg.Port, User: cfg.User, Database: cfg.Database, Replication: replication}
	e.Err = safeCause(err, cfg.Password)
	return e
}

// safeCause keeps the typed part of a connection failure, and of the rest only
// its text without the password.
func safeCause(err error, password string) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe
	}
	if text := err.Error(); password != "" && strings.Contains(text, password) {
		return errors.New(scrub(text, password))
	}
	return err
}

func address(cfg *pgconn.Config) string {
	return (&ConnectError{Host: cfg.Host, Port: cfg.Port}).address()
}

// DSN builds a keyword/value connection string from pairs; empty values are left out.
func DSN(host string, port int, user, dbname string) string {
	var b strings.Builder
	add := func(k, v string) {
		if v == "" {
			return
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(k + "=" + QuoteConninfoValue(v))
	}
	add("host", host)
	if port != 0 {
		add("port", strconv.Itoa(port))
	}
	add("user", user)
	add("dbname", dbname)
	return b.String()
}
