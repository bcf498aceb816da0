package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// file is one parsed Go file.
type file struct {
	name      string // slash-separated, relative to the module's root
	test      bool   // whether it is a _test.go file
	lines     int
	generated bool
	positions *token.FileSet
	syntax    *ast.File
}

// complaint is one broken rule at one place.
type complaint struct {
	at      token.Position
	problem string
}

func (c complaint) String() string {
	return fmt.Sprintf("%s:%d: %s", c.at.Filename, c.at.Line, c.problem)
}

// parse reads one file. name decides what rules hold for it.
func parse(name string, source []byte) (*file, error) {
	positions := token.NewFileSet()
	syntax, err := parser.ParseFile(positions, name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", name, err)
	}
	return &file{
		name:      name,
		test:      strings.HasSuffix(name, "_test.go"),
		lines:     strings.Count(string(source), "\n"),
		generated: ast.IsGenerated(syntax),
		positions: positions,
		syntax:    syntax,
	}, nil
}

// parseAll reads every Go file of the module whose root folder is given. Folders
// that the go command ignores (testdata, names that begin with . or _) are left out.
func parseAll(root string) ([]*file, error) {
	var files []*file
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() {
			if name != root && (base == "testdata" || base == "vendor" || base[0] == '.' || base[0] == '_') {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(base) != ".go" {
			return nil
		}
		source, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		parsed, err := parse(filepath.ToSlash(relative), source)
		if err != nil {
			return err
		}
		files = append(files, parsed)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the Go files of %s: %w", root, err)
	}
	return files, nil
}

func (f *file) complain(at token.Pos, problem string) complaint {
	return complaint{at: f.positions.Position(at), problem: problem}
}

// internalPackage names the package below internal/ that f belongs to; folders
// further down belong to it too.
func (f *file) internalPackage() (string, bool) {
	below, ok := strings.CutPrefix(path.Dir(f.name), "internal/")
	if !ok {
		return "", false
	}
	name, _, _ := strings.Cut(below, "/")
	return name, true
}

// imports tells whether f imports the package at importPath.
func (f *file) imports(importPath string) bool {
	return slices.ContainsFunc(f.syntax.Imports, func(spec *ast.ImportSpec) bool {
		return spec.Path.Value == `"`+importPath+`"`
	})
}

// uses lists the places where f names one of the identifiers of the package at
// importPath, whatever f calls that package.
func (f *file) uses(importPath string, identifiers ...string) []*ast.SelectorExpr {
	local := ""
	for _, spec := range f.syntax.Imports {
		if spec.Path.Value != `"`+importPath+`"` {
			continue
		}
		local = path.Base(importPath)
		if spec.Name != nil {
			local = spec.Name.Name
		}
	}
	if local == "" {
		return nil
	}
	var found []*ast.SelectorExpr
	ast.Inspect(f.syntax, func(node ast.Node) bool {
		selector, ok := node.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if owner, ok := selector.X.(*ast.Ident); ok && owner.Name == local && slices.Contains(identifiers, selector.Sel.Name) {
			found = append(found, selector)
		}
		return true
	})
	return found
}
