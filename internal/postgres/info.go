package postgres

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"pileus/internal/pg"
)

// Tablespace is one tablespace other than pg_default and pg_global.
type Tablespace struct {
	OID      uint32
	Name     string // empty where only the replication protocol was asked
	Location string // absolute path on the server
	Size     int64  // bytes, an estimate; -1 when unknown
}

// Info is what one look at a server says about it.
type Info struct {
	VersionNum       int    // server_version_num, for example 150013
	Major            int    // 13 to 18
	Version          string // as the server prints it
	SystemIdentifier uint64 // 0 when the role may not see it: then ReplConn.IdentifySystem knows it
	Timeline         pg.TimelineID
	InRecovery       bool
	LSN              pg.LSN // insert position; on a standby the last replayed one
	FlushLSN         pg.LSN // durable position; on a standby the last received one (0 without streaming)

	WALSegmentSize int64 // bytes
	BlockSize      int64 // bytes
	DataChecksums  bool
	FullPageWrites bool
	Fsync          bool

	DataDirectory           string // "" when the role may not see it (needs pg_read_all_settings)
	ConfigFile              string // "" as above
	HBAFile                 string // "" as above
	Port                    int
	UnixSocketDirectories   string
	WALLevel                string
	MaxWALSenders           int
	MaxReplicationSlots     int
	MaxSlotWALKeepSize      int64 // bytes; -1: no limit
	WALSenderTimeout        time.Duration
	ArchiveMode             string // off, on, always
	ArchiveCommand          string
	ArchiveLibrary          string // always "" before 15
	SynchronousStandbyNames string
	SynchronousCommit       string
	SummarizeWAL            bool // always false before 17

	Tablespaces []Tablespace
	Clock       time.Time     // the server's, UTC
	ClockSkew   time.Duration // server clock minus ours, less half the round trip

	User        string
	Superuser   bool
	Replication bool     // rolreplication
	Roles       []string // roles whose privileges the user has, itself excluded

	Privileges Privileges
}

// Privileges are the functions that the role may execute.
type Privileges struct {
	BackupStart        bool // pg_backup_start, before 15 pg_start_backup
	BackupStop         bool // pg_backup_stop, before 15 pg_stop_backup
	SwitchWAL          bool // pg_switch_wal
	CreateRestorePoint bool // pg_create_restore_point
	Checkpoint         bool // the CHECKPOINT statement: superuser, or pg_checkpoint since 15
	ReadAllSettings    bool // member of pg_read_all_settings
	ReadAllStats       bool // member of pg_read_all_stats
}

const infoQuery = `SELECT current_setting('server_version'), pg_is_in_recovery(),
	(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END)::text,
	(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_flush_lsn() END)::text,
	CASE WHEN pg_is_in_recovery() THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END,
	current_user::text, r.rolsuper, r.rolreplication,
	ARRAY(SELECT o.rolname::text FROM pg_roles o WHERE o.oid <> r.oid AND pg_has_role(r.oid, o.oid, 'USAGE') ORDER BY 1)
	FROM pg_roles r WHERE r.rolname = current_user`

const privilegeQuery = `SELECT
	coalesce(has_function_privilege(coalesce(to_regprocedure('pg_catalog.pg_backup_start(text,boolean)'), to_regprocedure('pg_catalog.pg_start_backup(text,boolean,boolean)')), 'EXECUTE'), false),
	coalesce(has_function_privilege(coalesce(to_regprocedure('pg_catalog.pg_backup_stop(boolean)'), to_regprocedure('pg_catalog.pg_stop_backup(boolean,boolean)')), 'EXECUTE'), false),
	has_function_privilege('pg_catalog.pg_switch_wal()', 'EXECUTE'),
	has_function_privilege('pg_catalog.pg_create_restore_point(text)', 'EXECUTE'),
	coalesce(bool_or(r.rolname = 'pg_checkpoint'), false) OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
	coalesce(bool_or(r.rolname = 'pg_read_all_settings'), false),
	coalesce(bool_or(r.rolname = 'pg_read_all_stats'), false)
	FROM pg_roles r WHERE pg_has_role(r.oid, 'USAGE')`

// Info looks at the server once. It works for any role that can connect; what the
// role may not see is left zero, as the field's comment says.
func (c *Conn) Info(ctx context.Context) (Info, error) {
	in := Info{VersionNum: c.version, Major: c.Major()}
	var lsn, flush, walTimeline *string
	err := c.sql.QueryRow(ctx, infoQuery).Scan(&in.Version, &in.InRecovery, &lsn, &flush, &walTimeline,
		&in.User, &in.Superuser, &in.Replication, &in.Roles)
	if err != nil {
		return in, fmt.Errorf("look at server %s: %w", address(c.cfg), err)
	}
	if in.LSN, err = optionalLSN(lsn); err == nil {
		in.FlushLSN, err = optionalLSN(flush)
	}
	if err != nil {
		return in, fmt.Errorf("look at server %s: %w", address(c.cfg), err)
	}
	if walTimeline != nil {
		// The name of a WAL file holds the timeline in hexadecimal.
		t, err := strconv.ParseUint(*walTimeline, 16, 32)
		if err != nil {
			return in, fmt.Errorf("look at server %s: WAL file name starts with %q: %w", address(c.cfg), *walTimeline, err)
		}
		in.Timeline = pg.TimelineID(t)
	}
	p := &in.Privileges
	err = c.sql.QueryRow(ctx, privilegeQuery).Scan(&p.BackupStart, &p.BackupStop, &p.SwitchWAL, &p.CreateRestorePoint,
		&p.Checkpoint, &p.ReadAllSettings, &p.ReadAllStats)
	if err != nil {
		return in, fmt.Errorf("read privileges of %q: %w", in.User, err)
	}
	for _, step := range []func(context.Context, *Info) error{c.readControl, c.readSettings, c.readTablespaces, c.readClock} {
		if err := step(ctx, &in); err != nil {
			return in, err
		}
	}
	return in, nil
}

func optionalLSN(s *string) (pg.LSN, error) {
	if s == nil {
		return 0, nil
	}
	return pg.ParseLSN(*s)
}

// readControl asks the control file, which some hosted servers do not let one do.
func (c *Conn) readControl(ctx context.Context, in *Info) error {
	var system, checkpoint bool
	err := c.sql.QueryRow(ctx, `SELECT has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE'),
		has_function_privilege('pg_catalog.pg_control_checkpoint()', 'EXECUTE')`).Scan(&system, &checkpoint)
	if err != nil {
		return fmt.Errorf("read privileges on control data: %w", err)
	}
	if system {
		var id int64 // the column is a bigint that holds an unsigned value
		if err := c.sql.QueryRow(ctx, "SELECT system_identifier FROM pg_control_system()").Scan(&id); err != nil {
			return fmt.Errorf("read system identifier: %w", err)
		}
		in.SystemIdentifier = uint64(id)
	}
	if checkpoint && in.Timeline == 0 {
		var tli int32
		if err := c.sql.QueryRow(ctx, "SELECT timeline_id FROM pg_control_checkpoint()").Scan(&tli); err != nil {
			return fmt.Errorf("read timeline: %w", err)
		}
		in.Timeline = pg.TimelineID(uint32(tli))
	}
	return nil
}

// readSettings uses pg_settings, which leaves out what the role may not see
// where SHOW would fail.
func (c *Conn) readSettings(ctx context.Context, in *Info) error {
	rows, err := c.sql.Query(ctx, `SELECT name, setting FROM pg_settings WHERE name IN ('data_directory', 'config_file', 'hba_file', 'port',
		'unix_socket_directories', 'wal_level', 'max_wal_senders', 'max_replication_slots', 'max_slot_wal_keep_size', 'wal_sender_timeout',
		'archive_mode', 'archive_command', 'archive_library', 'synchronous_standby_names', 'synchronous_commit', 'summarize_wal',
		'wal_segment_size', 'block_size', 'data_checksums', 'full_page_writes', 'fsync')`)
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	set := map[string]string{}
	var name, value string
	if _, err := pgx.ForEachRow(rows, []any{&name, &value}, func() error { set[name] = value; return nil }); err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	num := func(k string) (n int64) {
		if v, ok := set[k]; ok && err == nil {
			if n, err = strconv.ParseInt(v, 10, 64); err != nil {
				err = fmt.Errorf("setting %s: %w", k, err)
			}
		}
		return n
	}
	in.DataDirectory, in.ConfigFile, in.HBAFile = set["data_directory"], set["config_file"], set["hba_file"]
	in.UnixSocketDirectories, in.WALLevel = set["unix_socket_directories"], set["wal_level"]
	in.ArchiveMode, in.ArchiveCommand, in.ArchiveLibrary = set["archive_mode"], set["archive_command"], set["archive_library"]
	if in.ArchiveCommand == "(disabled)" { // what the server shows while archive_mode is off
		in.ArchiveCommand = ""
	}
	in.SynchronousStandbyNames, in.SynchronousCommit = set["synchronous_standby_names"], set["synchronous_commit"]
	in.DataChecksums, in.FullPageWrites = set["data_checksums"] == "on", set["full_page_writes"] == "on"
	in.Fsync, in.SummarizeWAL = set["fsync"] == "on", set["summarize_wal"] == "on"
	in.Port, in.MaxWALSenders, in.MaxReplicationSlots = int(num("port")), int(num("max_wal_senders")), int(num("max_replication_slots"))
	in.WALSegmentSize, in.BlockSize = num("wal_segment_size"), num("block_size")
	in.WALSenderTimeout = time.Duration(num("wal_sender_timeout")) * time.Millisecond
	in.MaxSlotWALKeepSize = num("max_slot_wal_keep_size")
	if in.MaxSlotWALKeepSize > 0 {
		in.MaxSlotWALKeepSize <<= 20 // the setting counts megabytes
	}
	return err
}

func (c *Conn) readTablespaces(ctx context.Context, in *Info) error {
	rows, err := c.sql.Query(ctx, `SELECT oid, spcname::text, pg_tablespace_location(oid) FROM pg_tablespace
		WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid`)
	if err != nil {
		return fmt.Errorf("list tablespaces: %w", err)
	}
	ts := Tablespace{Size: -1}
	_, err = pgx.ForEachRow(rows, []any{&ts.OID, &ts.Name, &ts.Location}, func() error {
		in.Tablespaces = append(in.Tablespaces, ts)
		return nil
	})
	if err != nil {
		return fmt.Errorf("list tablespaces: %w", err)
	}
	return nil
}

func (c *Conn) readClock(ctx context.Context, in *Info) error {
	before := time.Now()
	if err := c.sql.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&in.Clock); err != nil {
		return fmt.Errorf("read server clock: %w", err)
	}
	trip := time.Since(before)
	in.Clock = in.Clock.UTC()
	in.ClockSkew = in.Clock.Sub(before.Add(trip / 2))
	return nil
}
