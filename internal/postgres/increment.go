package postgres

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

	"pileus/internal/pg"
)

// BackupManifest is what a server wants to know of an earlier backup before it sends
// what changed since (BaseBackupOptions.Incremental).
type BackupManifest struct {
	SystemIdentifier uint64
	Timeline         pg.TimelineID // that the backup began and ended on
	Start, End       pg.LSN
	// Files are paths and sizes in bytes of relation files, as base/5/16384. A file that is not
	// listed is sent whole, so what is left out here is how to ask for whole files.
	Files iter.Seq2[string, int64]
}

// write renders the manifest in PostgreSQL's form (documentation, "Backup Manifest Format"), version 2. Times and
// checksums of files are optional there.
func (m *BackupManifest) write(to io.Writer) error {
	sum := sha256.New()
	w := bufio.NewWriter(io.MultiWriter(to, sum))
	fmt.Fprintf(w, "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": %d,\n\"Files\": [", m.SystemIdentifier)
	separator := "\n"
	for path, size := range m.Files {
		name, err := json.Marshal(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s{ \"Path\": %s, \"Size\": %d }", separator, name, size)
		separator = ",\n"
	}
	fmt.Fprintf(w, "\n],\n\"WAL-Ranges\": [\n{ \"Timeline\": %d, \"Start-LSN\": \"%s\", \"End-LSN\": \"%s\" }\n],\n", m.Timeline, m.Start, m.End)
	if err := w.Flush(); err != nil { // what failed before fails here
		return err
	}
	_, err := fmt.Fprintf(to, "\"Manifest-Checksum\": \"%x\"}\n", sum.Sum(nil))
	return err
}

// UploadManifest gives the server the manifest for an incremental base backup on this session.
// PostgreSQL 17 and later. The server refuses one of another system.
func (r *ReplConn) UploadManifest(ctx context.Context, m BackupManifest) error {
	if r.conn.IsClosed() {
		return errors.New("upload a backup manifest: the replication connection is closed")
	}
	from, to := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		to.CloseWithError(m.write(to))
	}()
	_, err := r.conn.CopyFrom(ctx, from, "UPLOAD_MANIFEST")
	from.Close() // ends the writer where the server did not want all of it
	<-written
	if err != nil {
		return fmt.Errorf("upload a backup manifest: %w", privilege(err))
	}
	return nil
}

// IncrementalPrefix is what the name of a file begins with of which an incremental base backup has only
// some blocks: base/5/INCREMENTAL.16384.
const IncrementalPrefix = "INCREMENTAL."

// IncrementalHead says which blocks such a file holds. They follow it, one after the other.
type IncrementalHead struct {
	// Length is how many blocks the whole file has. The server may name more than the file has by now, where
	// it was cut after the backup began; never fewer.
	Length uint32
	Blocks []uint32 // counted from the file's start, ascending, below Length
}

// The head of an incremental file, in the server's byte order, which is taken to be little-endian as on every
// platform that Pileus runs on (basebackup_incremental.h, sendFile in basebackup.c, PostgreSQL 17):
//
//	magic 0xD3AE1F0D (4) | number of blocks (4) | length of the file in blocks (4) | block numbers (4 each)
//	zero up to a multiple of 8192, if there is any block
const (
	incrementalMagic = 0xD3AE1F0D
	incrementalFixed = 12
)

// ReadIncrementalHead reads up to the first block. size is that of the whole file in bytes. Error: the file is
// none, or does not describe exactly size bytes.
func ReadIncrementalHead(r io.Reader, size int64) (IncrementalHead, error) {
	var fixed [incrementalFixed]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return IncrementalHead{}, fmt.Errorf("incremental file: %w", err)
	}
	magic, count, length := binary.LittleEndian.Uint32(fixed[:]), binary.LittleEndian.Uint32(fixed[4:]), binary.LittleEndian.Uint32(fixed[8:])
	if magic != incrementalMagic {
		return IncrementalHead{}, fmt.Errorf("incremental file: it begins with %08X instead of %08X", magic, uint32(incrementalMagic))
	}
	// Some minor versions of 17 and 18 name more than a segment holds where a later segment was cut.
	length = min(length, pg.PagesPerSegment)
	if count > length {
		return IncrementalHead{}, fmt.Errorf("incremental file: %d blocks of a file of %d", count, length)
	}
	head := int64(incrementalFixed) + 4*int64(count)
	if count > 0 {
		head += (pg.PageSize - head%pg.PageSize) % pg.PageSize
	}
	if want := head + int64(count)*pg.PageSize; size != want {
		return IncrementalHead{}, fmt.Errorf("incremental file: it has %d bytes, %d for %d blocks", size, want, count)
	}
	rest := make([]byte, head-incrementalFixed) // at most 512 KiB
	if _, err := io.ReadFull(r, rest); err != nil {
		return IncrementalHead{}, fmt.Errorf("incremental file: %w", err)
	}
	h := IncrementalHead{Length: length, Blocks: make([]uint32, count)}
	for i := range h.Blocks {
		h.Blocks[i] = binary.LittleEndian.Uint32(rest[4*i:])
		if h.Blocks[i] >= length || i > 0 && h.Blocks[i] <= h.Blocks[i-1] {
			return IncrementalHead{}, fmt.Errorf("incremental file: block %d is out of order, or behind the end at %d", h.Blocks[i], length)
		}
	}
	return h, nil
}
