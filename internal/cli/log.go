package cli

import (
	"io"
	"log/slog"
)

// newLogger is what long-running commands report to: text for people, JSON lines
// with --json, warnings only with --quiet.
func newLogger(w io.Writer, asJSON, quiet bool) *slog.Logger {
	opt := &slog.HandlerOptions{}
	if quiet {
		opt.Level = slog.LevelWarn
	}
	if asJSON {
		return slog.New(slog.NewJSONHandler(w, opt))
	}
	return slog.New(slog.NewTextHandler(w, opt))
}
