package backup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/repo"
)

// whyNotFiles says what speaks against files mode, as far as that can be told
// before the backup starts; nil if nothing does. Errors: ErrOtherHost, postgres.ErrNotPrivileged.
func (r *run) whyNotFiles() error {
	dir, role := r.dataDir(), postgres.QuoteIdent(r.info.User)
	switch {
	case !r.info.Privileges.BackupStart || !r.info.Privileges.BackupStop:
		return fmt.Errorf("%w: role %s may not start and stop backups; as a superuser: %s", postgres.ErrNotPrivileged, role, r.grantBackup())
	case dir == "":
		return fmt.Errorf("%w: role %s may not see where the data directory is; as a superuser: GRANT pg_read_all_settings TO %s (or set data_dir)",
			postgres.ErrNotPrivileged, role, role)
	}
	c, err := readControl(dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrOtherHost, err)
	}
	if c.SystemID != r.info.SystemIdentifier {
		return fmt.Errorf("%w: %s on this host belongs to another cluster", ErrOtherHost, dir)
	}
	return nil
}

// grantBackup is the statement that lets the role take backups in files mode.
func (r *run) grantBackup() string {
	functions := "pg_backup_start(text, boolean), pg_backup_stop(boolean)"
	if r.info.Major < 15 {
		functions = "pg_start_backup(text, boolean, boolean), pg_stop_backup(boolean, boolean)"
	}
	return fmt.Sprintf("GRANT EXECUTE ON FUNCTION %s TO %s", functions, postgres.QuoteIdent(r.info.User))
}

// proveSameHost makes sure that the directory is the running server's and no
// copy of it: its control file must hold the very checkpoint that the server has.
func (r *run) proveSameHost(ctx context.Context, sql *postgres.Conn, start pg.LSN) (pg.Control, error) {
	dir := r.dataDir()
	state := pg.StateInProduction
	if r.info.InRecovery {
		state = pg.StateInArchiveRecovery
	}
	for try := 0; ; try++ {
		c, err := readControl(dir)
		switch {
		case err != nil:
			return c, fmt.Errorf("%w: %w", ErrOtherHost, err)
		case c.SystemID != r.info.SystemIdentifier:
			return c, fmt.Errorf("%w: %s belongs to another cluster", ErrOtherHost, dir)
		case c.State != state:
			return c, fmt.Errorf("%w: %s is a copy: its server is %s, the one that was asked is %s", ErrOtherHost, dir, c.State, state)
		case c.CheckpointRedo == start:
			return c, nil
		}
		// Another checkpoint may have followed the backup's.
		var redo string
		err = sql.SQL().QueryRow(ctx, `SELECT redo_lsn::text FROM pg_control_checkpoint()`).Scan(&redo)
		if err != nil {
			return c, fmt.Errorf("read the server's last checkpoint: %w", err)
		}
		if c.CheckpointRedo > start && redo == c.CheckpointRedo.String() {
			return c, nil
		}
		if try == len(rereads) {
			return c, fmt.Errorf("%w: %s does not have the checkpoint that the server just made", ErrOtherHost, dir)
		}
	}
}

// tablespaces keeps those that recovery from the backup starts with: map is the
// backup's tablespace_map, which does not list tablespaces within the data directory.
func tablespaces(all []postgres.Tablespace, text []byte) ([]repo.Tablespace, error) {
	maps, err := pg.ParseTablespaceMap(text)
	if err != nil {
		return nil, err
	}
	var out []repo.Tablespace
	for _, m := range maps {
		t := repo.Tablespace{OID: uint32(m.OID), Location: m.Path}
		if i := slices.IndexFunc(all, func(s postgres.Tablespace) bool { return s.OID == t.OID }); i >= 0 {
			t.Name = all[i].Name
		}
		out = append(out, t)
	}
	for _, s := range all {
		known := slices.ContainsFunc(out, func(t repo.Tablespace) bool { return t.OID == s.OID })
		if !known && !filepath.IsAbs(s.Location) {
			out = append(out, repo.Tablespace{OID: s.OID, Name: s.Name, Location: s.Location})
		}
	}
	return out, nil
}

// strangers drops files of tablespaces that came into being after the backup
// started: replay makes them anew, and nothing says where they would go.
func strangers(entries []repo.Entry, known []repo.Tablespace) []repo.Entry {
	return slices.DeleteFunc(entries, func(e repo.Entry) bool {
		oid, below := tablespaceOf(e.Path)
		return below && !slices.ContainsFunc(known, func(t repo.Tablespace) bool { return strconv.FormatUint(uint64(t.OID), 10) == oid })
	})
}

func databases(ctx context.Context, sql *postgres.Conn) (map[uint32]string, error) {
	rows, err := sql.SQL().Query(ctx, `SELECT oid, datname::text FROM pg_database`)
	out := map[uint32]string{}
	if err == nil {
		var oid uint32
		var name string
		_, err = pgx.ForEachRow(rows, []any{&oid, &name}, func() error { out[oid] = name; return nil })
	}
	if err != nil {
		return nil, fmt.Errorf("list databases: %w", err)
	}
	return out, nil
}

// clock is the server's, in UTC.
func clock(ctx context.Context, sql *postgres.Conn) (t time.Time, err error) {
	if err = sql.SQL().QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&t); err != nil {
		return t, fmt.Errorf("read the server's clock: %w", err)
	}
	return t.UTC(), nil
}

// ended fills in the times after the server has ended the backup. before is its clock before that.
func (r *run) ended(ctx context.Context, sql *postgres.Conn, before time.Time) (err error) {
	r.head.CompleteTo = before
	if r.head.Stopped, err = clock(ctx, sql); err != nil || !r.info.InRecovery {
		return err
	}
	// What a standby has not replayed yet may have been committed before any time,
	// and the primary's clock, which commits bear, may be ahead of the standby's.
	r.head.CompleteTo = time.Time{}
	var last *time.Time
	var tli *int32
	err = sql.SQL().QueryRow(ctx, `SELECT pg_last_xact_replay_timestamp(), nullif(min_recovery_end_timeline, 0) FROM pg_control_recovery()`).Scan(&last, &tli)
	if err != nil {
		return fmt.Errorf("read how far the standby has replayed: %w", err)
	}
	if last != nil && last.After(r.head.Stopped) {
		r.head.Stopped = last.UTC()
	}
	if tli != nil && pg.TimelineID(uint32(*tli)) != r.head.Timeline {
		return movedTimeline(r.head.Timeline, pg.TimelineID(uint32(*tli)))
	}
	return nil
}

func movedTimeline(from, to pg.TimelineID) error {
	return fmt.Errorf("the server moved from timeline %d to %d during the backup: take another", from, to)
}

// identFile is where pg_ident.conf lies; empty if the role may not see it.
func identFile(ctx context.Context, sql *postgres.Conn) (string, error) {
	var path string
	err := sql.SQL().QueryRow(ctx, `SELECT setting FROM pg_settings WHERE name = 'ident_file'`).Scan(&path)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("read setting ident_file: %w", err)
	}
	return path, nil
}
