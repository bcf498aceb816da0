package dbserver

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"pileus/internal/postgres"
)

const (
	confName   = "pileus.conf"
	mainConf   = "postgresql.conf"
	autoConf   = "postgresql.auto.conf"
	sourceConf = "pileus.source.conf" // a restored cluster's own ALTER SYSTEM settings
	signalName = "standby.signal"
)

func (s *Server) confFile() string { return filepath.Join(s.DataDir(), confName) }

// reserved are settings besides those that pileus.conf always has which a parameter group must not touch:
// they would let it leave the data directory, run programs, or turn off what backups rely on.
var reserved = []string{
	"archive_cleanup_command", "archive_command", "archive_library", "archive_timeout", "allow_alter_system", "config_file", "data_directory",
	"dynamic_library_path", "external_pid_file", "fsync", "full_page_writes", "krb_server_keyfile", "local_preload_libraries", "log_file_mode",
	"primary_conninfo", "primary_slot_name", "recovery_end_command", "recovery_target", "recovery_target_action", "recovery_target_inclusive",
	"recovery_target_lsn", "recovery_target_name", "recovery_target_time", "recovery_target_timeline", "recovery_target_xid", "restore_command",
	"session_preload_libraries", "ssl_passphrase_command", "ssl_passphrase_command_supports_reload", "ssl_ca_file", "ssl_crl_file", "ssl_crl_dir",
	"syslog_facility", "syslog_ident", "unix_socket_group", "bonjour", "bonjour_name", "event_source", "promote_trigger_file", "zero_damaged_pages",
	"ignore_checksum_failure", "ignore_system_indexes", "ignore_invalid_pages", "allow_in_place_tablespaces", "allow_system_table_mods",
}

// Ours tells whether a setting is Pileus's to make.
func Ours(name string) bool {
	_, ok := (&Server{}).fixed(Spec{})[name]
	return ok || slices.Contains(reserved, name)
}

// defaults are settings that a parameter group may change.
var defaults = map[string]string{
	"max_slot_wal_keep_size":        "16GB", // the disk is worth more than a receiver that is away
	"wal_keep_size":                 "256MB",
	"log_line_prefix":               "%m [%p] %u@%d ",
	"log_checkpoints":               "on",
	"checkpoint_timeout":            "5min",
	"idle_replication_slot_timeout": "", // of 18 on; left alone
}

// fixed are the settings that are always Pileus's.
func (s *Server) fixed(spec Spec) map[string]string {
	set := map[string]string{
		"cluster_name": spec.Name, "port": strconv.Itoa(spec.Port), "listen_addresses": strings.Join(spec.Listen, ","),
		"unix_socket_directories": s.socketDir(), "unix_socket_permissions": "0700",
		"hba_file": filepath.Join(s.confDir(), "pg_hba.conf"), "ident_file": filepath.Join(s.confDir(), "pg_ident.conf"),
		"ssl": "on", "ssl_cert_file": filepath.Join(s.confDir(), "server.crt"), "ssl_key_file": filepath.Join(s.confDir(), "server.key"),
		"password_encryption": "scram-sha-256", "wal_level": "replica", "max_wal_senders": "10", "max_replication_slots": "10",
		"hot_standby": "on", "archive_mode": "off", "synchronous_standby_names": "",
		"logging_collector": "on", "log_destination": "stderr", "log_directory": s.LogDir(), "log_filename": "postgresql-%a.log",
		"log_truncate_on_rotation": "on", "log_rotation_age": "1d", "log_rotation_size": "0",
	}
	if spec.Standby != nil {
		set["primary_conninfo"], set["primary_slot_name"] = spec.Standby.Primary, spec.Standby.Slot
	}
	return set
}

// conf is the text of pileus.conf.
func (s *Server) conf(spec Spec) string {
	set := map[string]string{}
	for name, value := range defaults {
		if value != "" {
			set[name] = value
		}
	}
	maps.Copy(set, spec.Settings)
	maps.Copy(set, s.fixed(spec))
	var b strings.Builder
	b.WriteString("# Written by Pileus and replaced at every change: use a parameter group.\n")
	for _, name := range slices.Sorted(maps.Keys(set)) {
		b.WriteString(postgres.FormatSetting(name, set[name]) + "\n")
	}
	return b.String()
}

// include makes postgresql.conf read pileus.conf last. What ALTER SYSTEM set in a restored cluster's source is
// kept, but read before.
func (s *Server) include() error {
	main, auto := filepath.Join(s.DataDir(), mainConf), filepath.Join(s.DataDir(), autoConf)
	text, err := os.ReadFile(main)
	if err != nil {
		return err
	}
	own, err := os.ReadFile(auto)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	body := string(text)
	if i := strings.Index(body, includeMark); i >= 0 {
		body = body[:i]
	}
	body = strings.TrimRight(body, "\n") + "\n" + includeMark
	if len(strings.TrimSpace(string(own))) > 0 {
		if err := s.write(filepath.Join(s.DataDir(), sourceConf), string(own)); err != nil {
			return err
		}
	}
	body += "include_if_exists = '" + sourceConf + "'\ninclude = '" + confName + "'\n"
	if err := s.write(main, body); err != nil {
		return err
	}
	return s.write(auto, "# Pileus: use a parameter group instead of ALTER SYSTEM.\n")
}

const includeMark = "\n# Pileus: what follows counts last.\n"

// Configure writes what makes the server be like spec, and tells whether a server that runs
// has to be restarted for it. Settings that the server would not start with are refused, and
// those before stay.
func (s *Server) Configure(ctx context.Context, spec Spec) (restart bool, err error) {
	if err := s.certificate(spec.Hosts); err != nil {
		return false, err
	}
	if err := s.write(filepath.Join(s.confDir(), "pg_ident.conf"), s.ident()); err != nil {
		return false, err
	}
	if err := s.write(filepath.Join(s.confDir(), "pg_hba.conf"), hba(spec)); err != nil {
		return false, err
	}
	before, err := os.ReadFile(s.confFile())
	if err != nil && !os.IsNotExist(err) {
		return false, err
	}
	if err := s.write(s.confFile(), s.conf(spec)); err != nil {
		return false, err
	}
	if err := s.instance().CheckConf(ctx); err != nil {
		if len(before) > 0 {
			if werr := s.write(s.confFile(), string(before)); werr != nil {
				return false, werr
			}
		}
		return false, fmt.Errorf("the server does not take its settings: %w", err)
	}
	if err := s.signal(spec.Standby != nil); err != nil {
		return false, err
	}
	if up, err := s.Running(); err != nil || !up {
		return false, err
	}
	return s.reload(ctx)
}

// signal makes the data directory one of a standby, or not. A primary never becomes a standby
// that way: Clone makes those.
func (s *Server) signal(standby bool) error {
	path := filepath.Join(s.DataDir(), signalName)
	if standby {
		return s.write(path, "")
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

const reloadTime = 10 * time.Second

// reload makes the running server read its settings, and tells whether some of them
// wait for a restart.
func (s *Server) reload(ctx context.Context) (restart bool, err error) {
	conn, err := s.Connect(ctx, "postgres")
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var before time.Time
	if err := conn.SQL().QueryRow(ctx, "SELECT pg_conf_load_time()").Scan(&before); err != nil {
		return false, err
	}
	if err := conn.Reload(ctx); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, reloadTime)
	defer cancel()
	for {
		var loaded time.Time
		if err := conn.SQL().QueryRow(ctx, "SELECT pg_conf_load_time(), EXISTS (SELECT FROM pg_settings WHERE pending_restart)").Scan(&loaded, &restart); err != nil {
			return false, fmt.Errorf("wait until the server has read its settings: %w", err)
		}
		if loaded.After(before) {
			return restart, nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ident lets root and the server's account be Admin on the socket.
func (s *Server) ident() string {
	names := []string{"root"}
	if s.owner != nil && s.owner.Name != "" && s.owner.Name != "root" {
		names = append(names, s.owner.Name)
	}
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "pileus \"%s\" %s\n", n, Admin)
	}
	return b.String()
}

// hba says who may connect how. Its method md5 is SCRAM for whoever has a SCRAM password, as all have who got theirs
// here; roles of a restored database may have older ones, and their applications are to get in all the same.
func hba(spec Spec) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by Pileus and replaced at every change: use security groups.\nlocal all,replication %[1]s peer map=pileus\nlocal all all reject\nhost all,replication %[1]s all reject\n", Admin)
	for _, p := range spec.Access {
		fmt.Fprintf(&b, "hostssl all all %s md5\n", p.Masked())
	}
	return b.String()
}
