package pgtest

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pileus/internal/postgres"
)

// template is the path of a cluster that initdb made earlier with the same options. Making one
// takes seconds, copying it a fraction of one.
func template(t testing.TB, v Version, o postgres.InitOptions) string {
	t.Helper()
	cache, err := cacheDir()
	if err != nil {
		t.Fatalf("cache for template clusters: %v", err)
	}
	name := fmt.Sprintf("pg-%d-k%t-w%d", v.Binaries.VersionNum, o.Checksums, o.WALSegmentSize>>20)
	final := filepath.Join(cache, name)
	if _, err := os.Stat(final); err == nil {
		return filepath.Join(final, "data")
	}
	work, err := os.MkdirTemp(cache, "new-")
	if err != nil {
		t.Fatalf("template cluster: %v", err)
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil {
		t.Fatalf("template cluster: %v", err)
	}
	in := postgres.Instance{Binaries: v.Binaries, DataDir: filepath.Join(work, "data"), RunAs: Owner(t)}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := in.Init(ctx, o); err != nil {
		t.Fatalf("template cluster: %v", err)
	}
	if err := os.Rename(work, final); err != nil {
		// Another test process was faster, which is as good.
		if _, serr := os.Stat(final); serr != nil {
			t.Fatalf("template cluster: %v", err)
		}
	}
	return filepath.Join(final, "data")
}

// copyTemplate copies a template to dir and gives the copy a system identifier of its own.
func copyTemplate(t testing.TB, from, dir string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, dir).CombinedOutput(); err != nil {
		t.Fatalf("copy template cluster: %v\n%s", err, out)
	}
	if err := newSystemIdentifier(dir); err != nil {
		t.Fatalf("copy template cluster: %v", err)
	}
}

// newSystemIdentifier changes the identifier where a fresh cluster holds it: in the control file, under its CRC, and in
// the long header of each WAL segment (XLogLongPageHeaderData.xlp_sysid), which has none.
func newSystemIdentifier(dir string) error {
	id, err := randomIdentifier()
	if err != nil {
		return err
	}
	control := filepath.Join(dir, "global", "pg_control")
	b, err := os.ReadFile(control)
	if err != nil {
		return err
	}
	at, err := controlCRC(b)
	if err != nil {
		return err
	}
	old := binary.NativeEndian.Uint64(b)
	binary.NativeEndian.PutUint64(b, id)
	binary.NativeEndian.PutUint32(b[at:], crc32.Checksum(b[:at], crc32.MakeTable(crc32.Castagnoli)))
	if err := os.WriteFile(control, b, 0o600); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(dir, "pg_wal"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if len(e.Name()) == 24 && strings.Trim(e.Name(), "0123456789ABCDEF") == "" {
			if err := patchSegment(filepath.Join(dir, "pg_wal", e.Name()), old, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// randomIdentifier is built as the server does it: seconds in the upper half.
func randomIdentifier() (uint64, error) {
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, err
	}
	return uint64(time.Now().Unix())<<32 | uint64(binary.NativeEndian.Uint32(b[:])), nil
}

// controlCRC finds where the control file's CRC-32C is; its offset differs between versions.
func controlCRC(b []byte) (int, error) {
	table := crc32.MakeTable(crc32.Castagnoli)
	for at := 200; at+4 <= min(len(b), 512); at += 4 {
		if crc32.Checksum(b[:at], table) == binary.NativeEndian.Uint32(b[at:]) {
			return at, nil
		}
	}
	return 0, errors.New("the control file has no valid checksum")
}

func patchSegment(path string, old, id uint64) error {
	const sysidAt = 24
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [8]byte
	if _, err := f.ReadAt(b[:], sysidAt); err != nil {
		return err
	}
	if binary.NativeEndian.Uint64(b[:]) != old {
		return nil // a segment that was made ahead of its use
	}
	binary.NativeEndian.PutUint64(b[:], id)
	_, err = f.WriteAt(b[:], sysidAt)
	return err
}
