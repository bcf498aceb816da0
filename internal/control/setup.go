package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"filippo.io/age"

	"pileus/internal/config"
	"pileus/internal/repo"
	"pileus/internal/store"
)

// SetupRequest is what `pileus init` was told.
type SetupRequest struct {
	Path   string // of the pileus.yaml to write
	Params config.Params
	// Encryption, if the repository shall be encrypted.
	Encrypt    bool
	Passphrase string          // wraps the repository key, for the day the host is gone
	Recipients []age.Recipient // the same with age keys whose holders are elsewhere
	NoHostKey  bool            // do not keep a key file on this host
}

// SetupResult says what Setup made.
type SetupResult struct {
	Path       string // of pileus.yaml
	Repository string // URL
	ID         string // of the repository
	KeyFile    string // of this host, empty if none was made
	Joined     bool   // the repository was there already, and was opened
}

// Setup writes pileus.yaml and creates the repository, or joins one that is there.
// It writes the file last and never over another, so that a Setup that failed
// can be run again.
func Setup(ctx context.Context, q SetupRequest) (SetupResult, error) {
	res := SetupResult{Path: q.Path}
	if _, err := os.Lstat(q.Path); err == nil {
		return res, &ConfigError{fmt.Errorf("%s is there already and was left as it is: edit it, or name another file with --config", q.Path)}
	}
	if q.Encrypt && q.Passphrase == "" && len(q.Recipients) == 0 {
		return res, &ConfigError{errors.New("an encrypted repository needs a passphrase or a recipient that can open it when this host is gone")}
	}
	dir, err := filepath.Abs(filepath.Dir(q.Path))
	if err != nil {
		return res, err
	}
	keyFile := q.Params.KeyFile
	if q.Encrypt && !q.NoHostKey && keyFile == "" {
		keyFile = filepath.Join(dir, "pileus.key")
		q.Params.KeyFile = keyFile
	}
	// The file is read before anything is made: what it says wrong stops here.
	cfg, err := previewConfig(q)
	if err != nil {
		return res, err
	}
	st, err := openStore(ctx, cfg.Repository, true, Brief)
	if err != nil {
		return res, err
	}
	// Some services that speak S3 ignore "only if it is not there"; on them two
	// writers could overwrite each other.
	if err := store.VerifyCreateOnly(ctx, st); err != nil {
		return res, err
	}
	opt, err := writerOptions(cfg)
	if err != nil {
		return res, err
	}
	res.Repository = cfg.Repository.URL
	var slots []repo.KeySlot
	if q.Encrypt {
		if slots, err = keySlots(q, keyFile, &res); err != nil {
			return res, err
		}
	}
	r, err := repo.Init(ctx, st, slots, opt)
	if errors.Is(err, repo.ErrRepositoryExists) && !q.Encrypt {
		var ids []age.Identity
		if ids, err = identities(cfg.Repository); err == nil {
			r, err = repo.Open(ctx, st, ids, opt)
			res.Joined = true
		}
	}
	if err != nil {
		if res.KeyFile != "" {
			err = errors.Join(err, os.Remove(res.KeyFile)) // made a moment ago, and it opens nothing
		}
		return res, fmt.Errorf("create the repository at %s: %w", cfg.Repository.URL, err)
	}
	res.ID = r.Config().ID
	return res, writeNew(q.Path, config.Template(q.Params))
}

// previewConfig loads what Setup is about to write, from a temporary file beside it.
func previewConfig(q SetupRequest) (*config.Config, error) {
	if err := os.MkdirAll(filepath.Dir(q.Path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of %s: %w", q.Path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(q.Path), ".pileus-init-*.yaml")
	if err != nil {
		return nil, fmt.Errorf("write beside %s: %w", q.Path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(config.Template(q.Params))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	cfg, err := config.Load(f.Name())
	if err != nil {
		return nil, &ConfigError{fmt.Errorf("these settings do not fit together: %w", err)}
	}
	return cfg, nil
}

func keySlots(q SetupRequest, keyFile string, res *SetupResult) ([]repo.KeySlot, error) {
	var slots []repo.KeySlot
	if q.Passphrase != "" {
		slot, err := repo.PassphraseSlot("passphrase", q.Passphrase)
		if err != nil {
			return nil, &ConfigError{err}
		}
		slots = append(slots, slot)
	}
	if len(q.Recipients) > 0 {
		slots = append(slots, repo.KeySlot{Name: "recipients", Recipients: q.Recipients})
	}
	if !q.NoHostKey {
		id, err := repo.GenerateHostKey(keyFile)
		if err != nil {
			return nil, fmt.Errorf("make this host's key: %w", err)
		}
		res.KeyFile = keyFile
		slots = append(slots, repo.KeySlot{Name: "host", Recipients: []age.Recipient{id.Recipient()}})
	}
	return slots, nil
}

// writeNew writes a file that must not exist, durably.
func writeNew(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}
