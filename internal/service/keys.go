package service

import (
	"path/filepath"

	"pileus/internal/access"
	"pileus/internal/config"
)

// OpenKeys opens the access keys of a configuration: those that it names, and those that
// `pileus key create` made.
func OpenKeys(cfg *config.Config) (*access.Keys, error) {
	return access.Open(filepath.Join(cfg.StateDir, "access-keys.json"), cfg.Serve.AccessKeys)
}
