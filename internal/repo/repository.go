package repo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"pileus/internal/store"
)

// Format is the repository format this package writes and reads.
const Format = 1

// Encryption methods named in repository.json.
const (
	EncryptionNone     = "none"
	EncryptionXChaCha  = "xchacha20-poly1305"
	repositoryFileName = "repository.json"
)

// Config is repository.json: what must be known before anything else can be read.
type Config struct {
	Format     int       `json:"format"`
	ID         string    `json:"id"` // 32 hexadecimal digits, random
	Created    time.Time `json:"created"`
	Encryption string    `json:"encryption"`
	KeyCheck   []byte    `json:"key_check,omitempty"`
	ChunkSize  int       `json:"chunk_size"` // bytes
	Hash       string    `json:"hash"`
}

// Options are choices of the writer; they do not change what can be read.
type Options struct {
	PackSize   int64 // bytes of stored chunks in a pack, 0 = DefaultPackSize
	Level      Level // 0 = fastest
	NoCompress bool
	Workers    int // concurrent compressions, 0 = number of cores
	Uploads    int // packs on their way to the store at once, 0 = 2
}

// DefaultPackSize is the size a pack grows to before it is stored, in bytes.
const DefaultPackSize = 16 << 20

// Repository is an open repository. Its methods may be called concurrently.
type Repository struct {
	store  store.Store
	cfg    Config
	keys   keyring
	master []byte // the repository key; nil if it is not encrypted
	code   coder
	opt    Options
	heads  *sync.Map // manifest key to Backup, see Remembering; nil: nothing is remembered
}

// Remembering is the same repository, for who lists backups again and again: it reads the head
// of each manifest once, as manifests never change. That one is damaged later it does not notice.
func (r *Repository) Remembering() *Repository {
	again := *r
	again.heads = &sync.Map{}
	return &again
}

// Init creates a repository in st. With key slots it is encrypted under a new
// random key, wrapped once per slot; without, it is not. A repository that is
// there already is ErrRepositoryExists, and stays as it was.
func Init(ctx context.Context, st store.Store, slots []KeySlot, opt Options) (*Repository, error) {
	if _, err := st.Stat(ctx, repositoryFileName); err == nil {
		return nil, ErrRepositoryExists
	} else if !errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("look for a repository: %w", err)
	}
	id := randomHex(16)
	cfg := Config{Format: Format, ID: id, Created: time.Now().UTC().Truncate(time.Second),
		Encryption: EncryptionNone, ChunkSize: ChunkSize, Hash: "blake3-256"}
	var master []byte
	if len(slots) > 0 {
		master = make([]byte, keySize)
		rand.Read(master) // crypto/rand.Read never fails
		cfg.Encryption, cfg.KeyCheck = EncryptionXChaCha, keyCheck(master, id)
		for _, slot := range slots {
			// Before repository.json: a repository never exists without its key.
			if err := writeKeySlot(ctx, st, slot, master); err != nil {
				return nil, err
			}
		}
	}
	text, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := st.Put(ctx, repositoryFileName, bytes.NewReader(append(text, '\n'))); err != nil {
		if errors.Is(err, store.ErrExists) {
			return nil, ErrRepositoryExists
		}
		return nil, fmt.Errorf("create the repository: %w", err)
	}
	return open(st, cfg, master, opt)
}

// Open opens the repository in st. An encrypted one needs an identity that opens
// one of its key slots. Errors: ErrNoRepository, ErrLocked, ErrWrongKey, *FormatError.
func Open(ctx context.Context, st store.Store, identities []age.Identity, opt Options) (*Repository, error) {
	text, err := readAll(ctx, st, repositoryFileName)
	if errors.Is(err, store.ErrNotFound) {
		return nil, ErrNoRepository
	} else if err != nil {
		return nil, err
	}
	var cfg Config
	if err := json.Unmarshal(text, &cfg); err != nil {
		return nil, damaged(repositoryFileName, "%v", err)
	}
	if cfg.Format != Format {
		return nil, &FormatError{Found: cfg.Format}
	}
	if cfg.ChunkSize != ChunkSize {
		return nil, damaged(repositoryFileName, "chunk size %d", cfg.ChunkSize)
	}
	switch cfg.Encryption {
	case EncryptionNone:
		return open(st, cfg, nil, opt)
	case EncryptionXChaCha:
		master, err := unlock(ctx, st, cfg, identities)
		if err != nil {
			return nil, err
		}
		return open(st, cfg, master, opt)
	}
	return nil, damaged(repositoryFileName, "encryption %q is unknown", cfg.Encryption)
}

func open(st store.Store, cfg Config, master []byte, opt Options) (*Repository, error) {
	if opt.PackSize <= 0 {
		opt.PackSize = DefaultPackSize
	}
	if opt.Workers <= 0 {
		opt.Workers = runtime.GOMAXPROCS(0)
	}
	if opt.Uploads <= 0 {
		opt.Uploads = 2
	}
	if opt.Level == 0 {
		opt.Level = zstd.SpeedFastest
	}
	r := &Repository{store: st, cfg: cfg, opt: opt, master: master}
	var err error
	if master != nil {
		if r.keys, err = newKeyring(master); err != nil {
			return nil, err
		}
	}
	r.code, err = newCoder(opt.Level, !opt.NoCompress, opt.Workers)
	return r, err
}

// Config is what repository.json says.
func (r *Repository) Config() Config { return r.cfg }

// Encrypted tells whether content is sealed.
func (r *Repository) Encrypted() bool { return r.keys.seal != nil }

// Store is the store below, for callers that measure or list it.
func (r *Repository) Store() store.Store { return r.store }

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // crypto/rand.Read never fails
	return fmt.Sprintf("%x", b)
}

// StoredBytes is the size of all objects in the repository. It lists them all.
func (r *Repository) StoredBytes(ctx context.Context) (int64, error) {
	var sum int64
	for info, err := range r.store.List(ctx, "") {
		if err != nil {
			return 0, fmt.Errorf("add up the repository's objects: %w", err)
		}
		sum += info.Size
	}
	return sum, nil
}
