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

	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/repo"
)

// extent is how many chunks of one file a worker takes at once: 8 MiB are long
// enough to read in sequence and short enough to share a large file out.
const extent = 32

// stopPatience is how long an aborted backup waits for the server to hear of it.
const stopPatience = 10 * time.Second

// source is one regular file on disk, opened by the first worker that needs it
// and closed by the last who holds it.
type source struct {
	*file
	path string // on this host
	open sync.Once
	f    *os.File
	err  error
	held int // by jobs that are not done and by the one who hands them out; under file.mu
}

// job is one extent of a file.
type job struct {
	s     *source
	first int // chunk
	count int
}

// copyFiles takes the backup by reading the data directory.
func (r *run) copyFiles(ctx context.Context, sql *postgres.Conn) error {
	h, err := r.newHorizon(ctx)
	if err != nil {
		return err
	}
	defer h.close(ctx)
	r.Progress.Stage("checkpoint", 0)
	if h.start, err = sql.StartBackup(ctx, r.Label, !r.Spread); err != nil {
		return err
	}
	stopped := false
	defer func() {
		if !stopped { // closing the session would end the backup on the server as well, but later
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
			defer cancel()
			_, _ = sql.StopBackup(ctx)
		}
	}()
	control, err := r.proveSameHost(ctx, sql, h.start)
	if err != nil {
		return err
	}
	r.head.StartLSN, r.head.Timeline = h.start, control.CheckpointTimeline
	if err := r.since(ctx); err != nil {
		return err
	}
	after, err := sql.Info(ctx) // tablespaces may have come since the first look
	if err != nil {
		return err
	}
	ident, err := identFile(ctx, sql)
	if err != nil {
		return err
	}
	if err := r.readDataDir(ctx, h, control, outside{after.ConfigFile, after.HBAFile, ident}); err != nil {
		return err
	}
	before, err := clock(ctx, sql)
	if err != nil {
		return err
	}
	stop, err := sql.StopBackup(ctx)
	if err != nil {
		return err
	}
	stopped = true
	r.head.StopLSN, r.head.Label, r.head.TablespaceMap = stop.LSN, string(stop.Label), string(stop.TablespaceMap)
	if r.head.Tablespaces, err = tablespaces(after.Tablespaces, stop.TablespaceMap); err != nil {
		return err
	}
	return r.ended(ctx, sql, before)
}

// readDataDir copies every file but the control file in parallel, and then that
// one: recovery starts from what it says, so it must be the newest.
func (r *run) readDataDir(ctx context.Context, h *horizon, control pg.Control, conf outside) error {
	tree, err := r.list(control, conf)
	if err != nil {
		return err
	}
	r.Progress.Stage("copy files", tree.bytes)
	jobs := make(chan job)
	return r.crew(
		func() error {
			defer close(jobs)
			return tree.feed(ctx, r, jobs)
		},
		func(w *worker) error {
			buf := make([]byte, repo.ChunkSize)
			for j := range jobs {
				err := w.read(ctx, h, j, buf)
				j.s.release()
				if err != nil {
					return err
				}
			}
			return nil
		},
		func(w *worker) error { return r.copyControl(ctx, w) })
}

// feed hands out the files' extents until all are taken or ctx ends.
func (t *tree) feed(ctx context.Context, r *run, jobs chan<- job) error {
	for _, l := range t.files {
		f := r.newFile(l.name, uint32(l.mode.Perm()), l.size)
		if len(f.chunks) == 0 {
			r.result.add(f.entry)
			continue
		}
		if r.share(f) {
			continue
		}
		if err := (&source{file: f, path: l.path, held: 1}).feed(ctx, jobs); err != nil {
			return err
		}
	}
	return nil
}

func (s *source) feed(ctx context.Context, jobs chan<- job) error {
	defer s.release()
	chunks := len(s.chunks) // a worker that has the file to itself may change it
	for first := 0; first < chunks; first += extent {
		s.hold()
		select {
		case jobs <- job{s, first, min(extent, chunks-first)}:
		case <-ctx.Done():
			s.release()
			return context.Cause(ctx)
		}
	}
	return nil
}

func (s *source) hold() {
	s.mu.Lock()
	s.held++
	s.mu.Unlock()
}

func (s *source) release() {
	s.mu.Lock()
	s.held--
	last := s.held == 0
	s.mu.Unlock()
	if last && s.f != nil {
		s.f.Close() // opened for reading only
	}
}

// read copies one extent.
func (w *worker) read(ctx context.Context, h *horizon, j job, buf []byte) error {
	s := j.s
	s.open.Do(func() { s.f, s.err = os.Open(s.path) })
	if errors.Is(s.err, fs.ErrNotExist) {
		s.mu.Lock()
		s.gone = true // dropped since it was listed; WAL replay drops it as well
		s.mu.Unlock()
	} else if s.err != nil {
		return fmt.Errorf("open %s: %w", s.path, s.err)
	}
	if s.f != nil && j.count == len(s.chunks) {
		// Nobody else has a part of this file, so what it has become since it was listed can be taken.
		n, err := s.remeasure()
		if err != nil {
			return fmt.Errorf("read %s: %w", s.path, err)
		}
		j.count = n
	}
	patched := s.wanted != nil && s.f != nil && s.lookUp(ctx, w.r.parent).patchable()
	for i := j.first; i < j.first+j.count; i++ {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if patched {
			if err := w.patch(ctx, h, s, i, buf); err != nil {
				return fmt.Errorf("read %s: %w", s.path, err)
			}
			continue
		}
		data, err := w.readChunk(ctx, h, s, i, buf)
		if err != nil {
			return fmt.Errorf("read %s: %w", s.path, err)
		}
		s.endsAt(int64(i)*repo.ChunkSize, len(data))
		if err := w.chunk(ctx, s.file, i, data); err != nil {
			return err
		}
	}
	return nil
}

// remeasure makes room for what is longer now than when it was listed, and returns the number of
// chunks. PostgreSQL replaces some files by renaming others over them
// (postgresql.auto.conf, pg_logical/replorigin_checkpoint), and a new file cut at the old one's
// length is neither: recovery from it fails. Relations are left alone: WAL extends them.
func (s *source) remeasure() (chunks int, err error) {
	if pg.HasPages(s.entry.Path) {
		return len(s.chunks), nil
	}
	info, err := s.f.Stat()
	if err != nil {
		return 0, err
	}
	if size := info.Size(); size > s.entry.Size {
		s.entry.Size, s.size = size, size
		s.chunks = make([]repo.Chunk, (size+repo.ChunkSize-1)/repo.ChunkSize)
		s.left.Store(int64(len(s.chunks)))
	}
	return len(s.chunks), nil
}

// readChunk reads and checks chunk i; fewer bytes mean that the file ended there.
func (w *worker) readChunk(ctx context.Context, h *horizon, s *source, i int, buf []byte) ([]byte, error) {
	if s.f == nil {
		return nil, nil
	}
	offset := int64(i) * repo.ChunkSize
	want := min(repo.ChunkSize, s.entry.Size-offset)
	if err := w.r.await(ctx, int(want)); err != nil {
		return nil, err
	}
	n, err := s.f.ReadAt(buf[:want], offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	w.r.result.read.Add(int64(n))
	if s.pages {
		c := check{r: w.r, h: h, f: s.file, offset: offset, data: buf[:n], again: s.again}
		if err := c.pages(ctx); err != nil {
			return nil, err
		}
	}
	return buf[:n], nil
}

// again reads a page once more.
func (s *source) again(_ context.Context, page []byte, offset int64) error {
	_, err := s.f.ReadAt(page, offset)
	if errors.Is(err, io.EOF) {
		return errShrunk
	}
	return err
}

// copyControl reads the control file whole and sound: the server rewrites it in
// place, so a read may see it torn.
func (r *run) copyControl(ctx context.Context, w *worker) error {
	path := filepath.Join(r.dataDir(), pg.ControlFile)
	for _, pause := range rereads {
		if err := wait(ctx, pause); err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("read the control file: %w", err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read the control file: %w", err)
		}
		if _, err := pg.ParseControl(b); err == nil {
			return w.chunk(ctx, r.newFile(pg.ControlFile, uint32(info.Mode().Perm()), int64(len(b))), 0, b)
		}
	}
	return fmt.Errorf("%s does not read as a control file although it was tried %d times", path, len(rereads))
}
