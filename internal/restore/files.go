package restore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"sync"

	"pileus/internal/progress"
	"pileus/internal/repo"
)

// How many entries and references one window gathers before it is written.
const (
	windowFiles  = 4096
	windowPieces = 32768
)

// target is one file being written.
type target struct {
	entry repo.Entry
	path  string // in the file system
}

// writer writes the files of a backup. Files of one window are written in any order.
type writer struct {
	repo     *repo.Repository
	place    *place
	parallel int
	report   progress.Reporter
	control  *target // the control file, held back
}

// all writes every entry but the control file, which is kept for writeControl.
func (w *writer) all(ctx context.Context, entries iter.Seq2[repo.Entry, error]) error {
	var window []*target
	size := int64(0)
	flush := func() error {
		err := w.window(ctx, window)
		window, size = window[:0:0], 0
		return err
	}
	for e, err := range entries {
		if err != nil {
			return fmt.Errorf("read the list of files: %w", err)
		}
		path, ok, err := w.place.resolve(e.Path)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if e.Type == repo.TypeDir {
			if err := w.place.makeDir(path, e.Mode); err != nil {
				return err
			}
			continue
		}
		t := &target{entry: e, path: path}
		if e.Path == controlPath {
			w.control = t
			continue
		}
		window = append(window, t)
		size += e.Size
		if len(window) >= windowFiles || size >= windowPieces*repo.ChunkSize {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	if w.control == nil {
		return errors.New("the backup holds no control file (global/pg_control): it cannot be restored")
	}
	return ctx.Err()
}

// writeControl writes the control file: from here on the directory can be started.
func (w *writer) writeControl(ctx context.Context) error {
	if err := w.window(ctx, []*target{w.control}); err != nil {
		return err
	}
	return syncFile(w.control.path)
}

// window writes some files whole.
func (w *writer) window(ctx context.Context, files []*target) error {
	nodes, err := w.nodes(ctx, files)
	if err != nil {
		return err
	}
	var chunks, patches []piece
	for _, t := range files {
		if err := w.create(t); err != nil {
			return err
		}
		e := &t.entry
		stored := int64(0)
		switch {
		case e.Node != nil:
			n := nodes[t]
			if n.Size != e.Size {
				return fmt.Errorf("%s: its page map is of %d bytes, the file has %d: %w", e.Path, n.Size, e.Size, repo.ErrDamaged)
			}
			patched := map[int]bool{}
			for i, pages := range n.Visible() {
				if pages != nil {
					patches = append(patches, piece{file: t, ref: n.Patches[i].Ref, pages: pages})
				}
				for _, page := range n.Patches[i].Pages {
					patched[int(page)/(repo.ChunkSize/repo.PageSize)] = true
				}
			}
			for i := range n.Chunks {
				if c := &n.Chunks[i]; !c.Zero {
					chunks = append(chunks, piece{file: t, ref: c.Ref, offset: int64(i) * repo.ChunkSize, patched: patched[i]})
					stored += int64(c.Length)
				}
			}
		case e.Chunk != nil:
			if int64(e.Chunk.Length) > e.Size {
				return fmt.Errorf("%s: a chunk of %d bytes for a file of %d: %w", e.Path, e.Chunk.Length, e.Size, repo.ErrDamaged)
			}
			chunks = append(chunks, piece{file: t, ref: *e.Chunk})
			stored = int64(e.Chunk.Length)
		}
		w.report.Add(max(0, e.Size-stored)) // holes are done already
	}
	// Patches lie over chunks: they are written when all chunks are.
	for _, pieces := range [][]piece{chunks, patches} {
		if err := fetch(ctx, w.repo, w.parallel, pieces, func() sink { return &fileSink{report: w.report} }); err != nil {
			return err
		}
	}
	return nil
}

// nodes reads the page maps of those files that have one.
func (w *writer) nodes(ctx context.Context, files []*target) (map[*target]*repo.Node, error) {
	var pieces []piece
	for _, t := range files {
		if t.entry.Node != nil {
			pieces = append(pieces, piece{file: t, ref: *t.entry.Node})
		}
	}
	all := nodeSink{nodes: make(map[*target]*repo.Node, len(pieces))}
	err := fetch(ctx, w.repo, w.parallel, pieces, func() sink { return &all })
	return all.nodes, err
}

// nodeSink gathers page maps; unlike other sinks it is shared by all spans.
type nodeSink struct {
	mu    sync.Mutex
	nodes map[*target]*repo.Node
}

func (s *nodeSink) take(p *piece, plain []byte) error {
	n, err := repo.ParseNode(plain)
	if err != nil {
		return fmt.Errorf("%w: %w", repo.ErrDamaged, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes[p.file] = n
	return nil
}

func (s *nodeSink) close() error { return nil }

// create makes the file with its full size, all of it a hole. It must not be there.
func (w *writer) create(t *target) error {
	mode := os.FileMode(t.entry.Mode) & os.ModePerm
	f, err := os.OpenFile(t.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create %s: %w", t.path, err)
	}
	if t.entry.Size > 0 {
		err = f.Truncate(t.entry.Size)
	}
	if err == nil && mode != 0o600 && mode != 0 {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = w.place.own(f)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", t.path, err)
	}
	return nil
}

// fileSink writes the pieces of one span. Neighbours in a pack are mostly of one
// file, which is kept open between them.
type fileSink struct {
	report progress.Reporter
	file   *os.File
	of     *target

	from, to int64 // what was written in a row, and the disk may begin with
}

// settled notes that a stretch of the file has its final content.
func (s *fileSink) settled(from, to int64) {
	if s.to != from {
		s.writeBack()
		s.from = from
	}
	s.to = to
}

func (s *fileSink) writeBack() {
	if s.from < s.to {
		writeBack(s.file, s.from, s.to-s.from)
	}
	s.from, s.to = 0, 0
}

func (s *fileSink) close() error {
	if s.file == nil {
		return nil
	}
	s.writeBack()
	err := s.file.Close()
	s.file, s.of = nil, nil
	return err
}

func (s *fileSink) take(p *piece, plain []byte) error {
	if s.of != p.file {
		if err := s.close(); err != nil {
			return err
		}
		f, err := os.OpenFile(p.file.path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		s.file, s.of = f, p.file
	}
	size := p.file.entry.Size
	if p.pages == nil {
		plain = plain[:min(int64(len(plain)), max(0, size-p.offset))]
		if _, err := s.file.WriteAt(plain, p.offset); err != nil {
			return err
		}
		if !p.patched {
			s.settled(p.offset, p.offset+int64(len(plain)))
		}
		s.report.Add(int64(len(plain)))
		return nil
	}
	for len(p.pages) > 0 {
		if p.pages[0] == repo.Hidden {
			plain, p.pages = plain[min(repo.PageSize, len(plain)):], p.pages[1:]
			continue
		}
		// Pages that follow one another in the file are written at once.
		n := 1
		for n < len(p.pages) && p.pages[n] == p.pages[n-1]+1 {
			n++
		}
		run := plain[:min(n*repo.PageSize, len(plain))]
		if _, err := s.file.WriteAt(run, int64(p.pages[0])*repo.PageSize); err != nil {
			return err
		}
		plain, p.pages = plain[len(run):], p.pages[n:]
	}
	return nil
}

// syncFile makes one file durable.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("make %s durable: %w", path, err)
	}
	return nil
}

// syncDir makes the names in one directory durable.
func syncDir(path string) error { return syncFile(filepath.Clean(path)) }
