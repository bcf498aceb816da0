package terraform

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fixture is a plan as JSON.
func fixture(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path string, content []byte, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadJSON(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // JSON needs no program
	plan := fixture(t, "unchanged")
	file := write(t, filepath.Join(t.TempDir(), "plan.json"), plan, 0o644)
	if _, err := Read(t.Context(), file, nil); err != nil {
		t.Errorf("from a file: %v", err)
	}
	if _, err := Read(t.Context(), "-", bytes.NewReader(plan)); err != nil {
		t.Errorf("from standard input: %v", err)
	}
	if _, err := Read(t.Context(), "-", bytes.NewReader(append([]byte("\xef\xbb\xbf"), plan...))); err != nil {
		t.Errorf("with a byte order mark: %v", err)
	}
}

// TestUnreadable: what is no plan is never taken for a plan without changes.
func TestUnreadable(t *testing.T) {
	noAction, noType, noAddress := planned("a.b", list{}, nil, nil), planned("a.b", noop, nil, nil), planned("a.b", noop, nil, nil)
	noType["type"], noAddress["address"] = "", ""
	encode := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, c := range map[string]struct{ input, says string }{
		"nothing":              {"", "empty"},
		"blank":                {" \n", "empty"},
		"text":                 {"Terraform will perform the following actions:", "neither a saved plan"},
		"cut off":              {string(fixture(t, "unchanged")[:2000]), "neither a saved plan"},
		"two documents":        {encode(planOf()) + encode(planOf()), "cannot be understood"},
		"null":                 {"null", "format_version"},
		"a list":               {"[]", "neither"},
		"a state":              {`{"format_version":"1.0","terraform_version":"1.11.4","values":{"root_module":{}}}`, "state"},
		"an empty state":       {`{"format_version":"1.0"}`, "neither planned values nor changes"},
		"a state file":         {`{"version":4,"lineage":"b6b9","resources":[]}`, "state"},
		"a log":                {`{"@level":"info","@message":"Terraform 1.11.4","type":"version"}` + "\n" + `{"@level":"info"}`, "log"},
		"redacted":             {`{"plan_format_version":"1.2","resource_changes":[]}`, "redacted"},
		"diagnostics":          {`{"format_version":"1.0","valid":true,"diagnostics":[]}`, "not a plan"},
		"a later format":       {encode(merge(planOf(), object{"format_version": "2.0"})), "format version"},
		"no version":           {encode(merge(planOf(), object{"format_version": "new"})), "format version"},
		"UTF-16":               {"\xff\xfe{\x00", "UTF-16"},
		"a saved plan":         {"PK\x03\x04...", "name its file"},
		"a change of nothing":  {`{"format_version":"1.2","resource_changes":[null]}`, "says nothing"},
		"a change without any": {`{"format_version":"1.2","resource_changes":[{"address":"a.b","type":"a"}]}`, "says nothing"},
		"no action":            {encode(planOf(noAction)), "what happens to a.b"},
		"no type":              {encode(planOf(noType)), "no type"},
		"no address":           {encode(planOf(noAddress)), "no address"},
		"deferred nothing":     {encode(merge(planOf(), object{"deferred_changes": list{nil}})), "null"},
		"wrong type":           {`{"format_version":"1.2","planned_values":{},"resource_changes":"hunter2222"}`, "wrong type"},
	} {
		_, err := Read(t.Context(), "-", strings.NewReader(c.input))
		var unreadable *UnreadableError
		if !errors.As(err, &unreadable) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want that it says %q", name, err, c.says)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2222") {
			t.Errorf("%s: the error has what the document has: %v", name, err)
		}
	}
	var unreadable *UnreadableError
	if _, err := Read(t.Context(), filepath.Join(t.TempDir(), "absent"), nil); !errors.As(err, &unreadable) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an absent file: %v", err)
	}
	if _, err := Read(t.Context(), t.TempDir(), nil); !errors.As(err, &unreadable) {
		t.Errorf("a folder: %v", err)
	}
}

// stub puts a program of that name into the PATH, and nothing else but the shell's.
func stub(t *testing.T, dir, name, script string) {
	t.Helper()
	write(t, filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755)
}

// TestSavedPlan: which program shows a saved plan, where, and what becomes of its failures.
func TestSavedPlan(t *testing.T) {
	plan, err := filepath.Abs("testdata/healthy_after_import.json")
	if err != nil {
		t.Fatal(err)
	}
	setup := func(t *testing.T) (bin, saved string) {
		bin = t.TempDir()
		t.Setenv("PATH", bin+":/usr/bin:/bin")
		t.Setenv("TF_DATA_DIR", "")
		return bin, write(t, filepath.Join(t.TempDir(), "tfplan"), []byte("PK\x03\x04"), 0o644)
	}
	t.Run("terraform, in the plan's folder", func(t *testing.T) {
		bin, saved := setup(t)
		stub(t, bin, "terraform", `[ "$1 $2 $3" = "show -json -no-color" ] && [ "$4" = "$PWD/tfplan" ] && cat `+plan)
		p, err := Read(t.Context(), saved, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r := Check(p, nil); !r.Safe || r.Unchanged != 6 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("the current folder, which is initialised", func(t *testing.T) {
		bin, saved := setup(t)
		work := t.TempDir()
		write(t, filepath.Join(work, ".terraform", "x"), nil, 0o644)
		t.Chdir(work)
		stub(t, bin, "terraform", `[ -d .terraform ] && cat `+plan)
		if _, err := Read(t.Context(), saved, nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("tofu, where terraform cannot", func(t *testing.T) {
		bin, saved := setup(t)
		stub(t, bin, "terraform", "echo made by a newer version >&2; exit 1")
		stub(t, bin, "tofu", "cat "+plan)
		if _, err := Read(t.Context(), saved, nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("neither can", func(t *testing.T) {
		bin, saved := setup(t)
		stub(t, bin, "terraform", "echo made by a newer version >&2; exit 1")
		stub(t, bin, "tofu", "echo no such provider >&2; exit 1")
		_, err := Read(t.Context(), saved, nil)
		var unreadable *UnreadableError
		if !errors.As(err, &unreadable) || !strings.Contains(err.Error(), "newer version") || !strings.Contains(err.Error(), "no such provider") {
			t.Error(err)
		}
	})
	t.Run("neither is there", func(t *testing.T) {
		_, saved := setup(t)
		t.Setenv("PATH", t.TempDir())
		_, err := Read(t.Context(), saved, nil)
		var unreadable *UnreadableError
		if !errors.As(err, &unreadable) || !strings.Contains(err.Error(), "neither terraform nor tofu") {
			t.Error(err)
		}
	})
	t.Run("a program that says nothing", func(t *testing.T) {
		bin, saved := setup(t)
		stub(t, bin, "terraform", "exit 0")
		_, err := Read(t.Context(), saved, nil)
		var unreadable *UnreadableError
		if !errors.As(err, &unreadable) || !strings.Contains(err.Error(), "empty") {
			t.Error(err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		bin, saved := setup(t)
		stub(t, bin, "terraform", "exit 0")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := Read(ctx, saved, nil)
		var unreadable *UnreadableError
		if !errors.Is(err, context.Canceled) || errors.As(err, &unreadable) {
			t.Error(err)
		}
	})
}

// TestRealTerraform makes plans with the program itself, where it is installed. The stubs
// above stand in for it elsewhere. It needs no provider: terraform_data is built in.
func TestRealTerraform(t *testing.T) {
	program, err := exec.LookPath("terraform")
	if err != nil {
		t.Skip("terraform is not in the PATH; stand-ins were used instead")
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "main.tf"), []byte(`
variable "keep" { default = true }
resource "terraform_data" "x" {
  for_each = var.keep ? toset(["a.b]"]) : toset([])
  input    = "hunter2222"
}
`), 0o644)
	terraform := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CHECKPOINT_DISABLE=1", "TF_CLI_CONFIG_FILE="+os.DevNull)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("terraform %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	check := func(allow ...string) Report {
		t.Helper()
		p, err := Read(t.Context(), filepath.Join(dir, "tfplan"), nil)
		if err != nil {
			t.Fatal(err)
		}
		r := Check(p, allow)
		complete(t, r)
		return r
	}
	terraform("init", "-input=false", "-no-color")
	terraform("plan", "-input=false", "-no-color", "-out", "tfplan")
	if r := check(); r.Safe || len(r.Verdicts) != 1 || r.Verdicts[0].Address != `terraform_data.x["a.b]"]` {
		t.Errorf("a new resource: %+v", r)
	}
	if r := check("terraform_data.x"); !r.Safe {
		t.Errorf("a new resource, allowed: %+v", r)
	}
	terraform("apply", "-input=false", "-no-color", "tfplan")
	terraform("plan", "-input=false", "-no-color", "-out", "tfplan")
	if r := check(); !r.Safe || r.Unchanged != 1 {
		t.Errorf("no changes: %+v", r)
	}
	terraform("plan", "-input=false", "-no-color", "-var", "keep=false", "-out", "tfplan")
	if r := check(); r.Safe || r.Verdicts[0].Action != "delete" {
		t.Errorf("deleted: %+v", r)
	}
	terraform("plan", "-input=false", "-no-color", "-target", "terraform_data.x", "-out", "tfplan")
	if r := check(); r.Safe && versionAtLeast18(r.TerraformVersion) {
		t.Errorf("limited with -target: %+v", r)
	}
}

// versionAtLeast18: since 1.8 a plan says whether it is complete.
func versionAtLeast18(version string) bool {
	for _, old := range []string{"0.", "1.0.", "1.1.", "1.2.", "1.3.", "1.4.", "1.5.", "1.6.", "1.7."} {
		if strings.HasPrefix(version, old) {
			return false
		}
	}
	return true
}
