package lint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// module is the module's path, as in go.mod.
const module = "pileus"

// layers are the packages below internal/, lowest first. A package imports only
// from those before its own; `go list` would refuse cycles, this refuses shortcuts.
var layers = []string{
	"pg",        // PostgreSQL's words as values; no I/O
	"progress",  // how long work tells how far it is
	"wal",       // decodes WAL
	"store",     // objects: files, S3, GCS, Azure
	"repo",      // the repository's format
	"postgres",  // servers, connections, replication streams
	"config",    // pileus.yaml
	"archive",   // receives, pushes and fetches WAL
	"changes",   // tells from WAL which pages changed
	"backup",    // takes base backups
	"damage",    // finds out from WAL what transactions did
	"restore",   // resolves a target and brings a cluster there
	"ledger",    // events, audit and schedule in SQLite
	"dbserver",  // one server of a managed cluster
	"control",   // what the verbs have in common
	"fleet",     // DB clusters, snapshots, instances and groups: what serve keeps
	"access",    // access keys of the RDS API
	"rdsapi",    // the wire of the RDS API
	"service",   // pileus serve
	"fence",     // takes access to a database away, with proof
	"cumulus",   // Cumulus's archive API
	"terraform", // Terraform's state and plans
	"recovery",  // the runbook
	"console",   // web pages
	"demo",      // the demonstration
	"cli",       // commands
}

// testOnly are the packages that only tests import. They may import anything.
var testOnly = []string{"e2e", "lint", "pgtest", "storetest"}

// program is the package that cmd/ may import; the program itself is thin.
const program = "cli"

// checkLayers refuses imports that point upwards. Test files may import what they
// like: a test of a low package may well need a server or a repository.
func checkLayers(f *file) []complaint {
	if f.test {
		return nil
	}
	var found []complaint
	for _, spec := range f.syntax.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the compiler says so
		}
		imported, ours := strings.CutPrefix(path, module+"/internal/")
		if !ours {
			continue
		}
		imported, _, _ = strings.Cut(imported, "/")
		if problem := judge(f, imported); problem != "" {
			found = append(found, f.complain(spec.Pos(), problem))
		}
	}
	return found
}

// judge says what is wrong with f's import of one of our packages, or "".
func judge(f *file, imported string) string {
	importer, inside := f.internalPackage()
	switch {
	case inside && slices.Contains(testOnly, importer), importer == imported:
		return ""
	case slices.Contains(testOnly, imported):
		return fmt.Sprintf("%s is for tests only", imported)
	case !slices.Contains(layers, imported):
		return fmt.Sprintf("%s has no place in the layers; give it one in internal/lint/layers.go", imported)
	case !inside && imported != program:
		return fmt.Sprintf("only %s may be imported from outside internal/, not %s", program, imported)
	case inside && slices.Index(layers, importer) <= slices.Index(layers, imported):
		return fmt.Sprintf("%s must not import %s, which is above it; move what is needed down, or declare an interface here", importer, imported)
	}
	return ""
}

// checkPlace refuses a package below internal/ that the layers do not know.
func checkPlace(f *file) []complaint {
	name, inside := f.internalPackage()
	if !inside || slices.Contains(layers, name) || slices.Contains(testOnly, name) {
		return nil
	}
	return []complaint{f.complain(f.syntax.Package, fmt.Sprintf("package %s has no place in the layers; give it one in internal/lint/layers.go", name))}
}
