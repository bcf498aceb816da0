package postgres

import (
	"os/exec"
	"runtime"
	"syscall"
)

// runBound runs a command that must not outlive this process: one that writes into a data
// directory which the next process may give to somebody else.
func runBound(cmd *exec.Cmd) error {
	// The kernel sends the signal when the thread that forked ends, so this one has to stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	return cmd.Run()
}
