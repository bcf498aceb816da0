package service

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"pileus/internal/control"
	"pileus/internal/fleet"
	"pileus/internal/ledger"
	"pileus/internal/rdsapi"
)

// Bounds of a connection.
const (
	headerTime   = 10 * time.Second
	requestTime  = 2 * time.Minute // to read a request and answer it
	idleTime     = 2 * time.Minute
	maxHeader    = 64 << 10
	shutdownTime = 15 * time.Second // for requests under way
)

// Options is what a service works with.
type Options struct {
	Deployment *control.Deployment
	Log        *slog.Logger
	// Ready is called once requests are answered, with the address; may be nil.
	Ready func(addr net.Addr)
	// Jobs run beside the service, once it listens, until their context ends.
	Jobs []func(context.Context)
	// Collectors add to the metrics.
	Collectors []prometheus.Collector
}

// Run serves until ctx ends. Error: *BusyError when another process serves the same state folder.
func Run(ctx context.Context, o Options) (err error) {
	cfg := o.Deployment.Config
	dir := filepath.Join(cfg.StateDir, "serve")
	// The folder of the servers comes first: where it is below the state folder, the servers' account has
	// to pass through that. What is beside it stays closed.
	if err := cmp.Or(os.MkdirAll(cfg.Serve.DataRoot, 0o711), os.MkdirAll(dir, 0o700)); err != nil {
		return fmt.Errorf("prepare the state folder: %w", err)
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return err
	}
	defer unlock()

	book, notice, err := ledger.Open(ctx, ledgerPath(cfg))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, book.Close()) }()
	if notice != "" {
		o.Log.Warn(notice)
	}
	keys, err := OpenKeys(cfg)
	if err != nil {
		return err
	}
	owner, err := control.ServerAccount(cfg.Serve)
	if err != nil {
		return err
	}
	f, err := fleet.Open(ctx, fleet.Options{
		Deployment: o.Deployment, Ledger: book, StateDir: dir, DataRoot: cfg.Serve.DataRoot, Region: cfg.Serve.Region, Account: cfg.Serve.Account,
		FirstPort: cfg.Serve.FirstPort, LastPort: cfg.Serve.LastPort, Owner: owner, BinDirs: cfg.Serve.BinDirs,
		SecurityGroups: cfg.Serve.SecurityGroups, Subnets: cfg.Serve.Subnets, BackupWindow: cfg.Serve.BackupWindow, Log: o.Log,
	})
	if err != nil {
		return err
	}
	s := &service{o: o, fleet: f, watch: newWatch(o.Deployment.Version, f.Health, o.Deployment.Repo.StoredBytes)}
	api := rdsapi.New(rdsapi.Options{Fleet: f, Keys: keys, Ledger: book, Region: cfg.Serve.Region, Account: cfg.Serve.Account, Log: o.Log})
	return s.run(ctx, dir, api)
}

type service struct {
	o     Options
	fleet *fleet.Fleet
	watch *watch
}

func (s *service) run(ctx context.Context, dir string, api http.Handler) error {
	tcp, err := s.listen()
	if err != nil {
		return err
	}
	socket := SocketPath(s.o.Deployment.Config)
	local, err := listenLocal(socket)
	if err != nil {
		tcp.Close()
		return err
	}
	defer os.Remove(socket) // the next service would remove it too
	public := http.NewServeMux()
	public.Handle("/", api)
	public.HandleFunc("GET /healthz", s.watch.healthz)
	public.Handle("GET /metrics", s.watch.metrics(s.o.Collectors...))
	private := http.NewServeMux()
	private.HandleFunc("GET /status", s.watch.status)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.fleet.Run(ctx) })
	g.Go(func() error { s.watch.run(ctx); return nil })
	for l, h := range map[net.Listener]http.Handler{tcp: public, local: private} {
		server := &http.Server{Handler: h, ReadHeaderTimeout: headerTime, ReadTimeout: requestTime, WriteTimeout: requestTime, IdleTimeout: idleTime,
			MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(s.o.Log.Handler(), slog.LevelWarn), BaseContext: func(net.Listener) context.Context { return ctx }}
		g.Go(func() error {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve on %s: %w", l.Addr(), err)
			}
			return nil
		})
		g.Go(func() error {
			<-ctx.Done()
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
			defer cancel()
			if err := server.Shutdown(end); err != nil {
				return server.Close()
			}
			return nil
		})
	}
	s.o.Log.Info("serving", "address", tcp.Addr().String(), "version", s.o.Deployment.Version)
	if s.o.Ready != nil {
		s.o.Ready(tcp.Addr())
	}
	notify("READY=1")
	for _, job := range s.o.Jobs {
		g.Go(func() error { job(ctx); return nil })
	}
	g.Go(func() error {
		<-ctx.Done()
		notify("STOPPING=1")
		return nil
	})
	err = g.Wait()
	s.o.Log.Info("stopped; databases go on")
	return err
}

// listen opens the public address, with TLS where it is configured.
func (s *service) listen() (net.Listener, error) {
	c := s.o.Deployment.Config.Serve
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s (serve.listen): %w", c.Listen, err)
	}
	if c.TLSCertFile == "" {
		return l, nil
	}
	cert, err := newCertificate(c.TLSCertFile, c.TLSKeyFile, s.o.Log)
	if err != nil {
		l.Close()
		return nil, err
	}
	return tls.NewListener(l, &tls.Config{GetCertificate: cert.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}), nil
}
