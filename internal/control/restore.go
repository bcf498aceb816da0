package control

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"pileus/internal/config"
	"pileus/internal/postgres"
	"pileus/internal/progress"
	"pileus/internal/restore"
)

// RestoreRequest is what a restore is to be.
type RestoreRequest struct {
	Cluster     string // in the repository; it need not be configured any more
	As          string // identifier of the new cluster
	DataDir     string
	Target      restore.Target
	Tablespaces map[string]string // old to new
	Owner       string
	BinDir      string
	Start       bool
	Hold        bool // with Start: recovered and promoted, and left stopped
	Port        int
}

// passedOn are the variables that reach the server that recovers, so that its
// restore_command can open the repository: the passphrase and what the stores'
// own credential chains read.
var passedOn = []string{PassphraseVariable, "AWS_", "GOOGLE_", "AZURE_", "HOME=", "HTTP_PROXY=", "HTTPS_PROXY=", "NO_PROXY=", "SSL_CERT_"}

// PlanRestore works out what a restore would do, and writes nothing.
func (d *Deployment) PlanRestore(ctx context.Context, q RestoreRequest, rep progress.Reporter) (restore.Plan, error) {
	if err := config.ValidateIdentifier(q.As); err != nil {
		return restore.Plan{}, &ConfigError{fmt.Errorf("--as: %w", err)}
	}
	if _, used := d.Config.Clusters[strings.ToLower(q.As)]; used {
		return restore.Plan{}, &ConfigError{fmt.Errorf("--as: %s has a cluster %s already; choose another identifier", d.Config.Path, q.As)}
	}
	dir, err := filepath.Abs(q.DataDir)
	if err != nil {
		return restore.Plan{}, err
	}
	command, err := d.restoreCommand(q.Cluster)
	if err != nil {
		return restore.Plan{}, err
	}
	r := restore.Request{
		Repo: d.Repo, Source: q.Cluster, NewCluster: strings.ToLower(q.As), DataDir: dir, Target: q.Target, Owner: q.Owner, Start: q.Start, Hold: q.Hold,
		Port: q.Port, RestoreCommand: command + " %f %p", Env: environment(), Report: rep,
	}
	if c, ok := d.Config.Clusters[q.Cluster]; ok && c.BinDir != "" {
		r.BinDirs = []string{c.BinDir}
	}
	if q.BinDir != "" {
		r.BinDirs = []string{q.BinDir}
	}
	for before, after := range q.Tablespaces {
		after, err := filepath.Abs(after)
		if err != nil {
			return restore.Plan{}, err
		}
		r.Tablespaces = append(r.Tablespaces, restore.TablespaceMap{Old: before, New: after})
	}
	r.Probe = func(ctx context.Context, owner *postgres.Owner) error { return d.probeAs(ctx, q.Cluster, owner) }
	return restore.NewPlan(ctx, r)
}

// Restore carries a plan out.
func (d *Deployment) Restore(ctx context.Context, p restore.Plan) (restore.Result, error) {
	return restore.Run(ctx, p, restore.Options{Workers: d.Config.WorkerCount()})
}

// restoreCommand is this very program with this very configuration, quoted for a
// shell and for PostgreSQL's own placeholders.
func (d *Deployment) restoreCommand(cluster string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program for restore_command: %w", err)
	}
	words := []string{self, "--config", d.Config.Path, "wal", "fetch", "--cluster", cluster}
	for i, w := range words {
		words[i] = strings.ReplaceAll(shellQuote(w), "%", "%%")
	}
	return strings.Join(words, " "), nil
}

func shellQuote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func environment() []string {
	var out []string
	for _, e := range os.Environ() {
		for _, p := range passedOn {
			if strings.HasPrefix(e, p) && (!strings.HasSuffix(p, PassphraseVariable) || strings.HasPrefix(e, p+"=")) {
				out = append(out, e)
			}
		}
	}
	return out
}

// probeAs runs this program as the account that the server will have, to see
// whether it can read the configuration and the repository.
func (d *Deployment) probeAs(ctx context.Context, cluster string, owner *postgres.Owner) error {
	if err := d.runProbe(ctx, cluster, owner); err != nil {
		return fmt.Errorf("%w, or run this restore as that user", err)
	}
	return nil
}

// ProbeServers tries, before anything depends on it, whether the account of the servers that `pileus serve` runs could
// fetch WAL, which a restored server has to. There is nothing to try unless this runs as root.
func (d *Deployment) ProbeServers(ctx context.Context) error {
	owner, err := ServerAccount(d.Config.Serve)
	if err != nil || owner == nil || os.Geteuid() != 0 {
		return err
	}
	if err := d.runProbe(ctx, "", owner); err != nil {
		return fmt.Errorf("the servers run as %s, since PostgreSQL refuses root, and could not fetch WAL when they are restored: %w, or run `pileus serve` itself as %[1]s", owner.Name, err)
	}
	return nil
}

func (d *Deployment) runProbe(ctx context.Context, cluster string, owner *postgres.Owner) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "--config", d.Config.Path, "wal", "fetch", "--probe")
	if cluster != "" {
		cmd.Args = append(cmd.Args, "--cluster", cluster)
	}
	cmd.Dir = "/"
	cmd.Env = environment()
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if owner != nil {
		if cred := owner.Credential(); cred != nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
		}
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s (%w): let that account read %s, what the file names, and %s", strings.TrimSpace(said.String()), err, d.Config.Path, self)
	}
	return nil
}
