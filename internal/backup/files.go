package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/repo"
)

// controlFile is copied last: recovery starts from what it says.
const controlFile = "global/pg_control"

// extent is how many chunks of one file a worker takes at once: 8 MiB are long
// enough to read in sequence and short enough to share a large file out.
const extent = 32

// source is one regular file on disk, opened by the first worker that needs it
// and closed by the last.
type source struct {
	*file
	path string // on this host
	open sync.Once
	f    *os.File
	err  error
	jobs int // extents not done yet; under file.mu
}

// job is one extent of a file.
type job struct {
	s     *source
	first int // chunk
	count int
}

// copyFiles takes the backup by reading the data directory.
func (r *run) copyFiles(ctx context.Context, sql *postgres.Conn) error {
	r.Progress.Stage("checkpoint", 0)
	start, err := sql.StartBackup(ctx, r.Label, !r.Spread)
	if err != nil {
		return err
	}
	stopped := false
	defer func() {
		if !stopped { // ends the backup on the server's side; closing the session would do it too
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			_, _ = sql.StopBackup(ctx)
		}
	}()
	control, err := r.proveSameHost(start)
	if err != nil {
		return err
	}
	r.head.StartLSN, r.head.Timeline = start, control.CheckpointTimeline
	h := &horizon{start: start, ask: r.insertPosition}
	if err := r.readDataDir(ctx, h, control); err != nil {
		return err
	}
	if r.head.CompleteTo, err = clock(ctx, sql); err != nil {
		return err
	}
	stop, err := sql.StopBackup(ctx)
	if err != nil {
		return err
	}
	stopped = true
	if r.head.Stopped, err = clock(ctx, sql); err != nil {
		return err
	}
	r.head.StopLSN, r.head.Label, r.head.TablespaceMap = stop.LSN, string(stop.Label), string(stop.TablespaceMap)
	return nil
}

// proveSameHost makes sure that the directory is the running server's and no
// copy of it: the checkpoint that just started the backup must be in its control file.
func (r *run) proveSameHost(start pg.LSN) (pg.Control, error) {
	c, err := readControl(r.dataDir())
	switch {
	case err != nil:
		return c, fmt.Errorf("%w: %w", ErrOtherHost, err)
	case c.SystemID != r.info.SystemIdentifier:
		return c, fmt.Errorf("%w: %s belongs to another cluster", ErrOtherHost, r.dataDir())
	case c.CheckpointRedo < start:
		return c, fmt.Errorf("%w: %s does not have the checkpoint that the server just made", ErrOtherHost, r.dataDir())
	}
	return c, nil
}

// insertPosition asks for the current end of WAL over a session of its own: the
// one that holds the backup belongs to another goroutine.
func (r *run) insertPosition(ctx context.Context) (pg.LSN, error) {
	c, err := r.SQL(ctx)
	if err != nil {
		return 0, err
	}
	defer c.Close(context.WithoutCancel(ctx))
	return c.CurrentLSN(ctx)
}

// readDataDir copies every file but the control file in parallel, and then that one.
func (r *run) readDataDir(ctx context.Context, h *horizon, control pg.Control) error {
	tree, err := r.list(control)
	if err != nil {
		return err
	}
	r.Progress.Stage("copy files", tree.bytes)
	jobs := make(chan job)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(jobs)
		return tree.feed(gctx, r, jobs)
	})
	for range r.Workers {
		g.Go(func() error {
			w := &worker{r: r, w: r.packer.Writer()}
			defer w.w.Close()
			buf := make([]byte, repo.ChunkSize)
			for j := range jobs {
				if err := w.read(gctx, h, j, buf); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	w := &worker{r: r, w: r.packer.Writer()}
	defer w.w.Close()
	return r.copyControl(ctx, w)
}

// read copies one extent.
func (w *worker) read(ctx context.Context, h *horizon, j job, buf []byte) error {
	s := j.s
	s.open.Do(func() {
		if s.f, s.err = os.Open(s.path); s.err == nil {
			_ = unix.Fadvise(int(s.f.Fd()), 0, 0, unix.FADV_SEQUENTIAL) // only a hint
		}
	})
	defer s.jobDone()
	if errors.Is(s.err, fs.ErrNotExist) {
		s.mu.Lock()
		s.gone = true // dropped since it was listed; WAL replay drops it as well
		s.mu.Unlock()
	} else if s.err != nil {
		return fmt.Errorf("open %s: %w", s.path, s.err)
	}
	for i := j.first; i < j.first+j.count; i++ {
		data, err := w.readChunk(ctx, h, s, i, buf)
		if err != nil {
			return fmt.Errorf("read %s: %w", s.path, err)
		}
		if err := w.chunk(ctx, s.file, i, data); err != nil {
			return err
		}
	}
	return nil
}

// readChunk reads and checks chunk i; fewer bytes mean that the file ended there.
func (w *worker) readChunk(ctx context.Context, h *horizon, s *source, i int, buf []byte) ([]byte, error) {
	if s.f == nil {
		return nil, nil
	}
	offset := int64(i) * repo.ChunkSize
	want := min(repo.ChunkSize, s.entry.Size-offset)
	n, err := s.f.ReadAt(buf[:want], offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if int64(n) < want {
		s.endsAt(offset + int64(n))
	}
	if s.pages {
		err := w.r.checkPages(ctx, h, s.file, offset, buf[:n], func(page []byte, at int64) error {
			if _, err := s.f.ReadAt(page, at); errors.Is(err, io.EOF) {
				return errShrunk
			} else if err != nil {
				return err
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return buf[:n], nil
}

func (s *source) jobDone() {
	s.mu.Lock()
	s.jobs--
	last := s.jobs == 0
	s.mu.Unlock()
	if last && s.f != nil {
		s.f.Close() // opened for reading only
	}
}

// copyControl reads the control file whole and sound: the server rewrites it in
// place, so a read may see it torn.
func (r *run) copyControl(ctx context.Context, w *worker) error {
	path := filepath.Join(r.dataDir(), controlFile)
	for _, pause := range rereads {
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read the control file: %w", err)
		}
		if _, err := pg.ParseControl(b); err == nil {
			return w.chunk(ctx, r.newFile(controlFile, 0o600, int64(len(b))), 0, b)
		}
	}
	return fmt.Errorf("%s does not read as a control file although it was tried %d times", path, len(rereads))
}
