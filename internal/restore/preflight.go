package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"pileus/internal/postgres"
	"pileus/internal/repo"
)

// Disk is one file system that is written to.
type Disk struct {
	Path string `json:"path"` // a directory of the restore that lies on it
	Need int64  `json:"need"` // bytes
	Free int64  `json:"free"` // bytes
	dev  uint64
}

// checkIdentifier refuses an identifier that is used, unless by the unfinished restore that resumes.
func checkIdentifier(ctx context.Context, r *Request, res Resolution, resumes bool) error {
	c, err := r.Repo.Cluster(ctx, r.NewCluster)
	if errors.Is(err, repo.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look whether identifier %s is used: %w", r.NewCluster, err)
	}
	if resumes && ourRegistration(c, r.Source) {
		return nil
	}
	return fmt.Errorf("%s: %w: a cluster of that name is in the repository (since %s), and its backups and WAL would be mixed; choose another", r.NewCluster, ErrIdentifier, formatTime(c.Created))
}

// ourRegistration tells whether a cluster was registered by a restore from source.
func ourRegistration(c repo.Cluster, source string) bool {
	return c.Parent != nil && c.Parent.Cluster == source
}

// checkDir refuses a directory that this restore may not write to. resumes: it
// holds an unfinished restore of the same request.
func checkDir(dir, request, flag string) (resumes bool, err error) {
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		if _, err := os.Lstat(filepath.Join(parent, "PG_VERSION")); err == nil {
			return false, fmt.Errorf("%s lies within the data directory %s of another cluster: choose another place", dir, parent)
		}
		if parent == filepath.Dir(parent) {
			break
		}
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, checkParent(filepath.Dir(dir))
	}
	if err != nil {
		return false, fmt.Errorf("look into %s: %w", dir, err)
	}
	m, ok, err := readMarker(dir)
	if err != nil {
		return false, err
	}
	if ok {
		if m.Request == request {
			return true, nil
		}
		return false, fmt.Errorf("%s: %w: it holds an unfinished restore of %s to %s as %s, which is another than this one; remove the directory, or choose another", dir, ErrNotEmpty, m.Source, m.Target, m.Cluster)
	}
	for _, e := range entries {
		if e.Name() == markerTemp {
			continue // killed before the marker had its name
		}
		hint := ""
		if _, err := os.Stat(filepath.Join(dir, "postmaster.pid")); err == nil {
			hint = ", and a server may be running on it"
		}
		return false, fmt.Errorf("%s: %w (it holds %s)%s: give an empty or a new directory as %s", dir, ErrNotEmpty, e.Name(), hint, flag)
	}
	return false, unixWritable(dir)
}

func checkParent(parent string) error {
	fi, err := os.Stat(parent)
	if err != nil {
		return fmt.Errorf("the folder %s is not there: create it first: %w", parent, err)
	}
	if !fi.IsDir() {
		return fmt.Errorf("%s is not a folder", parent)
	}
	return unixWritable(parent)
}

func unixWritable(dir string) error {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("%s cannot be written to by this account: %w", dir, err)
	}
	return nil
}

// checkEnter makes sure that the server's account can reach the directory.
func checkEnter(dir string, o *postgres.Owner) error {
	if o == nil || os.Geteuid() != 0 {
		return nil
	}
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		var st unix.Stat_t
		if err := unix.Stat(parent, &st); err != nil {
			return fmt.Errorf("look at %s: %w", parent, err)
		}
		bit := uint32(0o001)
		switch {
		case st.Uid == o.UID:
			bit = 0o100
		case st.Gid == o.GID || containsGroup(o.Groups, st.Gid):
			bit = 0o010
		}
		if uint32(st.Mode)&bit == 0 {
			return fmt.Errorf("account %s, which the server will run as, cannot enter %s: choose a directory that it can reach", o.Name, parent)
		}
		if parent == filepath.Dir(parent) {
			return nil
		}
	}
}

func containsGroup(groups []uint32, g uint32) bool {
	for _, x := range groups {
		if x == g {
			return true
		}
	}
	return false
}

// space is kept free beyond what is known to be needed, in bytes.
const spareSpace = 64 << 20

// disks sums the need for each file system. Directories that do not exist yet
// count as their nearest existing parent.
func disks(dirs []string, need []int64) ([]Disk, error) {
	var out []Disk
next:
	for i, dir := range dirs {
		at := dir
		var st unix.Stat_t
		for {
			err := unix.Stat(at, &st)
			if err == nil {
				break
			}
			if !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
				return nil, fmt.Errorf("look at the file system of %s: %w", dir, err)
			}
			at = filepath.Dir(at)
		}
		for k := range out {
			if out[k].dev == uint64(st.Dev) {
				out[k].Need += need[i]
				continue next
			}
		}
		free, err := postgres.DiskFree(dir)
		if err != nil {
			return nil, err
		}
		out = append(out, Disk{Path: dir, Need: need[i] + spareSpace, Free: free, dev: uint64(st.Dev)})
	}
	return out, nil
}

// checkDisks refuses what does not fit. reclaim is what clearing an unfinished
// restore gives back.
func checkDisks(all []Disk, reclaim int64) error {
	var short []string
	for _, d := range all {
		if d.Free+reclaim < d.Need {
			short = append(short, fmt.Sprintf("%s needs %d MiB and has %d MiB", d.Path, d.Need>>20, (d.Free+reclaim)>>20))
		}
	}
	if len(short) > 0 {
		return fmt.Errorf("%w: %s", ErrNoSpace, strings.Join(short, "; "))
	}
	return nil
}
