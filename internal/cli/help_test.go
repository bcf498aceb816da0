package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// run executes a command line in an empty folder.
func run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	t.Chdir(t.TempDir())
	t.Setenv("PILEUS_CONFIG", "")
	t.Setenv("HOME", t.TempDir())
	var out, errs bytes.Buffer
	code = Run(t.Context(), "test", args, strings.NewReader(""), &out, &errs)
	return out.String(), errs.String(), code
}

// walk visits every command of ours, groups included.
func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		walk(sub, visit)
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	a := &app{version: "test"}
	n := 0
	walk(a.root(), func(cmd *cobra.Command) {
		n++
		name := cmd.CommandPath()
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: its short help is %q, want one line without a full stop", name, cmd.Short)
		}
		if strings.Count(cmd.Long, "Exit codes:") != 1 || !strings.HasSuffix(cmd.Long, exitCodes(cmd)) {
			t.Errorf("%s: its help does not end with the exit codes, once", name)
		}
		if !strings.Contains(cmd.Example, "pileus ") {
			t.Errorf("%s: no example", name)
		}
		for line := range strings.Lines(cmd.Example) {
			if !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: the example %q is not indented", name, line)
			}
		}
		for line := range strings.Lines(cmd.Long) {
			if len([]rune(line)) > 101 {
				t.Errorf("%s: a line of its help is too long for a terminal: %q", name, line)
			}
		}
		if cmd.RunE == nil {
			t.Errorf("%s does nothing", name)
		}
	})
	if n < 20 {
		t.Errorf("only %d commands were looked at", n)
	}
}

// TestExamplesParse runs the flags and arguments of every example through the
// command that it is an example of.
func TestExamplesParse(t *testing.T) {
	walk((&app{version: "test"}).root(), func(shown *cobra.Command) {
		for line := range strings.Lines(shown.Example) {
			words := shellWords(strings.TrimSpace(line))
			if len(words) == 0 || words[0] != "pileus" {
				continue // a line of a configuration file
			}
			cmd, rest, err := (&app{version: "test"}).root().Find(words[1:])
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err == nil {
				err = cmd.ValidateArgs(cmd.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: the example %q: %v", shown.CommandPath(), strings.TrimSpace(line), err)
			}
		}
	})
}

// shellWords splits a line at spaces outside of double quotes, and drops redirections.
func shellWords(line string) []string {
	var words []string
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			words = append(words, part)
			continue
		}
		for _, w := range strings.Fields(part) {
			if !strings.Contains(w, ">") {
				words = append(words, w)
			}
		}
	}
	return words
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{
		{"bakcup"},
		{"wal", "bogus"},
		{"snapshot", "crate", "prod", "a"},
		{"key", "ad"},
		{"backup", "--fast"},
		{"backup", "a", "b"},
		{"backup", "--mode", "magic"},
		{"restore"},
		{"restore", "prod", "--as", "a", "--data-dir", "d"},
		{"restore", "prod", "--latest"},
		{"restore", "prod", "--as", "a", "--data-dir", "d", "--to", "ago"},
		{"restore", "prod", "--as", "a", "--data-dir", "d", "--to-lsn", "0"},
		{"restore", "prod", "--as", "a", "--data-dir", "d", "--latest", "--tablespace", "x"},
		{"verify", "--read-data", "101%"},
		{"verify", "--read-data", "NaN%"},
		{"prune", "now"},
		{"list"}, // no configuration
		{"plan", "chekc"},
		{"plan", "check"},
		{"plan", "check", "a", "b"},
		{"plan", "check", "-", "--allow", "everything"},
		{"plan", "check", "-"}, // standard input is empty
		{"plan", "check", "no-such-plan"},
		{"init", "--recipient", "nobody"},
		{"init", "--encrypt"}, // no terminal to ask for the passphrase
	} {
		stdout, stderr, code := run(t, args...)
		if code != ExitUsage || stderr == "" || stdout != "" {
			t.Errorf("pileus %s: exit %d, stdout %q, stderr %q; want exit 2 and an error", strings.Join(args, " "), code, stdout, stderr)
		}
		// The same as JSON, wherever --json stands.
		for _, with := range [][]string{append([]string{"--json"}, args...), append(args[:len(args):len(args)], "--json")} {
			_, stderr, code := run(t, with...)
			var said struct {
				Error string `json:"error"`
				Code  int    `json:"exit_code"`
			}
			if err := json.Unmarshal([]byte(stderr), &said); err != nil || said.Error == "" || said.Code != ExitUsage || code != ExitUsage {
				t.Errorf("pileus %s: exit %d, stderr %q; want exit 2 and an error as JSON", strings.Join(with, " "), code, stderr)
			}
		}
	}
}

func TestGroupsShowTheirCommands(t *testing.T) {
	for _, group := range []string{"wal", "snapshot", "key", "plan"} {
		stdout, stderr, code := run(t, group)
		if code != ExitOK || !strings.Contains(stdout, "Available Commands") {
			t.Errorf("pileus %s: exit %d, %q, %q", group, code, stdout, stderr)
		}
	}
}

func TestManualPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man")
	if _, stderr, code := run(t, "man", dir); code != ExitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	b, err := os.ReadFile(filepath.Join(dir, "pileus-restore.1"))
	if err != nil || !bytes.Contains(b, []byte("the target cannot be restored")) {
		t.Errorf("the page of restore is %q, %v", b, err)
	}
}
