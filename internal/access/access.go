// Package access keeps the access keys of the RDS API: those that pileus.yaml names, whose secrets
// are in files of their own, and those that `pileus key create` made, which are in one file of the
// state folder.
//
// Secrets are kept as they are: a signature is checked by computing it. So the file
// is refused unless its owner alone can read it.
package access

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Role is what a key may do.
type Role string

// The roles.
const (
	Operator Role = "operator"  // everything
	ReadOnly Role = "read-only" // describe and list
)

// ParseRole reads a role's name.
func ParseRole(s string) (Role, error) {
	if r := Role(s); r == Operator || r == ReadOnly {
		return r, nil
	}
	return "", fmt.Errorf("%q is not a role: it is %s or %s", s, Operator, ReadOnly)
}

// Key is one access key.
type Key struct {
	ID      string    `json:"id"`
	Secret  string    `json:"secret,omitempty"`
	Role    Role      `json:"role"`
	Name    string    `json:"name,omitempty"` // for people
	Created time.Time `json:"created,omitzero"`
}

// Errors that callers tell apart.
var (
	ErrUnknown    = errors.New("there is no such access key")
	ErrConfigured = errors.New("the access key is in pileus.yaml: remove it there")
)

// Keys finds keys. It may be used concurrently, and sees what another process changes in the file.
type Keys struct {
	path       string
	configured map[string]Key

	mu     sync.Mutex
	stored []Key
	seen   fs.FileInfo
}

// Open reads the file of made keys, which need not be there yet, beside the configured ones.
func Open(path string, configured []Key) (*Keys, error) {
	k := &Keys{path: path, configured: map[string]Key{}}
	for _, c := range configured {
		k.configured[c.ID] = c
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k, k.refresh()
}

// refresh reads the file again if it changed. The caller holds mu.
func (k *Keys) refresh() error {
	info, err := os.Stat(k.path)
	if errors.Is(err, fs.ErrNotExist) {
		k.stored, k.seen = nil, nil
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the access keys: %w", err)
	}
	if k.seen != nil && os.SameFile(info, k.seen) && info.ModTime().Equal(k.seen.ModTime()) && info.Size() == k.seen.Size() {
		return nil
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("the access keys in %s can be read by others (mode %04o): do chmod 600 %s, and make new keys", k.path, info.Mode().Perm(), k.path)
	}
	text, err := os.ReadFile(k.path)
	if err != nil {
		return fmt.Errorf("read the access keys: %w", err)
	}
	var stored []Key
	if err := json.Unmarshal(text, &stored); err != nil {
		return fmt.Errorf("the access keys in %s are damaged: %w", k.path, err)
	}
	k.stored, k.seen = stored, info
	return nil
}

// Lookup finds a key by its ID. If the file cannot be read any more, no made key is found.
func (k *Keys) Lookup(id string) (Key, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c, ok := k.configured[id]; ok {
		return c, true
	}
	if err := k.refresh(); err != nil {
		return Key{}, false
	}
	for _, s := range k.stored {
		if s.ID == id {
			return s, true
		}
	}
	return Key{}, false
}

// List lists the keys, without their secrets, by ID.
func (k *Keys) List() ([]Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.refresh(); err != nil {
		return nil, err
	}
	out := slices.Clone(k.stored)
	for _, c := range k.configured {
		out = append(out, c)
	}
	for i := range out {
		out[i].Secret = ""
	}
	slices.SortFunc(out, func(a, b Key) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// Create makes a key. Its secret is nowhere but in the answer and in the file.
func (k *Keys) Create(role Role, name string, now time.Time) (Key, error) {
	id, secret := make([]byte, 10), make([]byte, 30)
	rand.Read(id)
	rand.Read(secret)
	key := Key{ID: "PILE" + base32.StdEncoding.EncodeToString(id), Secret: base64.RawURLEncoding.EncodeToString(secret), Role: role, Name: name, Created: now.UTC().Truncate(time.Second)}
	err := k.change(func(all []Key) ([]Key, error) { return append(all, key), nil })
	return key, err
}

// Remove removes a made key. Errors: ErrUnknown, ErrConfigured.
func (k *Keys) Remove(id string) error {
	if _, ok := k.configured[id]; ok {
		return ErrConfigured
	}
	return k.change(func(all []Key) ([]Key, error) {
		left := slices.DeleteFunc(slices.Clone(all), func(s Key) bool { return s.ID == id })
		if len(left) == len(all) {
			return nil, fmt.Errorf("%w: %s", ErrUnknown, id)
		}
		return left, nil
	})
}

// change replaces the file's content in one step, one process at a time.
func (k *Keys) change(do func([]Key) ([]Key, error)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := os.MkdirAll(filepath.Dir(k.path), 0o700); err != nil {
		return fmt.Errorf("save the access keys: %w", err)
	}
	unlock, err := lock(k.path + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if err := k.refresh(); err != nil {
		return err
	}
	all, err := do(slices.Clone(k.stored))
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	if err := replace(k.path, append(text, '\n')); err != nil {
		return fmt.Errorf("save the access keys: %w", err)
	}
	return k.refresh()
}

func replace(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".keys-") // readable by its owner only
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already if all went well
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
