package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// FileName is the name of the configuration file in every folder where it is looked for.
const FileName = "pileus.yaml"

// Find returns the path of the configuration file. In this order: explicit (the flag
// --config) if not empty, $PILEUS_CONFIG, ./pileus.yaml, pileus.yaml in the user's
// configuration folder ($XDG_CONFIG_HOME/pileus, else ~/.config/pileus) and in
// /etc/pileus. The first two are returned whether or not they exist, so that a
// misspelt one is never replaced silently by another. If there is none, the error
// wraps ErrNoFile and says where was looked.
func Find(explicit string) (string, error) {
	if explicit != "" {
		return explicit, nil
	}
	if path := os.Getenv("PILEUS_CONFIG"); path != "" {
		return path, nil
	}
	places := []string{FileName}
	// Without a home folder there is no user's configuration; that is no fault.
	if dir, err := userDir("XDG_CONFIG_HOME", ".config"); err == nil {
		places = append(places, filepath.Join(dir, "pileus", FileName))
	}
	places = append(places, filepath.Join("/etc/pileus", FileName))
	for _, path := range places {
		// A file that exists but may not be looked at is found: Load says why it fails.
		if _, err := os.Stat(path); err == nil || os.IsPermission(err) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w in %s; create one with `pileus init`, or name it with --config", ErrNoFile, strings.Join(places, ", "))
}

// DefaultStateDir is where spool and locks live if the configuration does not say:
// $XDG_STATE_HOME/pileus, else ~/.local/state/pileus.
func DefaultStateDir() (string, error) {
	dir, err := userDir("XDG_STATE_HOME", filepath.Join(".local", "state"))
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "pileus"), nil
}

// userDir is one of the XDG base directories. A relative path in the variable is
// ignored, as the specification demands.
func userDir(variable, below string) (string, error) {
	if dir := os.Getenv(variable); filepath.IsAbs(dir) {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("this user has no home folder: %w", err)
	}
	return filepath.Join(home, below), nil
}
