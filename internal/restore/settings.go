package restore

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"pileus/internal/postgres"
)

// Change is a setting of the source that the new cluster does not keep.
type Change struct {
	Name   string `json:"name"`
	File   string `json:"file"` // relative to the data directory
	Line   int    `json:"line"`
	Old    string `json:"old"`
	New    string `json:"new"`
	Remove bool   `json:"remove,omitempty"` // the line is commented out, whatever New is
	Reason string `json:"reason"`
}

const (
	mainConf = "postgresql.conf"
	autoConf = "postgresql.auto.conf"
	hbaConf  = "pg_hba.conf"
)

// Where a backup brings no configuration, the server's defaults apply.
const minimalConf = "# Written by pileus restore: the backup held no postgresql.conf.\n"

const minimalHBA = `# Written by pileus restore: the backup held no pg_hba.conf.
# TYPE  DATABASE  USER  ADDRESS       METHOD
local   all       all                 peer
host    all       all   127.0.0.1/32  scram-sha-256
host    all       all   ::1/128       scram-sha-256
`

// outsiders are configuration files that the source kept outside of its data
// directory, as the new cluster will have them, and the notes that say so.
func outsiders(conf map[string][]byte) (files map[string][]byte, notes []string) {
	files = map[string][]byte{}
	for name, content := range conf {
		if base, ok := strings.CutPrefix(name, outsideConf+"/"); ok && conf[base] == nil {
			files[base] = content
		}
	}
	for _, f := range []struct{ name, content string }{{mainConf, minimalConf}, {hbaConf, minimalHBA}} {
		if conf[f.name] == nil && files[f.name] == nil {
			files[f.name] = []byte(f.content)
			notes = append(notes, fmt.Sprintf("The backup holds no %s (the source kept it elsewhere): a minimal one is written; adapt it.", f.name))
		}
	}
	if len(files) > len(notes) {
		names := slices.Sorted(maps.Keys(files))
		notes = append(notes, fmt.Sprintf("Configuration that the source kept outside of its data directory goes into it: %s.", strings.Join(names, ", ")))
	}
	return files, notes
}

// previewSettings finds what will be changed, from a copy of the configuration in a scratch folder.
func previewSettings(p *Plan) ([]Change, error) {
	dir, err := os.MkdirTemp("", "pileus-plan-")
	if err != nil {
		return nil, fmt.Errorf("look at the configuration: %w", err)
	}
	defer os.RemoveAll(dir)
	extra, notes := outsiders(p.conf)
	p.Notes = append(p.Notes, notes...)
	for _, files := range []map[string][]byte{p.conf, extra} {
		for name, content := range files {
			if !filepath.IsLocal(name) {
				continue
			}
			path := filepath.Join(dir, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return nil, fmt.Errorf("look at the configuration: %w", err)
			}
			if err := os.WriteFile(path, content, 0o600); err != nil {
				return nil, fmt.Errorf("look at the configuration: %w", err)
			}
		}
	}
	s, err := readSettings(dir, &p.request)
	if err != nil {
		return nil, err
	}
	return s.changes, nil
}

// settings is a configuration and what has to change in it.
type settings struct {
	dir     string
	conf    postgres.Conf
	changes []Change
	request *Request
}

func readSettings(dir string, r *Request) (*settings, error) {
	conf, err := postgres.ReadConf(dir)
	if err != nil {
		return nil, err
	}
	s := &settings{dir: dir, conf: conf, request: r}
	removed := map[string]bool{}
	for _, h := range conf.Harms(dir) {
		if h.Setting.Name == "port" && !r.Start && r.Port == 0 {
			continue // kept: whoever starts it sees to that
		}
		c := s.change(h.Setting, h.Replacement, h.Reason)
		// To the server an empty target unsets any other that was set before it.
		c.Remove = h.Remove || ofRecovery(c.Name)
		if v, ok := s.own()[c.Name]; ok {
			c.New = v
		}
		s.changes = append(s.changes, c)
		removed[fmt.Sprint(c.File, c.Line)] = true
	}
	for _, in := range conf.Includes {
		// A missing folder or file would keep the server from starting.
		c := s.change(in.Setting, "", "what it includes is not in the backup")
		if _, err := os.Stat(in.Path); err != nil && in.Name != "include_if_exists" && !removed[fmt.Sprint(c.File, c.Line)] {
			c.Remove = true
			s.changes = append(s.changes, c)
		}
	}
	s.certificates()
	return s, nil
}

func (s *settings) change(set postgres.Setting, value, reason string) Change {
	file, err := filepath.Rel(s.dir, set.File)
	if err != nil {
		file = set.File
	}
	return Change{Name: set.Name, File: file, Line: set.Line, Old: set.Value, New: value, Reason: reason}
}

// certificates turns TLS off where its files did not come along: the server would not start.
func (s *settings) certificates() {
	all := s.conf.Effective()
	ssl, ok := all["ssl"]
	if on := strings.ToLower(ssl.Value); !ok || on == "off" || on == "no" || on == "false" || on == "0" {
		return
	}
	for name, fallback := range map[string]string{"ssl_cert_file": "server.crt", "ssl_key_file": "server.key"} {
		path := fallback
		if set, ok := all[name]; ok && set.Value != "" {
			path = set.Value
		}
		if filepath.IsAbs(path) && !within(path, s.dir) {
			path = fallback
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(s.dir, path)
		}
		if _, err := os.Stat(path); err != nil {
			s.changes = append(s.changes, s.change(ssl, "off", "its certificate and key did not come with the backup: put them there and turn it on again"))
			return
		}
	}
}

// own are the settings the new cluster gets for good.
func (s *settings) own() map[string]string {
	r := s.request
	set := map[string]string{"cluster_name": r.NewCluster, "listen_addresses": "localhost"}
	if r.Listen != "" {
		set["listen_addresses"] = r.Listen
	}
	if r.Port != 0 {
		set["port"] = strconv.Itoa(r.Port)
	}
	if r.SocketDir != "" {
		set["unix_socket_directories"] = r.SocketDir
	}
	return set
}

// auto renders postgresql.auto.conf: what the source had there and does no harm,
// what makes the rest harmless, and ours. It is read last, so it counts.
func (s *settings) auto(recovery map[string]string) []byte {
	set := map[string]string{}
	for _, x := range s.conf.Settings {
		if filepath.Base(x.File) == autoConf && filepath.Dir(x.File) == s.dir {
			set[x.Name] = x.Value
		}
	}
	for _, c := range s.changes {
		if c.Remove {
			delete(set, c.Name)
		} else {
			set[c.Name] = c.New
		}
	}
	maps.Copy(set, s.own())
	maps.Copy(set, recovery)
	var b strings.Builder
	b.WriteString("# Written by pileus restore; ALTER SYSTEM overwrites it.\n")
	for _, name := range slices.Sorted(maps.Keys(set)) {
		b.WriteString(postgres.FormatSetting(name, set[name]))
	}
	return []byte(b.String())
}

func ofRecovery(name string) bool {
	return strings.HasPrefix(name, "recovery_target") || name == "restore_command"
}

// apply writes the configuration into the data directory.
func (s *settings) apply(p *place, recovery map[string]string) error {
	byFile := map[string][]Change{}
	for _, c := range s.changes {
		if c.Remove && c.File != autoConf {
			byFile[c.File] = append(byFile[c.File], c)
		}
	}
	for name, changes := range byFile {
		path := filepath.Join(s.dir, name)
		if !within(path, s.dir) {
			continue // reached through an include that is removed
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("change the configuration: %w", err)
		}
		if err := p.put(filepath.Dir(path), filepath.Base(path), commentOut(content, changes)); err != nil {
			return err
		}
	}
	return p.put(s.dir, autoConf, s.auto(recovery))
}

// commentOut turns the lines of the changes into comments.
func commentOut(content []byte, changes []Change) []byte {
	lines := strings.SplitAfter(string(content), "\n")
	for _, c := range changes {
		if c.Line >= 1 && c.Line <= len(lines) {
			lines[c.Line-1] = "# pileus restore: " + c.Reason + ": " + lines[c.Line-1]
		}
	}
	return []byte(strings.Join(lines, ""))
}

// recoverySettings tell the server where recovery ends.
func recoverySettings(p *Plan) map[string]string {
	set := map[string]string{
		"restore_command":          p.request.RestoreCommand,
		"recovery_target_timeline": strconv.FormatUint(uint64(p.Resolution.Timeline), 10),
		"recovery_target_action":   "promote",
		"archive_mode":             "off",
	}
	if p.Resolution.Immediate {
		set["recovery_target"] = "immediate"
	} else {
		set["recovery_target_lsn"] = p.Resolution.StopLSN.String()
		set["recovery_target_inclusive"] = "on"
	}
	return set
}
