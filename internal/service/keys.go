package service

import (
	"fmt"
	"path/filepath"

	"pileus/internal/access"
	"pileus/internal/config"
	"pileus/internal/control"
)

// OpenKeys opens the access keys of a configuration: those that it names, and those that
// `pileus key create` made.
func OpenKeys(cfg *config.Config) (*access.Keys, error) {
	var configured []access.Key
	for id, c := range cfg.Serve.AccessKeys {
		secret, err := control.ReadSecret(c.SecretFile)
		if err != nil {
			return nil, fmt.Errorf("access key %s: %w", id, err)
		}
		configured = append(configured, access.Key{ID: id, Secret: secret, Role: access.Role(c.Role)})
	}
	return access.Open(filepath.Join(cfg.StateDir, "access-keys.json"), configured)
}
