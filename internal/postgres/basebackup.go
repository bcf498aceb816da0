package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5/pgproto3"

	"pileus/internal/pg"
)

// BaseBackupOptions shapes a BASE_BACKUP.
type BaseBackupOptions struct {
	Label        string // shown in backup_label; at most 1023 bytes
	Fast         bool   // checkpoint at once instead of spread out
	EstimateSize bool   // have the server measure each tablespace first, which reads all folders
	MaxRateKiB   int    // kibibytes per second, 32 to 1048576; 0: no limit
	// VerifyChecksums lets the server check pages as it reads. Off is the
	// default here: who reads the stream checks every page anyway and can name it.
	VerifyChecksums bool
	// Incremental leaves out what the backup has whose manifest was uploaded on this session: see
	// UploadManifest and IncrementalHead. PostgreSQL 17 and later, with summarize_wal.
	Incremental bool
}

// BaseBackup is a running BASE_BACKUP. Read it in this order: Next until io.EOF, each Archive to
// its end (or not: Next discards the rest), then EndLSN. It occupies its ReplConn
// until Next returned io.EOF; to abort, close the connection.
type BaseBackup struct {
	StartLSN      pg.LSN // WAL is needed from here
	StartTimeline pg.TimelineID
	Tablespaces   []Tablespace // without pg_default; in no archive order. Name is empty
	Size          int64        // bytes of the data directory, an estimate; -1 unless asked for

	EndLSN      pg.LSN // set when Next has returned io.EOF: consistent once replayed up to here
	EndTimeline pg.TimelineID

	r        *ReplConn
	ctx      context.Context // of StartBaseBackup: the stream lives inside that call's scope
	framed   bool            // 15 and later: one copy with typed messages
	order    []uint32        // archives still to come, 0 is the data directory; before 15 in this very order
	current  *Archive
	pending  string // 15 and later: name of an archive whose header was read already
	copying  bool
	finished bool
	err      error
}

// Archive is one tar archive of a base backup, to be read to io.EOF. Before PostgreSQL 15 it lacks the
// two zero blocks at its end, which archive/tar does not mind.
type Archive struct {
	OID uint32 // the tablespace; 0: the data directory, with tablespace_map and, as first member, backup_label

	b    *BaseBackup
	buf  []byte
	done bool
}

// StartBaseBackup runs BASE_BACKUP with a tablespace map, without WAL, without the server's manifest
// and without waiting for the archiver. It returns when the server's checkpoint is
// done. ctx governs the whole stream, not only this call. Error: ErrNotPrivileged.
func (r *ReplConn) StartBaseBackup(ctx context.Context, opts BaseBackupOptions) (*BaseBackup, error) {
	if opts.MaxRateKiB != 0 && (opts.MaxRateKiB < 32 || opts.MaxRateKiB > 1<<20) {
		return nil, fmt.Errorf("start base backup: a rate of %d KiB/s is outside of 32 to 1048576", opts.MaxRateKiB)
	}
	version, err := r.versionNum(ctx)
	if err != nil {
		return nil, fmt.Errorf("start base backup: %w", err)
	}
	if opts.Incremental && version < 170000 {
		return nil, errors.New("start base backup: only PostgreSQL 17 and later send incremental ones")
	}
	b := &BaseBackup{r: r, ctx: ctx, framed: version >= 150000, Size: -1}
	if err := r.send(ctx, baseBackupCommand(version, opts)); err != nil {
		return nil, fmt.Errorf("start base backup: %w", err)
	}
	if err := b.readHeader(); err != nil {
		r.abandon(ctx)
		return nil, fmt.Errorf("start base backup: %w", privilege(err))
	}
	return b, nil
}

func (r *ReplConn) versionNum(ctx context.Context) (int, error) {
	s, err := r.Show(ctx, "server_version_num")
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("server_version_num is %q: %w", s, err)
	}
	return n, nil
}

func baseBackupCommand(version int, o BaseBackupOptions) string {
	label := quoteReplication(o.Label)
	if version < 150000 {
		cmd := "BASE_BACKUP LABEL " + label
		if o.EstimateSize {
			cmd += " PROGRESS"
		}
		if o.Fast {
			cmd += " FAST"
		}
		cmd += " NOWAIT"
		if o.MaxRateKiB != 0 {
			cmd += " MAX_RATE " + strconv.Itoa(o.MaxRateKiB)
		}
		cmd += " TABLESPACE_MAP"
		if !o.VerifyChecksums {
			cmd += " NOVERIFY_CHECKSUMS"
		}
		return cmd + " MANIFEST 'no'"
	}
	cmd := "BASE_BACKUP (LABEL " + label
	if o.EstimateSize {
		cmd += ", PROGRESS"
	}
	if o.Fast {
		cmd += ", CHECKPOINT 'fast'"
	}
	cmd += ", WAIT 0"
	if o.MaxRateKiB != 0 {
		cmd += ", MAX_RATE " + strconv.Itoa(o.MaxRateKiB)
	}
	cmd += ", TABLESPACE_MAP"
	if !o.VerifyChecksums {
		cmd += ", VERIFY_CHECKSUMS 0"
	}
	if o.Incremental {
		cmd += ", INCREMENTAL"
	}
	return cmd + ", MANIFEST 'no')"
}

// readHeader reads the two result sets that come before the data: start
// position, and tablespaces.
func (b *BaseBackup) readHeader() error {
	rows, err := b.resultSet(nil)
	if err != nil {
		return err
	}
	if b.StartLSN, b.StartTimeline, err = position(rows); err != nil {
		return fmt.Errorf("start position: %w", err)
	}
	if rows, err = b.resultSet(nil); err != nil {
		return err
	}
	for _, row := range rows {
		if len(row) < 3 {
			return fmt.Errorf("tablespace list has %d columns instead of 3", len(row))
		}
		size := int64(-1)
		if row[2] != nil {
			kib, err := strconv.ParseInt(string(row[2]), 10, 64)
			if err != nil {
				return fmt.Errorf("size of a tablespace: %w", err)
			}
			size = kib << 10
		}
		if row[0] == nil {
			b.Size = size
			b.order = append(b.order, 0)
			continue
		}
		oid, err := strconv.ParseUint(string(row[0]), 10, 32)
		if err != nil || oid == 0 {
			return fmt.Errorf("tablespace list names the OID %q", row[0])
		}
		b.Tablespaces = append(b.Tablespaces, Tablespace{OID: uint32(oid), Location: string(row[1]), Size: size})
		b.order = append(b.order, uint32(oid))
	}
	return nil
}

// resultSet collects the rows of one result set up to its CommandComplete. first
// is a message that was read already, or nil.
func (b *BaseBackup) resultSet(first pgproto3.BackendMessage) ([][][]byte, error) {
	var rows [][][]byte
	described := false
	if _, ok := first.(*pgproto3.RowDescription); ok {
		described = true
	}
	for {
		msg, err := b.r.receive(b.ctx)
		if err != nil {
			return nil, err
		}
		switch m := msg.(type) {
		case *pgproto3.RowDescription:
			described = true
		case *pgproto3.DataRow:
			row := make([][]byte, len(m.Values))
			for i, v := range m.Values {
				if v != nil {
					row[i] = append([]byte{}, v...)
				}
			}
			rows = append(rows, row)
		case *pgproto3.CommandComplete:
			if !described {
				return nil, errors.New("the server ended the base backup without an answer")
			}
			return rows, nil
		default:
			return nil, fmt.Errorf("unexpected message %T where a result set was due", m)
		}
	}
}

func position(rows [][][]byte) (pg.LSN, pg.TimelineID, error) {
	if len(rows) != 1 || len(rows[0]) < 2 {
		return 0, 0, errors.New("the server sent no position")
	}
	lsn, err := pg.ParseLSN(string(rows[0][0]))
	if err != nil {
		return 0, 0, err
	}
	tli, err := parseTimeline(string(rows[0][1]))
	return lsn, tli, err
}

// Location is the tablespace's folder on the server, "" for OID 0.
func (b *BaseBackup) Location(oid uint32) string {
	for _, t := range b.Tablespaces {
		if t.OID == oid {
			return t.Location
		}
	}
	return ""
}

// Next discards what is left of the current archive and opens the next one. It returns io.EOF when the
// server has finished the backup well; only then is the backup whole and EndLSN set.
func (b *BaseBackup) Next() (*Archive, error) {
	if b.err != nil {
		return nil, b.err
	}
	a, err := b.next()
	if err != nil {
		if err != io.EOF {
			err = b.fail(err)
		}
		b.err = err
		return nil, err
	}
	return a, nil
}

func (b *BaseBackup) next() (*Archive, error) {
	if b.current != nil {
		if _, err := io.Copy(io.Discard, b.current); err != nil {
			return nil, err
		}
		b.current = nil
	}
	if b.pending != "" {
		return b.open()
	}
	if b.finished {
		return nil, io.EOF
	}
	if b.copying { // before the first archive of a framed copy
		if err := b.skipToArchive(); err != nil {
			return nil, err
		}
		return b.next()
	}
	msg, err := b.r.receive(b.ctx)
	if err != nil {
		return nil, err
	}
	switch msg.(type) {
	case *pgproto3.CopyOutResponse:
		b.copying = true
		if b.framed {
			return b.next()
		}
		if len(b.order) == 0 {
			return nil, errors.New("the server sent more archives than it has tablespaces")
		}
		b.current = &Archive{OID: b.order[0], b: b}
		b.order = b.order[1:]
		return b.current, nil
	case *pgproto3.RowDescription:
		if len(b.order) > 0 {
			return nil, fmt.Errorf("the server ended the base backup with %d archives missing", len(b.order))
		}
		return nil, b.readEnd(msg)
	}
	return nil, fmt.Errorf("unexpected message %T in a base backup", msg)
}

func (b *BaseBackup) readEnd(first pgproto3.BackendMessage) error {
	rows, err := b.resultSet(first)
	if err != nil {
		return err
	}
	lsn, tli, err := position(rows)
	if err != nil {
		return fmt.Errorf("end position: %w", err)
	}
	// A failure on the server can still follow, for example bad checksums.
	if err := b.r.drain(b.ctx); err != nil {
		return err
	}
	b.EndLSN, b.EndTimeline, b.finished = lsn, tli, true
	return io.EOF
}

// open makes the pending archive of a framed copy the current one.
func (b *BaseBackup) open() (*Archive, error) {
	name := b.pending
	b.pending = ""
	oid, err := archiveOID(name)
	if err != nil {
		return nil, err
	}
	at := slices.Index(b.order, oid)
	if at < 0 {
		return nil, fmt.Errorf("the server sent archive %s, which is not in its list of tablespaces, or sent it twice", name)
	}
	b.order = slices.Delete(b.order, at, at+1)
	b.current = &Archive{OID: oid, b: b}
	return b.current, nil
}

func (b *BaseBackup) skipToArchive() error {
	for b.copying && b.pending == "" {
		if _, err := b.frame(); err != nil {
			return err
		}
	}
	return nil
}

// fail closes the connection, on which the rest of the backup would still come.
func (b *BaseBackup) fail(err error) error {
	b.r.abandon(b.ctx)
	return fmt.Errorf("base backup: %w", err)
}

// Read reads the archive's tar bytes.
func (a *Archive) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(a.buf) == 0 {
		if a.done || a.b.current != a {
			return 0, io.EOF
		}
		if a.b.err != nil {
			return 0, a.b.err
		}
		if err := a.fill(); err != nil {
			a.b.err = a.b.fail(err)
			return 0, a.b.err
		}
	}
	n := copy(p, a.buf)
	a.buf = a.buf[n:]
	return n, nil
}

func (a *Archive) fill() error {
	if a.b.framed {
		data, err := a.b.frame()
		if err != nil {
			return err
		}
		a.buf = data
		a.done = len(data) == 0 && (a.b.pending != "" || !a.b.copying)
		return nil
	}
	msg, err := a.b.r.receive(a.b.ctx)
	if err != nil {
		return err
	}
	switch m := msg.(type) {
	case *pgproto3.CopyData:
		a.buf = m.Data
	case *pgproto3.CopyDone:
		a.done, a.b.copying = true, false
	default:
		return fmt.Errorf("unexpected message %T in an archive", msg)
	}
	return nil
}
