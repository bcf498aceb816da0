package pgtest

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"pileus/internal/postgres"
)

// Standby makes a streaming standby of primary, which must have no tablespaces, from a base backup. It is a hot
// standby: it takes queries, and Instance.Promote makes it a primary on timeline 2.
func Standby(t testing.TB, primary *Server, opts ...Option) *Server {
	t.Helper()
	o := newOptions(opts)
	o.password = ""
	o.settings["primary_conninfo"] = primary.DSN()
	o.settings["primary_slot_name"] = "pgtest_standby"
	o.settings["hot_standby"] = "on"
	s := prepare(t, primary.Version, o)
	if err := s.clone(primary); err != nil {
		t.Fatalf("standby: %v", err)
	}
	s.WriteFile("standby.signal", "")
	s.finish(o)
	return s
}

func (s *Server) clone(primary *Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	conn, err := postgres.ConnectReplication(ctx, primary.DSN(), postgres.Options{})
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	// The slot keeps the WAL that the backup needs until the standby has it.
	if err := conn.CreateSlot(ctx, "pgtest_standby", false); err != nil {
		return err
	}
	b, err := conn.StartBaseBackup(ctx, postgres.BaseBackupOptions{Label: "pgtest", Fast: true})
	if err != nil {
		return err
	}
	for {
		a, err := b.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if a.OID != 0 {
			return errors.New("the primary has tablespaces")
		}
		if err := s.unpack(a); err != nil {
			return err
		}
	}
}

func (s *Server) unpack(r io.Reader) error {
	if err := s.mkdir(s.Instance.DataDir); err != nil {
		return err
	}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if !filepath.IsLocal(h.Name) {
			return fmt.Errorf("unpack: %q leads out of the data directory", h.Name)
		}
		path := filepath.Join(s.Instance.DataDir, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = s.mkdir(path)
		case tar.TypeReg:
			err = s.copyFile(path, tr)
		default:
			err = fmt.Errorf("unpack: %s is of type %q", h.Name, h.Typeflag)
		}
		if err != nil {
			return err
		}
	}
}

func (s *Server) mkdir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return Owner(s.t).Chown(path)
}

func (s *Server) copyFile(path string, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close(), Owner(s.t).Chown(path))
}
