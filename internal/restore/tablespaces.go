package restore

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"pileus/internal/pg"
	"pileus/internal/repo"
)

// TablespaceMove is one tablespace and where it goes.
type TablespaceMove struct {
	OID     uint32 `json:"oid"`
	Name    string `json:"name,omitempty"`
	Old     string `json:"old"`
	New     string `json:"new"`
	InPlace bool   `json:"in_place,omitempty"` // it lies within the data directory and stays there
	Bytes   int64  `json:"bytes"`
}

// moves finds the new place of every tablespace. Each has to be named: a default
// could be the place of a cluster that lives.
func moves(b repo.Backup, maps []TablespaceMap, dataDir string) ([]TablespaceMove, error) {
	used := make([]bool, len(maps))
	var out []TablespaceMove
	var missing []string
	for _, t := range b.Tablespaces {
		m := TablespaceMove{OID: t.OID, Name: t.Name, Old: t.Location}
		oid := strconv.FormatUint(uint64(t.OID), 10)
		if !filepath.IsAbs(t.Location) {
			m.InPlace, m.New = true, filepath.Join(dataDir, "pg_tblspc", oid)
			out = append(out, m)
			continue
		}
		i := slices.IndexFunc(maps, func(x TablespaceMap) bool {
			return x.Old == oid || x.Old == t.Name || filepath.Clean(x.Old) == filepath.Clean(t.Location)
		})
		if i < 0 {
			missing = append(missing, fmt.Sprintf("--tablespace %s=NEW", t.Location))
			continue
		}
		used[i], m.New = true, maps[i].New
		out = append(out, m)
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("%w: the old places may be in use, so none is written over; add %s, with an empty directory for each NEW",
			ErrTablespace, strings.Join(missing, " "))
	}
	for i, m := range maps {
		if !used[i] {
			return nil, fmt.Errorf("%w: backup %s has no tablespace %q", ErrTablespace, b.ID, m.Old)
		}
	}
	return out, apart(out, dataDir)
}

// apart checks that no two places lie within each other.
func apart(spaces []TablespaceMove, dataDir string) error {
	type named struct{ what, path string }
	all := []named{{"the data directory", dataDir}}
	for _, s := range spaces {
		if s.InPlace {
			continue
		}
		for _, o := range all {
			if within(s.New, o.path) || within(o.path, s.New) {
				return fmt.Errorf("%w: %s for %s and %s, which is %s, lie within each other", ErrTablespace, s.New, s.Old, o.path, o.what)
			}
		}
		all = append(all, named{"the place of " + s.Old, s.New})
	}
	return nil
}

func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// tablespaceMap is the content of tablespace_map for the new places; empty: none is needed.
func tablespaceMap(spaces []TablespaceMove) []byte {
	var maps []pg.TablespaceMapping
	for _, s := range spaces {
		if !s.InPlace {
			maps = append(maps, pg.TablespaceMapping{OID: pg.OID(s.OID), Path: s.New})
		}
	}
	return pg.RenderTablespaceMap(maps)
}
