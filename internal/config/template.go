package config

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// Params are what `pileus init` knows already. What is empty is written as a comment.
type Params struct {
	// RepositoryURL is a path or a URL as in Repository.URL. Without one the file
	// names a folder beside itself, "pileus-repository".
	RepositoryURL  string
	S3             S3
	KeyFile        string
	PassphraseFile string
	StateDir       string
	// Cluster is the identifier of the first cluster; without one an example is
	// written as a comment.
	Cluster      string
	Connection   string
	PasswordFile string
	DataDir      string
	BinDir       string
}

const templateHead = `# The configuration of Pileus. What is not set here has the value that is shown behind #.
# Durations: 500ms, 1s, 24h, 7d. Sizes: 256MiB, 10GB. Relative paths begin at this file's folder.
# Secrets never stand in this file.

`

// exampleConnection is libpq's for a server on this host.
const exampleConnection = "host=/var/run/postgresql dbname=postgres user=postgres"

// Template writes a pileus.yaml in which every key is explained. Keys that p sets are
// live, the others are comments that show the default. Load reads the result as long
// as the parameters are valid.
func Template(p Params) []byte {
	w := &templateWriter{set: map[string]string{
		"repository.url":             orElse(p.RepositoryURL, "./pileus-repository"),
		"repository.s3.endpoint":     p.S3.Endpoint,
		"repository.s3.region":       p.S3.Region,
		"repository.key_file":        p.KeyFile,
		"repository.passphrase_file": p.PassphraseFile,
		"state_dir":                  p.StateDir,
	}}
	if p.S3.PathStyle {
		w.set["repository.s3.path_style"] = "true"
	}
	name := orElse(p.Cluster, "my-cluster")
	cluster := "clusters." + name
	if p.Cluster != "" {
		w.set[cluster+".connection"] = orElse(p.Connection, exampleConnection)
		w.set[cluster+".password_file"] = p.PasswordFile
		w.set[cluster+".data_dir"] = p.DataDir
		w.set[cluster+".bin_dir"] = p.BinDir
	}
	w.out.WriteString(templateHead)
	var c Config
	var shared Cluster
	w.section("", "", topFields(&c))
	w.comment("", "What all clusters share. Each of these keys may also stand under one cluster.")
	w.line("", "defaults:", true)
	w.section("defaults", "  ", sharedFields(&shared))
	w.comment("", "The PostgreSQL servers that Pileus protects. Names: 1 to 63 letters, digits and hyphens.")
	w.line("", "clusters:", true)
	w.line("  ", name+":", p.Cluster != "")
	w.section(cluster, "    ", ownFields(&shared))
	if p.BinDir != "" {
		w.line("    ", "bin_dir: "+scalar(p.BinDir), true)
	}
	return []byte(strings.TrimRight(w.out.String(), "\n") + "\n")
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

type templateWriter struct {
	out strings.Builder
	set map[string]string // by full key; empty is unset
}

// section writes fields at an indentation. Headers of sections are always live, so
// that it is enough to uncomment one line to set a key.
func (w *templateWriter) section(prefix, indent string, fields []field) {
	for _, f := range fields {
		key := join(prefix, f.key)
		w.comment(indent, f.doc)
		if f.fields != nil {
			w.line(indent, f.key+":", true)
			w.section(key, indent+"  ", f.fields)
			continue
		}
		value, live := w.set[key], w.set[key] != ""
		if !live {
			value = f.standard
		}
		// A boolean is the only set value that is not text.
		if live && value != "true" {
			value = scalar(value)
		}
		if value != "" {
			value = " " + value
		}
		w.line(indent, f.key+":"+value, live)
		if indent == "" {
			w.out.WriteByte('\n')
		}
	}
	if indent == "  " {
		w.out.WriteByte('\n')
	}
}

// line writes a key; without a space behind # if it is not live, so that one sees
// which comments are keys.
func (w *templateWriter) line(indent, text string, live bool) {
	mark := "#"
	if live {
		mark = ""
	}
	fmt.Fprintf(&w.out, "%s%s%s\n", indent, mark, text)
}

// comment writes text in lines of at most 100 characters.
func (w *templateWriter) comment(indent, text string) {
	line := indent + "#"
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > 100 {
			w.out.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + word
	}
	w.out.WriteString(line + "\n")
}

// plain matches what YAML reads as text without quotes, whatever its version.
var plain = regexp.MustCompile(`^[A-Za-z/.][A-Za-z0-9_./-]*$`)

// scalar writes text so that YAML reads the same text back.
func scalar(text string) string {
	switch strings.ToLower(text) {
	case "y", "n", "yes", "no", "on", "off", "true", "false", "null", ".inf", ".nan":
	default:
		if plain.MatchString(text) {
			return text
		}
	}
	quoted, err := json.Marshal(text)
	if err != nil { // impossible for a string
		return `""`
	}
	return string(quoted)
}
