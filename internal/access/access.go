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
	"unicode"
	"unicode/utf8"

	"pileus/internal/config"
)

// Role is what a key may do.
type Role string

// The roles.
const (
	Operator Role = config.RoleOperator // everything
	ReadOnly Role = config.RoleReadOnly // describe and list
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

// String leaves the secret out, so that no log holds it.
func (k Key) String() string { return fmt.Sprintf("access key %s (%s)", k.ID, k.Role) }

// Random bytes, in base32: 16 characters of an ID behind its prefix, 40 of a secret. Base32
// has no character that a shell or a flag would take for its own.
const (
	idPrefix    = "PILE"
	idBytes     = 10
	secretBytes = 25
)

// maxName bounds the name of a key, in characters.
const maxName = 100

// Errors that callers tell apart.
var (
	// ErrExposed: a file with secrets can be read by others than its owner.
	ErrExposed    = errors.New("the file can be read by others than its owner")
	ErrUnknown    = errors.New("there is no such access key")
	ErrConfigured = errors.New("the access key is one of serve.access_keys in pileus.yaml; remove it there")
)

// Keys finds keys. It may be used concurrently, and sees what another process changes in the file.
type Keys struct {
	path       string
	configured map[string]Key

	mu     sync.Mutex
	stored []Key
	seen   fs.FileInfo
}

// Open reads the file of made keys, which need not be there yet, and the secrets of the
// configured ones, which are read this once. An error wraps ErrExposed if a file can be
// read by others.
func Open(path string, configured map[string]config.AccessKey) (*Keys, error) {
	k := &Keys{path: path, configured: map[string]Key{}}
	for id, c := range configured {
		secret, err := readSecret(c.SecretFile)
		if err != nil {
			return nil, fmt.Errorf("secret of access key %s (serve.access_keys): %w", id, err)
		}
		k.configured[id] = Key{ID: id, Secret: secret, Role: Role(c.Role)}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.refresh(); err != nil {
		return nil, err
	}
	return k, nil
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
	text, info, err := readPrivate(k.path)
	if err != nil {
		return fmt.Errorf("read the access keys: %w", err)
	}
	var stored []Key
	if err := json.Unmarshal(text, &stored); err != nil {
		return fmt.Errorf("the access keys in %s are damaged: %w; put the file right, or move it away and make new keys", k.path, err)
	}
	for _, s := range stored {
		// With an empty secret anybody could sign.
		if _, err := ParseRole(string(s.Role)); err != nil || s.ID == "" || s.Secret == "" {
			return fmt.Errorf("the access keys in %s are damaged: %q lacks its ID, secret or role; remove it from the file", k.path, s.ID)
		}
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

// Create makes a key; name is for people, at most 100 characters, and may be empty. Its secret
// is nowhere but in the answer and in the file.
func (k *Keys) Create(role Role, name string, now time.Time) (Key, error) {
	if _, err := ParseRole(string(role)); err != nil {
		return Key{}, err
	}
	if err := ValidateName(name); err != nil {
		return Key{}, err
	}
	id, secret := make([]byte, idBytes), make([]byte, secretBytes)
	rand.Read(id)
	rand.Read(secret)
	key := Key{
		ID: idPrefix + base32.StdEncoding.EncodeToString(id), Secret: base32.StdEncoding.EncodeToString(secret),
		Role: role, Name: name, Created: now.UTC().Truncate(time.Second),
	}
	if err := k.change(func(all []Key) ([]Key, error) { return append(all, key), nil }); err != nil {
		return Key{}, err
	}
	return key, nil
}

// ValidateName checks the name of a key.
func ValidateName(name string) error {
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	if !utf8.ValidString(name) || utf8.RuneCountInString(name) > maxName || strings.ContainsFunc(name, unprintable) {
		return fmt.Errorf("the name of an access key has at most %d printable characters; %q is none", maxName, name)
	}
	return nil
}

// Remove removes a made key. Errors: ErrUnknown, ErrConfigured.
func (k *Keys) Remove(id string) error {
	if _, ok := k.configured[id]; ok {
		return fmt.Errorf("%w: %s", ErrConfigured, id)
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
	unlock, err := lock(filepath.Dir(k.path))
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
	if err := replacePrivate(k.path, append(text, '\n')); err != nil {
		return fmt.Errorf("save the access keys: %w", err)
	}
	return k.refresh()
}
