package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"pileus/internal/postgres"
)

// accounts are whom the demo becomes when root runs it, in this order.
var accounts = []string{"postgres", "nobody"}

// AsOrdinaryUser runs the same command again as an ordinary account if this
// process is root, since PostgreSQL refuses root. The program is copied to a
// place that the account can read. handled is false if this process is not root.
func AsOrdinaryUser(ctx context.Context, stdout, stderr io.Writer) (handled bool, err error) {
	if os.Geteuid() != 0 {
		return false, nil
	}
	var owner *postgres.Owner
	for _, name := range accounts {
		if owner, err = postgres.LookupOwner(name); err == nil {
			break
		}
	}
	if err != nil {
		return true, fmt.Errorf("PostgreSQL does not run as root, and there is neither an account postgres nor nobody to use: %w", err)
	}
	dir, err := os.MkdirTemp("", "pileus-demo-bin-")
	if err != nil {
		return true, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "pileus")
	if err := errors.Join(os.Chmod(dir, 0o755), copySelf(program)); err != nil {
		return true, fmt.Errorf("copy this program for %s: %w", owner.Name, err)
	}
	cmd := exec.CommandContext(ctx, program, os.Args[1:]...)
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, stdout, stderr
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/", "TERM=" + os.Getenv("TERM"), "LANG=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner.Credential()}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return true, fmt.Errorf("the demo, run as %s, ended with status %d", owner.Name, exit.ExitCode())
	}
	return true, err
}

func copySelf(to string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	in, err := os.Open(self)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, os.Chmod(to, 0o755), out.Close())
}
