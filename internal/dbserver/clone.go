package dbserver

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"pileus/internal/postgres"
)

// Clone makes a standby of a running primary, with a replication slot that keeps the WAL it
// needs. What an attempt before left is removed.
func (s *Server) Clone(ctx context.Context, from *Server, slot string, spec Spec) error {
	if err := s.Prepare(ctx); err != nil {
		return err
	}
	if err := from.makeSlot(ctx, slot); err != nil {
		return err
	}
	repl, err := postgres.ConnectReplication(ctx, from.DSN(""), postgres.Options{})
	if err != nil {
		return err
	}
	defer repl.Close(context.WithoutCancel(ctx))
	backup, err := repl.StartBaseBackup(ctx, postgres.BaseBackupOptions{Label: "pileus reader", Fast: true})
	if err != nil {
		return err
	}
	if err := s.makeDir(s.DataDir()); err != nil {
		return err
	}
	for {
		archive, err := backup.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("copy the primary: %w", err)
		}
		dir := s.DataDir()
		if archive.OID != 0 {
			if dir = s.TablespaceDir(archive.OID); true {
				if err := s.makeDir(dir); err != nil {
					return err
				}
			}
		}
		if err := s.unpack(archive, dir); err != nil {
			return fmt.Errorf("copy the primary: %w", err)
		}
	}
	if err := s.relink(backup.Tablespaces); err != nil {
		return err
	}
	if err := syncTree(ctx, s.dir); err != nil {
		return err
	}
	_, err = s.Configure(ctx, spec)
	return err
}

// makeSlot creates a slot that keeps WAL from now on; one that is there does so already.
func (s *Server) makeSlot(ctx context.Context, slot string) error {
	conn, err := s.Connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.SQL().Exec(ctx, `SELECT pg_create_physical_replication_slot($1, true)
		WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)`, slot)
	return err
}

// unpack writes a tar archive of a base backup below dir. Nothing in it may lead out of that.
func (s *Server) unpack(archive io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	t := tar.NewReader(archive)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, archive)
			return err
		}
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
		if name == "" {
			continue
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.Mkdir(name, 0o700)
			if errors.Is(err, os.ErrExist) {
				err = nil
			}
		case tar.TypeReg:
			err = writeFile(root, name, t)
		case tar.TypeSymlink:
			continue // a tablespace: relink makes ours
		default:
			err = fmt.Errorf("%s is neither a file nor a folder", h.Name)
		}
		if err == nil {
			err = s.owner.Chown(filepath.Join(dir, name))
		}
		if err != nil {
			return err
		}
	}
}

func writeFile(root *os.Root, name string, from io.Reader) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

// relink points pg_tblspc to this server's own copies; the map of the backup, which the server would
// follow to the primary's folders, names them too.
func (s *Server) relink(spaces []postgres.Tablespace) error {
	var lines strings.Builder
	for _, t := range spaces {
		dir := s.TablespaceDir(t.OID)
		link := filepath.Join(s.DataDir(), "pg_tblspc", fmt.Sprint(t.OID))
		if err := os.RemoveAll(link); err != nil {
			return err
		}
		if err := os.Symlink(dir, link); err != nil {
			return err
		}
		if err := s.owner.Chown(link); err != nil {
			return err
		}
		fmt.Fprintf(&lines, "%d %s\n", t.OID, strings.ReplaceAll(dir, `\`, `\\`))
	}
	if len(spaces) == 0 {
		return nil
	}
	return s.write(filepath.Join(s.DataDir(), "tablespace_map"), lines.String())
}

// syncTree makes all files below a folder durable.
func syncTree(ctx context.Context, dir string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() && !d.Type().IsRegular() {
			return err
		}
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			return errors.Join(f.Sync(), f.Close())
		})
		return nil
	})
	return errors.Join(err, g.Wait())
}
