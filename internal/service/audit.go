package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"pileus/internal/config"
	"pileus/internal/ledger"
)

// ledgerPath is the file of events, audit and schedule.
func ledgerPath(cfg *config.Config) string {
	return filepath.Join(cfg.StateDir, "serve", "ledger.sqlite")
}

// AuditLog reads the audit log of the service on the configuration's state folder, which may be
// running. Error: ErrNotServing if none ever ran.
func AuditLog(ctx context.Context, cfg *config.Config, q ledger.AuditQuery) (all []ledger.AuditEntry, err error) {
	path := ledgerPath(cfg)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w, and never was: there is no audit log at %s", ErrNotServing, path)
	}
	book, err := ledger.Read(ctx, path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, book.Close()) }()
	return book.AuditLog(ctx, q)
}
