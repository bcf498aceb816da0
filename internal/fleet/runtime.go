package fleet

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"pileus/internal/config"
	"pileus/internal/control"
	"pileus/internal/dbserver"
	"pileus/internal/repo"
)

// runtime is what runs for one cluster: for a managed one its server's supervisor, and for
// every one the receiver of its WAL.
type runtime struct {
	stopSupervisor context.CancelFunc
	supervised     chan struct{} // closed when the supervisor has ended
	stopReceiver   context.CancelFunc
	received       chan struct{} // closed when the receiver has ended
	backing        chan struct{} // holds a token while a backup is under way
}

// Run starts what the documents say should run, carries out the operations that were
// interrupted, and keeps to the schedule, until ctx ends. Then it stops receivers and
// supervisors; the servers go on, and the next Run adopts them.
func (f *Fleet) Run(ctx context.Context) error {
	f.mu.Lock()
	var ids []string
	for id, c := range f.clusters {
		ids = append(ids, id)
		if c.Operation != nil {
			f.perform(id)
		}
	}
	for _, c := range f.attached {
		if c.Attached {
			ids = append(ids, c.ResourceID)
			if c.Operation != nil {
				f.perform(c.ResourceID)
			}
		}
	}
	f.lifetime = ctx
	f.mu.Unlock()
	for _, id := range ids { // before the operations, which may stop what runs
		f.run(id)
	}
	close(f.ready)
	f.mu.Lock()
	for id := range f.instances {
		f.startInstance(id) // a reader's lasts as long as the fleet
	}
	f.mu.Unlock()
	f.schedule(ctx)
	f.work.Wait()
	return nil
}

// run starts a cluster's runtime if it should have one and has none.
func (f *Fleet) run(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.byResourceID(id)
	if c == nil || f.runtimes[id] != nil || f.lifetime.Err() != nil || !running(c) {
		return
	}
	r := &runtime{supervised: make(chan struct{}), received: make(chan struct{}), backing: make(chan struct{}, 1)}
	var sctx, rctx context.Context
	sctx, r.stopSupervisor = context.WithCancel(f.lifetime)
	rctx, r.stopReceiver = context.WithCancel(f.lifetime)
	f.runtimes[id] = r
	at := c.clone()
	f.work.Go(func() {
		defer close(r.supervised)
		if !at.Attached {
			f.supervise(sctx, at)
		}
	})
	f.work.Go(func() {
		defer close(r.received)
		f.receive(rctx, at)
	})
}

// running tells whether a cluster in this state has a server that is up or should be.
func running(c *Cluster) bool {
	switch c.Status {
	case StatusAvailable, StatusBackingUp, StatusModifying, StatusRenaming, StatusResetting:
		return c.Operation == nil || c.Operation.From == StatusAvailable
	}
	return false
}

// runtimeOf is a cluster's runtime, nil if it has none.
func (f *Fleet) runtimeOf(id string) *runtime {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.runtimes[id]
}

// rejoin gives a cluster that is about to be stopped a receiver again, if a serve that was
// killed left its server running without one: what was committed meanwhile must not be lost.
func (f *Fleet) rejoin(ctx context.Context, c Cluster) error {
	s, _, err := f.server(ctx, c)
	if err != nil {
		return err
	}
	if up, err := s.Running(); err != nil || !up || f.runtimeOf(c.ResourceID) != nil {
		return err
	}
	r := &runtime{supervised: make(chan struct{}), received: make(chan struct{}), backing: make(chan struct{}, 1), stopSupervisor: func() {}}
	close(r.supervised)
	var rctx context.Context
	rctx, r.stopReceiver = context.WithCancel(f.lifetime)
	f.mu.Lock()
	f.runtimes[c.ResourceID] = r
	f.mu.Unlock()
	f.work.Go(func() {
		defer close(r.received)
		f.receive(rctx, c)
	})
	ctx, cancel := context.WithTimeout(ctx, rejoinTime)
	defer cancel()
	return s.WaitReceiver(ctx)
}

// halt stops a cluster's server and then its receiver, so that all WAL up to the
// shutdown is in the repository. Where there is no runtime only the server is stopped.
func (f *Fleet) halt(ctx context.Context, c Cluster) error {
	r := f.runtimeOf(c.ResourceID)
	if r != nil {
		r.stopSupervisor()
		<-r.supervised
	}
	s, _, err := f.server(ctx, c)
	if err == nil {
		err = s.Stop(ctx)
	}
	if r != nil {
		r.stopReceiver()
		<-r.received
		f.mu.Lock()
		delete(f.runtimes, c.ResourceID)
		f.mu.Unlock()
	}
	return err
}

// supervise keeps a managed cluster's server up.
func (f *Fleet) supervise(ctx context.Context, c Cluster) {
	f.retry(ctx, "supervise "+c.ResourceID, func(ctx context.Context) error {
		s, _, err := f.server(ctx, c)
		if err != nil {
			return err
		}
		return s.Supervise(ctx, func(e dbserver.Event) { f.serverEvent(kindCluster, c.Identifier, e) })
	})
}

func (f *Fleet) serverEvent(kind, id string, e dbserver.Event) {
	switch e.Kind {
	case dbserver.EventCrashed:
		f.event(kind, id, "failure", "The server ended unexpectedly and is restarted: %s", e.Reason)
	case dbserver.EventRestarted:
		f.event(kind, id, "recovery", "The server was restarted after %d attempts", e.Attempts)
	case dbserver.EventFailed:
		f.event(kind, id, "failure", "The server cannot be started, and it is tried again: %s", e.Reason)
	}
}

// receive streams a cluster's WAL into the repository, unless it pushes it itself.
func (f *Fleet) receive(ctx context.Context, c Cluster) {
	log := f.o.Log.With(slog.String("cluster", c.Identifier))
	f.retry(ctx, "receive "+c.ResourceID, func(ctx context.Context) error {
		d, err := f.deployment(ctx, c)
		if err != nil {
			return err
		}
		if c.Attached {
			if pushes, err := d.Pushes(ctx, c.Archive); err != nil || pushes {
				if err == nil {
					<-ctx.Done() // archive_command does it
				}
				return err
			}
		}
		return d.Receive(ctx, c.Archive, log)
	})
}

// Times between the attempts of a background job, and for a receiver to connect. An attempt that lasts longer than
// soundAfter is taken for sound.
const (
	soundAfter = 5 * time.Second
	rejoinTime = 30 * time.Second
	firstPause = time.Second
	lastPause  = time.Minute
)

// retry calls a job again until ctx ends, with growing pauses, and remembers what is
// wrong for Health until an attempt is under way that lasts.
func (f *Fleet) retry(ctx context.Context, name string, job func(context.Context) error) {
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		err := f.attempt(ctx, name, job)
		if ctx.Err() != nil {
			break
		}
		if err == nil {
			err = errors.New("it ended although nobody asked it to")
		}
		f.note(name, err)
		f.o.Log.Error("a background job failed and is tried again", "job", name, "error", err, "pause", pause)
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
	f.note(name, nil)
}

// attempt calls a job once. While it lasts longer than soundAfter, nothing is wrong with it.
func (f *Fleet) attempt(ctx context.Context, name string, job func(context.Context) error) error {
	over := false // guarded by f.mu
	sound := time.AfterFunc(soundAfter, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !over {
			delete(f.failing, name)
		}
	})
	defer func() {
		sound.Stop()
		f.mu.Lock()
		defer f.mu.Unlock()
		over = true
	}()
	return job(ctx)
}

// note remembers what is wrong with a job; nil: nothing.
func (f *Fleet) note(name string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		delete(f.failing, name)
		return
	}
	f.failing[name] = err.Error()
}

// deployment is what the engine's verbs take for one cluster: a managed one joins
// those that the configuration names.
func (f *Fleet) deployment(ctx context.Context, c Cluster) (*control.Deployment, error) {
	if c.Attached {
		return f.o.Deployment, nil
	}
	s, _, err := f.server(ctx, c)
	if err != nil {
		return nil, err
	}
	conf := f.o.Deployment.Config.Defaults
	conf.Name, conf.Connection, conf.DataDir = c.Archive, s.DSN("postgres"), s.DataDir()
	conf.BinDir, conf.Slot = "", "pileus"
	conf.Retention = time.Duration(c.RetentionDays) * 24 * time.Hour
	conf.PasswordFile = ""
	return f.o.Deployment.With(conf), nil
}

// backup takes one backup of a cluster, one at a time, and keeps it under a
// snapshot's name unless that is empty. A backup by another process is waited for.
func (f *Fleet) backup(ctx context.Context, c Cluster, snapshot string, about []byte) (repo.Backup, error) {
	if r := f.runtimeOf(c.ResourceID); r != nil {
		select {
		case r.backing <- struct{}{}:
			defer func() { <-r.backing }()
		case <-ctx.Done():
			return repo.Backup{}, ctx.Err()
		}
	}
	d, err := f.deployment(ctx, c)
	if err != nil {
		return repo.Backup{}, err
	}
	defer f.catalog.forget(c.Archive)
	for {
		b, err := d.Backup(ctx, control.BackupRequest{Cluster: c.Archive, Snapshot: snapshot, About: about}, silent)
		var held *repo.HeldError
		if !errors.As(err, &held) {
			return b, err
		}
		select {
		case <-ctx.Done():
			return b, ctx.Err()
		case <-time.After(firstPause):
		}
	}
}

// conf is the configuration of an attached cluster.
func (f *Fleet) conf(c *Cluster) (config.Cluster, bool) {
	conf, ok := f.o.Deployment.Config.Clusters[c.Archive]
	return conf, ok && c.Attached
}
