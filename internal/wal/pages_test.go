package wal_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"pileus/internal/pg"
)

// checkAllPages verifies the checksums of a stopped server's relation files.
func checkAllPages(t *testing.T, s *server) {
	t.Helper()
	pages, files := 0, 0
	err := filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(s.dir, path)
		p, ok := pg.ParseRelationPath(rel)
		if !ok {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for i := 0; i+pg.PageSize <= len(b); i += pg.PageSize {
			if err := pg.CheckPage(b[i:i+pg.PageSize], p.FirstBlock()+uint32(i/pg.PageSize)); err != nil {
				t.Errorf("%s: %v", rel, err)
			}
			pages++
		}
		return nil
	})
	if err != nil || pages < 1000 || files < 300 {
		t.Errorf("%d pages in %d files, %v", pages, files, err)
	}
}
