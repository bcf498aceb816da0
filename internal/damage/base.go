package damage

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"

	"pileus/internal/pg"
	"pileus/internal/repo"
	"pileus/internal/wal"
)

// fromBackup reads the catalogs that name files out of a backup in the repository. They are as of some moment while
// the backup was taken; the WAL from its start makes them whole.
func fromBackup(ctx context.Context, r *repo.Repository, b repo.Backup) (*names, error) {
	n := newNames(b.Version / 10000)
	for oid, name := range b.DatabaseNames {
		n.called[pg.OID(oid)] = name
	}
	log := &commitLog{repo: r, entries: map[string]repo.Entry{}, segments: map[uint32][]byte{}}
	want := map[string]pg.RelFile{} // path without segment number, to the file
	files := map[pg.RelFile][]repo.Entry{}
	// Two passes: where pg_class is, is known once the maps are read; they are small.
	for _, pass := range []func(repo.Entry) error{
		func(e repo.Entry) error {
			if dir, name := path.Split(e.Path); dir == "pg_xact/" {
				log.entries[name] = e
			}
			return mapEntry(ctx, r, n, e, want)
		},
		func(e repo.Entry) error {
			if f, ok := want[strings.TrimSuffix(e.Path, path.Ext(e.Path))]; ok && e.Type == repo.TypeFile {
				files[f] = append(files[f], e)
			}
			return nil
		},
	} {
		if err := eachEntry(ctx, r, b, pass); err != nil {
			return nil, err
		}
	}
	// pg_class first: it says where the others are.
	for _, kind := range []pg.OID{oidClass, oidNamespace, oidInherits} {
		for f, entries := range files {
			if n.database(f.Database).files[f.Relation] != kind {
				continue
			}
			for _, e := range entries {
				if err := readCatalog(ctx, r, n, f, e, log); err != nil {
					return nil, err
				}
			}
		}
	}
	return n, nil
}

func eachEntry(ctx context.Context, r *repo.Repository, b repo.Backup, do func(repo.Entry) error) error {
	m, err := r.OpenManifest(ctx, b.Cluster, b.ID)
	if err != nil {
		return fmt.Errorf("open backup %s: %w", b.ID, err)
	}
	defer m.Close()
	for e, err := range m.Entries() {
		if err != nil {
			return fmt.Errorf("read backup %s: %w", b.ID, err)
		}
		if err := do(e); err != nil {
			return err
		}
	}
	return nil
}

// mapEntry reads a database's pg_filenode.map, and notes which files are wanted.
func mapEntry(ctx context.Context, r *repo.Repository, n *names, e repo.Entry, want map[string]pg.RelFile) error {
	dir, name := path.Split(e.Path)
	if name != "pg_filenode.map" || e.Type != repo.TypeFile {
		return nil
	}
	dir = strings.TrimSuffix(dir, "/")
	oid, err := strconv.ParseUint(path.Base(dir), 10, 32)
	if err != nil {
		return nil // that of the shared catalogs
	}
	content, err := readFile(ctx, r, e)
	if err != nil {
		return err
	}
	mapped, ok := parseMap(content)
	if !ok {
		return nil
	}
	db := pg.OID(oid)
	d := n.database(db)
	if file, ok := mapped[oidClass]; ok && file != oidClass {
		delete(d.files, oidClass)
		d.files[file] = oidClass
	}
	for file := range d.files {
		want[dir+"/"+fmt.Sprint(file)] = pg.RelFile{Tablespace: pg.DefaultTablespace, Database: db, Relation: file}
	}
	return nil
}

// readCatalog takes the rows of one file of a catalog.
func readCatalog(ctx context.Context, r *repo.Repository, n *names, f pg.RelFile, e repo.Entry, log *commitLog) error {
	content, err := readFile(ctx, r, e)
	if err != nil {
		return err
	}
	first := uint32(0)
	if ext := strings.TrimPrefix(path.Ext(e.Path), "."); ext != "" {
		segment, err := strconv.ParseUint(ext, 10, 32)
		if err != nil {
			return nil
		}
		first = uint32(segment) * pg.PagesPerSegment
	}
	for i := 0; (i+1)*pg.PageSize <= len(content); i++ {
		for _, v := range wal.Versions(content[i*pg.PageSize:(i+1)*pg.PageSize], first+uint32(i)) {
			n.keep(f, v.TupleID, v.Row)
			committed, aborted := v.Made()
			if !committed && !aborted {
				if committed, aborted, err = log.ended(ctx, v.Xmin); err != nil {
					return err
				}
			}
			replaced, gone := v.Replaced()
			if replaced && !gone {
				if gone, _, err = log.ended(ctx, v.Xmax); err != nil {
					return err
				}
			}
			if !aborted && !gone {
				n.learn(f, v.Row, v.Xmin, committed)
			}
		}
	}
	return nil
}

// commitLog is a backup's pg_xact: two bits for each transaction.
type commitLog struct {
	repo     *repo.Repository
	entries  map[string]repo.Entry // by name
	segments map[uint32][]byte
}

// ended tells what became of a transaction by the time when the backup copied that file. Source: clog.c.
func (l *commitLog) ended(ctx context.Context, xid uint32) (committed, aborted bool, err error) {
	const perSegment = 32 * pg.PageSize * 4
	number := xid / perSegment
	b, ok := l.segments[number]
	if !ok {
		if e, there := l.entries[fmt.Sprintf("%04X", number)]; there {
			if b, err = readFile(ctx, l.repo, e); err != nil {
				return false, false, err
			}
		}
		l.segments[number] = b
	}
	at := xid % perSegment
	if int(at/4) >= len(b) {
		return false, false, nil
	}
	status := b[at/4] >> (at % 4 * 2) & 3
	return status == 1, status == 2, nil
}

// maxCatalog bounds a file of a catalog in bytes: a pg_class of half a million relations.
const maxCatalog = 256 << 20

// readFile reads one file of a backup.
func readFile(ctx context.Context, r *repo.Repository, e repo.Entry) ([]byte, error) {
	if e.Size > maxCatalog {
		return nil, nil
	}
	b, err := r.ReadEntry(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("read %s of a backup: %w", e.Path, err)
	}
	return b, nil
}
