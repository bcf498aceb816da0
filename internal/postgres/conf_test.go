package postgres_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"pileus/internal/pgtest"
	"pileus/internal/postgres"
)

func TestParseConf(t *testing.T) {
	for _, c := range []struct{ line, name, value, problem string }{
		{"", "", "", ""},
		{"  # all comment", "", "", ""},
		{"port = 5433", "port", "5433", ""},
		{"port 5433 # comment", "port", "5433", ""},
		{"Shared_Buffers=128MB\r", "shared_buffers", "128MB", ""},
		{"a.b = -1.5e-3", "a.b", "-1.5e-3", ""},
		{"x = 'it''s'", "x", "it's", ""},
		{`x = 'it\'s \\ \101\n'`, "x", "it's \\ A\n", ""},
		{"x='' # empty", "x", "", ""},
		{"x = '# no comment'", "x", "# no comment", ""},
		{"path = /var/lib/x-1:2", "path", "/var/lib/x-1:2", ""},
		{"x = 'open", "", "", "does not end"},
		{`x = 'open\`, "", "", "does not end"},
		{"x =", "", "", "no value"},
		{"x", "", "", "no value"},
		{"x = a b", "", "", "unexpected text"},
		{"= 3", "", "", "expected the name"},
		{"3x = 3", "", "", "expected the name"},
		{"include_dir 'conf.d'", "include_dir", "conf.d", ""},
	} {
		settings, problems := postgres.ParseConf("f", c.line+"\n")
		switch {
		case c.problem != "":
			if len(settings) != 0 || len(problems) != 1 || problems[0].Line != 1 || !strings.Contains(problems[0].Text, c.problem) {
				t.Errorf("%q: settings %v, problems %v", c.line, settings, problems)
			}
		case c.name == "":
			if len(settings)+len(problems) != 0 {
				t.Errorf("%q: settings %v, problems %v", c.line, settings, problems)
			}
		default:
			want := []postgres.Setting{{File: "f", Line: 1, Name: c.name, Value: c.value}}
			if d := cmp.Diff(want, settings); d != "" || len(problems) != 0 {
				t.Errorf("%q: %s%v", c.line, d, problems)
			}
		}
	}
}

func TestSettingsReadBackAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := strings.ReplaceAll(rapid.String().Draw(t, "value"), "\x00", "")
		settings, problems := postgres.ParseConf("f", postgres.FormatSetting("x.y", value))
		if len(problems) != 0 || len(settings) != 1 || settings[0].Value != value {
			t.Fatalf("%q came back as %v, %v", value, settings, problems)
		}
	})
}

// The server's own view of its files is the oracle.
func TestReadConfAgreesWithTheServer(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		s := pgtest.Start(t, v)
		if err := os.MkdirAll(filepath.Join(s.Instance.DataDir, "conf.d"), 0o755); err != nil {
			t.Fatal(err)
		}
		s.WriteFile("conf.d/b.conf", "work_mem = 2MB\nsearch_path='a''b\\\\c'\n")
		s.WriteFile("conf.d/a.conf", "Work_Mem 1MB # first\nmy.setting = 'q\\'q\\101'\n")
		s.WriteFile("conf.d/.hidden.conf", "work_mem = 9MB\n")
		s.WriteFile("extra.conf", "include_dir = 'conf.d'\ninclude_if_exists 'absent.conf'\n")
		s.WriteFile("pgtest.conf", s.Query("SELECT pg_read_file('pgtest.conf')")+"include 'extra.conf'\n")
		s.Exec("ALTER SYSTEM SET archive_command = 'cp %p ''/x y/%f'' \\ '")
		got, err := postgres.ReadConf(s.Instance.DataDir)
		if err != nil || len(got.Problems) != 0 {
			t.Fatalf("%v, problems %v", err, got.Problems)
		}
		var lines []string
		for _, st := range got.Settings {
			lines = append(lines, st.File+":"+st.Name+"="+st.Value)
		}
		want := s.Query(`SELECT string_agg(sourcefile || ':' || lower(name) || '=' || setting, chr(1) ORDER BY seqno) FROM pg_file_settings`)
		if d := cmp.Diff(strings.Split(want, "\x01"), lines); d != "" {
			t.Errorf("the server reads (-) and we read (+):\n%s", d)
		}
	})
}

func TestHarms(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("postgresql.conf", `archive_command = 'cp %p /archive/%f'
archive_mode = on
shared_buffers = 128MB
hba_file = '/etc/postgresql/pg_hba.conf'
ident_file = 'pg_ident.conf'
log_directory = '../logs'
ssl_cert_file = '/etc/ssl/certs/x.pem'
ssl_key_file = 'server.key'
synchronous_standby_names = ''
include_dir '/etc/postgresql/conf.d'
include_if_exists 'mine.conf'
`)
	write("mine.conf", "port = 6000\n")
	write("postgresql.auto.conf", "recovery_target_time = '2020-01-01'\nprimary_conninfo = 'host=x'\n")
	c, err := postgres.ReadConf(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names, removed []string
	for _, h := range c.Harms(dir) {
		names = append(names, h.Setting.Name)
		if h.Remove {
			removed = append(removed, h.Setting.Name)
		}
		if h.Reason == "" {
			t.Errorf("%s has no reason", h.Setting)
		}
	}
	want := []string{"archive_command", "archive_mode", "hba_file", "log_directory", "ssl_cert_file", "include_dir", "port", "recovery_target_time", "primary_conninfo"}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"hba_file", "include_dir"}, removed); d != "" {
		t.Error(d)
	}
	if e := c.Effective()["port"]; e.Value != "6000" || filepath.Base(e.File) != "mine.conf" {
		t.Errorf("port: %v", e)
	}
}

func TestIncludesInACircleAreAProblem(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.conf")
	if err := os.WriteFile(path, []byte("include 'a.conf'\nport = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := postgres.ReadConfFile(path)
	if err != nil || !slices.ContainsFunc(c.Problems, func(p postgres.ConfProblem) bool { return strings.Contains(p.Text, "circle") }) {
		t.Errorf("%v: %v", c.Problems, err)
	}
}

func FuzzParseConf(f *testing.F) {
	for _, s := range []string{"port = 1\n", "x = 'a''b\\n\\777'", "a.b.c=/x # y\r\n", "x='\\", "\xff\xfe = é\n=\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		settings, problems := postgres.ParseConf("f", text)
		lines := strings.Count(text, "\n") + 1
		for _, s := range settings {
			if s.Line < 1 || s.Line > lines || s.Name == "" {
				t.Fatalf("%+v", s)
			}
			if strings.Contains(s.Value, "\x00") {
				continue // cannot be written, so not read back
			}
			again, bad := postgres.ParseConf("f", postgres.FormatSetting(s.Name, s.Value))
			if len(bad) != 0 || len(again) != 1 || again[0].Value != s.Value || again[0].Name != s.Name {
				t.Fatalf("%+v came back as %+v, %v", s, again, bad)
			}
		}
		if len(settings)+len(problems) > lines {
			t.Fatalf("%d lines gave %d settings and %d problems", lines, len(settings), len(problems))
		}
	})
}
