package cli

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func (a *app) manCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write the manual pages",
		Long:    "Writes a manual page for every command into DIR, which is created if it is absent.",
		Example: "  pileus man /usr/local/share/man/man1",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, given []string) error {
			if err := os.MkdirAll(given[0], 0o755); err != nil {
				return err
			}
			// A fixed date keeps the pages the same from build to build.
			date := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			head := &doc.GenManHeader{Title: "PILEUS", Section: "1", Source: "pileus " + a.version, Date: &date}
			if err := doc.GenManTree(root, head, given[0]); err != nil {
				return fmt.Errorf("write manual pages: %w", err)
			}
			return nil
		},
	}
}
