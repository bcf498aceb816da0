package backup

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"

	"golang.org/x/sync/errgroup"

	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/repo"
)

// piece is one chunk on its way from the stream to a worker.
type piece struct {
	f     *file
	index int
	data  []byte
}

// copyStream takes the backup with BASE_BACKUP. One goroutine reads the stream,
// the workers do the rest; memory is bounded by the buffers between them.
func (r *run) copyStream(ctx context.Context, sql *postgres.Conn) error {
	repl, err := r.Replication(ctx)
	if err != nil {
		return err
	}
	defer repl.Close(context.WithoutCancel(ctx))
	r.Progress.Stage("checkpoint", 0)
	bb, err := repl.StartBaseBackup(ctx, postgres.BaseBackupOptions{Label: r.Label, Fast: !r.Spread, EstimateSize: true})
	if err != nil {
		return err
	}
	r.head.StartLSN, r.head.Timeline = bb.StartLSN, bb.StartTimeline
	total := max(bb.Size, 0)
	for _, ts := range bb.Tablespaces {
		total += max(ts.Size, 0)
	}
	r.Progress.Stage("receive files", total)
	// The end of WAL is not asked for page by page: the server may be far away.
	h := &horizon{start: bb.StartLSN}
	pieces := make(chan piece, 2*r.Workers)
	free := make(chan []byte, 4*r.Workers)
	for range cap(free) {
		free <- make([]byte, repo.ChunkSize)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(pieces)
		return r.receive(gctx, sql, bb, pieces, free)
	})
	for range r.Workers {
		g.Go(func() error {
			w := &worker{r: r, w: r.packer.Writer()}
			defer w.w.Close()
			for p := range pieces {
				if p.f.pages {
					if err := r.checkPages(gctx, h, p.f, int64(p.index)*repo.ChunkSize, p.data, nil); err != nil {
						return err
					}
				}
				if err := w.chunk(gctx, p.f, p.index, p.data); err != nil {
					return err
				}
				free <- p.data[:repo.ChunkSize]
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	r.head.StopLSN = bb.EndLSN
	if bb.EndTimeline != bb.StartTimeline {
		return fmt.Errorf("the server moved from timeline %d to %d during the backup: take another", bb.StartTimeline, bb.EndTimeline)
	}
	r.head.Stopped, err = clock(ctx, sql)
	return err
}

// receive reads the archives one after the other.
func (r *run) receive(ctx context.Context, sql *postgres.Conn, bb *postgres.BaseBackup, pieces chan<- piece, free <-chan []byte) error {
	for {
		// The server ends the backup after it has sent the last archive; each is
		// larger than what the connection buffers, so a time from before reading it is
		// from before that end.
		now, err := clock(ctx, sql)
		if err != nil {
			return err
		}
		a, err := bb.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		r.head.CompleteTo = now
		prefix := ""
		if a.OID != 0 {
			prefix = "pg_tblspc/" + strconv.FormatUint(uint64(a.OID), 10)
			r.result.add(repo.Entry{Path: prefix, Type: repo.TypeDir, Mode: 0o700})
		}
		if err := r.unpack(ctx, tar.NewReader(a), prefix, pieces, free); err != nil {
			return err
		}
	}
}

// unpack cuts the members of one archive into pieces.
func (r *run) unpack(ctx context.Context, t *tar.Reader, prefix string, pieces chan<- piece, free <-chan []byte) error {
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
				r.result.add(repo.Entry{Path: name, Type: repo.TypeDir, Mode: mode})
			}
		case tar.TypeReg:
			if err := r.member(ctx, t, name, mode, h.Size, pieces, free); err != nil {
				return fmt.Errorf("receive %s: %w", name, err)
			}
		}
		// Links are those of pg_tblspc and pg_wal, which restore makes itself.
	}
}

func (r *run) member(ctx context.Context, t io.Reader, name string, mode uint32, size int64, pieces chan<- piece, free <-chan []byte) error {
	switch name {
	case pg.BackupLabelFile, pg.TablespaceMapFile:
		text, err := io.ReadAll(io.LimitReader(t, 1<<20))
		if name == pg.BackupLabelFile {
			r.head.Label = string(text)
		} else {
			r.head.TablespaceMap = string(text)
		}
		return err
	}
	if pg.Excluded(name, false) == pg.Skipped {
		return nil
	}
	f := r.newFile(name, mode, size)
	if len(f.chunks) == 0 {
		r.result.add(f.entry)
		return nil
	}
	for i := range f.chunks {
		var buf []byte
		select {
		case buf = <-free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		n := min(repo.ChunkSize, size-int64(i)*repo.ChunkSize)
		if _, err := io.ReadFull(t, buf[:n]); err != nil {
			return fmt.Errorf("the stream broke off: %w", err)
		}
		select {
		case pieces <- piece{f, i, buf[:n]}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
