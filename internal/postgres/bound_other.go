//go:build !linux

package postgres

import "os/exec"

// runBound runs a command; where the kernel offers no more, it may outlive this process.
func runBound(cmd *exec.Cmd) error { return cmd.Run() }
