package restore

import (
	"io/fs"
	"path/filepath"
)

// syncEach makes every file and directory below root durable, one by one.
func syncEach(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() || d.Type().IsRegular() {
			return syncFile(path)
		}
		return nil
	})
}
