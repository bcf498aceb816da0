//go:build !linux

package pgtest

// removeSharedMemory leaves the segment to the system, which frees it with its last user.
func (s *Server) removeSharedMemory() {}
