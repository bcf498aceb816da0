package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"pileus/internal/access"
	"pileus/internal/service"
)

// accessKeyCommands are what `key` has for the access keys of the RDS API.
func (a *app) accessKeyCommands() []*cobra.Command {
	return []*cobra.Command{a.keyCreateCommand(), a.keyAccessListCommand(), a.keyAccessRemoveCommand()}
}

// accessKeys opens the keys of this host's `pileus serve`. No repository is needed.
func (a *app) accessKeys() (*access.Keys, error) {
	cfg, err := a.load()
	if err != nil {
		return nil, err
	}
	return service.OpenKeys(cfg)
}

func (a *app) keyCreateCommand() *cobra.Command {
	var role, name string
	cmd := &cobra.Command{
		Use: "create", Short: "Create an access key of the RDS API",
		Long: `Creates an access key for clients of ` + "`pileus serve`" + `, and prints its secret, this once. A pileus
serve that runs already knows it at once. A key of the role read-only may describe and
list; an operator may do everything.`,
		Example: "  pileus key create --name laptop\n  pileus key create --role read-only --name monitoring --json",
		Args:    args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			r, err := access.ParseRole(role)
			if err != nil {
				return usageError{fmt.Errorf("--role: %w", err)}
			}
			if err := access.ValidateName(name); err != nil {
				return usageError{fmt.Errorf("--name: %w", err)}
			}
			keys, err := a.accessKeys()
			if err != nil {
				return err
			}
			key, err := keys.Create(r, name, time.Now())
			if err != nil {
				return err
			}
			return a.print(key, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, `Access key ID:      %s
Secret access key:  %s
Role:               %s

The secret is not shown again. For the tools of AWS put both in AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY, or in a profile.
`, key.ID, key.Secret, key.Role)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&role, "role", string(access.Operator), "`ROLE`: operator or read-only")
	cmd.Flags().StringVar(&name, "name", "", "`NAME` for people, to know the key again")
	return cmd
}

func (a *app) keyAccessListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "access-list", Short: "List the access keys of the RDS API",
		Long:    "Lists the access keys of the RDS API without their secrets, those of pileus.yaml too.",
		Example: "  pileus key access-list", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			keys, err := a.accessKeys()
			if err != nil {
				return err
			}
			all, err := keys.List()
			if err != nil {
				return err
			}
			return a.print(all, func(w io.Writer) error {
				t := newTable(w, "ACCESS KEY", "ROLE", "CREATED", "NAME")
				for _, k := range all {
					created := "in pileus.yaml"
					if !k.Created.IsZero() {
						created = stamp(k.Created)
					}
					t.row(k.ID, string(k.Role), created, k.Name)
				}
				return t.end("There are no access keys. Make one with `pileus key create`.")
			})
		},
	}
}

func (a *app) keyAccessRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "access-remove ID", Short: "Remove an access key of the RDS API",
		Long: `Removes an access key that ` + "`pileus key create`" + ` made. Requests that it signs are refused from now
on, by a pileus serve that runs already too.`,
		Example: "  pileus key access-remove PILEA2B3C4D5E6F7G2H3", Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, given []string) error {
			keys, err := a.accessKeys()
			if err != nil {
				return err
			}
			if err := keys.Remove(given[0]); err != nil {
				return err
			}
			return a.print(map[string]string{"removed": given[0]}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "Removed %s.\n", given[0])
				return err
			})
		},
	}
}
