package store_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pileus/internal/store"
)

var keySyntax = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,255}(/[a-zA-Z0-9._-]{1,255})*$`)

// FuzzCheckKey: whatever is accepted has the syntax of the contract, and a local
// store keeps it strictly inside its folder.
func FuzzCheckKey(f *testing.F) {
	for _, seed := range []string{"", "a", "a/b", "../a", "a/..", "./a", "a//b", "/a", "a/", "a\x00b", "packs/ab/0123.pack", "..a/b..", "~tmp/x", "ä", "a\\b", strings.Repeat("x", 256)} {
		f.Add(seed)
	}
	outer := f.TempDir()
	l, err := store.OpenLocal(filepath.Join(outer, "inner"), store.LocalOptions{Create: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	f.Fuzz(func(t *testing.T, key string) {
		err := store.CheckKey(key)
		if err != nil && !errors.Is(err, store.ErrInvalidKey) {
			t.Fatalf("%q: %v does not wrap ErrInvalidKey", key, err)
		}
		valid := keySyntax.MatchString(key) && len(key) <= 768
		for segment := range strings.SplitSeq(key, "/") {
			valid = valid && segment != "." && segment != ".."
		}
		if (err == nil) != valid {
			t.Fatalf("CheckKey(%q) = %v, want valid: %t", key, err, valid)
		}
		if err := l.Put(t.Context(), key, strings.NewReader("x")); valid && err != nil {
			// Only a clash with a folder or file of an earlier input may fail.
			if !errors.Is(err, store.ErrExists) && !strings.Contains(err.Error(), "regular file") && !strings.Contains(err.Error(), "not a directory") {
				t.Fatalf("put %q: %v", key, err)
			}
		} else if !valid && err == nil {
			t.Fatalf("put of invalid key %q succeeded", key)
		}
		if valid {
			if err := l.Delete(t.Context(), key); err != nil {
				t.Fatalf("delete %q: %v", key, err)
			}
		}
		entries, err := os.ReadDir(outer)
		if err != nil || len(entries) != 1 {
			t.Fatalf("key %q left the folder: %v, %v", key, entries, err)
		}
	})
}

func TestLocalFollowsNoLinkOut(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for link, target := range map[string]string{"out": outside, "file": filepath.Join(outside, "secret")} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	l, err := store.OpenLocal(dir, store.LocalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, key := range []string{"out/secret", "file"} {
		if r, err := l.Get(t.Context(), key, 0, -1); err == nil {
			r.Close()
			t.Errorf("get %s followed the link", key)
		}
		if err := l.Put(t.Context(), key, strings.NewReader("x")); err == nil || errors.Is(err, store.ErrExists) {
			t.Errorf("put %s: %v, want a refusal", key, err)
		}
	}
	if err := l.Put(t.Context(), "out/new", strings.NewReader("x")); err == nil {
		t.Error("put went through the link")
	}
	if _, err := os.Stat(filepath.Join(outside, "new")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was written outside: %v", err)
	}
	var listErr error
	for _, err := range l.List(t.Context(), "") {
		listErr = err
	}
	if listErr == nil || !strings.Contains(listErr.Error(), "link") {
		t.Errorf("list hides a link: %v", listErr)
	}
}
