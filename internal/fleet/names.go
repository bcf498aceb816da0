package fleet

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"regexp"
	"strings"

	"pileus/internal/config"
)

// Kinds of resources, as ARNs name them.
const (
	kindCluster        = "cluster"
	kindSnapshot       = "cluster-snapshot"
	kindInstance       = "db"
	kindSubnetGroup    = "subgrp"
	kindParameterGroup = "cluster-pg"
	kindBackup         = "cluster-auto-backup"
)

// automatedPrefix begins the identifier of every automated snapshot.
const automatedPrefix = "rds:"

// arn names a resource.
func (f *Fleet) arn(kind, id string) string {
	return fmt.Sprintf("arn:aws:rds:%s:%s:%s:%s", f.o.Region, f.o.Account, kind, id)
}

// parseARN takes an ARN of this account and region apart.
func (f *Fleet) parseARN(arn string) (kind, id string, err error) {
	rest, ok := strings.CutPrefix(arn, fmt.Sprintf("arn:aws:rds:%s:%s:", f.o.Region, f.o.Account))
	kind, id, found := strings.Cut(rest, ":")
	if !ok || !found || kind == "" || id == "" {
		return "", "", fault(CodeInvalidParameter, "Invalid resource name: %s. It must begin with arn:aws:rds:%s:%s: and name a resource.", arn, f.o.Region, f.o.Account)
	}
	return kind, id, nil
}

// identifierOf turns an ARN of a kind into its identifier; an identifier is returned
// in lower case.
func (f *Fleet) identifierOf(kind, idOrARN string) (string, error) {
	if !strings.HasPrefix(idOrARN, "arn:") {
		return strings.ToLower(idOrARN), nil
	}
	have, id, err := f.parseARN(idOrARN)
	if err != nil {
		return "", err
	}
	if have != kind {
		return "", fault(CodeInvalidParameter, "%s does not name a %s.", idOrARN, kind)
	}
	return strings.ToLower(id), nil
}

var alphabet = base32.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567").WithPadding(base32.NoPadding)

// newResourceID makes an ID that never names anything else.
func newResourceID(prefix string) string {
	b := make([]byte, 17)
	rand.Read(b)
	return prefix + alphabet.EncodeToString(b)[:26]
}

// derivedResourceID is the ID of what is known by its name only: an attached cluster, or one that
// the repository has and no document tells of. It is always the same.
func derivedResourceID(prefix, name string) string {
	sum := sha256.Sum256([]byte("pileus resource " + name))
	return prefix + alphabet.EncodeToString(sum[:17])[:26]
}

// checkIdentifier refuses what cannot name a cluster or instance.
func checkIdentifier(parameter, id string) error {
	if id == "" {
		return fault(CodeMissingParameter, "The request must contain the parameter %s.", parameter)
	}
	if err := config.ValidateIdentifier(id); err != nil {
		return fault(CodeInvalidParameter, "The parameter %s is not a valid identifier: %v.", parameter, err)
	}
	return nil
}

var snapshotIdentifier = regexp.MustCompile(`^[A-Za-z](-?[A-Za-z0-9])*$`)

func checkSnapshotIdentifier(parameter, id string) error {
	switch {
	case id == "":
		return fault(CodeMissingParameter, "The request must contain the parameter %s.", parameter)
	case len(id) > 255 || !snapshotIdentifier.MatchString(id):
		return fault(CodeInvalidParameter, "The parameter %s is not a valid identifier: %q must be 1 to 255 letters, digits and single hyphens, a letter first and no hyphen last.", parameter, id)
	}
	return nil
}

var groupName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._ -]{0,254}$`)

func checkGroupName(parameter, name string) error {
	switch {
	case name == "":
		return fault(CodeMissingParameter, "The request must contain the parameter %s.", parameter)
	case !groupName.MatchString(name):
		return fault(CodeInvalidParameter, "The parameter %s must be 1 to 255 letters, digits, hyphens, underscores, periods and spaces, a letter first: %q is not.", parameter, name)
	case strings.EqualFold(name, "default"):
		return fault(CodeInvalidParameter, "The parameter %s must not be %q, which is reserved.", parameter, name)
	}
	return nil
}

// blank is the fault of a parameter that AWS's model calls optional and that is needed all the same.
func blank(parameter string) error {
	return fault(CodeInvalidParameter, "The parameter %s must be provided and must not be blank.", parameter)
}

// checkPassword holds a master password against the rules of RDS.
func checkPassword(p string) error {
	switch n := len(p); {
	case n == 0:
		return blank("MasterUserPassword")
	case n < 8:
		return fault(CodeInvalidParameter, "The parameter MasterUserPassword is not a valid password because it is shorter than 8 characters.")
	case n > 41:
		return fault(CodeInvalidParameter, "The parameter MasterUserPassword is not a valid password because it is longer than 41 characters.")
	}
	for _, c := range p {
		if c < ' ' || c > '~' || strings.ContainsRune(`/"@ `, c) {
			return fault(CodeInvalidParameter, "The parameter MasterUserPassword is not a valid password: only printable ASCII characters besides '/', '@', '\"' and ' ' may be used.")
		}
	}
	return nil
}

var roleName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,62}$`)

// reservedRoles are names that PostgreSQL or Pileus use.
var reservedRoles = map[string]bool{"pileus_admin": true, "public": true, "none": true, "current_user": true, "session_user": true, "user": true}

func checkMasterUsername(name string) error {
	lower := strings.ToLower(name)
	switch {
	case name == "":
		return blank("MasterUsername")
	case !roleName.MatchString(name):
		return fault(CodeInvalidParameter, "The parameter MasterUsername must be 1 to 63 letters, digits and underscores, a letter first: %q is not.", name)
	case reservedRoles[lower] || strings.HasPrefix(lower, "pg_"):
		return fault(CodeInvalidParameter, "MasterUsername %s cannot be used as it is a reserved word used by the engine.", name)
	}
	return nil
}

func checkDatabaseName(name string) error {
	if name == "" || roleName.MatchString(name) && !strings.EqualFold(name, "postgres") && !strings.HasPrefix(name, "template") {
		return nil
	}
	return fault(CodeInvalidParameter, "The parameter DatabaseName must be 1 to 63 letters, digits and underscores, a letter first, and no name of PostgreSQL's own: %q is not.", name)
}

// checkTags refuses tags that RDS would.
func checkTags(tags []Tag) error {
	if len(tags) > 50 {
		return fault(CodeInvalidParameter, "A resource has at most 50 tags; %d were given.", len(tags))
	}
	for _, t := range tags {
		if t.Key == "" || len(t.Key) > 128 || len(t.Value) > 256 {
			return fault(CodeInvalidParameter, "A tag's key has 1 to 128 characters and its value at most 256: %q.", t.Key)
		}
		if strings.HasPrefix(strings.ToLower(t.Key), "aws:") {
			return fault(CodeInvalidParameter, "A tag's key must not begin with aws:, which is reserved: %q.", t.Key)
		}
	}
	return nil
}

// mergeTags adds tags; a new value replaces an old one.
func mergeTags(have, add []Tag) []Tag {
	out := append([]Tag(nil), have...)
next:
	for _, t := range add {
		for i := range out {
			if out[i].Key == t.Key {
				out[i].Value = t.Value
				continue next
			}
		}
		out = append(out, t)
	}
	return out
}
