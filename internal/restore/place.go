package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"pileus/internal/pg"
	"pileus/internal/postgres"
)

const controlPath = pg.ControlFile

// outsideConf is where a backup keeps configuration files that lay outside of the
// source's data directory, as on Debian.
const outsideConf = "pileus_conf"

// place is where a restore writes: the data directory and the tablespaces.
type place struct {
	dataDir string
	spaces  []TablespaceMove
	owner   *postgres.Owner // nil: this process's own account
}

// resolve gives the path in the file system for a path of the manifest; ok is
// false for what is not written as it was.
func (p *place) resolve(name string) (path string, ok bool, err error) {
	if name == "" || !filepath.IsLocal(filepath.FromSlash(name)) || name != filepath.ToSlash(filepath.Clean(name)) {
		return "", false, fmt.Errorf("the backup names %q, which leads out of the data directory: it is refused", name)
	}
	root, rest, _ := strings.Cut(name, "/")
	switch {
	case name == markerName, name == pg.BackupLabelFile, name == pg.TablespaceMapFile,
		name == "recovery.signal", name == "standby.signal", name == "postmaster.pid", root == outsideConf:
		return "", false, nil
	case root == "pg_tblspc" && rest != "":
		oid, below, _ := strings.Cut(rest, "/")
		i := slices.IndexFunc(p.spaces, func(m TablespaceMove) bool { return strconv.FormatUint(uint64(m.OID), 10) == oid })
		if i < 0 {
			return "", false, fmt.Errorf("the backup holds files of tablespace %s, which its head does not list: it is refused", oid)
		}
		if below == "" && !p.spaces[i].InPlace {
			return "", false, nil // the link is made apart
		}
		return filepath.Join(p.spaces[i].New, filepath.FromSlash(below)), true, nil
	}
	return filepath.Join(p.dataDir, filepath.FromSlash(name)), true, nil
}

// roots are the directories that the restore owns.
func (p *place) roots() []string {
	out := []string{p.dataDir}
	for _, s := range p.spaces {
		if !s.InPlace {
			out = append(out, s.New)
		}
	}
	return out
}

// makeDir makes one directory below a root; being there already is no error.
func (p *place) makeDir(path string, mode uint32) error {
	err := os.Mkdir(path, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create directory: %w", err)
	}
	if m := os.FileMode(mode) & os.ModePerm; m != 0 && m != 0o700 {
		if err := os.Chmod(path, m); err != nil {
			return fmt.Errorf("create directory: %w", err)
		}
	}
	if err := p.owner.Chown(path); err != nil {
		return fmt.Errorf("give %s to its owner: %w", path, err)
	}
	return nil
}

// own gives an open file to the owner.
func (p *place) own(f *os.File) error {
	if p.owner == nil || os.Geteuid() != 0 {
		return nil
	}
	return f.Chown(int(p.owner.UID), int(p.owner.GID))
}

// tempSuffix ends the names of files that are being written.
const tempSuffix = ".pileus-tmp"

// put writes a small file of the data directory whole and durably, replacing what is there.
func (p *place) put(dir, name string, content []byte) error {
	path := filepath.Join(dir, name)
	tmp := path + tempSuffix
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(content)
	if err == nil {
		err = p.own(f)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// link makes the links below pg_tblspc.
func (p *place) link() error {
	for _, s := range p.spaces {
		if s.InPlace {
			continue
		}
		link := filepath.Join(p.dataDir, "pg_tblspc", strconv.FormatUint(uint64(s.OID), 10))
		if err := os.Symlink(s.New, link); err != nil {
			return fmt.Errorf("link tablespace: %w", err)
		}
		if err := p.owner.Chown(link); err != nil {
			return fmt.Errorf("link tablespace: %w", err)
		}
	}
	return nil
}

// emptied are directories a server needs although a backup may not list them.
var emptied = []string{"pg_wal", "pg_wal/archive_status", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial",
	"pg_snapshots", "pg_stat_tmp", "pg_subtrans", "pg_tblspc", "pg_stat", "pg_twophase", "pg_commit_ts",
	"pg_logical", "pg_logical/snapshots", "pg_logical/mappings"}

// complete makes those directories that are missing.
func (p *place) complete() error {
	for _, name := range emptied {
		path := filepath.Join(p.dataDir, filepath.FromSlash(name))
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		if err := p.makeDir(path, 0o700); err != nil {
			return err
		}
	}
	return nil
}
