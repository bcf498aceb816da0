package restore

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pileus/internal/postgres"
)

func TestConfigurationKeptOutsideComesIn(t *testing.T) {
	files, notes := outsiders(map[string][]byte{
		"postgresql.auto.conf":        []byte(""),
		"pileus_conf/postgresql.conf": []byte("work_mem = '7MB'\ndata_directory = '/var/lib/x'\nhba_file = '/etc/x/pg_hba.conf'\n"),
		"pileus_conf/pg_hba.conf":     []byte("local all all peer\n"),
	})
	if len(files) != 2 || !strings.Contains(string(files[mainConf]), "7MB") || len(notes) != 1 || !strings.Contains(notes[0], "pg_hba.conf, postgresql.conf") {
		t.Fatalf("files %q, notes %q", files, notes)
	}
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := readSettings(dir, &Request{NewCluster: "new", Port: 5439, SocketDir: "/tmp"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.apply(&place{dataDir: dir}, map[string]string{"restore_command": "cp 'a b'"}); err != nil {
		t.Fatal(err)
	}
	conf, err := postgres.ReadConf(dir)
	if err != nil || len(conf.Problems) > 0 {
		t.Fatal(err, conf.Problems)
	}
	got := map[string]string{}
	for name, set := range conf.Effective() {
		got[name] = set.Value
	}
	want := map[string]string{"work_mem": "7MB", "cluster_name": "new", "port": "5439", "unix_socket_directories": "/tmp", "listen_addresses": "localhost", "restore_command": "cp 'a b'"}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %q, want %q", name, got[name], value)
		}
	}
	if len(got) != len(want) {
		t.Errorf("settings %q, want only %q", got, want)
	}
}

func TestNoConfigurationIsReplacedAndSaid(t *testing.T) {
	files, notes := outsiders(nil)
	if len(notes) != 2 || string(files[mainConf]) != minimalConf || string(files[hbaConf]) != minimalHBA {
		t.Fatalf("files %q, notes %q", files, notes)
	}
}

func TestPortOfThePreparedDirectoryIsKept(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, mainConf), []byte("port = 6000\nrecovery_target_time = '2020-01-01'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := readSettings(dir, &Request{NewCluster: "new"})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.changes) != 1 || s.changes[0].Name != "recovery_target_time" || !s.changes[0].Remove {
		t.Fatalf("changes %+v, want the target of an earlier recovery taken out", s.changes)
	}
}
