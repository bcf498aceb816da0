package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pileus/internal/access"
)

// TestAccessKeys makes, lists and removes keys beside one of pileus.yaml, without a repository.
func TestAccessKeys(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "pileus.yaml")
	const text = "repository: {url: ./absent}\nstate_dir: ./state\nserve:\n  access_keys:\n    AKID: {secret_file: ./akid, role: read-only}\n"
	for path, content := range map[string]string{file: text, filepath.Join(dir, "akid"): "hunter2\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pileus := func(want int, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		code := Run(t.Context(), "test", append(args, "--config", file), strings.NewReader(""), &out, &errs)
		if code != want {
			t.Fatalf("pileus %s: exit %d, want %d: %s", strings.Join(args, " "), code, want, errs.String())
		}
		return out.String()
	}
	list := func() (keys []access.Key) {
		t.Helper()
		text := pileus(ExitOK, "key", "access-list", "--json")
		if strings.Contains(text, "secret") || strings.Contains(text, "hunter2") {
			t.Errorf("the list shows secrets: %s", text)
		}
		if err := json.Unmarshal([]byte(text), &keys); err != nil {
			t.Fatal(err)
		}
		return keys
	}

	var made access.Key
	if err := json.Unmarshal([]byte(pileus(ExitOK, "key", "create", "--name", "laptop", "--json")), &made); err != nil {
		t.Fatal(err)
	}
	if made.Role != access.Operator || made.Name != "laptop" || len(made.Secret) != 40 || made.Created.IsZero() {
		t.Errorf("made %+v", made)
	}
	told := pileus(ExitOK, "key", "create", "--role", "read-only")
	if !strings.Contains(told, "is not shown again") || !strings.Contains(told, "read-only") {
		t.Errorf("create says %q", told)
	}
	if keys := list(); len(keys) != 3 || keys[0].ID != "AKID" || keys[0].Role != access.ReadOnly {
		t.Errorf("list: %+v", keys)
	}
	table := pileus(ExitOK, "key", "access-list")
	if !strings.Contains(table, made.ID) || !strings.Contains(table, "in pileus.yaml") || strings.Contains(table, made.Secret) {
		t.Errorf("list says %q", table)
	}
	pileus(ExitOK, "key", "access-remove", made.ID)
	pileus(ExitUsage, "key", "access-remove", made.ID)
	pileus(ExitUsage, "key", "access-remove", "AKID")
	pileus(ExitUsage, "key", "create", "--role", "admin")
	pileus(ExitUsage, "key", "create", "--name", "a\nb")
	if keys := list(); len(keys) != 2 {
		t.Errorf("after removal: %+v", keys)
	}
	if err := os.Chmod(filepath.Join(dir, "state", "access-keys.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	pileus(ExitUsage, "key", "access-list")
}
