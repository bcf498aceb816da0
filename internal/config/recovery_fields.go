package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

func recoveryFields(r *Recovery) []field {
	return []field{
		{
			key: "provider", standard: ProviderPileus, doc: "Whose RDS API the clusters are behind: pileus or aws.",
			read: readChoice(&r.Provider, ProviderPileus, ProviderAWS),
		},
		{key: "endpoint", doc: "The URL of the RDS API. Without it: serve.listen of this file, or AWS's own.", read: readEndpoint(&r.Endpoint)},
		{
			key: "region", doc: "The region of the API. Without it: serve.region, or what the AWS configuration says.",
			read: readMatch(&r.Region, regionName, "must be lower-case letters, digits and hyphens, such as us-east-1"),
		},
		{
			key: "access_key", doc: "The id of an access key; without it credentials are looked for as the AWS CLI does.",
			read: readMatch(&r.AccessKey, accessKeyID.pattern, accessKeyID.rule),
		},
		{key: "secret_file", doc: "A file with the access key's secret and nothing else.", read: readPath(&r.SecretFile)},
		{key: "database", doc: "The application's database.", read: readText(&r.Database)},
		{
			key: "maintenance_database", standard: "postgres", doc: "Another database, where the administrator is while the application's is fenced.",
			read: readText(&r.MaintenanceDatabase),
		},
		{
			key: "sslmode", standard: "require", doc: "How connections are encrypted: disable, require, verify-ca or verify-full.",
			read: readChoice(&r.SSLMode, "disable", "require", "verify-ca", "verify-full"),
		},
		{key: "ssl_root_cert", doc: "The certificate authority for verify-ca and verify-full, PEM.", read: readPath(&r.SSLRootCert)},
		{
			key: "administrator", doc: "The master user: who fences, validates, and stays connected.",
			fields: loginFields(&r.Administrator),
		},
		{
			key: "application", doc: "The role that the application connects as: the fence is tried with it.",
			fields: loginFields(&r.Application),
		},
		{
			key: "exempt_roles", doc: "Roles that keep their access while the database is fenced, separated by commas.",
			read: readNames(&r.ExemptRoles),
		},
		{
			key: "prepared_transactions", standard: PreparedRefuse,
			doc:  "What to do about prepared transactions when the database is fenced: refuse to go on, or rollback.",
			read: readChoice(&r.PreparedTransactions, PreparedRefuse, PreparedRollback),
		},
		{
			key:  "halt",
			doc:  "Commands that stop the application's work, in order, by names of yours, as in workers: systemctl stop workers. Done twice they must do no harm.",
			read: readCommands("recovery.halt", &r.Halt),
		},
		{key: "resume", doc: "Commands that start it again.", read: readCommands("recovery.resume", &r.Resume)},
		{
			key: "drained", doc: "Commands that succeed once no work is under way; they are asked again until they do.",
			read: readCommands("recovery.drained", &r.Drained),
		},
		{
			key: "drain_timeout", standard: "30m", doc: "How long that may take before an operator has to decide.",
			read: readDuration(&r.DrainTimeout, time.Second, 30*day),
		},
		{
			key: "expect",
			doc: "What must be true of the recovered data: for a name of yours, sql that returns one value, and any of least, most " +
				"and equals, as in granules: {sql: SELECT count(*) FROM granules, least: 1}.",
			read: readExpectations(&r.Expect),
		},
		{
			key: "cumulus", doc: "Set for a deployment of NASA Cumulus: its rules are halted, its work drained, its database inspected, its rules resumed.",
			fields: []field{
				{key: "api", doc: "The URL of the archive API.", read: readEndpoint(&r.Cumulus.API)},
				{key: "token_file", doc: "A file with a bearer token of that API and nothing else. It is read for each request.", read: readPath(&r.Cumulus.TokenFile)},
				{key: "prefix", doc: "The deployment's prefix (stackName), which the names of its functions and queues begin with.", read: readText(&r.Cumulus.Prefix)},
				{key: "queues", doc: "Names of further SQS queues that hold work, separated by commas.", read: readNames(&r.Cumulus.Queues)},
			},
		},
		{
			key: "cutover", doc: "How clients are sent to the new cluster.",
			fields: []field{
				{
					key: "method", standard: CutoverPrint, doc: "print shows the new endpoint; commands runs those below; secret writes it into a secret.",
					read: readChoice(&r.Cutover.Method, CutoverPrint, CutoverCommands, CutoverSecret),
				},
				{
					key: "commands",
					doc: "Commands that do it. PILEUS_NEW_CLUSTER, PILEUS_NEW_HOST and PILEUS_NEW_PORT are in their environment, " +
						"PILEUS_OLD_CLUSTER, PILEUS_OLD_HOST and PILEUS_OLD_PORT too.",
					read: readCommands("recovery.cutover.commands", &r.Cutover.Commands),
				},
				{
					key: "secret", doc: "A secret in AWS Secrets Manager, ARN or name: JSON, whose host and port get a new version; every other key stays.",
					read: readText(&r.Cutover.Secret),
				},
			},
		},
		{
			key: "drill_every", doc: "How often `pileus serve` rehearses a recovery: 7d. Without it: never.",
			read: readDuration(&r.DrillEvery, time.Minute, 365*day),
		},
		{key: "drill_clusters", doc: "The clusters whose recovery is rehearsed, separated by commas.", read: readNames(&r.DrillClusters)},
	}
}

func loginFields(l *Login) []field {
	return []field{
		{key: "user", doc: "The role.", read: readText(&l.User)},
		{key: "password_file", doc: "A file with the password and nothing else.", read: readPath(&l.PasswordFile)},
		{key: "secret", doc: "Or its secret in AWS Secrets Manager, ARN or name: JSON with username and password.", read: readText(&l.Secret)},
	}
}

var commandName = naming{regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`), "a name must be 1 to 63 lower-case letters, digits, hyphens and underscores"}

func readCommands(prefix string, into *[]Command) reader {
	return readEach(prefix, commandName, func(_ *decoder, e entry, _ string) error {
		line, err := asText(e.value)
		if err == nil {
			*into = append(*into, Command{Name: e.key, Line: line})
		}
		return err
	})
}

func readNames(into *[]string) reader {
	return func(_ *decoder, node ast.Node) error {
		text, err := asText(node)
		if err != nil {
			return err
		}
		var names []string
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part == "" {
				return errors.New("has an empty name")
			}
			names = append(names, part)
		}
		*into = names
		return nil
	}
}

func readExpectations(into *[]Expectation) reader {
	return readEach("recovery.expect", commandName, func(d *decoder, e entry, key string) error {
		x := Expectation{Name: e.key}
		var equals string
		before := len(d.faults)
		places := d.section(key, e.value, []field{
			{key: "sql", read: readText(&x.SQL)},
			{key: "least", read: readNumber(&x.Least)},
			{key: "most", read: readNumber(&x.Most)},
			{key: "equals", read: readText(&equals)},
		})
		if len(d.faults) > before {
			return nil
		}
		if _, given := places["equals"]; given {
			x.Equals = &equals
		}
		switch {
		case x.SQL == "":
			d.faultAt(e.at, join(key, "sql"), "is required: a query with one value")
		case x.Least == nil && x.Most == nil && x.Equals == nil:
			d.faultAt(e.at, key, "needs one of least, most and equals")
		case x.Equals != nil && (x.Least != nil || x.Most != nil):
			d.faultAt(e.at, key, "has equals beside least or most; one of them says it all")
		}
		*into = append(*into, x)
		return nil
	})
}

func readNumber(into **float64) reader {
	return func(_ *decoder, node ast.Node) error {
		switch node.(type) {
		case *ast.IntegerNode, *ast.FloatNode:
		default:
			return fmt.Errorf("must be a number, not %s", kind(node))
		}
		var v float64
		if _, err := fmt.Sscanf(node.GetToken().Value, "%g", &v); err != nil {
			return fmt.Errorf("must be a number: %w", err)
		}
		*into = &v
		return nil
	}
}

// recovery checks what keys of the section have to do with each other.
func (d *decoder) recovery(r *Recovery, given bool) {
	if !given {
		return
	}
	at := func(key, problem string) {
		if !d.faulted(key) {
			d.faultAt(nil, key, "%s", problem)
		}
	}
	for name, l := range map[string]Login{"recovery.administrator": r.Administrator, "recovery.application": r.Application} {
		if l.PasswordFile != "" && l.Secret != "" {
			at(name, "has password_file and secret; give one")
		}
		if l.User != "" && l.PasswordFile == "" && l.Secret == "" {
			at(name, "has a user and neither password_file nor secret")
		}
	}
	if (r.AccessKey == "") != (r.SecretFile == "") {
		at("recovery.access_key", "needs secret_file, and the other way round")
	}
	if r.Database == "" {
		at("recovery.database", "is required: the application's database")
	}
	if r.Database != "" && r.Database == r.MaintenanceDatabase {
		at("recovery.maintenance_database", "must be another one than recovery.database, which gets fenced")
	}
	if c := r.Cumulus; (c.API != "" || c.TokenFile != "" || c.Prefix != "") && (c.API == "" || c.TokenFile == "" || c.Prefix == "") {
		at("recovery.cumulus", "needs api, token_file and prefix")
	}
	if (r.DrillEvery > 0) != (len(r.DrillClusters) > 0) {
		at("recovery.drill_every", "and drill_clusters need each other")
	}
	if r.Cutover.Method == CutoverCommands && len(r.Cutover.Commands) == 0 {
		at("recovery.cutover.commands", "is required by the method commands")
	}
	if r.Cutover.Method == CutoverSecret && r.Cutover.Secret == "" {
		at("recovery.cutover.secret", "is required by the method secret")
	}
}
