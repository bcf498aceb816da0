package config

import (
	"fmt"
	"hash/crc32"
	"strings"
)

const (
	maxIdentifier = 63 // characters; the limit of RDS
	maxSlot       = 63 // NAMEDATALEN - 1 of PostgreSQL
)

// ValidateIdentifier checks name against the rules of RDS for DB cluster
// identifiers: 1 to 63 letters, digits and hyphens, a letter first, no hyphen last
// and no two in a row. Letters may be of either case; Pileus keeps them in lower case.
//
// Source: Amazon RDS API reference, CreateDBCluster, DBClusterIdentifier.
func ValidateIdentifier(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("a cluster's name must not be empty")
	case len(name) > maxIdentifier:
		return fmt.Errorf("the name %q has %d characters; at most %d are allowed", name, len(name), maxIdentifier)
	case !isLetter(name[0]):
		return fmt.Errorf("the name %q must begin with a letter", name)
	case strings.HasSuffix(name, "-"):
		return fmt.Errorf("the name %q must not end with a hyphen", name)
	case strings.Contains(name, "--"):
		return fmt.Errorf("the name %q must not have two hyphens in a row", name)
	}
	for i := range len(name) {
		if c := name[i]; !isLetter(c) && !isDigit(c) && c != '-' {
			return fmt.Errorf("the name %q may have letters, digits and hyphens only", name)
		}
	}
	return nil
}

// validateSlot checks a replication slot's name as PostgreSQL does
// (ReplicationSlotValidateName in src/backend/replication/slot.c).
func validateSlot(name string) error {
	if name == "" || len(name) > maxSlot {
		return fmt.Errorf("the slot's name %q must have 1 to %d characters", name, maxSlot)
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && !isDigit(c) && c != '_' {
			return fmt.Errorf("the slot's name %q may have lower-case letters, digits and underscores only", name)
		}
	}
	return nil
}

// defaultSlot derives a slot's name from a valid cluster identifier. Identifiers
// have no underscores, so two of them never give one slot; those too long for a
// slot end in a checksum of the whole.
func defaultSlot(identifier string) string {
	const prefix = "pileus_"
	slot := prefix + strings.ReplaceAll(strings.ToLower(identifier), "-", "_")
	if len(slot) <= maxSlot {
		return slot
	}
	sum := fmt.Sprintf("_%08x", crc32.ChecksumIEEE([]byte(identifier)))
	return slot[:maxSlot-len(sum)] + sum
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
