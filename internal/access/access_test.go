package access_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pileus/internal/access"
	"pileus/internal/config"
)

// secretFile puts text in a file of its own.
func secretFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "keys.json")
	configured := access.Key{ID: "PILECONFIGURED", Secret: "s", Role: access.ReadOnly}
	k, err := access.Open(path, map[string]config.AccessKey{
		configured.ID: {SecretFile: secretFile(t, "s\n", 0o600), Role: config.RoleReadOnly},
	})
	if err != nil {
		t.Fatal(err)
	}
	other, err := access.Open(path, nil) // another process
	if err != nil {
		t.Fatal(err)
	}
	made, err := other.Create(access.Operator, "me", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if len(made.ID) != 20 || len(made.Secret) != 40 {
		t.Errorf("ID %s, secret of %d characters", made.ID, len(made.Secret))
	}
	if got, ok := k.Lookup(made.ID); !ok || got != made {
		t.Errorf("%+v %v", got, ok)
	}
	if got, ok := k.Lookup("PILECONFIGURED"); !ok || got != configured {
		t.Errorf("%+v %v", got, ok)
	}
	if _, ok := k.Lookup(""); ok {
		t.Error("no ID is a key")
	}
	all, err := k.List()
	if err != nil || len(all) != 2 || all[0].Secret != "" || all[1].Secret != "" {
		t.Errorf("%+v, %v", all, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := k.Remove("PILECONFIGURED"); !errors.Is(err, access.ErrConfigured) {
		t.Error(err)
	}
	if err := k.Remove("nobody"); !errors.Is(err, access.ErrUnknown) {
		t.Error(err)
	}
	if err := k.Remove(made.ID); err != nil {
		t.Error(err)
	}
	if _, ok := other.Lookup(made.ID); ok {
		t.Error("it was removed, and is found")
	}
}

func TestKeysThatOthersCanReadAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	k, err := access.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	made, err := k.Create(access.Operator, "", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := access.Open(path, nil); !errors.Is(err, access.ErrExposed) {
		t.Errorf("a file that others can read: %v", err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := access.Open(path, nil); err == nil {
		t.Error("damaged keys were opened")
	}
	if _, ok := k.Lookup(made.ID); ok {
		t.Error("a key of a damaged file is found")
	}
}

func TestConcurrentCreation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			k, err := access.Open(path, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := k.Create(access.Operator, "", time.Now()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	k, err := access.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := k.List(); err != nil || len(all) != 5 {
		t.Errorf("%d keys, %v", len(all), err)
	}
}

// TestOpenRefusesSecrets: a key whose secret is missing or known to others must not work.
func TestOpenRefusesSecrets(t *testing.T) {
	for name, file := range map[string]string{
		"exposed":   secretFile(t, "s", 0o640),
		"empty":     secretFile(t, "\n", 0o600),
		"two lines": secretFile(t, "s\nt\n", 0o600),
		"absent":    filepath.Join(t.TempDir(), "absent"),
		"a folder":  t.TempDir(),
	} {
		configured := map[string]config.AccessKey{"AKID": {SecretFile: file, Role: config.RoleOperator}}
		_, err := access.Open(filepath.Join(t.TempDir(), "keys.json"), configured)
		if err == nil || !strings.Contains(err.Error(), "AKID") || errors.Is(err, access.ErrExposed) != (name == "exposed") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, stored := range []string{
		`[{"id":"PILEX","role":"operator"}]`,
		`[{"id":"PILEX","secret":"s","role":"admin"}]`,
		`[{"secret":"s","role":"operator"}]`,
	} {
		if _, err := access.Open(secretFile(t, stored, 0o600), nil); err == nil {
			t.Errorf("%s is accepted", stored)
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	k, err := access.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct{ role, name string }{{"admin", ""}, {"", ""}, {"operator", "a\nb"}, {"operator", strings.Repeat("x", 101)}} {
		if key, err := k.Create(access.Role(bad.role), bad.name, time.Now()); err == nil || key != (access.Key{}) {
			t.Errorf("%+v is accepted", bad)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused key left a file: %v", err)
	}
}

// TestOwner: a key that root makes belongs to whose folder it is in.
func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		return // only root can give files away, so there is nothing to get wrong
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 4711, 4712); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "keys.json")
	k, err := access.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Create(access.Operator, "", time.Now()); err != nil {
		t.Fatal(err)
	}
	var stat syscall.Stat_t
	if err := syscall.Stat(path, &stat); err != nil || stat.Uid != 4711 || stat.Gid != 4712 {
		t.Errorf("it belongs to %d:%d, %v", stat.Uid, stat.Gid, err)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	k := access.Key{ID: "PILEX", Secret: "hunter2", Role: access.Operator}
	if text := fmt.Sprintf("%v %+v %s", k, k, k); strings.Contains(text, "hunter2") {
		t.Error(text)
	}
}
