package config

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

type reader = func(d *decoder, node ast.Node) error

func isNull(node ast.Node) bool {
	if node == nil {
		return true
	}
	_, null := node.(*ast.NullNode)
	return null
}

// kind names a node in a person's words.
func kind(node ast.Node) string {
	switch node.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	default:
		return "this"
	}
}

// asText returns the text of a string. Numbers and booleans are refused: YAML
// rewrites some of them (012, 1e3, no), so that only quotes keep them as written.
func asText(node ast.Node) (string, error) {
	text := ""
	switch n := node.(type) {
	case *ast.StringNode:
		text = n.Value
	case *ast.LiteralNode:
		text = n.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return "", fmt.Errorf("must be text, not %s; put quotes around it", kind(node))
	default:
		return "", fmt.Errorf("must be text, not %s", kind(node))
	}
	if strings.ContainsAny(text, "\x00\n\r") {
		return "", errors.New("must be one line")
	}
	return text, nil
}

// asQuantity also takes a bare number, so that its error can ask for the unit.
func asQuantity(node ast.Node) (string, error) {
	if _, ok := node.(*ast.IntegerNode); ok {
		return node.GetToken().Value, nil
	}
	return asText(node)
}

func readText(into *string) reader {
	return func(_ *decoder, node ast.Node) (err error) {
		*into, err = asText(node)
		return err
	}
}

func readChoice(into *string, choices ...string) reader {
	return func(_ *decoder, node ast.Node) error {
		text, err := asText(node)
		if err != nil {
			return err
		}
		if !slices.Contains(choices, text) {
			return fmt.Errorf("must be one of %s, not %q", strings.Join(choices, ", "), text)
		}
		*into = text
		return nil
	}
}

func readBool(into *bool) reader {
	return func(_ *decoder, node ast.Node) error {
		value, ok := node.(*ast.BoolNode)
		if !ok {
			return fmt.Errorf("must be true or false, not %s", kind(node))
		}
		*into = value.Value
		return nil
	}
}

func readInt(into *int, least, most int) reader {
	return func(_ *decoder, node ast.Node) error {
		if _, ok := node.(*ast.IntegerNode); !ok {
			return fmt.Errorf("must be a whole number, not %s", kind(node))
		}
		n, err := strconv.Atoi(node.GetToken().Value)
		if err != nil || n < least || n > most {
			return fmt.Errorf("must be a whole number from %d to %d", least, most)
		}
		*into = n
		return nil
	}
}

func readDuration(into *time.Duration, least, most time.Duration) reader {
	return func(_ *decoder, node ast.Node) error {
		text, err := asQuantity(node)
		if err != nil {
			return err
		}
		value, err := ParseDuration(text)
		if err != nil {
			return err
		}
		if value < least || value > most {
			return fmt.Errorf("must be from %s to %s, not %s", formatDuration(least), formatDuration(most), text)
		}
		*into = value
		return nil
	}
}

func readSize(into *int64, least, most int64) reader {
	return func(_ *decoder, node ast.Node) error {
		text, err := asQuantity(node)
		if err != nil {
			return err
		}
		value, err := ParseSize(text)
		if err != nil {
			return err
		}
		if value < least || value > most {
			return fmt.Errorf("must be from %s to %s, not %s", formatSize(least), formatSize(most), text)
		}
		*into = value
		return nil
	}
}

func readRate(into *int64) reader {
	return func(_ *decoder, node ast.Node) error {
		text, err := asQuantity(node)
		if err != nil {
			return err
		}
		*into, err = ParseRate(text)
		return err
	}
}

func readPath(into *string) reader {
	return func(d *decoder, node ast.Node) error {
		text, err := asText(node)
		if err != nil {
			return err
		}
		*into, err = d.resolve(text)
		return err
	}
}

func readDataDir(into *string) reader {
	return func(d *decoder, node ast.Node) error {
		text, err := asText(node)
		if err != nil {
			return err
		}
		if text == DataDirAuto || text == DataDirNever {
			*into = text
			return nil
		}
		*into, err = d.resolve(text)
		return err
	}
}

func readSlot(into *string) reader {
	return func(_ *decoder, node ast.Node) error {
		text, err := asText(node)
		if err != nil {
			return err
		}
		if err := validateSlot(text); err != nil {
			return err
		}
		*into = text
		return nil
	}
}

// resolve makes a path absolute: below the file's folder, or below home after ~/.
func (d *decoder) resolve(path string) (string, error) {
	switch {
	case path == "":
		return "", errors.New("must not be empty; leave the key away instead")
	case path == "~" || strings.HasPrefix(path, "~/"):
		home, err := userDir("HOME", "")
		if err != nil {
			return "", err
		}
		return filepath.Join(home, path[1:]), nil
	case filepath.IsAbs(path):
		return filepath.Clean(path), nil
	default:
		return filepath.Join(d.dir, path), nil
	}
}

// readURL takes a path, file://, or a bucket's URL. Its options, such as an S3
// endpoint, have keys of their own, so that they are checked.
func readURL(into *string) reader {
	return func(d *decoder, node ast.Node) error {
		text, err := asText(node)
		if err != nil {
			return err
		}
		scheme, _, isURL := strings.Cut(text, "://")
		if !isURL {
			*into, err = d.resolve(text)
			return err
		}
		u, err := url.Parse(text)
		switch {
		case err != nil:
			// The parser's own message repeats the text, which may hold a secret.
			return errors.New("is not a URL")
		case u.User != nil:
			return errors.New("must not hold credentials; they come from the environment")
		case u.RawQuery != "" || u.Fragment != "":
			return errors.New("must not have options behind ? or #; repository.s3 has keys for them")
		case scheme == "file" && u.Host == "":
			*into, err = d.resolve(u.Path)
			return err
		case scheme == "s3", scheme == "gs", scheme == "azblob":
			if u.Host == "" {
				return fmt.Errorf("must name a bucket: %s://bucket/prefix", scheme)
			}
			*into = strings.TrimRight(text, "/")
			return nil
		default:
			return fmt.Errorf("has the unknown scheme %q; use a folder, s3://, gs:// or azblob://", scheme)
		}
	}
}

func readEndpoint(into *string) reader {
	return func(_ *decoder, node ast.Node) error {
		text, err := asText(node)
		if err != nil {
			return err
		}
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return errors.New("must be a URL that begins with https:// or http://")
		}
		if u.User != nil {
			return errors.New("must not hold credentials; they come from the environment")
		}
		*into = text
		return nil
	}
}

// passwordKeyword finds password=... in a keyword/value connection string, and
// passwordOption in a URL's query.
var (
	passwordKeyword = regexp.MustCompile(`(?i)(^|\s)(ssl)?password\s*=`)
	passwordOption  = regexp.MustCompile(`(?i)[?&](ssl)?password=`)
)

func readConnection(into *string) reader {
	return func(_ *decoder, node ast.Node) error {
		text, err := asText(node)
		if err != nil {
			return err
		}
		if strings.TrimSpace(text) == "" {
			return errors.New("must not be empty")
		}
		secret := passwordKeyword.MatchString(text)
		if strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://") {
			secret = passwordOption.MatchString(text) || urlHasPassword(text)
		}
		if secret {
			return errors.New("must not hold a password; name a password_file, or use PGPASSFILE")
		}
		*into = text
		return nil
	}
}

// urlHasPassword tells whether user:password@ is in a connection URL. It cuts by
// hand, because libpq's URLs with several hosts are none for net/url.
func urlHasPassword(text string) bool {
	_, rest, _ := strings.Cut(text, "://")
	authority, _, _ := strings.Cut(rest, "/")
	at := strings.LastIndexByte(authority, '@')
	return at >= 0 && strings.Contains(authority[:at], ":")
}
