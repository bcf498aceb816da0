package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"pileus/internal/config"
	"pileus/internal/control"
	"pileus/internal/progress"
)

// app is what all commands share.
type app struct {
	version string
	config  string // --config
	json    bool   // --json
	quiet   bool   // --quiet
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
}

// Run executes the command line and returns the exit code.
func Run(ctx context.Context, version string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{version: version, stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.root()
	a.json = slices.Contains(args, "--json") // also for an error in the flags before it
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && strings.HasPrefix(err.Error(), "unknown command") { // cobra's own error has no type
		err = usageError{err}
	}
	if err != nil && err.Error() != "" {
		a.printError(cmd, err)
	}
	return exitCode(err)
}

func (a *app) printError(cmd *cobra.Command, err error) {
	if a.json {
		json.NewEncoder(a.stderr).Encode(map[string]any{"error": err.Error(), "exit_code": exitCode(err)}) // best effort: stderr may be closed
		return
	}
	fmt.Fprintf(a.stderr, "pileus: %s\n", strings.ReplaceAll(err.Error(), "\n", "\n        "))
	var usage usageError
	if errors.As(err, &usage) && cmd != nil {
		fmt.Fprintf(a.stderr, "See `%s --help`.\n", cmd.CommandPath())
	}
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "pileus",
		Short: "Backup and point-in-time recovery for PostgreSQL",
		Long: `Pileus keeps a PostgreSQL database so that it can be brought back at any moment
you name, in a new cluster.

Start with:  pileus init, then pileus wal receive and pileus backup.
See it work: pileus demo`,
		Example: `  pileus init --cluster prod --connection "host=db1 user=pileus dbname=postgres"
  pileus backup prod
  pileus list
  pileus restore prod --as prod-restored --data-dir /srv/prod-restored --to "2h ago" --start`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       a.version,
	}
	root.CompletionOptions.HiddenDefaultCmd = false
	f := root.PersistentFlags()
	f.StringVar(&a.config, "config", "", "the configuration `FILE` (default: $PILEUS_CONFIG, ./pileus.yaml, ~/.config/pileus/pileus.yaml, /etc/pileus/pileus.yaml)")
	f.BoolVar(&a.json, "json", false, "print results, progress and errors as JSON")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "print no progress")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(a.initCommand(), a.checkCommand(), a.backupCommand(), a.walCommand(), a.snapshotCommand(), a.listCommand(),
		a.showCommand(), a.restoreCommand(), a.verifyCommand(), a.pruneCommand(), a.keyCommand(), a.serveCommand(), a.statusCommand(), a.auditCommand(), a.planCommand(), a.findCommand(), a.peekCommand(), a.timelineCommand(),
		a.recoverCommand(), a.stepCommand(), a.runCommand(), a.fenceCommand(), a.unfenceCommand(), a.drillCommand(),
		a.demoCommand(), a.manCommand(root))
	complete(root)
	return root
}

// complete gives every command what all have in common: the exit codes at the end
// of its help, and for a group an error for a command that it does not have, which
// would otherwise print help and succeed.
func complete(cmd *cobra.Command) {
	if cmd.Long == "" {
		cmd.Long = cmd.Short + "."
	}
	cmd.Long += "\n\n" + exitCodes(cmd)
	for _, sub := range cmd.Commands() {
		complete(sub)
	}
	if cmd.HasSubCommands() && cmd.RunE == nil {
		cmd.RunE = func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				return usageError{fmt.Errorf("unknown command %q for %q", given[0], cmd.CommandPath())}
			}
			return cmd.Help()
		}
	}
}

// exitAnnotation is where a command keeps its exit codes if they differ from the others'.
const exitAnnotation = "exit codes"

// exitCodes is the table that the command's help ends with.
func exitCodes(cmd *cobra.Command) string {
	if own := cmd.Annotations[exitAnnotation]; own != "" {
		return own
	}
	return exitHelp
}

// args wraps an argument check so that its failure counts as wrong usage.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if err := check(cmd, given); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// open loads the configuration and opens the repository.
func (a *app) open(ctx context.Context) (*control.Deployment, error) {
	return a.openFor(ctx, control.Patient)
}

func (a *app) openFor(ctx context.Context, patience time.Duration) (*control.Deployment, error) {
	cfg, err := a.load()
	if err != nil {
		return nil, err
	}
	return control.Open(ctx, cfg, a.version, patience)
}

// load reads the configuration and passes its warnings on.
func (a *app) load() (*config.Config, error) {
	cfg, err := control.LoadConfig(a.config)
	if err != nil {
		return nil, err
	}
	for _, w := range cfg.Warnings {
		fmt.Fprintf(a.stderr, "warning: %s\n", w)
	}
	return cfg, nil
}

// one is the cluster that was named, or the only one that is configured.
func one(cfg *config.Config, given []string) (string, error) {
	if len(given) > 0 {
		return strings.ToLower(given[0]), nil
	}
	names := cfg.ClusterNames()
	if len(names) == 1 {
		return names[0], nil
	}
	return "", usageError{fmt.Errorf("name a cluster: %s has %s", cfg.Path, strings.Join(names, ", "))}
}

// reporter renders progress on standard error. end must be called.
func (a *app) reporter() (progress.Reporter, func()) {
	return newReporter(a.stderr, isTerminal(a.stderr), a.json, a.quiet)
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// print writes a result: v as JSON with --json, otherwise what text writes.
func (a *app) print(v any, text func(io.Writer) error) error {
	if a.json {
		enc := json.NewEncoder(a.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	return text(a.stdout)
}
