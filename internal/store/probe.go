package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
)

// VerifyCreateOnly writes an object below "probe/" twice and deletes it again, to
// see whether the service honours conditional writes. Some that imitate S3 ignore
// the condition and replace the object; Pileus cannot work safely on those. Run it
// once, when a repository is created.
func VerifyCreateOnly(ctx context.Context, s Store) (err error) {
	key := "probe/" + rand.Text()
	if err := s.Put(ctx, key, strings.NewReader("first")); err != nil {
		return fmt.Errorf("probe the store: %w", err)
	}
	defer func() {
		if deleteErr := s.Delete(ctx, key); deleteErr != nil {
			err = errors.Join(err, fmt.Errorf("probe the store: delete the probe: %w", deleteErr))
		}
	}()
	err = s.Put(ctx, key, strings.NewReader("second"))
	switch {
	case errors.Is(err, ErrExists):
		return nil
	case err != nil:
		return fmt.Errorf("probe the store: write over the probe: %w", err)
	}
	return errors.New("the store replaced an existing object although it was told not to: its service ignores conditional writes (If-None-Match); use one that honours them")
}
