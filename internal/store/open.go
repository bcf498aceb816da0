package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Options say how to open a store. The zero value opens what is there already,
// with the settings that the environment gives.
type Options struct {
	// Create makes a local folder where it is absent. Buckets are never created.
	Create bool
	// S3 settings; the same words in the URL's query win over them.
	S3 S3Options
}

// S3Options say where an S3 service is and how to speak to it. What is empty
// comes from AWS's own environment variables and files.
type S3Options struct {
	Endpoint  string // URL of an S3-compatible service; empty for AWS itself
	Region    string // such as "eu-west-1"
	PathStyle bool   // bucket in the path and not in the host name: most self-hosted services want it
}

// Open opens the store at rawURL:
//
//	/abs/path, file:///abs/path
//	s3://bucket/prefix?region=R&endpoint=URL&use_path_style=true
//	gs://bucket/prefix
//	azblob://container/prefix
//
// and asks it for a sign of life, so that a wrong address fails here. Credentials
// come from each provider's standard chain (environment, files, machine roles);
// a URL that carries any is refused, since URLs end up in logs and process lists.
//
// Buckets make a single attempt per call: wrap the store in WithRetry.
func Open(ctx context.Context, rawURL string, opts Options) (Store, error) {
	if !strings.Contains(rawURL, "://") {
		return OpenLocal(rawURL, LocalOptions{Create: opts.Create})
	}
	u, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	prefix := strings.Trim(u.Path, "/")
	if u.Scheme != "file" {
		if u.Host == "" {
			return nil, fmt.Errorf("store URL %s: no bucket after %s://", u, u.Scheme)
		}
		if prefix != "" {
			if err := CheckKey(prefix); err != nil {
				return nil, fmt.Errorf("store URL %s: prefix: %w", u, err)
			}
		}
	}
	var b *bucketStore
	switch u.Scheme {
	case "file":
		if u.Host != "" && u.Host != "localhost" || u.RawQuery != "" {
			return nil, fmt.Errorf("store URL %s: want file:///absolute/path with nothing else", u)
		}
		return OpenLocal(u.Path, LocalOptions{Create: opts.Create})
	case "s3":
		b, err = openS3(ctx, u, opts.S3)
	case "gs":
		b, err = openGCS(ctx, u)
	case "azblob":
		b, err = openAzure(ctx, u)
	default:
		return nil, fmt.Errorf("store URL %s: unknown scheme; want an absolute path, file://, s3://, gs:// or azblob://", u)
	}
	if err != nil {
		return nil, err
	}
	if prefix != "" {
		b.prefix = prefix + "/"
	}
	for _, err := range b.List(ctx, "") {
		if err != nil {
			return nil, fmt.Errorf("open store %s: %w", u, err)
		}
		break // one answer is enough
	}
	return b, nil
}

// parseURL refuses URLs with credentials, without repeating them.
func parseURL(rawURL string) (*url.URL, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		// The parser's error quotes the URL, and with it what may be a secret.
		return nil, errors.New("the store URL cannot be parsed; want an absolute path, file://, s3://, gs:// or azblob://")
	}
	const hint = "give credentials by the provider's environment variables or files instead"
	if u.User != nil {
		return nil, fmt.Errorf("the store URL for %s://%s has credentials in it; %s", u.Scheme, u.Host, hint)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("the query of the store URL for %s://%s cannot be parsed", u.Scheme, u.Host)
	}
	for name := range query {
		if looksSecret(name) {
			return nil, fmt.Errorf("the store URL for %s://%s has the setting %q, which looks like a credential; %s", u.Scheme, u.Host, name, hint)
		}
	}
	if u.Fragment != "" {
		return nil, fmt.Errorf("the store URL for %s://%s has a fragment (#), which means nothing here", u.Scheme, u.Host)
	}
	return u, nil
}

func looksSecret(name string) bool {
	name = strings.ToLower(name)
	return name == "sig" || slices.ContainsFunc(
		[]string{"secret", "key", "token", "pass", "pwd", "credential", "signature", "auth"},
		func(word string) bool { return strings.Contains(name, word) })
}

// checkQuery refuses settings that the scheme does not know.
func checkQuery(u *url.URL, known ...string) (url.Values, error) {
	query := u.Query()
	for name := range query {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("store URL for %s://%s: unknown setting %q (known: %s)", u.Scheme, u.Host, name, strings.Join(known, ", "))
		}
	}
	return query, nil
}
