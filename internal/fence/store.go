package fence

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Store keeps what fences took away, outside the databases: a file for each cluster. A fence that has no file is
// not one of ours.
type Store struct{ Dir string }

func (s *Store) path(cluster string) string { return filepath.Join(s.Dir, cluster+".json") }

// Save keeps the state of a cluster's fence, durably and once: what is kept already stays.
func (s *Store) Save(cluster string, st State) error {
	text, err := json.MarshalIndent(st, "", "  ")
	if err == nil {
		err = os.MkdirAll(s.Dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("save the fence of %s: %w", cluster, err)
	}
	if _, err := os.Stat(s.path(cluster)); err == nil {
		return nil
	}
	if err := write(s.Dir, s.path(cluster), append(text, '\n')); err != nil {
		return fmt.Errorf("save the fence of %s: %w", cluster, err)
	}
	return nil
}

// write makes a file that is there whole or not at all.
func write(dir, path string, text []byte) (err error) {
	f, err := os.CreateTemp(dir, ".fence-*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name()) // the next attempt has a name of its own
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ErrNone: Pileus keeps no fence of the cluster.
var ErrNone = errors.New("no fence was put up there")

// Load reads the fence of a cluster.
func (s *Store) Load(cluster string) (State, error) {
	var st State
	text, err := os.ReadFile(s.path(cluster))
	if errors.Is(err, fs.ErrNotExist) {
		return st, fmt.Errorf("%s: %w", cluster, ErrNone)
	}
	if err == nil {
		err = json.Unmarshal(text, &st)
	}
	if err != nil {
		return st, fmt.Errorf("read the fence of %s: %w", cluster, err)
	}
	return st, nil
}

// Remove forgets the fence of a cluster, once it is lifted.
func (s *Store) Remove(cluster string) error {
	if err := os.Remove(s.path(cluster)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the fence of %s: %w", cluster, err)
	}
	return nil
}
