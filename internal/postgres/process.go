package postgres

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// tree lists the descendants of a process, from /proc, or from ps where there is no /proc.
func tree(root int) []int {
	parents := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the only error is a bad pattern
	for _, f := range stats {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the process has just ended
		}
		// "pid (name) state ppid ..." and the name may hold anything.
		at := strings.LastIndex(string(b), ") ")
		if at < 0 {
			continue
		}
		fields := strings.Fields(string(b)[at+2:])
		if len(fields) < 2 {
			continue
		}
		pid, err1 := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		ppid, err2 := strconv.Atoi(fields[1])
		if err1 == nil && err2 == nil {
			parents[ppid] = append(parents[ppid], pid)
		}
	}
	if len(stats) == 0 {
		out, err := exec.Command("ps", "-axo", "pid=,ppid=").Output()
		if err != nil {
			return nil
		}
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line)
			if len(f) != 2 {
				continue
			}
			pid, err1 := strconv.Atoi(f[0])
			ppid, err2 := strconv.Atoi(f[1])
			if err1 == nil && err2 == nil {
				parents[ppid] = append(parents[ppid], pid)
			}
		}
	}
	var all []int
	for queue := []int{root}; len(queue) > 0; queue = queue[1:] {
		kids := parents[queue[0]]
		all = append(all, kids...)
		queue = append(queue, kids...)
	}
	return all
}

// killTree sends SIGKILL to a process and its descendants, which it returns. The root is halted
// first, so that it neither starts nor tidies up anything in between.
func killTree(root int) (kids []int, err error) {
	if err := syscall.Kill(root, syscall.SIGSTOP); err != nil {
		return nil, err
	}
	kids = tree(root)
	err = syscall.Kill(root, syscall.SIGKILL)
	for _, pid := range kids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
	}
	return kids, err
}

// alive tells whether a process still runs; a zombie does not.
func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return (err == nil || errors.Is(err, syscall.EPERM)) && !zombie("/proc/"+strconv.Itoa(pid))
}
