package backup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pileus/internal/repo"
)

// The server only warns of a tablespace within its data directory.
func TestATablespaceLinkedIntoTheDataDirectoryIsCopiedOnce(t *testing.T) {
	_, r := newStore(t)
	f := newFolder(t, r)
	f.control.CatalogVersion = 202209061
	b := noise(3 * repo.ChunkSize)
	f.write("sub/space/PG_15_202209061/5/16384", b)
	f.write("sub/mine", []byte("not of the tablespace"))
	place := filepath.Join(f.dir, "sub", "space")
	if err := os.Mkdir(filepath.Join(f.dir, "pg_tblspc"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(place, filepath.Join(f.dir, "pg_tblspc", "16400")); err != nil {
		t.Fatal(err)
	}
	f.r.head.Tablespaces = []repo.Tablespace{{OID: 16400, Location: place}}
	f.store(f.list())
	f.want("pg_tblspc/16400/PG_15_202209061/5/16384", b)
	f.want("sub/mine", []byte("not of the tablespace"))
	for _, e := range f.r.result.entries {
		if strings.HasPrefix(e.Path, "sub/space") {
			t.Errorf("%s is in the backup a second time", e.Path)
		}
	}
}

// A server in a container calls its data directory by a path that may be another
// server's on this host.
func TestConfigurationIsNotTakenFromWhereOnlyTheServerMeansItself(t *testing.T) {
	_, r := newStore(t)
	f := newFolder(t, r)
	f.write("postgresql.conf", []byte("# of the server that is backed up\n"))
	other := t.TempDir()
	path := filepath.Join(other, "postgresql.conf")
	if err := os.WriteFile(path, []byte("# of another server\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.r.info.DataDirectory = other
	tree, err := f.r.list(f.control, outside{config: path})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range tree.files {
		if strings.HasPrefix(l.name, ConfDir) {
			t.Errorf("%s was taken from %s", l.name, l.path)
		}
	}
}
