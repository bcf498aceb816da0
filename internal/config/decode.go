package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// The parser is recursive, and its time and memory grow with the square of the
// depth; these bounds keep a wrong file from taking the host down. Our own keys nest
// four deep.
const (
	maxDepth = 16   // of flow mappings within each other
	maxLine  = 4096 // bytes
)

// decoder walks the syntax tree of one file and gathers every fault.
type decoder struct {
	path   string // for messages
	dir    string // where relative paths start
	faults []*Error
}

func (d *decoder) faultAt(at *token.Token, key, format string, args ...any) {
	fault := &Error{Path: d.path, Key: key, Problem: fmt.Sprintf(format, args...)}
	if at != nil && at.Position != nil {
		fault.Line, fault.Column = at.Position.Line, at.Position.Column
	}
	d.faults = append(d.faults, fault)
}

// document decodes the whole text into c.
func (d *decoder) document(text []byte, c *Config) {
	if !d.plain(text) {
		return
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		d.syntax(err)
		return
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			d.faultAt(doc.Body.GetToken(), "", "a second YAML document begins here; the file must have one")
			return
		}
		body = doc.Body
	}
	d.config(body, c)
}

// plain tells whether text keeps to the part of YAML that this file uses: mappings
// and scalars. What else is there is a fault.
func (d *decoder) plain(text []byte) bool {
	line := 1
	for part := range bytes.Lines(text) {
		if len(part) > maxLine {
			d.faultAt(&token.Token{Position: &token.Position{Line: line, Column: 1}}, "", "the line is longer than %d bytes", maxLine)
			return false
		}
		line++
	}
	depth := 0
	for _, at := range lexer.Tokenize(string(text)) {
		switch at.Type {
		case token.MappingStartType:
			if depth++; depth > maxDepth {
				d.faultAt(at, "", "mappings in braces nest deeper than %d", maxDepth)
				return false
			}
		case token.MappingEndType:
			depth--
		case token.SequenceStartType, token.SequenceEntryType:
			d.faultAt(at, "", "a list; this file has mappings only, `key: value` on lines of their own")
			return false
		case token.AnchorType, token.AliasType, token.TagType, token.MergeKeyType, token.MappingKeyType, token.DirectiveType:
			d.faultAt(at, "", "%q: anchors, aliases, merges, tags and directives are not used in this file; what clusters share goes under `defaults:`", at.Value)
			return false
		}
	}
	return true
}

// syntax turns the parser's error into one with our form.
func (d *decoder) syntax(err error) {
	var located yaml.Error
	if errors.As(err, &located) {
		d.faultAt(located.GetToken(), "", "%s", located.GetMessage())
		return
	}
	d.faultAt(nil, "", "%s", err)
}

func (d *decoder) config(body ast.Node, c *Config) {
	top := topFields(c)
	shared := newCluster()
	var clusters ast.Node
	// defaults must be read before clusters, wherever they are in the file.
	all := append(top,
		field{key: "defaults", fields: sharedFields(&shared)},
		field{key: "clusters", read: func(_ *decoder, node ast.Node) error {
			clusters = node
			return nil
		}})
	places := d.section("", body, all)
	if c.Repository.URL == "" && !d.faulted("", "repository", "repository.url") {
		d.faultAt(places["repository"], "repository.url", "is required: a folder, or s3://, gs:// or azblob:// with bucket and prefix")
	}
	if c.Repository.S3 != (S3{}) && !strings.HasPrefix(c.Repository.URL, "s3://") && c.Repository.URL != "" {
		d.faultAt(places["repository"], "repository.s3", "is set, but repository.url is not s3://")
	}
	d.serve(places["serve"], &c.Serve)
	d.recovery(&c.Recovery, places["recovery"] != nil && c.Recovery.Database+c.Recovery.Administrator.User != "")
	c.Defaults = shared
	d.clusters(clusters, shared, c)
}

func (d *decoder) clusters(node ast.Node, shared Cluster, c *Config) {
	for _, entry := range d.entries("clusters", node) {
		key := "clusters." + entry.key
		name := strings.ToLower(entry.key)
		if err := ValidateIdentifier(name); err != nil {
			d.faultAt(entry.at, key, "%s", err)
			continue
		}
		if _, twice := c.Clusters[name]; twice {
			d.faultAt(entry.at, key, "is there twice: names are the same in upper and lower case")
			continue
		}
		cluster := shared
		d.section(key, entry.value, clusterFields(&cluster))
		cluster.Name = name
		if cluster.Slot == "" {
			cluster.Slot = defaultSlot(name)
		}
		if cluster.Connection == "" && !d.faulted(key, key+".connection") {
			d.faultAt(entry.at, key+".connection", `is required, such as "host=/var/run/postgresql dbname=postgres user=postgres"`)
		}
		c.Clusters[name] = cluster
	}
}

// faulted tells whether something was said about one of keys already.
func (d *decoder) faulted(keys ...string) bool {
	return slices.ContainsFunc(d.faults, func(e *Error) bool { return slices.Contains(keys, e.Key) })
}

// section reads the mapping node by its fields, and returns where its keys are.
// An empty section is as good as an absent one.
func (d *decoder) section(prefix string, node ast.Node, fields []field) map[string]*token.Token {
	places := map[string]*token.Token{}
	for _, entry := range d.entries(prefix, node) {
		key := join(prefix, entry.key)
		places[entry.key] = entry.at
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == entry.key })
		switch {
		case i < 0:
			d.unknown(entry, key, fields)
		case fields[i].fields != nil:
			d.section(key, entry.value, fields[i].fields)
		case isNull(entry.value) && fields[i].key != "clusters":
			// A key without a value keeps its default.
		default:
			if err := fields[i].read(d, entry.value); err != nil {
				d.faultAt(entry.value.GetToken(), key, "%s", err)
			}
		}
	}
	return places
}

// entry is one key of a mapping, with the place of the key.
type entry struct {
	key   string
	at    *token.Token
	value ast.Node
}

// entries lists a mapping's keys in the order of the file. What is not a plain
// mapping with plain keys is a fault; nothing at all is an empty mapping.
func (d *decoder) entries(prefix string, node ast.Node) []entry {
	if isNull(node) {
		return nil
	}
	mapping, ok := node.(ast.MapNode)
	if !ok {
		d.faultAt(node.GetToken(), prefix, "must be a mapping, `key: value` on lines of its own, not %s", kind(node))
		return nil
	}
	var entries []entry
	for iter := mapping.MapRange(); iter.Next(); {
		key := iter.Key()
		switch key.(type) {
		case *ast.StringNode, *ast.IntegerNode, *ast.BoolNode, *ast.FloatNode:
			entries = append(entries, entry{key: key.GetToken().Value, at: key.GetToken(), value: iter.Value()})
		default:
			d.faultAt(key.GetToken(), prefix, "has a key that is not a plain word")
		}
	}
	return entries
}

// unknown says what key might have been meant.
func (d *decoder) unknown(e entry, key string, fields []field) {
	if advice, ok := secretAdvice(e.key); ok {
		d.faultAt(e.at, key, "secrets do not belong in this file: %s", advice)
		return
	}
	known := make([]string, len(fields))
	for i, f := range fields {
		known[i] = f.key
	}
	if near := nearest(e.key, known); near != "" {
		d.faultAt(e.at, key, "unknown key; did you mean %q?", near)
		return
	}
	if place := elsewhere(e.key); place != "" {
		d.faultAt(e.at, key, "unknown key here; it belongs under %q", place)
		return
	}
	d.faultAt(e.at, key, "unknown key; known here: %s", strings.Join(known, ", "))
}

// elsewhere finds the section that key belongs to, or "".
func elsewhere(key string) string {
	var cluster Cluster
	everything := append(topFields(&Config{}), field{key: "clusters.NAME", fields: clusterFields(&cluster)})
	return findSection(key, "", everything)
}

func findSection(key, prefix string, fields []field) string {
	for _, f := range fields {
		if f.key == key && prefix != "" {
			return prefix
		}
		if place := findSection(key, join(prefix, f.key), f.fields); place != "" {
			return place
		}
	}
	return ""
}

func join(prefix, key string) string {
	if prefix == "" {
		return key
	}
	return prefix + "." + key
}
