package access_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"pileus/internal/access"
)

func TestKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "keys.json")
	configured := access.Key{ID: "PILECONFIGURED", Secret: "s", Role: access.ReadOnly}
	k, err := access.Open(path, []access.Key{configured})
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
	if _, err := access.Open(path, nil); err == nil {
		t.Error("opened")
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
