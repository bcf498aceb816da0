package pg

import (
	"fmt"
	"strconv"
	"strings"
)

// OID identifies a database, a tablespace or another catalog object.
type OID uint32

// Tablespaces that every cluster has.
const (
	DefaultTablespace OID = 1663 // pg_default: the directory base
	GlobalTablespace  OID = 1664 // pg_global: the directory global
)

// Fork is one of the sets of files that make up a relation.
type Fork uint8

// Forks, numbered as in WAL block references.
const (
	ForkMain Fork = iota // the data
	ForkFSM              // free space map
	ForkVM               // visibility map
	ForkInit             // empty copy of an unlogged relation
)

// String is the fork's name as pg_waldump prints it; in file names all but main
// are a suffix.
func (f Fork) String() string {
	names := [...]string{"main", "fsm", "vm", "init"}
	if int(f) < len(names) {
		return names[f]
	}
	return fmt.Sprintf("fork %d", uint8(f))
}

// RelFile identifies the storage of one relation: PostgreSQL's RelFileLocator
// (up to 15, RelFileNode). Relation is not the OID in pg_class but relfilenode.
type RelFile struct {
	Tablespace OID
	Database   OID // zero for shared relations
	Relation   OID
}

// String is the form pg_waldump prints, for example 1663/5/16384.
func (r RelFile) String() string {
	return fmt.Sprintf("%d/%d/%d", r.Tablespace, r.Database, r.Relation)
}

// RelationPath is what the path of a relation's file says.
type RelationPath struct {
	RelFile
	Fork    Fork
	Segment uint32 // counted from 0 in units of PagesPerSegment blocks
	Temp    bool   // belongs to a session's temporary table; no backup needs it
}

// FirstBlock is the number, within the relation fork, of the file's first block.
func (p RelationPath) FirstBlock() uint32 { return p.Segment * PagesPerSegment }

// ParseRelationPath classifies a slash-separated path relative to the data
// directory, such as base/5/16384_fsm.1, global/1262 or
// pg_tblspc/16400/PG_15_202209061/5/16384. It is false for everything that is
// not a relation's file. Sources: relpath.c, and
// parse_filename_for_nontemp_relation in reinit.c.
func ParseRelationPath(path string) (RelationPath, bool) {
	var p RelationPath
	part := strings.Split(path, "/")
	var ok bool
	switch {
	case part[0] == "global" && len(part) == 2:
		p.Tablespace, ok = GlobalTablespace, true
	case part[0] == "base" && len(part) == 3:
		p.Tablespace = DefaultTablespace
		p.Database, ok = parseOID(part[1])
	case part[0] == "pg_tblspc" && len(part) == 5 && strings.HasPrefix(part[2], "PG_"):
		if p.Tablespace, ok = parseOID(part[1]); ok {
			p.Database, ok = parseOID(part[3])
		}
	}
	return p, ok && p.parseName(part[len(part)-1])
}

// parseName reads [tBACKEND_]REL[_FORK][.SEGMENT].
func (p *RelationPath) parseName(name string) (ok bool) {
	if rest, temp := strings.CutPrefix(name, "t"); temp {
		var backend string
		if backend, name, ok = strings.Cut(rest, "_"); !ok || !isNumber(backend) {
			return false
		}
		p.Temp = true
	}
	name, segment, hasSegment := strings.Cut(name, ".")
	name, fork, hasFork := strings.Cut(name, "_")
	if p.Relation, ok = parseOID(name); !ok {
		return false
	}
	if hasFork {
		switch fork {
		case "fsm":
			p.Fork = ForkFSM
		case "vm":
			p.Fork = ForkVM
		case "init":
			p.Fork = ForkInit
		default:
			return false
		}
	}
	if hasSegment {
		n, err := strconv.ParseUint(segment, 10, 32)
		const most = 1<<32/PagesPerSegment - 1
		if err != nil || !isNumber(segment) || n == 0 || n > most {
			return false
		}
		p.Segment = uint32(n)
	}
	return true
}

// Path is the file's path relative to the data directory. VersionDir names the
// directory within a tablespace, see TablespaceVersionDir; it is not looked at
// for relations in base and global. Temporary relations have no path here.
func (p RelationPath) Path(versionDir string) string {
	var dir string
	switch p.Tablespace {
	case GlobalTablespace:
		dir = "global"
	case DefaultTablespace:
		dir = fmt.Sprintf("base/%d", p.Database)
	default:
		dir = fmt.Sprintf("pg_tblspc/%d/%s/%d", p.Tablespace, versionDir, p.Database)
	}
	name := fmt.Sprintf("%s/%d", dir, p.Relation)
	if p.Fork != ForkMain {
		name += "_" + p.Fork.String()
	}
	if p.Segment != 0 {
		name += fmt.Sprintf(".%d", p.Segment)
	}
	return name
}

// TablespaceVersionDir is the directory that a server uses within a
// tablespace's location, for example PG_15_202209061.
func TablespaceVersionDir(major int, catalogVersion uint32) string {
	return fmt.Sprintf("PG_%d_%d", major, catalogVersion)
}

// HasPages tells whether the file at path, relative to the data directory,
// consists of data pages, with checksums where the cluster has them.
func HasPages(path string) bool {
	_, ok := ParseRelationPath(path)
	return ok
}

func parseOID(s string) (OID, bool) {
	if !isNumber(s) {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return OID(n), err == nil && n != 0
}

// isNumber tells whether s is a decimal number as the server writes it: digits
// only, with no leading zero.
func isNumber(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != "" && (s[0] != '0' || s == "0")
}
