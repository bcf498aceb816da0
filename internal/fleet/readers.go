package fleet

import (
	"context"
	"errors"
	"fmt"

	"pileus/internal/dbserver"
)

// runReader makes a reader's server if there is none, and keeps it up, until the fleet ends or the
// reader is stopped with its cluster.
func (f *Fleet) runReader(ctx context.Context, i Instance) {
	f.mu.Lock()
	c := f.byResourceID(i.Cluster)
	if c == nil || f.runtimes[i.ResourceID] != nil && i.Status != StatusRebooting || !running(c) && c.Status != StatusStarting {
		f.mu.Unlock()
		return
	}
	old := f.runtimes[i.ResourceID]
	sctx, stop := context.WithCancel(ctx)
	r := &runtime{stopSupervisor: stop, supervised: make(chan struct{})}
	f.runtimes[i.ResourceID] = r
	f.mu.Unlock()
	defer close(r.supervised)
	defer stop()
	if old != nil { // a reboot
		old.stopSupervisor()
		<-old.supervised
	}
	f.retry(sctx, "reader "+i.ResourceID, func(ctx context.Context) error {
		err := f.keepReader(ctx, i)
		if err != nil && ctx.Err() == nil && i.Status == StatusCreating {
			f.event(kindInstance, i.Identifier, "failure", "The DB instance could not be made and is tried again: %s", reason(err))
		}
		return err
	})
}

// keepReader brings a reader up and supervises it.
func (f *Fleet) keepReader(ctx context.Context, i Instance) error {
	s, writer, spec, slot, err := f.reader(ctx, i)
	if err != nil {
		return err
	}
	switch i.Status {
	case StatusCreating:
		if err := s.Clone(ctx, writer, slot, spec); err != nil {
			return fmt.Errorf("copy the writer: %w", err)
		}
	case StatusRebooting:
		if err := s.Stop(ctx); err != nil {
			return err
		}
	}
	if _, err := s.Configure(ctx, spec); err != nil {
		return err
	}
	if up, err := s.Running(); err != nil || !up {
		if err := errors.Join(err, s.Start(ctx)); err != nil {
			return err
		}
	}
	if i.Status == StatusCreating {
		f.event(kindInstance, i.Identifier, "creation", "DB instance created")
	}
	f.settleInstance(i.ResourceID, StatusAvailable, nil)
	return s.Supervise(ctx, func(e dbserver.Event) { f.serverEvent(kindInstance, i.Identifier, e) })
}

// stopReader ends the supervisor of a reader.
func (f *Fleet) stopReader(id string) {
	f.mu.Lock()
	r := f.runtimes[id]
	f.mu.Unlock()
	if r == nil {
		return
	}
	r.stopSupervisor()
	<-r.supervised
	f.mu.Lock()
	if f.runtimes[id] == r {
		delete(f.runtimes, id)
	}
	f.mu.Unlock()
}

// readersOf lists the readers of a cluster.
func (f *Fleet) readersOf(cluster string) []Instance {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Instance
	for _, i := range f.members(cluster) {
		if i.Reader {
			out = append(out, *i)
		}
	}
	return out
}

// stopReaders stops the readers' servers of a cluster that is being stopped. One that does not stop well
// does not keep the writer from it.
func (f *Fleet) stopReaders(ctx context.Context, c Cluster) {
	for _, i := range f.readersOf(c.ResourceID) {
		f.stopReader(i.ResourceID)
		s, _, _, _, err := f.reader(ctx, i)
		if err == nil {
			err = s.Stop(ctx)
		}
		if err != nil {
			f.o.Log.Warn("a reader did not stop well", "instance", i.Identifier, "error", err)
		}
	}
}

// startReaders starts the readers' servers again.
func (f *Fleet) startReaders(c Cluster) {
	for _, i := range f.readersOf(c.ResourceID) {
		f.stopReader(i.ResourceID)
		f.mu.Lock()
		f.startInstance(i.ResourceID)
		f.mu.Unlock()
	}
}

// dropReader removes a reader's server and its slot.
func (f *Fleet) dropReader(ctx context.Context, i Instance) error {
	f.stopReader(i.ResourceID)
	s, writer, _, slot, err := f.reader(ctx, i)
	if err != nil {
		return err
	}
	if err := s.Remove(ctx); err != nil {
		return err
	}
	if up, err := writer.Running(); err == nil && up {
		return writer.DropSlot(ctx, slot)
	}
	return nil
}
