package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// ConfDir is the folder of a backup that holds configuration files which lie
// outside the data directory, as Debian's do: postgresql.conf, pg_hba.conf,
// pg_ident.conf. Restore moves them into the data directory.
const ConfDir = "pileus_conf"

// tree is the data directory as it was listed. Memory: some 300 bytes a file.
type tree struct {
	files []listed
	bytes int64
}

type listed struct {
	name string // in the backup
	path string // on this host
	mode fs.FileMode
	size int64
}

// list walks the data directory and its tablespaces, and puts folders into the
// result. What vanishes meanwhile is left out.
func (r *run) list(control pg.Control) (*tree, error) {
	t := &tree{}
	root := r.dataDir()
	if err := t.walk(r, root, "", control); err != nil {
		return nil, err
	}
	for _, name := range []string{"pg_wal/archive_status", "pg_wal/summaries"} {
		if name == "pg_wal/summaries" && r.info.Major < 17 {
			continue // a folder of the WAL summarizer
		}
		r.result.add(repo.Entry{Path: name, Type: repo.TypeDir, Mode: 0o700})
	}
	t.outsideConf(r, root)
	return t, nil
}

func (t *tree) walk(r *run, dir, name string, control pg.Control) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) && name != "" {
		return nil
	} else if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	inits := map[string]bool{} // relations here that are unlogged
	for _, e := range entries {
		if base, ok := strings.CutSuffix(e.Name(), "_init"); ok {
			inits[base] = true
		}
	}
	for _, e := range entries {
		if err := t.visit(r, filepath.Join(dir, e.Name()), path.Join(name, e.Name()), inits, control); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) visit(r *run, full, name string, inits map[string]bool, control pg.Control) error {
	info, err := os.Lstat(full)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("look at %s: %w", full, err)
	}
	parent, _ := path.Split(name)
	link := info.Mode()&fs.ModeSymlink != 0
	if link {
		if info, err = os.Stat(full); err != nil {
			r.Progress.Note("%s is a link that leads nowhere; it is not in the backup", full)
			return nil
		}
	}
	if name == controlFile {
		return nil
	}
	switch pg.Excluded(name, info.IsDir()) {
	case pg.Skipped:
		return nil
	case pg.Emptied:
		r.result.add(repo.Entry{Path: name, Type: repo.TypeDir, Mode: uint32(info.Mode().Perm())})
		return nil
	}
	switch {
	case info.IsDir() && link && parent == "pg_tblspc/":
		// Of a tablespace's folder only the part of this server belongs to the backup.
		r.result.add(repo.Entry{Path: name, Type: repo.TypeDir, Mode: uint32(info.Mode().Perm())})
		own := pg.TablespaceVersionDir(r.info.Major, control.CatalogVersion)
		return t.visit(r, filepath.Join(full, own), path.Join(name, own), nil, control)
	case info.IsDir() && link:
		r.Progress.Note("%s is a link to a folder and not of PostgreSQL's making; it is not in the backup", full)
		return nil
	case info.IsDir():
		r.result.add(repo.Entry{Path: name, Type: repo.TypeDir, Mode: uint32(info.Mode().Perm())})
		return t.walk(r, full, name, control)
	case !info.Mode().IsRegular():
		return nil // sockets and such
	}
	if init, ok := pg.InitFork(name); ok && inits[strings.TrimSuffix(path.Base(init), "_init")] {
		return nil // content of an unlogged relation: recovery makes it anew
	}
	t.add(name, full, info)
	return nil
}

func (t *tree) add(name, full string, info fs.FileInfo) {
	t.files = append(t.files, listed{name: name, path: full, mode: info.Mode(), size: info.Size()})
	t.bytes += info.Size()
}

// outsideConf adds configuration files from outside the data directory.
func (t *tree) outsideConf(r *run, root string) {
	ident := ""
	if r.info.HBAFile != "" {
		ident = filepath.Join(filepath.Dir(r.info.HBAFile), "pg_ident.conf")
	}
	added := false
	for name, full := range map[string]string{"postgresql.conf": r.info.ConfigFile, "pg_hba.conf": r.info.HBAFile, "pg_ident.conf": ident} {
		if full == "" || strings.HasPrefix(full, root+"/") {
			continue
		}
		f, err := os.Open(full)
		if err != nil {
			r.Progress.Note("%s is not in the backup: %v", full, err)
			continue
		}
		info, err := f.Stat()
		f.Close() // opened only to see that it can be
		if err == nil && info.Mode().IsRegular() {
			added = true
			t.add(ConfDir+"/"+name, full, info)
		}
	}
	if added {
		r.result.add(repo.Entry{Path: ConfDir, Type: repo.TypeDir, Mode: 0o700})
	}
}

// feed hands out the files' extents until all are taken or ctx ends.
func (t *tree) feed(ctx context.Context, r *run, jobs chan<- job) error {
	for _, l := range t.files {
		f := r.newFile(l.name, uint32(l.mode.Perm()), l.size)
		if len(f.chunks) == 0 {
			r.result.add(f.entry)
			continue
		}
		s := &source{file: f, path: l.path}
		s.jobs = (len(f.chunks) + extent - 1) / extent
		for first := 0; first < len(f.chunks); first += extent {
			select {
			case jobs <- job{s, first, min(extent, len(f.chunks)-first)}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return nil
}
