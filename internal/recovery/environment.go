package recovery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/jackc/pgx/v5"

	"pileus/internal/config"
	"pileus/internal/cumulus"
)

// Options of a Runbook. Config, Journal and Log are required.
type Options struct {
	Config  *config.Config
	Journal *Journal
	Mirror  Mirror // nil: no copy of the journal
	Log     *slog.Logger
	// OnEntry hears of each entry of the journal once it is durable; OnProgress of what is waited for.
	OnEntry    func(Entry)
	OnProgress func(Step, string)
	// Operator is written down with what he starts and approves.
	Operator string
}

// environment is how a run reaches the outside: the API, the databases, the shell.
type environment struct {
	c   config.Recovery
	aws aws.Config
	api *rds.Client
	// cumulus is nil where the application is something else.
	cumulus *cumulus.Deployment
	// poll is the time between two looks at something that is waited for.
	poll time.Duration
}

// ErrNotConfigured: the section `recovery:` is empty.
var ErrNotConfigured = errors.New("does not say what to recover")

// Times between two looks: AWS throttles, a server of our own does not.
const (
	pollPileus = 250 * time.Millisecond
	pollAWS    = 10 * time.Second
)

func newEnvironment(ctx context.Context, c *config.Config) (*environment, error) {
	r := c.Recovery
	if r.Database == "" || r.Administrator.User == "" && r.Administrator.Secret == "" {
		return nil, fmt.Errorf("%s %w: set recovery.database and recovery.administrator", c.Path, ErrNotConfigured)
	}
	region := r.Region
	endpoint := r.Endpoint
	if r.Provider == config.ProviderPileus {
		if region == "" {
			region = c.Serve.Region
		}
		if endpoint == "" {
			scheme := "http://"
			if c.Serve.TLSCertFile != "" {
				scheme = "https://"
			}
			endpoint = scheme + c.Serve.Listen
		}
	}
	var load []func(*awsconfig.LoadOptions) error
	if region != "" {
		load = append(load, awsconfig.WithRegion(region))
	}
	if r.AccessKey != "" {
		secret, err := secretFile(r.SecretFile)
		if err != nil {
			return nil, fmt.Errorf("recovery.secret_file: %w", err)
		}
		load = append(load, awsconfig.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(r.AccessKey, secret, "")))
	}
	base, err := awsconfig.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("read the AWS configuration: %w", err)
	}
	e := &environment{c: r, aws: base, poll: pollAWS}
	if r.Provider == config.ProviderPileus {
		e.poll = pollPileus
	}
	e.api = rds.NewFromConfig(base, func(o *rds.Options) {
		if endpoint != "" {
			o.BaseEndpoint = aws.String(endpoint)
		}
	})
	if r.Cumulus.API != "" {
		client, err := cumulus.NewClient(r.Cumulus.API, func() (string, error) { return secretFile(r.Cumulus.TokenFile) })
		if err != nil {
			return nil, err
		}
		// Its triggers are in AWS, whoever serves the RDS API, and under AWS's own credentials.
		own, err := awsconfig.LoadDefaultConfig(ctx, load[:min(len(load), regionOnly(region))]...)
		if err != nil {
			return nil, fmt.Errorf("read the AWS configuration: %w", err)
		}
		e.cumulus = &cumulus.Deployment{API: client, Triggers: cumulus.NewTriggers(own, r.Cumulus.Prefix), Queues: r.Cumulus.Queues, Poll: e.poll}
	}
	return e, nil
}

// regionOnly is how many of the options are about the region and not about credentials.
func regionOnly(region string) int {
	if region == "" {
		return 0
	}
	return 1
}

// secretFile reads a file with one secret and nothing else.
func secretFile(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return s, nil
}

// login resolves who connects: the role and the password.
func (e *environment) login(ctx context.Context, l config.Login) (user, password string, err error) {
	if l.Secret == "" {
		password, err = secretFile(l.PasswordFile)
		return l.User, password, err
	}
	out, err := secretsmanager.NewFromConfig(e.aws).GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &l.Secret})
	if err != nil {
		return "", "", fmt.Errorf("read the secret %s: %w", l.Secret, err)
	}
	var v struct{ Username, Password string }
	if err := json.Unmarshal([]byte(aws.ToString(out.SecretString)), &v); err != nil || v.Password == "" {
		return "", "", fmt.Errorf("the secret %s is not JSON with username and password", l.Secret)
	}
	if l.User != "" {
		v.Username = l.User
	}
	return v.Username, v.Password, nil
}

// Place is where a cluster listens.
type Place struct {
	Host string `json:"host"`
	Port int    `json:"port"`
}

func (p Place) String() string { return net.JoinHostPort(p.Host, strconv.Itoa(p.Port)) }

const connectTimeout = 20 * time.Second

// connection prepares a connection of a login to a database.
func (e *environment) connection(ctx context.Context, at Place, database string, l config.Login) (*pgx.ConnConfig, error) {
	user, password, err := e.login(ctx, l)
	if err != nil {
		return nil, err
	}
	c, err := pgx.ParseConfig("")
	if err != nil {
		return nil, fmt.Errorf("prepare a connection: %w", err)
	}
	c.Host, c.Port, c.Database, c.User, c.Password = at.Host, uint16(at.Port), database, user, password
	c.Fallbacks, c.ConnectTimeout = nil, connectTimeout
	c.RuntimeParams = map[string]string{"application_name": "pileus recover"}
	c.TLSConfig, err = e.tls(at.Host)
	return c, err
}

func (e *environment) tls(host string) (*tls.Config, error) {
	if e.c.SSLMode == "disable" {
		return nil, nil
	}
	t := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if e.c.SSLRootCert != "" {
		pem, err := os.ReadFile(e.c.SSLRootCert)
		if err != nil {
			return nil, fmt.Errorf("recovery.ssl_root_cert: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("recovery.ssl_root_cert: %s has no certificate", e.c.SSLRootCert)
		}
	}
	switch e.c.SSLMode {
	case "require": // encrypted, to whoever answers: as libpq
		t.InsecureSkipVerify = true
	case "verify-ca":
		roots := t.RootCAs
		t.InsecureSkipVerify = true // of the name only: the chain is checked below
		t.VerifyConnection = func(s tls.ConnectionState) error {
			o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
			for _, c := range s.PeerCertificates[1:] {
				o.Intermediates.AddCert(c)
			}
			_, err := s.PeerCertificates[0].Verify(o)
			return err
		}
	}
	return t, nil
}

func (e *environment) connect(ctx context.Context, at Place, database string, l config.Login) (*pgx.Conn, error) {
	c, err := e.connection(ctx, at, database, l)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("connect to %s of %s as %s: %w", database, at, c.User, err)
	}
	return conn, nil
}

// admin connects the administrator to the maintenance database.
func (e *environment) admin(ctx context.Context, at Place) (*pgx.Conn, error) {
	return e.connect(ctx, at, e.c.MaintenanceDatabase, e.c.Administrator)
}

// inside connects the administrator to the application's database.
func (e *environment) inside(ctx context.Context, at Place) (*pgx.Conn, error) {
	return e.connect(ctx, at, e.c.Database, e.c.Administrator)
}

// asApplication connects to the application's database as its own role, which may read its tables; or as the
// administrator, where that role is not configured.
func (e *environment) asApplication(ctx context.Context, at Place) (*pgx.Conn, error) {
	if e.hasApplication() {
		return e.connect(ctx, at, e.c.Database, e.c.Application)
	}
	return e.inside(ctx, at)
}

func (e *environment) hasApplication() bool {
	return e.c.Application.User != "" || e.c.Application.Secret != ""
}

// commandTail is how much of what a command printed is kept.
const commandTail = 2000

// shell runs one configured command. What it prints is kept, for it may say what is wrong.
func shell(ctx context.Context, line string, env []string) (string, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if len(text) > commandTail {
		text = "…" + text[len(text)-commandTail:]
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && text != "" {
		return text, fmt.Errorf("%w: %s", err, text)
	}
	return text, err
}

// commandEnv tells commands which run and which clusters this is about.
func (w *work) commandEnv() []string {
	env := []string{"PILEUS_RUN=" + w.run.ID, "PILEUS_OLD_CLUSTER=" + w.run.Cluster, "PILEUS_NEW_CLUSTER=" + w.run.New}
	var s source
	if w.recall(KindFound, "source", &s) {
		env = append(env, "PILEUS_OLD_HOST="+s.At.Host, "PILEUS_OLD_PORT="+strconv.Itoa(s.At.Port))
	}
	var at Place
	if w.recall(KindDid, "endpoint", &at) {
		env = append(env, "PILEUS_NEW_HOST="+at.Host, "PILEUS_NEW_PORT="+strconv.Itoa(at.Port))
	}
	return slices.Clip(env)
}

// wait looks again until look says that it is over.
func (w *work) wait(ctx context.Context, look func() (bool, string, error)) error {
	said := ""
	for {
		over, text, err := look()
		if err != nil || over {
			return err
		}
		if text != said && w.o.OnProgress != nil {
			w.o.OnProgress(w.step, text)
			said = text
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(w.env.poll):
		}
	}
}
