package backup

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"pileus/internal/pg"
	"pileus/internal/pgtest"
	"pileus/internal/repo"
)

// replace puts a new file in the place of another, as PostgreSQL does.
func (f *folder) replace(name string, b []byte) {
	f.t.Helper()
	f.write(name+".new", b)
	path := filepath.Join(f.dir, name)
	if err := os.Rename(path+".new", path); err != nil {
		f.t.Fatal(err)
	}
}

// A file that was replaced since it was listed is the old one or the new one, never a
// piece of the new one. Relations are different: WAL replay extends them.
func TestAReplacedFileIsStoredWhole(t *testing.T) {
	_, r := newStore(t)
	for _, n := range []int{101, 2 * repo.ChunkSize, extent*repo.ChunkSize + 5, 3*extent*repo.ChunkSize + 77} {
		f := newFolder(t, r)
		const name = "postgresql.auto.conf"
		f.write(name, noise(100))
		f.write("base/5/16384", pages(4, 500))
		tree := f.list()
		long := noise(n)
		f.replace(name, long)
		f.write("base/5/16384", pages(40, 500))
		b := f.store(tree)
		f.want(name, long)
		if e := f.entry("base/5/16384"); e.Size != 4*pg.PageSize {
			t.Errorf("a relation that was extended has %d bytes", e.Size)
		}
		f.reset(&b)
		f.store(f.list())
		f.want(name, long)
	}
}

func TestAReplacedFileMayBeShorter(t *testing.T) {
	_, r := newStore(t)
	f := newFolder(t, r)
	f.write("postgresql.auto.conf", bytes.Repeat([]byte("a"), 3*repo.ChunkSize))
	tree := f.list()
	f.replace("postgresql.auto.conf", []byte("b"))
	f.store(tree)
	f.want("postgresql.auto.conf", []byte("b"))
}

// Of a truncated postgresql.auto.conf or replorigin_checkpoint no server starts.
func TestABackupRecoversThoughTheServerReplacedFilesMeanwhile(t *testing.T) {
	for name, statements := range map[string][]string{
		"configuration": {"ALTER SYSTEM RESET work_mem", "ALTER SYSTEM SET application_name = 'longer than what was there before it'"},
		"origins":       {"SELECT pg_replication_origin_create('o')", "SELECT pg_replication_origin_advance('o', '0/1234')", "CHECKPOINT"},
	} {
		t.Run(name, func(t *testing.T) {
			pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
				l := newLab(t, v, pgtest.With("wal_keep_size", "1GB"))
				l.server.Pgbench("-i", "-s", "1", "-q")
				l.server.Exec("ALTER SYSTEM SET work_mem = '5MB'")
				l.server.Checkpoint()
				replaced := false
				l.notes.stage = func(stage string) {
					if stage == "copy files" { // the files were listed and none was read
						for _, s := range statements {
							l.server.Exec(s)
						}
						replaced = true
					}
				}
				b := l.run(l.options(ModeFiles))
				if !replaced {
					t.Fatal("nothing was replaced")
				}
				l.server.Stop()
				l.recovers(b)
			})
		})
	}
}
