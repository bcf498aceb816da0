package repo

import (
	"bytes"
	"io"
	"os"
)

// spillAt is how many bytes a spill keeps in memory.
const spillAt = 8 << 20

// spill gathers the bytes of one object before it is put: in memory while small,
// then in an unlinked temporary file. The zero value is ready.
type spill struct {
	mem  bytes.Buffer
	file *os.File
}

func (s *spill) Write(p []byte) (int, error) {
	if s.file == nil {
		if s.mem.Len()+len(p) <= spillAt {
			return s.mem.Write(p)
		}
		f, err := os.CreateTemp("", "pileus-spill-*")
		if err != nil {
			return 0, err
		}
		os.Remove(f.Name()) // the open file stays usable
		s.file = f
		if _, err := f.Write(s.mem.Bytes()); err != nil {
			return 0, err
		}
		s.mem = bytes.Buffer{}
	}
	return s.file.Write(p)
}

// Reader is positioned at the start of all that was written.
func (s *spill) Reader() (io.ReadSeeker, error) {
	if s.file == nil {
		return bytes.NewReader(s.mem.Bytes()), nil
	}
	_, err := s.file.Seek(0, io.SeekStart)
	return s.file, err
}

func (s *spill) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// copyBuffer copies src to dst through a buffer of fixed size.
func copyBuffer(dst io.Writer, src io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, 1<<20))
}
