package backup

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/repo"
)

// piece is one chunk on its way from the stream to a worker.
type piece struct {
	f     *file
	index int
	data  []byte // of an incremental file: only the pages that f.wanted names are filled in; nil if it names none
}

// stream is a BASE_BACKUP being cut into pieces.
type stream struct {
	r      *run
	repl   *postgres.ReplConn
	bb     *postgres.BaseBackup
	cuts   map[pg.RelFile]uint32 // of an incremental one: to how many blocks relations were cut
	pieces chan piece
	free   chan []byte // buffers that no piece occupies; their number bounds the memory
	before time.Time   // the server's clock before it ended the backup
}

// copyStream takes the backup with BASE_BACKUP: one goroutine reads the stream, the workers do the rest.
func (r *run) copyStream(ctx context.Context, sql *postgres.Conn) error {
	if c := r.info.ConfigFile; c != "" && r.info.DataDirectory != "" && !within(c, r.info.DataDirectory) {
		r.Progress.Note("%s lies outside of the data directory, so this backup does not hold it", c)
	}
	h, err := r.newHorizon(ctx)
	if err != nil {
		return err
	}
	defer h.close(ctx)
	s := &stream{r: r, pieces: make(chan piece, 2*r.Workers), free: make(chan []byte, 4*r.Workers)}
	defer s.close(ctx)
	if err := s.open(ctx, sql); err != nil {
		return err
	}
	bb := s.bb
	r.head.StartLSN, r.head.Timeline, h.start = bb.StartLSN, bb.StartTimeline, bb.StartLSN
	total := max(bb.Size, 0)
	for _, ts := range bb.Tablespaces {
		total += max(ts.Size, 0)
	}
	sent, err := spaces(bb.Tablespaces, r.info.Tablespaces)
	if err != nil {
		return err
	}
	r.Progress.Stage("receive files", total)
	for range cap(s.free) {
		s.free <- make([]byte, repo.ChunkSize)
	}
	err = r.crew(
		func() error {
			defer close(s.pieces)
			return s.receive(ctx, sql)
		},
		func(w *worker) error { return s.work(ctx, h, w) },
		func(*worker) error { return nil })
	if err != nil {
		return err
	}
	r.head.StopLSN, r.head.Label = bb.EndLSN, pg.CompleteLabel(r.head.Label)
	if bb.EndTimeline != bb.StartTimeline {
		return movedTimeline(bb.StartTimeline, bb.EndTimeline)
	}
	if r.head.Tablespaces, err = tablespaces(sent, []byte(r.head.TablespaceMap)); err != nil {
		return err
	}
	return r.ended(ctx, sql, s.before)
}

// connect opens the session that the backup comes over.
func (s *stream) connect(ctx context.Context) (system postgres.System, err error) {
	if s.repl, err = s.r.Replication(ctx); err != nil {
		return system, err
	}
	if system, err = s.repl.IdentifySystem(ctx); err != nil {
		return system, err
	}
	if system.Identifier != s.r.info.SystemIdentifier {
		return system, fmt.Errorf("the replication connection leads to another cluster (system identifier %d) than the SQL connection (%d)",
			system.Identifier, s.r.info.SystemIdentifier)
	}
	return system, nil
}

// close ends the session, and with it a backup that has not ended.
func (s *stream) close(ctx context.Context) {
	if s.repl != nil {
		_ = s.repl.Close(context.WithoutCancel(ctx)) // what was to be had was received
	}
}

// begin starts the backup on the server.
func (s *stream) begin(ctx context.Context, incremental bool) (err error) {
	s.r.Progress.Stage("checkpoint", 0)
	s.bb, err = s.repl.StartBaseBackup(ctx, postgres.BaseBackupOptions{Label: s.r.Label, Fast: !s.r.Spread, EstimateSize: true, Incremental: incremental})
	return err
}

// spaces are the tablespaces that the server sends, with the names that SQL knows. A server
// before 16 leaves out those within the data directory, without a word: that is refused.
func spaces(sent, known []postgres.Tablespace) ([]postgres.Tablespace, error) {
	all := slices.Clone(sent)
	for _, t := range known {
		i := slices.IndexFunc(all, func(s postgres.Tablespace) bool { return s.OID == t.OID })
		switch {
		case i >= 0:
			all[i].Name = t.Name
		case !filepath.IsAbs(t.Location):
			return nil, fmt.Errorf("tablespace %s lies within the data directory, and this server's BASE_BACKUP leaves out such ones: run pileus on the server's host, with mode files", t.Name)
		}
	}
	return all, nil
}

// work takes pieces until there are no more.
func (s *stream) work(ctx context.Context, h *horizon, w *worker) error {
	var spare []byte
	for p := range s.pieces {
		if err := s.check(ctx, h, p); err != nil {
			return err
		}
		store, data := w.chunk, p.data
		if p.f.wanted != nil {
			if store = w.merge; data == nil {
				if spare == nil {
					spare = make([]byte, repo.ChunkSize)
				}
				data = spare
			}
		}
		if err := store(ctx, p.f, p.index, data); err != nil {
			return err
		}
		if p.data != nil {
			s.free <- p.data[:repo.ChunkSize]
		}
	}
	return nil
}

// check verifies the pages of a piece that came from the server.
func (s *stream) check(ctx context.Context, h *horizon, p piece) error {
	if !p.f.pages || p.data == nil {
		return nil
	}
	again := func(ctx context.Context, page []byte, offset int64) error {
		return h.fetch(ctx, p.f.entry.Path, page, offset)
	}
	c := check{r: s.r, h: h, f: p.f, offset: int64(p.index) * repo.ChunkSize, data: p.data, again: again, late: true}
	if p.f.wanted == nil {
		return c.pages(ctx)
	}
	for at, n := range p.f.wanted[p.index].runs(0) {
		c.offset = int64(p.index)*repo.ChunkSize + int64(at)*pg.PageSize
		c.data = p.data[at*pg.PageSize : (at+n)*pg.PageSize]
		if err := c.pages(ctx); err != nil {
			return err
		}
	}
	return nil
}

// receive reads the archives one after the other.
func (s *stream) receive(ctx context.Context, sql *postgres.Conn) error {
	for {
		// The server ends the backup after it has sent the last archive; that one is the data directory,
		// larger than what the connection buffers, so a time from before reading it is
		// from before that end.
		now, err := clock(ctx, sql)
		if err != nil {
			return err
		}
		a, err := s.bb.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		s.before = now
		prefix := ""
		if a.OID != 0 {
			prefix = "pg_tblspc/" + strconv.FormatUint(uint64(a.OID), 10)
			s.r.result.add(repo.Entry{Path: prefix, Type: repo.TypeDir, Mode: 0o700})
		}
		if err := s.unpack(ctx, tar.NewReader(a), prefix); err != nil {
			return err
		}
	}
}

// unpack cuts the members of one archive into pieces.
func (s *stream) unpack(ctx context.Context, t *tar.Reader, prefix string) error {
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read the server's archive: %w", err)
		}
		name := path.Join(prefix, path.Clean("/" + h.Name)[1:])
		mode := uint32(h.Mode) & 0o777
		switch h.Typeflag {
		case tar.TypeDir:
			if name != prefix && name != "" {
				s.r.result.add(repo.Entry{Path: name, Type: repo.TypeDir, Mode: mode})
			}
		case tar.TypeReg:
			if err := s.member(ctx, t, name, mode, h.Size); err != nil {
				return fmt.Errorf("receive %s: %w", name, err)
			}
		}
		// Links are those of pg_tblspc and pg_wal, which restore makes itself.
	}
}

// member takes one file, whose content t holds.
func (s *stream) member(ctx context.Context, t io.Reader, name string, mode uint32, size int64) error {
	switch name {
	case pg.BackupLabelFile:
		return text(t, &s.r.head.Label)
	case pg.TablespaceMapFile:
		return text(t, &s.r.head.TablespaceMap)
	}
	if name, ok := s.incremental(name); ok {
		return s.some(ctx, t, name, mode, size)
	}
	if pg.Excluded(name, false) == pg.Skipped {
		return nil
	}
	s.r.result.read.Add(size)
	f := s.r.newFile(name, mode, size)
	if len(f.chunks) == 0 {
		s.r.result.add(f.entry)
		return nil
	}
	for i := range f.chunks {
		buf, err := s.buffer(ctx)
		if err != nil {
			return err
		}
		n := min(repo.ChunkSize, size-int64(i)*repo.ChunkSize)
		if err := s.r.await(ctx, int(n)); err != nil {
			return err
		}
		if _, err := io.ReadFull(t, buf[:n]); err != nil {
			return fmt.Errorf("the stream broke off: %w", err)
		}
		if err := s.hand(ctx, piece{f, i, buf[:n]}); err != nil {
			return err
		}
	}
	return nil
}

// buffer waits for one that no piece occupies.
func (s *stream) buffer(ctx context.Context) ([]byte, error) {
	select {
	case buf := <-s.free:
		return buf, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// hand gives a piece to the workers.
func (s *stream) hand(ctx context.Context, p piece) error {
	select {
	case s.pieces <- p:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// maxText bounds backup_label and tablespace_map, in bytes.
const maxText = 4 << 20

func text(r io.Reader, to *string) error {
	b, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err == nil && len(b) > maxText {
		err = fmt.Errorf("it has more than %d bytes", maxText)
	}
	*to = string(b)
	return err
}
