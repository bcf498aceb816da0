package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/repo"
)

// ConfDir is the folder of a backup that holds configuration files which lie
// outside the data directory, as Debian's do: postgresql.conf with what it includes,
// pg_hba.conf, pg_ident.conf. Restore moves them into the data directory.
const ConfDir = "pileus_conf"

// tree is the data directory as it was listed. Memory: some 300 bytes a file.
type tree struct {
	r       *run
	control pg.Control
	files   []listed
	bytes   int64
	inside  map[string]bool // places of tablespaces that lie in the data directory itself
}

type listed struct {
	name string // in the backup
	path string // on this host
	mode fs.FileMode
	size int64
}

// list walks the data directory and its tablespaces, and puts folders into the
// result. What vanishes meanwhile is left out.
func (r *run) list(control pg.Control, conf outside) (*tree, error) {
	t := &tree{r: r, control: control}
	if err := t.findInside(); err != nil {
		return nil, err
	}
	if err := t.walk(r.dataDir(), ""); err != nil {
		return nil, err
	}
	t.folder("pg_wal/archive_status", 0o700)
	if r.info.Major >= 17 {
		t.folder("pg_wal/summaries", 0o700) // of the WAL summarizer
	}
	conf.add(t)
	return t, nil
}

// findInside finds tablespaces that were put into the data directory. The server warns of
// them but allows them, and leaves their places out where it meets them in its own backups.
func (t *tree) findInside() error {
	root, err := filepath.EvalSymlinks(t.r.dataDir())
	if err != nil {
		return fmt.Errorf("look at the data directory: %w", err)
	}
	links, err := os.ReadDir(filepath.Join(root, "pg_tblspc"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list tablespaces: %w", err)
	}
	t.inside = map[string]bool{}
	for _, l := range links {
		if l.Type()&fs.ModeSymlink == 0 {
			continue
		}
		place, err := filepath.EvalSymlinks(filepath.Join(root, "pg_tblspc", l.Name()))
		if err != nil {
			continue // what is wrong with it is said where it is visited
		}
		if name, err := filepath.Rel(root, place); err == nil && filepath.IsLocal(name) {
			t.inside[filepath.ToSlash(name)] = true
		}
	}
	return nil
}

func (t *tree) folder(name string, mode fs.FileMode) {
	t.r.result.add(repo.Entry{Path: name, Type: repo.TypeDir, Mode: uint32(mode.Perm())})
}

func (t *tree) file(name, full string, info fs.FileInfo) {
	t.files = append(t.files, listed{name: name, path: full, mode: info.Mode(), size: info.Size()})
	t.bytes += info.Size()
}

func (t *tree) walk(dir, name string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) && name != "" {
		return nil
	} else if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	unlogged := map[string]bool{} // paths of the init forks that are here
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), "_init") {
			unlogged[path.Join(name, e.Name())] = true
		}
	}
	for _, e := range entries {
		name := path.Join(name, e.Name())
		if init, ok := pg.InitFork(name); ok && unlogged[init] {
			continue // recovery makes these relations anew from their init fork
		}
		if err := t.visit(filepath.Join(dir, e.Name()), name); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) visit(full, name string) error {
	info, link, err := look(full)
	switch {
	case info == nil && err == nil, name == pg.ControlFile:
		return nil
	case err != nil && link && !vital(name):
		if pg.Excluded(name, false) == pg.Included {
			t.r.Progress.Note("%s is a link that leads nowhere; it is not in the backup", full)
		}
		return nil
	case err != nil:
		return fmt.Errorf("look at %s: %w", full, err)
	}
	switch pg.Excluded(name, info.IsDir()) {
	case pg.Skipped:
		return nil
	case pg.Emptied:
		t.folder(name, info.Mode())
		return nil
	}
	_, space := tablespaceRoot(name)
	switch {
	case info.IsDir() && link && space:
		// Of a tablespace's folder only the part of this server belongs to the backup.
		t.folder(name, info.Mode())
		own := pg.TablespaceVersionDir(t.r.info.Major, t.control.CatalogVersion)
		return t.visit(filepath.Join(full, own), path.Join(name, own))
	case info.IsDir() && link && !vital(name):
		t.r.Progress.Note("%s is a link to a folder and not of PostgreSQL's making; it is not in the backup", full)
	case info.IsDir() && t.inside[name]:
		return nil // a tablespace's place, which is copied as the tablespace
	case info.IsDir():
		t.folder(name, info.Mode())
		return t.walk(full, name)
	case info.Mode().IsRegular():
		t.file(name, full, info)
	}
	return nil // the rest are sockets and such
}

// look describes what is at path, behind a link if it is one. Neither info nor error: it vanished.
func look(path string) (info fs.FileInfo, link bool, err error) {
	info, err = os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return info, false, err
	}
	info, err = os.Stat(path)
	return info, true, err
}

// vital tells whether a backup without what is at name would not be one: people
// move single folders elsewhere and leave a link.
func vital(name string) bool {
	root, _, _ := strings.Cut(name, "/")
	return root == "base" || root == "global" || strings.HasPrefix(root, "pg_") && !strings.HasSuffix(root, ".conf")
}

// tablespaceOf finds the tablespace that a path lies in, or is the root of.
func tablespaceOf(name string) (oid string, ok bool) {
	rest, ok := strings.CutPrefix(name, "pg_tblspc/")
	oid, _, _ = strings.Cut(rest, "/")
	return oid, ok
}

func tablespaceRoot(name string) (oid string, ok bool) {
	oid, ok = tablespaceOf(name)
	return oid, ok && name == "pg_tblspc/"+oid
}

// outside is where a server's configuration files lie; empty: not known.
type outside struct {
	config, hba, ident string
}

// add lists those that are not in the data directory.
func (o outside) add(t *tree) {
	before := len(t.files)
	for name, full := range map[string]string{"pg_hba.conf": o.hba, "pg_ident.conf": o.ident} {
		t.conf(name, full)
	}
	if t.conf("postgresql.conf", o.config) {
		c, err := postgres.ReadConfFile(o.config)
		if err != nil {
			t.r.Progress.Note("what %s includes is not in the backup: %v", o.config, err)
		}
		for _, full := range c.Files[min(1, len(c.Files)):] {
			name, err := filepath.Rel(filepath.Dir(o.config), full)
			if err != nil || !filepath.IsLocal(name) {
				t.r.Progress.Note("%s is not in the backup: it lies neither in the data directory nor beside %s", full, o.config)
				continue
			}
			t.conf(filepath.ToSlash(name), full)
		}
	}
	folders := map[string]bool{}
	for _, f := range t.files[before:] {
		for dir := path.Dir(f.name); dir != "."; dir = path.Dir(dir) {
			if !folders[dir] {
				folders[dir] = true
				t.folder(dir, 0o700)
			}
		}
	}
}

// conf lists one configuration file unless it lies in the data directory. What cannot
// be read is left out: the data can be restored without.
func (t *tree) conf(name, full string) bool {
	// The server may know its data directory by another path than this host, as in a container.
	if full == "" || within(full, t.r.dataDir()) || t.r.info.DataDirectory != "" && within(full, t.r.info.DataDirectory) {
		return false
	}
	f, err := os.Open(full)
	if err != nil {
		t.r.Progress.Note("%s is not in the backup: %v", full, err)
		return false
	}
	defer f.Close() // opened only to see that it can be
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		t.r.Progress.Note("%s is not in the backup: it is no file", full)
		return false
	}
	t.file(ConfDir+"/"+name, full, info)
	return true
}

// within tells whether a file lies below dir, however the folders are reached.
func within(file, dir string) bool {
	parent, err := filepath.EvalSymlinks(filepath.Dir(file))
	if err != nil {
		parent = filepath.Dir(file)
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	rel, err := filepath.Rel(dir, parent)
	return err == nil && filepath.IsLocal(rel)
}
