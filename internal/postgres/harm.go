package postgres

import (
	"path/filepath"
	"slices"
	"strings"
)

// Harm is a setting of a source cluster that would hurt if a restored copy kept it.
type Harm struct {
	Setting Setting
	Reason  string // one clause
	// Replacement is the value that makes it harmless, to be written where it
	// counts last (postgresql.auto.conf).
	Replacement string
	// Remove says that no value helps and the line itself must go: includes, and
	// what a server accepts only once or only in postgresql.conf.
	Remove bool
}

// harmless maps settings that always harm a copy to the value that does not.
var harmless = map[string]struct{ reason, value string }{
	"archive_command":            {"the copy would write into the source's WAL archive", ""},
	"archive_library":            {"the copy would write into the source's WAL archive", ""},
	"archive_mode":               {"the copy would write into the source's WAL archive", "off"},
	"archive_cleanup_command":    {"the copy would delete from the source's WAL archive", ""},
	"recovery_end_command":       {"it was meant for the source", ""},
	"restore_command":            {"it names where the source recovered from", ""},
	"recovery_target":            {"it is the target of an earlier recovery", ""},
	"recovery_target_name":       {"it is the target of an earlier recovery", ""},
	"recovery_target_time":       {"it is the target of an earlier recovery", ""},
	"recovery_target_xid":        {"it is the target of an earlier recovery", ""},
	"recovery_target_lsn":        {"it is the target of an earlier recovery", ""},
	"recovery_target_inclusive":  {"it belongs to an earlier recovery", "on"},
	"recovery_target_timeline":   {"it belongs to an earlier recovery", "latest"},
	"recovery_target_action":     {"it belongs to an earlier recovery", "pause"},
	"synchronous_standby_names":  {"every commit would wait for standbys that the copy does not have", ""},
	"synchronized_standby_slots": {"logical decoding would wait for slots that the copy does not have", ""},
	"primary_conninfo":           {"the copy would follow the source's primary", ""},
	"primary_slot_name":          {"the copy would use up a slot of the source's primary", ""},
	"promote_trigger_file":       {"a file meant for the source would promote the copy", ""},
	"port":                       {"the source may listen there", "5432"},
	"unix_socket_directories":    {"the source's socket may lie there, and the folder may not exist here", ""},
	"listen_addresses":           {"the addresses may not be this host's", "localhost"},
	"cluster_name":               {"two clusters would show the same name", ""},
	"bonjour":                    {"the copy would announce itself as the source", "off"},
}

// outside are settings that name a file or folder, which harms when it lies outside of the data directory.
// ok = false: no value is harmless for sure, so the line must go.
var outside = map[string]struct {
	reason string
	value  string
	ok     bool
}{
	"data_directory":       {"it names the source's data directory", "", false},
	"hba_file":             {"it lies outside of the data directory", "", false},
	"ident_file":           {"it lies outside of the data directory", "", false},
	"external_pid_file":    {"the source writes the same file", "", true},
	"log_directory":        {"the copy would write into the source's logs", "log", true},
	"ssl_cert_file":        {"it lies outside of the data directory", "server.crt", true},
	"ssl_key_file":         {"it lies outside of the data directory", "server.key", true},
	"ssl_ca_file":          {"it lies outside of the data directory", "", true},
	"ssl_crl_file":         {"it lies outside of the data directory", "", true},
	"ssl_crl_dir":          {"it lies outside of the data directory", "", true},
	"ssl_dh_params_file":   {"it lies outside of the data directory", "", true},
	"krb_server_keyfile":   {"it lies outside of the data directory", "", true},
	"stats_temp_directory": {"the source writes there", "pg_stat_tmp", true},
}

// Harms lists what in the configuration would harm a copy that starts in dataDir, in reading
// order, with every occurrence. An include that leaves the data directory is one, too.
func (c Conf) Harms(dataDir string) []Harm {
	var harms []Harm
	for _, in := range c.Includes {
		if leaves(in.Path, dataDir) {
			harms = append(harms, Harm{Setting: in.Setting, Reason: "it reads files outside of the data directory", Remove: true})
		}
	}
	for _, s := range c.Settings {
		if h, ok := harmless[s.Name]; ok && s.Value != h.value {
			harms = append(harms, Harm{Setting: s, Reason: h.reason, Replacement: h.value})
		}
		if o, ok := outside[s.Name]; ok && s.Value != "" && leaves(s.Value, dataDir) {
			harms = append(harms, Harm{Setting: s, Reason: o.reason, Replacement: o.value, Remove: !o.ok})
		}
	}
	slices.SortStableFunc(harms, func(a, b Harm) int {
		if a.Setting.File != b.Setting.File {
			return slices.Index(c.Files, a.Setting.File) - slices.Index(c.Files, b.Setting.File)
		}
		return a.Setting.Line - b.Setting.Line
	})
	return harms
}

// leaves tells whether path, relative to dataDir unless absolute, lies outside of it.
func leaves(path, dataDir string) bool {
	if !filepath.IsAbs(path) {
		path = filepath.Join(dataDir, path)
	}
	rel, err := filepath.Rel(dataDir, filepath.Clean(path))
	return err != nil || rel == ".." || strings.HasPrefix(rel, "../")
}
