package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// documents is a folder of JSON files, one for each resource of a kind, named after its key. A
// file is replaced as a whole: written beside, fsynced, renamed, and the folder
// fsynced, so that after a crash either the old or the new one is there.
type documents[T any] struct{ dir string }

// openDocuments makes the folder.
func openDocuments[T any](dir string) (documents[T], error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return documents[T]{}, fmt.Errorf("prepare the folder of documents: %w", err)
	}
	return documents[T]{dir}, nil
}

const documentSuffix = ".json"

// all reads every document, by its key.
func (d documents[T]) all() (map[string]*T, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, fmt.Errorf("list documents: %w", err)
	}
	out := map[string]*T{}
	for _, e := range entries {
		key, ok := strings.CutSuffix(e.Name(), documentSuffix)
		if !ok {
			continue // a leftover of a save that was cut short
		}
		path := filepath.Join(d.dir, e.Name())
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read a document: %w", err)
		}
		v := new(T)
		if err := json.Unmarshal(b, v); err != nil {
			return nil, fmt.Errorf("document %s is damaged: %w; put it right or move it away, then start again", path, err)
		}
		out[key] = v
	}
	return out, nil
}

// save replaces one document.
func (d documents[T]) save(key string, v *T) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode document %s: %w", key, err)
	}
	if err := d.replace(d.path(key), append(b, '\n')); err != nil {
		return fmt.Errorf("save document %s: %w", key, err)
	}
	return nil
}

func (d documents[T]) path(key string) string { return filepath.Join(d.dir, key+documentSuffix) }

func (d documents[T]) replace(path string, b []byte) error {
	tmp, err := os.CreateTemp(d.dir, ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone already if all went well
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(d.dir)
}

// remove deletes one document; that it is not there is fine.
func (d documents[T]) remove(key string) error {
	if err := os.Remove(d.path(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove document %s: %w", key, err)
	}
	return syncDir(d.dir)
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
