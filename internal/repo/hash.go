package repo

import (
	"encoding/hex"
	"fmt"

	"github.com/zeebo/blake3"
)

// Hash is BLAKE3-256 of plain bytes, keyed by the repository key where there is
// one, so that hashes in an encrypted repository say nothing of the content.
type Hash [32]byte

// String is the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText makes a hash appear in JSON in hexadecimal.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads the hexadecimal form.
func (h *Hash) UnmarshalText(b []byte) error { return unhex(h[:], b, "hash") }

func unhex(dst, text []byte, what string) error {
	if n, err := hex.Decode(dst, text); err != nil || n != len(dst) {
		return fmt.Errorf("%q is not a %s", text, what)
	}
	return nil
}

func (k keyring) hasher() *blake3.Hasher {
	if len(k.hashKey) == 0 {
		return blake3.New()
	}
	h, err := blake3.NewKeyed(k.hashKey)
	if err != nil { // only for a key of another length than 32 bytes
		return blake3.New()
	}
	return h
}

func sum(h *blake3.Hasher) (out Hash) {
	h.Sum(out[:0])
	return out
}

func (k keyring) hash(b []byte) Hash {
	h := k.hasher()
	h.Write(b) // a hash never fails
	return sum(h)
}
