package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
)

// SingleUser runs SQL in single-user mode on a stopped server's data directory: as the bootstrap
// superuser, whatever its name, with nobody else connected. Each statement ends with
// a semicolon and a newline.
func (in *Instance) SingleUser(ctx context.Context, database, sql string) error {
	if p, up, err := in.Running(); err != nil {
		return err
	} else if up {
		return fmt.Errorf("single-user mode on %s: a server runs there (process %d): stop it first", in.DataDir, p.PID)
	}
	// -j: statements end with a semicolon and two newlines. Settings that need other files or
	// write logs elsewhere are of no use here.
	cmd, err := in.command(ctx, "postgres", "--single", "-j", "-D", in.DataDir, "-c", "exit_on_error=on", "-c", "logging_collector=off",
		"-c", "log_destination=stderr", "-c", "archive_mode=off", "-c", "shared_preload_libraries=", "-c", "ssl=off", database)
	if err != nil {
		return err
	}
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(sql, ";\n", ";\n\n"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = runBound(cmd)
	said := out.String()
	if err == nil && (strings.Contains(said, "ERROR: ") || strings.Contains(said, "FATAL: ")) {
		err = errors.New("it did not do it")
	}
	if err != nil {
		return fmt.Errorf("single-user mode on %s: %w: %s", in.DataDir, err, strings.TrimSpace(said))
	}
	return nil
}

// CheckConf has the server's program read the configuration files, and returns what it does not take.
func (in *Instance) CheckConf(ctx context.Context) error {
	_, err := in.run(ctx, "postgres", "-D", in.DataDir, "-C", "port")
	return err
}
