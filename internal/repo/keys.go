package repo

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"github.com/zeebo/blake3"
	"golang.org/x/crypto/chacha20poly1305"

	"pileus/internal/store"
)

// keySize is the length of the repository key and of the keys derived from it, in bytes.
const keySize = 32

// Contexts of BLAKE3's key derivation; each names one use and never changes.
const (
	contextSeal  = "pileus 2026-11-23 repository seal"
	contextHash  = "pileus 2026-11-23 repository hash"
	contextCheck = "pileus 2026-11-23 repository key check"
)

// keyring holds what is derived from the repository key. In a repository that is
// not encrypted seal is nil and hashKey empty.
type keyring struct {
	seal    cipher.AEAD
	hashKey []byte
}

func newKeyring(master []byte) (keyring, error) {
	sealKey, hashKey := make([]byte, keySize), make([]byte, keySize)
	blake3.DeriveKey(contextSeal, master, sealKey)
	blake3.DeriveKey(contextHash, master, hashKey)
	aead, err := chacha20poly1305.NewX(sealKey)
	return keyring{seal: aead, hashKey: hashKey}, err
}

// keyCheck lets Open tell a wrong key at once. It reveals nothing of the key.
func keyCheck(master []byte, id string) []byte {
	out := make([]byte, 16)
	blake3.DeriveKey(contextCheck+" "+id, master, out)
	return out
}

// sealed encrypts plain, bound to what it is and where it lies (aad), and
// appends nonce and ciphertext to dst. Without a key it appends plain.
func (k keyring) sealed(dst, plain, aad []byte) []byte {
	if k.seal == nil {
		return append(dst, plain...)
	}
	n := len(dst)
	dst = append(dst, make([]byte, chacha20poly1305.NonceSizeX)...)
	rand.Read(dst[n:]) // crypto/rand.Read never fails
	return k.seal.Seal(dst, dst[n:n+chacha20poly1305.NonceSizeX], plain, aad)
}

// opened undoes sealed, appending to dst.
func (k keyring) opened(dst, stored, aad []byte) ([]byte, error) {
	if k.seal == nil {
		return append(dst, stored...), nil
	}
	if len(stored) < chacha20poly1305.NonceSizeX+k.seal.Overhead() {
		return nil, errors.New("too short to be sealed")
	}
	out, err := k.seal.Open(dst, stored[:chacha20poly1305.NonceSizeX], stored[chacha20poly1305.NonceSizeX:], aad)
	if err != nil {
		return nil, errors.New("its seal is broken")
	}
	return out, nil
}

// KeySlot is one way to unlock a repository: the repository key, wrapped.
type KeySlot struct {
	// Name is the slot's object name: lower-case letters, digits, hyphens.
	Name string
	// Recipients can each unwrap the key. An age scrypt recipient stands alone.
	Recipients []age.Recipient
}

func writeKeySlot(ctx context.Context, st store.Store, slot KeySlot, master []byte) error {
	var buf bytes.Buffer
	w, err := age.Encrypt(&buf, slot.Recipients...)
	if err == nil {
		if _, err = w.Write(master); err == nil {
			err = w.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("wrap the repository key for %s: %w", slot.Name, err)
	}
	if err := st.Put(ctx, "keys/"+slot.Name+".age", bytes.NewReader(buf.Bytes())); err != nil {
		return fmt.Errorf("store key %s: %w", slot.Name, err)
	}
	return nil
}

// unlock tries the identities on every key slot and returns the repository key.
func unlock(ctx context.Context, st store.Store, cfg Config, identities []age.Identity) ([]byte, error) {
	if len(identities) == 0 {
		return nil, ErrLocked
	}
	slots := 0
	for info, err := range st.List(ctx, "keys/") {
		if err != nil {
			return nil, fmt.Errorf("list the repository's keys: %w", err)
		}
		if !strings.HasSuffix(info.Key, ".age") {
			continue
		}
		slots++
		wrapped, err := readAll(ctx, st, info.Key)
		if err != nil {
			return nil, err
		}
		r, err := age.Decrypt(bytes.NewReader(wrapped), identities...)
		if err != nil {
			continue // another slot may fit
		}
		master, err := io.ReadAll(io.LimitReader(r, keySize+1))
		if err != nil || len(master) != keySize {
			continue
		}
		if subtle.ConstantTimeCompare(keyCheck(master, cfg.ID), cfg.KeyCheck) == 1 {
			return master, nil
		}
	}
	if slots == 0 {
		return nil, fmt.Errorf("the repository is encrypted but holds no wrapped key below keys/: %w", ErrDamaged)
	}
	return nil, ErrWrongKey
}

func readAll(ctx context.Context, st store.Store, key string) ([]byte, error) {
	rc, err := st.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return b, nil
}
