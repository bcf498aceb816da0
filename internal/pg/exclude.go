package pg

import (
	"path"
	"strings"
)

// Exclusion says what a base backup does with a path.
type Exclusion uint8

// What a base backup does with a path.
const (
	Included Exclusion = iota // copied
	Skipped                   // left out, with all below it
	Emptied                   // a directory that is kept, without its content
)

// Excluded tells what a base backup leaves out, given a slash-separated path
// relative to the data directory. The list is that of PostgreSQL's basebackup.c
// (excludeDirContents, excludeFiles, pg_wal, temporary files and relations), and
// backup_label.old. Left to the caller: the data of unlogged relations (see
// InitFork), pg_control, which has to be copied last, and whatever is neither
// a regular file nor a directory.
func Excluded(name string, isDir bool) Exclusion {
	root, below, nested := strings.Cut(name, "/")
	switch root {
	case "pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans":
		if nested && below != "" {
			return Skipped
		}
		return Emptied // also where it is a link to a directory elsewhere
	case "postmaster.pid", "postmaster.opts", "postgresql.auto.conf.tmp", "current_logfiles.tmp",
		BackupLabelFile, "backup_label.old", TablespaceMapFile, "tablespace_map.old", "backup_manifest":
		if !nested && !isDir {
			return Skipped
		}
	}
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, "pgsql_tmp") {
			return Skipped
		}
	}
	if strings.HasPrefix(path.Base(name), "pg_internal.init") && !isDir {
		return Skipped // followed by a process id while it is being written
	}
	if p, ok := ParseRelationPath(name); ok && p.Temp {
		return Skipped
	}
	return Included
}

// InitFork is the path of the init fork of the relation whose file is at name.
// Where that file exists the relation is unlogged and a base backup leaves out
// all its other forks, because recovery makes them anew. It is false for files
// that are no relation's or are an init fork themselves.
func InitFork(name string) (string, bool) {
	p, ok := ParseRelationPath(name)
	if !ok || p.Temp || p.Fork == ForkInit {
		return "", false
	}
	dir, base := path.Split(name)
	base, _, _ = strings.Cut(base, ".")
	base, _, _ = strings.Cut(base, "_")
	return dir + base + "_init", true
}
