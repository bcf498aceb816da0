package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"path"
	"strings"

	"pileus/internal/archive"
	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/repo"
)

// parentError: the repository does not give back what the parent backup has, and the server has already
// left it out.
type parentError struct {
	id    string
	cause error
}

func (e *parentError) Error() string {
	return fmt.Sprintf("backup %s cannot be read: %v", e.id, e.cause)
}
func (e *parentError) Unwrap() error { return e.cause }

// whySent says why the server has to send every page; empty: it need not.
func (r *run) whySent() string {
	switch why := r.unfit(); {
	case why != "":
		return why
	case r.info.Major < 17:
		return fmt.Sprintf("over the replication protocol PostgreSQL %d sends every page; from 17 on it can tell what changed", r.info.Major)
	case !r.info.SummarizeWAL:
		return "over the replication protocol the server sends every page, as summarize_wal is off: ALTER SYSTEM SET summarize_wal = on"
	}
	return ""
}

// open starts the BASE_BACKUP: what changed since the parent where the server can tell, else everything, with the reason
// in the manifest.
func (s *stream) open(ctx context.Context, sql *postgres.Conn) error {
	why := s.r.whySent()
	if why == "" {
		err := s.openIncrement(ctx, sql)
		if err == nil || ctx.Err() != nil {
			return err
		}
		s.close(ctx)
		why = fmt.Sprintf("the server does not tell what changed since backup %s: %v", s.r.Parent.ID, err)
		s.r.Progress.Note("every page is sent: %s", why)
	}
	s.r.head.WhyFull, s.cuts = why, nil
	if _, err := s.connect(ctx); err != nil {
		return err
	}
	return s.begin(ctx, false)
}

// openIncrement starts the server's own incremental backup. What the server compares with is the parent's list of files: it
// sends a file whole that is not on it.
func (s *stream) openIncrement(ctx context.Context, sql *postgres.Conn) error {
	r := s.r
	system, err := s.connect(ctx)
	if err != nil {
		return err
	}
	line, err := archive.History(ctx, r.Repo, r.Cluster, system.Timeline)
	if errors.Is(err, repo.ErrNotFound) { // it may be on its way
		_, text, e := s.repl.TimelineHistory(ctx, system.Timeline)
		if err = e; err == nil {
			line, err = pg.ParseHistory(system.Timeline, text)
		}
	}
	if err != nil {
		return err
	}
	if err := r.descends(line); err != nil { // the server itself would not notice
		return err
	}
	r.Progress.Stage("tell the server of the backup before", 0)
	err = s.repl.UploadManifest(ctx, postgres.BackupManifest{SystemIdentifier: r.info.SystemIdentifier, Timeline: r.Parent.Timeline,
		Start: r.Parent.StartLSN, End: r.Parent.StopLSN, Files: func(yield func(string, int64) bool) {
			for name, e := range r.parent.files {
				if r.left(name, e) && !yield(name, e.Size) {
					return
				}
			}
		}})
	if err != nil {
		return err
	}
	if err := s.begin(ctx, true); err != nil {
		return err
	}
	if s.bb.StartTimeline != line.Timeline {
		return fmt.Errorf("it moved from timeline %d to %d", line.Timeline, s.bb.StartTimeline)
	}
	// The server takes blocks for the parent's that lie behind where it cut a relation and that it added again without a
	// word in WAL (a table grows by many empty pages at once since 16). They are zero.
	s.cuts = map[pg.RelFile]uint32{}
	if !r.trusting {
		if s.cuts, err = sql.CutRelations(ctx, line, r.Parent.StartLSN, s.bb.StartLSN); err != nil {
			return err
		}
	}
	r.head.Incremental = true
	return nil
}

// left tells whether the server may leave pages of a file out that the parent has. Not where WAL
// does not tell of every change (a record that clears a bit of the visibility map does not name the map's page),
// nor where the parent's pages were damaged: they may have been mended without a trace.
func (r *run) left(name string, e repo.Entry) bool {
	rel, ok := pg.ParseRelationPath(name)
	return ok && (rel.Fork == pg.ForkMain || r.trusting && rel.Fork == pg.ForkVM) && e.Size%pg.PageSize == 0 && r.parent.damage[name] == nil
}

// incremental is the path of the file of which the server sent a member with some pages.
func (s *stream) incremental(member string) (string, bool) {
	dir, base := path.Split(member)
	base, ok := strings.CutPrefix(base, postgres.IncrementalPrefix)
	return dir + base, ok && s.r.head.Incremental && pg.HasPages(dir+base)
}

// some takes the pages that the server sent of a file; the others are the parent's.
func (s *stream) some(ctx context.Context, t io.Reader, name string, mode uint32, size int64) error {
	head, err := postgres.ReadIncrementalHead(t, size)
	if err != nil {
		return err
	}
	s.r.result.read.Add(size)
	old, known := s.r.parent.files[name]
	if !known || !s.r.left(name, old) {
		return fmt.Errorf("the server left out pages of it, which backup %s does not have", s.r.head.Parent)
	}
	f := s.r.newFile(name, mode, int64(head.Length)*pg.PageSize)
	f.wanted = make([]mask, len(f.chunks))
	for _, b := range head.Blocks {
		f.wanted[chunkOf(b)] |= 1 << (b % pagesPerChunk)
	}
	zero := s.cutOff(f, head.Length, uint32(old.Size/pg.PageSize))
	if len(head.Blocks) == 0 && len(zero) == 0 && old.Size == f.entry.Size {
		s.r.keep(f, old)
		return nil
	}
	if len(f.chunks) > 1 {
		f.patches = make([][]repo.Patch, len(f.chunks))
	}
	for i := range f.chunks {
		p := piece{f: f, index: i}
		if sent := f.wanted[i]; sent != 0 || zero[i] != 0 {
			if p.data, err = s.buffer(ctx); err != nil {
				return err
			}
			if err := s.pages(ctx, t, p.data, sent, zero[i]); err != nil {
				return err
			}
			f.wanted[i] |= zero[i]
		}
		if err := s.hand(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// cutOff finds the pages, by chunk, which the server did not send and which are not the parent's either: they were cut
// off and are there again, empty; or they are new and empty, where a chunk of the parent's may hold what lay behind its end.
func (s *stream) cutOff(f *file, length, before uint32) map[int]mask {
	from := before
	rel, _ := pg.ParseRelationPath(f.entry.Path)
	if limit, cut := s.cuts[rel.RelFile]; cut {
		from = min(before, max(limit, rel.FirstBlock())-rel.FirstBlock())
	}
	const last = pagesPerChunk - 1
	zero := map[int]mask{}
	for b := from; b < min(length, (before+last)&^last); b++ {
		if bit := mask(1) << (b % pagesPerChunk); f.wanted[chunkOf(b)]&bit == 0 {
			zero[chunkOf(b)] |= bit
		}
	}
	return zero
}

// pages reads the pages of a chunk that were sent to their places in buf.
func (s *stream) pages(ctx context.Context, t io.Reader, buf []byte, sent, zero mask) error {
	for at, n := range zero.runs(0) {
		clear(buf[at*pg.PageSize : (at+n)*pg.PageSize])
	}
	for at, n := range sent.runs(0) {
		if err := s.r.await(ctx, n*pg.PageSize); err != nil {
			return err
		}
		if _, err := io.ReadFull(t, buf[at*pg.PageSize:(at+n)*pg.PageSize]); err != nil {
			return fmt.Errorf("the stream broke off: %w", err)
		}
	}
	return nil
}

// merge makes chunk i of a file out of the pages in buf that f.wanted names and the parent's others: the parent's chunk as
// it is, or with one patch more over it, or stored anew.
func (w *worker) merge(ctx context.Context, f *file, i int, buf []byte) error {
	if f.lookUp(ctx, w.r.parent) == nil {
		return &parentError{w.r.head.Parent, fmt.Errorf("%s has no page map", f.entry.Path)}
	}
	valid := min(pagesPerChunk, int(f.entry.Size/pg.PageSize)-i*pagesPerChunk)
	got := f.wanted[i]
	whole := len(f.chunks) == 1 || !f.parent.patchable()
	var wanted mask
	var under []repo.Patch
	if !whole {
		wanted, under = layers(f.parent.patches[i], got, valid)
		whole = 2*bits.OnesCount32(uint32(wanted)) > valid
	}
	if (whole || wanted&^got != 0) && got != 1<<valid-1 {
		if err := w.r.parent.fill(ctx, f.parent, i, got, buf); err != nil {
			return &parentError{w.r.head.Parent, fmt.Errorf("%s: %w", f.entry.Path, err)}
		}
	}
	if whole {
		return w.chunk(ctx, f, i, buf[:valid*pg.PageSize])
	}
	if err := w.lay(f, i, wanted, under, buf); err != nil {
		return err
	}
	w.r.Progress.Add(int64(valid) * pg.PageSize)
	return w.chunkDone(f)
}
