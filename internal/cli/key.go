package cli

import (
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"pileus/internal/control"
)

func (a *app) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Manage the keys of the repository and of the RDS API",
		Long: `The key of an encrypted repository lies in the repository, wrapped once per slot. Each slot
is one way in: a passphrase, age recipients, or the key file of a host. list, add and remove
are about these.

Clients of the RDS API, which ` + "`pileus serve`" + ` answers, sign with access keys. create, access-list
and access-remove are about those.`,
		Example: `  pileus key list
  pileus key add offsite --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p
  pileus key remove old-host
  pileus key create --name laptop`,
	}
	list := &cobra.Command{
		Use: "list", Short: "List the ways into the repository", Example: "  pileus key list", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			slots, err := d.Keys(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(slots, func(w io.Writer) error {
				t := newTable(w, "KEY", "ADDED")
				for _, s := range slots {
					t.row(s.Name, stamp(s.Added))
				}
				return t.end("The repository is not encrypted.")
			})
		},
	}
	var recipients []string
	var passFile string
	add := &cobra.Command{
		Use: "add NAME", Short: "Add a way into the repository",
		Example: "  pileus key add offsite --recipient age1…\n  pileus key add second-passphrase", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			q := control.KeyRequest{Name: given[0]}
			for _, text := range recipients {
				r, err := age.ParseX25519Recipient(text)
				if err != nil {
					return usageError{fmt.Errorf("--recipient %s: %w", text, err)}
				}
				q.Recipients = append(q.Recipients, r)
			}
			d, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			if !d.Repo.Encrypted() {
				return usageError{errors.New("the repository is not encrypted: there is nothing that a key could open")}
			}
			if len(recipients) == 0 {
				if passFile == "" {
					return usageError{errors.New("give --recipient or --new-passphrase-file")}
				}
				if q.Passphrase, err = a.newPassphrase(passFile); err != nil {
					return err
				}
			}
			if err := d.AddKey(cmd.Context(), q); err != nil {
				return err
			}
			return a.print(map[string]string{"added": q.Name}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "Added %s. Try it on another host before you rely on it.\n", q.Name)
				return err
			})
		},
	}
	add.Flags().StringArrayVar(&recipients, "recipient", nil, "age recipient; may be repeated")
	add.Flags().StringVar(&passFile, "new-passphrase-file", "", "`FILE` that holds a further passphrase")
	remove := &cobra.Command{
		Use: "remove NAME", Short: "Close a way into the repository",
		Long: `Removes one slot; never the last. Who kept a copy of the unwrapped key or of the
repository can still read what it holds.`,
		Example: "  pileus key remove old-host", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			d, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			if err := d.RemoveKey(cmd.Context(), given[0]); err != nil {
				return err
			}
			return a.print(map[string]string{"removed": given[0]}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "Removed %s.\n", given[0])
				return err
			})
		},
	}
	cmd.AddCommand(list, add, remove)
	cmd.AddCommand(a.accessKeyCommands()...)
	return cmd
}
