package repo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"pileus/internal/store"
)

// passphraseWork is scrypt's work factor, as a power of two: about half a second
// and 128 MiB, which is what guessing costs as well.
const passphraseWork = 17

// MinPassphrase is the least number of bytes of a passphrase.
const MinPassphrase = 8

var slotName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// KeySlotInfo describes a slot that is in the repository.
type KeySlotInfo struct {
	Name  string    `json:"name"`
	Added time.Time `json:"added"`
}

// PassphraseSlot makes a slot that a passphrase opens.
func PassphraseSlot(name, passphrase string) (KeySlot, error) {
	if len(passphrase) < MinPassphrase {
		return KeySlot{}, fmt.Errorf("the passphrase has fewer than %d characters", MinPassphrase)
	}
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return KeySlot{}, fmt.Errorf("use the passphrase: %w", err)
	}
	r.SetWorkFactor(passphraseWork)
	return KeySlot{Name: name, Recipients: []age.Recipient{r}}, nil
}

// GenerateHostKey makes a new age identity in a file of mode 0600, which must
// not exist.
func GenerateHostKey(path string) (*age.X25519Identity, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write the key file: %w", err)
	}
	_, err = fmt.Fprintf(f, "# This host's key to a Pileus repository. Keep it secret.\n# public key: %s\n%s\n", id.Recipient(), id)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, fmt.Errorf("write the key file: %w", errors.Join(err, os.Remove(path)))
	}
	return id, nil
}

// LoadIdentities gathers what may open a repository: the identities of an age key
// file and a passphrase; either may be empty. The key file comes first, as trying
// a passphrase is slow by design.
func LoadIdentities(keyFile, passphrase string) ([]age.Identity, error) {
	var ids []age.Identity
	if keyFile != "" {
		f, err := os.Open(keyFile)
		switch {
		case errors.Is(err, os.ErrNotExist) && passphrase != "":
			// A host that was set up anew has the passphrase only.
		case err != nil:
			return nil, fmt.Errorf("read the key file: %w", err)
		default:
			defer f.Close()
			if ids, err = age.ParseIdentities(f); err != nil {
				// The cause is not wrapped: it may quote the key.
				return nil, fmt.Errorf("%s is not an age key file", keyFile)
			}
		}
	}
	if passphrase != "" {
		id, err := age.NewScryptIdentity(passphrase)
		if err != nil {
			return nil, fmt.Errorf("use the passphrase: %w", err)
		}
		id.SetMaxWorkFactor(22)
		ids = append(ids, id)
	}
	return ids, nil
}

// KeySlots lists the ways into the repository, by name; none if it is not encrypted.
func (r *Repository) KeySlots(ctx context.Context) ([]KeySlotInfo, error) {
	out := []KeySlotInfo{}
	for info, err := range r.store.List(ctx, "keys/") {
		if err != nil {
			return nil, fmt.Errorf("list the repository's keys: %w", err)
		}
		if name, ok := strings.CutSuffix(strings.TrimPrefix(info.Key, "keys/"), ".age"); ok {
			out = append(out, KeySlotInfo{Name: name, Added: info.Modified.UTC()})
		}
	}
	return out, nil
}

// AddKeySlot adds a way into an encrypted repository. A used name is store.ErrExists.
func (r *Repository) AddKeySlot(ctx context.Context, slot KeySlot) error {
	if r.master == nil {
		return errors.New("the repository is not encrypted: there is nothing a key could open")
	}
	if !slotName.MatchString(slot.Name) {
		return fmt.Errorf("%q cannot name a key: use up to 63 lower-case letters, digits and hyphens", slot.Name)
	}
	return writeKeySlot(ctx, r.store, slot, r.master)
}

// RemoveKeySlot closes a way into the repository; never the last one.
func (r *Repository) RemoveKeySlot(ctx context.Context, name string) error {
	slots, err := r.KeySlots(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(slots, func(s KeySlotInfo) bool { return s.Name == name }) {
		return fmt.Errorf("key %s is %w", name, ErrNotFound)
	}
	if len(slots) == 1 {
		return fmt.Errorf("%s is the only key: without it nobody could read the repository; add another first", name)
	}
	if err := r.store.Delete(ctx, "keys/"+name+".age"); err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("remove key %s: %w", name, err)
	}
	return nil
}
