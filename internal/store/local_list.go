package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"
)

// List implements Store. It holds the names of one folder per level in memory,
// never the whole tree. Files whose names are no key segments are passed by.
func (l *Local) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := checkPrefix(prefix); err != nil {
			yield(Info{}, err)
			return
		}
		dir := "."
		if slash := strings.LastIndexByte(prefix, '/'); slash >= 0 {
			dir = prefix[:slash]
		}
		l.walk(ctx, dir, prefix, yield)
	}
}

// walk yields what lies below dir, and reports whether to go on.
func (l *Local) walk(ctx context.Context, dir, prefix string, yield func(Info, error) bool) bool {
	fail := func(err error) bool {
		yield(Info{}, err)
		return false
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	entries, err := fs.ReadDir(l.root.FS(), dir)
	if err != nil {
		if err = l.absent("list", dir, err); errors.Is(err, ErrNotFound) {
			return true // removed meanwhile, or never there: no objects
		}
		return fail(err)
	}
	if len(entries) == 0 && dir == "." {
		// An unmounted file system leaves an empty folder behind.
		if err := l.present(); err != nil {
			return fail(err)
		}
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(sortName(a), sortName(b)) })
	for _, entry := range entries {
		key := path.Join(dir, entry.Name())
		inside := entry.IsDir() && strings.HasPrefix(prefix, key+"/")
		if !isSegment(entry.Name()) || !strings.HasPrefix(key, prefix) && !inside {
			continue
		}
		if entry.IsDir() {
			if !l.walk(ctx, key, prefix, yield) {
				return false
			}
			continue
		}
		info, err := entry.Info()
		if isAbsent(err) {
			continue // deleted since the folder was read
		}
		if err != nil {
			return fail(localError("look up", l.path(key), err))
		}
		if !info.Mode().IsRegular() {
			return fail(fmt.Errorf("list %s: %s is no regular file (%s); Pileus does not follow links, mount the other file system instead",
				l.dir, l.path(key), info.Mode().Type()))
		}
		if !yield(Info{Key: key, Size: info.Size(), Modified: info.ModTime()}, nil) {
			return false
		}
	}
	return true
}

// sortName makes the order of a folder's entries the order of the full keys below
// it: '.' and '-' sort before '/', so "a.b" and "a-b" come before "a/b".
func sortName(e fs.DirEntry) string {
	if e.IsDir() {
		return e.Name() + "/"
	}
	return e.Name()
}
