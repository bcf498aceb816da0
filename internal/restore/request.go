package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"pileus/internal/postgres"
	"pileus/internal/progress"
	"pileus/internal/repo"
)

// Request says what to restore and where.
type Request struct {
	Repo        *repo.Repository
	WAL         WAL    // nil: the repository's
	Source      string // cluster to restore from
	NewCluster  string // identifier of the cluster that comes out; it must be new
	DataDir     string // must be empty or not exist; its parent must exist
	Target      Target
	Tablespaces []TablespaceMap
	// Owner is the account that the files will belong to, of meaning to root only.
	// Empty: the owner of DataDir's parent, or postgres where that is root.
	Owner   string
	BinDirs []string // where to look for server programs first
	Start   bool     // recover, promote, and leave the new cluster running
	Hold    bool     // with Start: leave it stopped, for who wants to change its settings before anyone can connect
	Port    int      // 0: the source's without Start, otherwise the first free one from 5432 on
	Listen  string   // listen_addresses; empty: localhost
	// SocketDir is the new cluster's unix_socket_directories. Empty: a usual folder that is there.
	SocketDir string
	// RestoreCommand fetches WAL: the whole restore_command, with %f and %p.
	RestoreCommand string
	// Env are NAME=VALUE pairs that the restore command needs, such as a passphrase.
	// They are handed to the server's process and written nowhere.
	Env []string
	// Probe, if set, tries whether the restore command works as the account that
	// the server will run as. It is called by Plan.
	Probe  func(ctx context.Context, owner *postgres.Owner) error
	Report progress.Reporter // nil: silent
}

// TablespaceMap gives a tablespace its new place.
type TablespaceMap struct {
	Old string // location, name or OID
	New string // absolute path of a directory that is empty or does not exist
}

var identifier = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)*$`)

// normalize completes a request and refuses one that cannot be meant.
func (r *Request) normalize() error {
	if r.Report == nil {
		r.Report = progress.Silent{}
	}
	if err := r.Target.check(); err != nil {
		return err
	}
	if r.Repo == nil || r.Source == "" || r.RestoreCommand == "" {
		return errors.New("a restore needs a repository, a source cluster and a restore command")
	}
	if len(r.NewCluster) > 63 || !identifier.MatchString(r.NewCluster) {
		return fmt.Errorf("%q: %w: it takes 1 to 63 letters, digits and hyphens, begins with a letter, and has no hyphen last or two in a row", r.NewCluster, ErrIdentifier)
	}
	if strings.EqualFold(r.NewCluster, r.Source) {
		return fmt.Errorf("%q: %w: it is the source's own, and the new cluster must not write into the source's archive; choose another", r.NewCluster, ErrIdentifier)
	}
	if r.DataDir == "" {
		return errors.New("a restore needs a data directory")
	}
	dir, err := realPath(r.DataDir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	r.DataDir = dir
	for i := range r.Tablespaces {
		m := &r.Tablespaces[i]
		if m.Old == "" || !filepath.IsAbs(m.New) {
			return fmt.Errorf("tablespace mapping %q=%q: expected OLD=NEW with an absolute path for NEW", m.Old, m.New)
		}
		if m.New, err = realPath(m.New); err != nil {
			return fmt.Errorf("tablespace %s: %w", m.Old, err)
		}
	}
	return nil
}

// realPath makes a path absolute and free of links, though its last element need not exist.
func realPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real, nil
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", fmt.Errorf("the folder that is to hold %s is not there: create it first: %w", abs, err)
	}
	return filepath.Join(parent, filepath.Base(abs)), nil
}

// account is who the files will belong to; nil when that is this process's own account.
func (r *Request) account() (*postgres.Owner, error) {
	if os.Geteuid() != 0 {
		own, err := postgres.CurrentOwner()
		if err != nil {
			return nil, err
		}
		if r.Owner != "" && r.Owner != own.Name {
			return nil, fmt.Errorf("files can be given to %s by root only: run as root, or as %s", r.Owner, r.Owner)
		}
		return own, nil
	}
	if r.Owner != "" {
		o, err := postgres.LookupOwner(r.Owner)
		if err == nil && o.UID == 0 {
			return nil, errors.New("PostgreSQL refuses to run as root: name another account as the owner")
		}
		return o, err
	}
	o, err := postgres.OwnerOf(filepath.Dir(r.DataDir))
	if err == nil && o.UID != 0 {
		return o, nil
	}
	if o, err = postgres.LookupOwner("postgres"); err != nil {
		return nil, fmt.Errorf("PostgreSQL refuses to run as root, and no account is named to own the new cluster: %w", err)
	}
	return o, nil
}
