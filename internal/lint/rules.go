package lint

import (
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strings"
)

// maxLines is how long a file may be: what does not fit has more than one subject.
const maxLines = 500

// vagueNames say nothing of what a package is for, so everything ends up in it.
var vagueNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "shared"}

// rule is one check of one file.
type rule struct {
	name  string
	check func(*file) []complaint
}

var rules = []rule{
	{"layers", checkLayers},
	{"place", checkPlace},
	{"length", checkLength},
	{"init", checkInit},
	{"names", checkName},
	{"sleep", checkSleep},
	{"exit", checkExit},
}

func checkLength(f *file) []complaint {
	if f.generated || f.lines <= maxLines {
		return nil
	}
	return []complaint{f.complain(f.syntax.Package, fmt.Sprintf("%d lines; the limit is %d, so split it by subject", f.lines, maxLines))}
}

// checkInit refuses init functions: they are state that nobody asked for.
func checkInit(f *file) []complaint {
	var found []complaint
	for _, declaration := range f.syntax.Decls {
		if function, ok := declaration.(*ast.FuncDecl); ok && function.Recv == nil && function.Name.Name == "init" && !f.generated {
			found = append(found, f.complain(function.Pos(), "init function; let the caller construct what it needs"))
		}
	}
	return found
}

func checkName(f *file) []complaint {
	folder := path.Base(path.Dir(f.name))
	for _, name := range []string{strings.TrimSuffix(f.syntax.Name.Name, "_test"), folder} {
		if slices.Contains(vagueNames, name) {
			return []complaint{f.complain(f.syntax.Name.Pos(), fmt.Sprintf("the name %s does not say what the package is for", name))}
		}
	}
	return nil
}

// checkSleep refuses sleeping tests: they are slow on a fast machine and fail on a
// slow one. Within testing/synctest the clock is the test's own and a sleep costs
// nothing, so a file that imports it may sleep.
func checkSleep(f *file) []complaint {
	if !f.test || f.imports("testing/synctest") {
		return nil
	}
	var found []complaint
	for _, use := range f.uses("time", "Sleep") {
		found = append(found, f.complain(use.Pos(), "time.Sleep in a test; wait for the condition, with a deadline"))
	}
	return found
}

// checkExit keeps the decision to end the process in cmd/: libraries return errors.
func checkExit(f *file) []complaint {
	if f.test || strings.HasPrefix(f.name, "cmd/") || f.syntax.Name.Name == "main" { // a program decides
		return nil
	}
	var found []complaint
	ends := append(f.uses("os", "Exit"), f.uses("log", "Fatal", "Fatalf", "Fatalln", "Panic", "Panicf", "Panicln")...)
	for _, use := range ends {
		found = append(found, f.complain(use.Pos(), "ends the process; return an error, and cmd/ decides"))
	}
	return found
}

// undocumented lists the folders whose package has no package comment.
func undocumented(files []*file) []string {
	documented := map[string]bool{}
	for _, f := range files {
		if f.test {
			continue
		}
		folder := path.Dir(f.name)
		documented[folder] = documented[folder] || f.syntax.Doc != nil
	}
	var missing []string
	for folder, ok := range documented {
		if !ok {
			missing = append(missing, folder)
		}
	}
	slices.Sort(missing)
	return missing
}
