package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// Errors on which callers decide; test them with errors.Is.
var (
	ErrSlotExists    = errors.New("the replication slot already exists")
	ErrSlotMissing   = errors.New("the replication slot does not exist")
	ErrSlotActive    = errors.New("the replication slot is in use by another connection")
	ErrSlotLost      = errors.New("the replication slot has lost WAL and cannot be used again: drop it, create it anew and take a new backup")
	ErrSlotLimit     = errors.New("all replication slots are in use: raise max_replication_slots or drop a slot")
	ErrWALRemoved    = errors.New("the requested WAL is no longer on the server: a new backup is needed")
	ErrNotInHistory  = errors.New("the requested WAL position is not in this server's history")
	ErrNotRunning    = errors.New("the server is not running")
	ErrNotPrivileged = errors.New("the role lacks a privilege")
)

// ConnectKind says why a connection could not be made.
type ConnectKind string

// The reasons that Connect and ConnectReplication tell apart.
const (
	ConnectPassword             ConnectKind = "password"              // the password is wrong, or there is none
	ConnectNoHBA                ConnectKind = "no-hba-entry"          // pg_hba.conf has no line for this connection, or rejects it
	ConnectAuth                 ConnectKind = "authentication"        // another authentication method (peer, cert, ldap) said no
	ConnectNoRole               ConnectKind = "no-role"               // the role does not exist or may not log in
	ConnectNoDatabase           ConnectKind = "no-database"           // the database does not exist
	ConnectReplicationPrivilege ConnectKind = "replication-privilege" // the role lacks REPLICATION
	ConnectPrivilege            ConnectKind = "privilege"             // another privilege is missing, for example CONNECT
	ConnectTooMany              ConnectKind = "too-many-connections"  // max_connections or max_wal_senders is used up
	ConnectStarting             ConnectKind = "starting"              // the server starts, stops or recovers
	ConnectRefused              ConnectKind = "refused"               // nothing listens on that host and port
	ConnectNoSocket             ConnectKind = "no-socket"             // the Unix socket does not exist
	ConnectDNS                  ConnectKind = "dns"                   // the host name does not resolve
	ConnectTimeout              ConnectKind = "timeout"               // no answer in time
	ConnectTLS                  ConnectKind = "tls"                   // TLS refused, or the certificate not trusted
	ConnectOther                ConnectKind = "other"                 // anything else: read Err
)

// ConnectError is the error of Connect and ConnectReplication when the
// connection string was sound but the server could not be used.
type ConnectError struct {
	Kind        ConnectKind
	Host        string // host name, address or socket folder
	Port        uint16
	User        string
	Database    string
	Replication bool  // a replication connection was asked for
	Err         error // the cause; free of passwords
}

// Error says what was tried, what happened and what to do next.
func (e *ConnectError) Error() string {
	what := fmt.Sprintf("cannot connect to %s as %q", e.address(), e.User)
	if e.Replication {
		what = fmt.Sprintf("cannot open a replication connection to %s as %q", e.address(), e.User)
	}
	if e.Database != "" && !e.Replication {
		what += fmt.Sprintf(" (database %q)", e.Database)
	}
	msg := what + ": " + e.cause()
	if next := e.Next(); next != "" {
		msg += "; " + next
	}
	return msg
}

// Unwrap gives the cause.
func (e *ConnectError) Unwrap() error { return e.Err }

// Next is the thing to do about it, one clause, or "".
func (e *ConnectError) Next() string {
	switch e.Kind {
	case ConnectPassword:
		return "check the password (configured secret, PGPASSWORD or passfile)"
	case ConnectNoHBA:
		db := e.Database
		if e.Replication {
			db = "replication"
		}
		return fmt.Sprintf("add a line such as \"%s %s %s scram-sha-256\" to the server's pg_hba.conf and reload it", e.hbaType(), quoteHBA(db)+" "+quoteHBA(e.User), e.hbaAddress())
	case ConnectAuth:
		return "check the authentication method that pg_hba.conf chooses for this connection"
	case ConnectNoRole:
		return fmt.Sprintf("create the role: CREATE ROLE %s LOGIN REPLICATION", QuoteIdent(e.User))
	case ConnectNoDatabase:
		return "name an existing database in the connection string (dbname=postgres always exists on a fresh cluster)"
	case ConnectReplicationPrivilege:
		return fmt.Sprintf("as a superuser: ALTER ROLE %s REPLICATION", QuoteIdent(e.User))
	case ConnectPrivilege:
		return fmt.Sprintf("as a superuser: GRANT CONNECT ON DATABASE %s TO %s", QuoteIdent(e.Database), QuoteIdent(e.User))
	case ConnectTooMany:
		if e.Replication {
			return "raise max_wal_senders or end another replication connection"
		}
		return "raise max_connections or end other sessions"
	case ConnectStarting:
		return "wait until the server accepts connections and try again"
	case ConnectRefused:
		return "check that the server runs, and its port and listen_addresses"
	case ConnectNoSocket:
		return "check that the server runs, and its port and unix_socket_directories"
	case ConnectDNS:
		return "check the host name"
	case ConnectTimeout:
		return "check the network, firewalls and security groups between here and the server"
	case ConnectTLS:
		return "check sslmode, sslrootcert and the server's certificate"
	}
	return ""
}

func (e *ConnectError) address() string {
	if strings.HasPrefix(e.Host, "/") || strings.HasPrefix(e.Host, "@") {
		return fmt.Sprintf("%s/.s.PGSQL.%d", e.Host, e.Port)
	}
	return net.JoinHostPort(e.Host, fmt.Sprint(e.Port))
}

func (e *ConnectError) hbaType() string {
	if strings.HasPrefix(e.Host, "/") {
		return "local"
	}
	return "host"
}

func (e *ConnectError) hbaAddress() string {
	if strings.HasPrefix(e.Host, "/") {
		return ""
	}
	return "CLIENT-ADDRESS"
}

func quoteHBA(s string) string {
	if s == "" || strings.ContainsAny(s, " \t,#\"") {
		return `"` + s + `"`
	}
	return s
}

func (e *ConnectError) cause() string {
	var pe *pgconn.PgError
	if errors.As(e.Err, &pe) {
		return pe.Message
	}
	if e.Err == nil {
		return string(e.Kind)
	}
	return e.Err.Error()
}

// classify maps what pgconn reports to a ConnectKind. The server's message may
// be in any language, so only SQLSTATE and the reporting C routine count.
func classify(err error) ConnectKind {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return classifyServer(pe)
	}
	var (
		dns      *net.DNSError
		netErr   net.Error
		certErr  *tls.CertificateVerificationError
		authErr  x509.UnknownAuthorityError
		hostErr  x509.HostnameError
		alert    tls.AlertError
		recordEr tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &dns):
		return ConnectDNS
	case errors.As(err, &certErr), errors.As(err, &authErr), errors.As(err, &hostErr), errors.As(err, &alert), errors.As(err, &recordEr):
		return ConnectTLS
	case strings.Contains(err.Error(), "server refused TLS"):
		return ConnectTLS
	case errors.Is(err, syscall.ECONNREFUSED):
		return ConnectRefused
	case errors.Is(err, fs.ErrNotExist):
		return ConnectNoSocket
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout(), errors.Is(err, syscall.ETIMEDOUT),
		errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return ConnectTimeout
	}
	return ConnectOther
}

func classifyServer(pe *pgconn.PgError) ConnectKind {
	switch pe.Code {
	case "28P01":
		return ConnectPassword
	case "28000":
		switch pe.Routine {
		case "ClientAuthentication":
			return ConnectNoHBA
		case "InitializeSessionUserId":
			return ConnectNoRole
		}
		return ConnectAuth
	case "3D000":
		return ConnectNoDatabase
	case "42501":
		if pe.Routine == "InitPostgres" {
			return ConnectReplicationPrivilege
		}
		return ConnectPrivilege
	case "53300":
		return ConnectTooMany
	case "57P03":
		return ConnectStarting
	}
	return ConnectOther
}

// privilege marks a refusal for want of a privilege with ErrNotPrivileged.
func privilege(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == "42501" {
		return fmt.Errorf("%w (%w)", ErrNotPrivileged, err)
	}
	return err
}

// serverError gives what a running server said a sentinel to decide on, where
// there is one for it.
func serverError(err error) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return err
	}
	var kind error
	switch pe.Code {
	case "42710":
		kind = ErrSlotExists
	case "42704":
		kind = ErrSlotMissing
	case "55006":
		kind = ErrSlotActive
	case "53400":
		kind = ErrSlotLimit
	case "58P01":
		kind = ErrWALRemoved
	case "42501":
		kind = ErrNotPrivileged
	}
	if kind == nil {
		return err
	}
	return fmt.Errorf("%w (%w)", kind, err)
}

// streamError is serverError for what START_REPLICATION reports, where "object not
// in prerequisite state" can only be the slot.
func streamError(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == "55000" {
		return fmt.Errorf("%w (%w)", ErrSlotLost, err)
	}
	return serverError(err)
}
