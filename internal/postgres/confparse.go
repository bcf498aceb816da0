package postgres

import (
	"fmt"
	"strings"
)

// Setting is one line of a configuration file that sets something.
type Setting struct {
	File  string // path of the file
	Line  int    // counted from 1
	Name  string // lower case
	Value string // unquoted
}

// String gives the setting with its place, for messages.
func (s Setting) String() string {
	return fmt.Sprintf("%s:%d: %s = %s", s.File, s.Line, s.Name, QuoteConfValue(s.Value))
}

// ConfProblem is a line that PostgreSQL would not take, or a file that could not be read.
type ConfProblem struct {
	File string
	Line int // 0: the file as a whole
	Text string
}

// String gives the problem with its place.
func (p ConfProblem) String() string {
	if p.Line == 0 {
		return p.File + ": " + p.Text
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text)
}

// ParseConf reads the text of one configuration file by the rules of PostgreSQL's guc-file.l: one "name [=] value" a
// line, # starts a comment, values are bare words, numbers with units, or quoted with doubled quotes and
// backslash escapes. Include directives come back as settings like any other.
func ParseConf(file, text string) ([]Setting, []ConfProblem) {
	var settings []Setting
	var problems []ConfProblem
	number := 0
	for line := range strings.Lines(text) {
		number++
		name, value, err := parseConfLine(strings.TrimSuffix(line, "\n"))
		if err != nil {
			problems = append(problems, ConfProblem{File: file, Line: number, Text: err.Error()})
		} else if name != "" {
			settings = append(settings, Setting{File: file, Line: number, Name: strings.ToLower(name), Value: value})
		}
	}
	return settings, problems
}

const confSpace = " \t\r"

func parseConfLine(line string) (name, value string, err error) {
	rest := strings.TrimLeft(line, confSpace)
	if rest == "" || rest[0] == '#' {
		return "", "", nil
	}
	n := confNameLen(rest)
	if n == 0 {
		return "", "", fmt.Errorf("expected the name of a setting near %q", clip(rest))
	}
	name, rest = rest[:n], strings.TrimLeft(rest[n:], confSpace)
	if after, ok := strings.CutPrefix(rest, "="); ok {
		rest = strings.TrimLeft(after, confSpace)
	}
	if strings.HasPrefix(rest, "'") {
		value, rest, err = parseConfQuoted(rest)
		if err != nil {
			return "", "", fmt.Errorf("%s: %w", name, err)
		}
	} else {
		n := 0
		for n < len(rest) && confBare(rest[n]) {
			n++
		}
		if n == 0 {
			return "", "", fmt.Errorf("%s has no value", name)
		}
		value, rest = rest[:n], rest[n:]
	}
	rest = strings.TrimLeft(rest, confSpace)
	if rest != "" && rest[0] != '#' {
		return "", "", fmt.Errorf("%s: unexpected text near %q", name, clip(rest))
	}
	return name, value, nil
}

// confNameLen is the length of the name that s starts with: letters, digits, _ and $, with one
// dot for each qualifier. Bytes from 128 on count as letters.
func confNameLen(s string) int {
	n := 0
	for start := true; n < len(s); n++ {
		c := s[n]
		switch {
		case confLetter(c):
			start = false
		case !start && (c >= '0' && c <= '9' || c == '$'):
		case !start && c == '.' && n+1 < len(s) && confLetter(s[n+1]):
			start = true
		default:
			return n
		}
	}
	return n
}

func confLetter(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '_' || c >= 0x80
}

// confBare tells whether c may stand in an unquoted value: a word, a path, or a number with sign and unit.
func confBare(c byte) bool {
	return confLetter(c) || c >= '0' && c <= '9' || strings.IndexByte("-._:/+", c) >= 0
}

// parseConfQuoted reads a quoted value as GUC_scanstr does.
func parseConfQuoted(s string) (value, rest string, err error) {
	var b strings.Builder
	for k := 1; k < len(s); k++ {
		switch c := s[k]; c {
		case '\'':
			if k+1 < len(s) && s[k+1] == '\'' {
				b.WriteByte('\'')
				k++
				continue
			}
			return b.String(), s[k+1:], nil
		case '\\':
			k++
			if k == len(s) {
				return "", "", fmt.Errorf("the quoted value does not end on its line")
			}
			switch e := s[k]; e {
			case 'b':
				b.WriteByte('\b')
			case 'f':
				b.WriteByte('\f')
			case 'n':
				b.WriteByte('\n')
			case 'r':
				b.WriteByte('\r')
			case 't':
				b.WriteByte('\t')
			case '0', '1', '2', '3', '4', '5', '6', '7':
				var v byte
				end := min(k+3, len(s))
				for ; k < end && s[k] >= '0' && s[k] <= '7'; k++ {
					v = v<<3 + s[k] - '0'
				}
				k--
				b.WriteByte(v)
			default:
				b.WriteByte(e)
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", "", fmt.Errorf("the quoted value does not end on its line")
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}
