package demo

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"pileus/internal/config"
	"pileus/internal/control"
	"pileus/internal/postgres"
	"pileus/internal/progress"
	"pileus/internal/restore"
)

//go:embed schema.sql
var schema string

// Options of Run.
type Options struct {
	Dir     string // scratch folder; empty: a temporary one
	BinDir  string // of PostgreSQL; empty: look for it
	Keep    bool   // leave folder and servers
	Version string // of this program
}

// Account is what the demo found.
type Account struct {
	Server          string        `json:"server"`
	Size            int64         `json:"size_bytes"`
	TimeToProtect   time.Duration `json:"time_to_protect_ns"`
	TimeToRecover   time.Duration `json:"time_to_recover_ns"`
	GranulesBefore  int64         `json:"granules_before"`
	GranulesDeleted int64         `json:"granules_deleted"`
	GranulesAfter   int64         `json:"granules_after"`
	DeleteXID       uint64        `json:"delete_xid"`
	CommitsBefore   int           `json:"commits_before"` // acknowledged before the mistake began
	CommitsLost     int           `json:"commits_lost"`   // of those, not in the restored cluster
	DamageFound     bool          `json:"damage_found"`   // the mistake is in the restored cluster
	Kept            string        `json:"kept,omitempty"`
	SourceSocket    string        `json:"source_socket,omitempty"`
	SourcePort      int           `json:"source_port,omitempty"`
	RestoredSocket  string        `json:"restored_socket,omitempty"`
	RestoredPort    int           `json:"restored_port,omitempty"`
}

const (
	sourceName   = "cumulus"
	restoredName = "cumulus-restored"
	writers      = 3
)

// show is one run of the demo.
type show struct {
	Options
	rep      progress.Reporter
	source   *postgres.Instance
	restored *postgres.Instance
	pileus   *control.Deployment
	acc      Account
}

// Run plays the demo in a scratch folder, which is gone afterwards unless Keep.
func Run(ctx context.Context, o Options, rep progress.Reporter) (acc Account, err error) {
	s := &show{Options: o, rep: rep}
	if s.Dir == "" {
		if s.Dir, err = os.MkdirTemp("", "pileus-demo-"); err != nil {
			return acc, fmt.Errorf("make a scratch folder: %w", err)
		}
	} else if err := emptyDir(s.Dir); err != nil {
		return acc, err
	}
	defer func() {
		if !s.Keep || err != nil {
			err = errors.Join(err, s.clean())
		}
	}()
	if err := s.startSource(ctx); err != nil {
		return acc, err
	}
	return s.acc, errors.Join(s.play(ctx), nil)
}

func emptyDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%s is not empty: give --dir an empty folder or one that does not exist", dir)
	}
	return err
}

// clean stops what runs and removes the scratch folder.
func (s *show) clean() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var err error
	for _, in := range []*postgres.Instance{s.source, s.restored} {
		if in == nil {
			continue
		}
		if _, running, rerr := in.Running(); rerr == nil && running {
			err = errors.Join(err, in.Stop(ctx, postgres.StopImmediate))
		}
	}
	return errors.Join(err, os.RemoveAll(s.Dir))
}

// startSource makes and loads the database, and configures Pileus for it.
func (s *show) startSource(ctx context.Context) error {
	var hints []string
	if s.BinDir != "" {
		hints = []string{s.BinDir}
	}
	bin, err := postgres.FindBinaries(ctx, 0, hints)
	if err != nil {
		return err
	}
	s.acc.Server = bin.Version
	s.rep.Stage("start PostgreSQL", 0)
	port, err := freePort()
	if err != nil {
		return err
	}
	s.source = &postgres.Instance{Binaries: bin, DataDir: filepath.Join(s.Dir, "source"), Port: port, SocketDir: s.Dir,
		LogFile: filepath.Join(s.Dir, "source.log")}
	if err := s.source.Init(ctx, postgres.InitOptions{Auth: "trust", Checksums: true}); err != nil {
		return err
	}
	conf := postgres.FormatSetting("listen_addresses", "") + postgres.FormatSetting("port", fmt.Sprint(port)) +
		postgres.FormatSetting("unix_socket_directories", s.Dir) + postgres.FormatSetting("wal_level", "replica") +
		postgres.FormatSetting("max_slot_wal_keep_size", "4GB")
	if err := appendFile(filepath.Join(s.source.DataDir, "postgresql.conf"), conf); err != nil {
		return err
	}
	if err := s.source.Start(ctx, postgres.StartOptions{}); err != nil {
		return err
	}
	s.rep.Stage("load granules", 0)
	conn, err := pgx.Connect(ctx, s.dsn())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.PgConn().Exec(ctx, schema).ReadAll(); err != nil {
		return fmt.Errorf("load the database: %w", err)
	}
	if err := conn.QueryRow(ctx, `SELECT pg_database_size(current_database())`).Scan(&s.acc.Size); err != nil {
		return err
	}
	return s.setUp(ctx)
}

func (s *show) dsn() string { return s.source.DSN("postgres", "postgres") }

func (s *show) setUp(ctx context.Context) error {
	path := filepath.Join(s.Dir, "pileus.yaml")
	_, err := control.Setup(ctx, control.SetupRequest{Path: path, Params: config.Params{
		RepositoryURL: filepath.Join(s.Dir, "repository"), StateDir: filepath.Join(s.Dir, "state"), Cluster: sourceName,
		Connection: s.dsn(), BinDir: s.source.Binaries.Dir}})
	if err != nil {
		return err
	}
	cfg, err := control.LoadConfig(path)
	if err != nil {
		return err
	}
	s.pileus, err = control.Open(ctx, cfg, s.Version, control.Brief)
	return err
}

// play runs the ingest and the receiver beside the story.
func (s *show) play(ctx context.Context) error {
	in := newIngest(s.dsn(), writers)
	g, gctx := errgroup.WithContext(ctx)
	load, stopLoad := context.WithCancel(gctx)
	defer stopLoad()
	receive, stopReceive := context.WithCancel(gctx)
	defer stopReceive()
	g.Go(func() error { return in.run(load) })
	g.Go(func() error {
		err := s.pileus.Receive(receive, sourceName, slog.New(slog.NewTextHandler(io.Discard, nil)))
		if receive.Err() != nil {
			return nil
		}
		return err
	})
	g.Go(func() error {
		defer stopLoad()
		defer stopReceive()
		return s.story(gctx, in)
	})
	return g.Wait()
}

func (s *show) story(ctx context.Context, in *ingest) error {
	began := time.Now()
	if _, err := s.pileus.Backup(ctx, control.BackupRequest{Cluster: sourceName}, s.rep); err != nil {
		return err
	}
	s.acc.TimeToProtect = time.Since(began)
	s.rep.Stage("ingest goes on", 0)
	if err := in.waitFor(ctx, len(in.acknowledged())+500); err != nil {
		return err
	}
	s.rep.Stage("DELETE FROM granules", 0)
	xid, before, rows, err := in.deleteGranules(ctx)
	if err != nil {
		return err
	}
	s.acc.DeleteXID, s.acc.CommitsBefore, s.acc.GranulesDeleted = xid, len(before), rows
	s.acc.GranulesBefore = rows
	if err := in.waitFor(ctx, len(in.acknowledged())+100); err != nil { // life goes on for a while before anybody notices
		return err
	}
	if err := s.recover(ctx, xid); err != nil {
		return err
	}
	return s.compare(ctx, before)
}

// recover restores to just before the transaction, waiting until its commit is in the archive.
func (s *show) recover(ctx context.Context, xid uint64) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	began := time.Now()
	q := control.RestoreRequest{Cluster: sourceName, As: restoredName, DataDir: filepath.Join(s.Dir, "restored"), Start: true, Port: port,
		Target: restore.Target{Kind: restore.ToXID, XID: xid, Exclusive: true}, BinDir: s.source.Binaries.Dir}
	var plan restore.Plan
	for {
		plan, err = s.pileus.PlanRestore(ctx, q, s.rep)
		var early *restore.WindowError
		var unknown *restore.TransactionError
		if err == nil || ctx.Err() != nil || (!errors.As(err, &early) && !errors.As(err, &unknown)) || time.Since(began) > 30*time.Second {
			break
		}
		t := time.NewTimer(200 * time.Millisecond) // the receiver stores the commit within a second
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
	if err != nil {
		return err
	}
	res, err := s.pileus.Restore(ctx, plan)
	if err != nil {
		return err
	}
	s.acc.TimeToRecover = time.Since(began)
	s.restored = &postgres.Instance{Binaries: s.source.Binaries, DataDir: plan.DataDir, Port: res.Port, SocketDir: res.Socket}
	return nil
}

func (s *show) compare(ctx context.Context, before map[commit]bool) error {
	s.rep.Stage("compare", 0)
	got, err := readState(ctx, s.restored.DSN("postgres", "postgres"))
	if err != nil {
		return fmt.Errorf("read the restored cluster: %w", err)
	}
	for c := range before {
		if !got.commits[c] {
			s.acc.CommitsLost++
		}
	}
	s.acc.GranulesAfter = got.granules
	s.acc.DamageFound = got.orphans > 0 || got.granules < s.acc.GranulesDeleted || got.files == 0
	if s.Keep {
		s.acc.Kept, s.acc.SourceSocket, s.acc.SourcePort = s.Dir, s.source.SocketDir, s.source.Port
		s.acc.RestoredSocket, s.acc.RestoredPort = s.restored.SocketDir, s.restored.Port
	}
	return nil
}

func appendFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("\n" + text)
	return errors.Join(err, f.Close())
}

// freePort is a port that nothing listens on at the moment; the servers use it
// for the name of their socket only.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
