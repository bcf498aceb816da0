package pgtest

import (
	"golang.org/x/sys/unix"

	"pileus/internal/postgres"
)

// removeSharedMemory frees the System V segment that a server leaves behind when it is killed; a host has only some thousands.
func (s *Server) removeSharedMemory() {
	p, err := postgres.ReadPIDFile(s.Instance.DataDir)
	if err != nil || p.ShmemID < 0 {
		return // a server that stopped well has removed both
	}
	if _, running, err := s.Instance.Running(); err == nil && !running {
		_, _ = unix.SysvShmCtl(p.ShmemID, unix.IPC_RMID, nil) // it may be gone
	}
}
