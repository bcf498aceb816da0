package service

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
)

// certificate is the pair of files that TLS shows. They are renewed while the service runs, so
// each handshake looks whether they changed.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	seen    [2]fs.FileInfo // of the newest look, whatever came of it
	current *tls.Certificate
}

// newCertificate loads the pair, which must be sound when the service begins.
func newCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	if _, err := c.load(); err != nil {
		return nil, fmt.Errorf("load the certificate of serve.tls_cert_file and serve.tls_key_file: %w", err)
	}
	return c, nil
}

// get is tls.Config.GetCertificate. A pair that cannot be used, such as one that is just being
// renewed, leaves the former in place; the log says so once.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed, err := c.load()
	if err != nil {
		c.log.Error("the renewed certificate cannot be used, and the former is still shown", "error", err)
	} else if changed {
		c.log.Info("the renewed certificate is shown from now on", "file", c.certFile)
	}
	return c.current, nil
}

// load reads the pair if a file of it changed since the last time.
func (c *certificate) load() (changed bool, err error) {
	var now [2]fs.FileInfo
	var away error
	for i, path := range []string{c.certFile, c.keyFile} {
		if now[i], err = os.Stat(path); err != nil {
			now[i], away = nil, err
		}
	}
	if c.current != nil && same(now[0], c.seen[0]) && same(now[1], c.seen[1]) {
		return false, nil
	}
	c.seen = now
	if away != nil {
		return false, away
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return false, err
	}
	c.current = &pair
	return true, nil
}

// same tells whether a file is as it was seen; nil: it is or was away.
func same(now, seen fs.FileInfo) bool {
	if now == nil || seen == nil {
		return now == nil && seen == nil
	}
	return os.SameFile(now, seen) && now.ModTime().Equal(seen.ModTime()) && now.Size() == seen.Size()
}
