package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"pileus/internal/config"
	"pileus/internal/control"
)

func (a *app) initCommand() *cobra.Command {
	var (
		p          config.Params
		encrypt    bool
		noHostKey  bool
		passFile   string
		recipients []string
	)
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write pileus.yaml and create the repository",
		Long: `Writes a commented pileus.yaml and creates the repository it names: a local folder,
s3://bucket/prefix, gs://bucket/prefix or azblob://container/prefix. A repository that
is there already is joined, so that a second host, or a new one after a disaster, can
use it. An existing pileus.yaml is never overwritten.

With --encrypt all content is sealed under a key that lies in the repository, wrapped
by a passphrase or for age recipients (--recipient). Neither is kept by Pileus: who
loses them and the host loses the backups. For every-day use the host gets a key file.`,
		Example: `  pileus init
  pileus init --repository /backup/pileus --cluster prod --connection "host=/var/run/postgresql user=postgres dbname=postgres"
  pileus init --repository s3://archive-backups/prod --s3-region us-west-2 --cluster prod --connection "host=db1 user=pileus dbname=postgres" --password-file /etc/pileus/prod.password
  pileus init --encrypt --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := a.config
			if path == "" {
				path = "pileus.yaml"
			}
			q := control.SetupRequest{Path: path, Params: p, Encrypt: encrypt || len(recipients) > 0, NoHostKey: noHostKey}
			if noHostKey || !q.Encrypt {
				q.Params.PassphraseFile = passFile // with a key file, the passphrase has no business on this host
			}
			for _, text := range recipients {
				r, err := age.ParseX25519Recipient(text)
				if err != nil {
					return usageError{fmt.Errorf("--recipient %s: %w", text, err)}
				}
				q.Recipients = append(q.Recipients, r)
			}
			if q.Encrypt && len(recipients) == 0 {
				var err error
				if q.Passphrase, err = a.newPassphrase(passFile); err != nil {
					return err
				}
			}
			res, err := control.Setup(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.print(res, func(w io.Writer) error { return describeSetup(w, res, q) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.RepositoryURL, "repository", "", "folder or `URL` of the repository (default: pileus-repository beside the file)")
	f.StringVar(&p.S3.Region, "s3-region", "", "region of the bucket")
	f.StringVar(&p.S3.Endpoint, "s3-endpoint", "", "`URL` of an S3 server other than Amazon's")
	f.BoolVar(&p.S3.PathStyle, "s3-path-style", false, "put the bucket into the path of the URL, as many S3 servers want")
	f.StringVar(&p.Cluster, "cluster", "", "identifier of the first cluster")
	f.StringVar(&p.Connection, "connection", "", "its libpq connection string, without a password")
	f.StringVar(&p.PasswordFile, "password-file", "", "`FILE` that holds the role's password")
	f.StringVar(&p.BinDir, "bin-dir", "", "folder of PostgreSQL's programs, if they are not where they usually are")
	f.StringVar(&p.StateDir, "state-dir", "", "folder for the WAL spool and status files")
	f.BoolVar(&encrypt, "encrypt", false, "seal everything in the repository")
	f.StringVar(&passFile, "passphrase-file", "", "`FILE` that holds the passphrase (default: $"+control.PassphraseVariable+", or asked for)")
	f.StringArrayVar(&recipients, "recipient", nil, "age recipient who can open the repository; may be repeated")
	f.BoolVar(&noHostKey, "no-host-key", false, "keep no key file on this host: every command then needs the passphrase or an age identity")
	f.StringVar(&p.KeyFile, "key-file", "", "where the host's key file goes, or lies when a repository is joined (default for --encrypt: pileus.key beside the file)")
	return cmd
}

func describeSetup(w io.Writer, res control.SetupResult, q control.SetupRequest) error {
	verb := "Created"
	if res.Joined {
		verb = "Joined"
	}
	fmt.Fprintf(w, "%s repository %s at %s\nWrote %s\n", verb, res.ID, res.Repository, res.Path)
	if q.Encrypt {
		fmt.Fprintln(w, "\nThe repository is encrypted. KEEP THIS APART FROM THIS HOST, or the backups are lost with it:")
		if q.Passphrase != "" {
			fmt.Fprintln(w, "  - the passphrase. It is stored nowhere; nobody can recover it.")
		}
		if len(q.Recipients) > 0 {
			fmt.Fprintln(w, "  - the age identities of the recipients you named.")
		}
		fmt.Fprintln(w, "  - where the repository is:", res.Repository)
		if res.KeyFile != "" {
			fmt.Fprintf(w, "%s opens the repository on this host, for every-day use. It is mode 0600; it may be copied to a\nsafe place, but it must not be the only way in.\n", res.KeyFile)
		}
	}
	next := q.Params.Cluster
	if next == "" {
		_, err := fmt.Fprintf(w, "\nNext: add your cluster under `clusters:` in %s, then run `pileus check`.\n", res.Path)
		return err
	}
	_, err := fmt.Fprintf(w, "\nNext:\n  pileus check %[1]s          what is missing, if anything\n  pileus wal receive %[1]s    keep this running\n  pileus backup %[1]s\n", next)
	return err
}

// newPassphrase takes the passphrase from a file, the environment, or a person
// who types it twice.
func (a *app) newPassphrase(file string) (string, error) {
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return "", usageError{err}
		}
		if p := strings.TrimRight(string(b), "\r\n"); p != "" {
			return p, nil
		}
		return "", usageError{fmt.Errorf("%s is empty", file)}
	}
	if p := os.Getenv(control.PassphraseVariable); p != "" {
		return p, nil
	}
	in, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", usageError{errors.New("--encrypt needs a passphrase: set " + control.PassphraseVariable + ", give --passphrase-file or --recipient, or run this on a terminal")}
	}
	first, err := a.askSecret(in, "Passphrase for the repository: ")
	if err != nil {
		return "", err
	}
	again, err := a.askSecret(in, "The same again: ")
	if err != nil {
		return "", err
	}
	switch {
	case first != again:
		return "", usageError{errors.New("the two passphrases differ; nothing was created")}
	case len(first) < 8:
		return "", usageError{errors.New("the passphrase has fewer than 8 characters; nothing was created")}
	}
	return first, nil
}

func (a *app) askSecret(in *os.File, prompt string) (string, error) {
	fmt.Fprint(a.stderr, prompt)
	b, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(a.stderr)
	return string(b), err
}
