package config

import (
	"strings"
	"testing"
	"time"
)

// TestServeRefuses gives each fault of the section with its place.
func TestServeRefuses(t *testing.T) {
	const head = "repository: {url: /r}\nserve:\n"
	for name, test := range map[string]struct{ text, want string }{
		"misspelt key":         {"  lisen: x\n", `:3:3: serve.lisen: unknown key; did you mean "listen"?`},
		"no port":              {"  listen: localhost\n", ":3:11: serve.listen: must be a host and a port"},
		"port too large":       {"  listen: localhost:65536\n", "serve.listen: must be a host and a port"},
		"no host name":         {"  listen: 'a b:1'\n", `serve.listen: "a b" is neither an address nor a host's name`},
		"open without TLS":     {"  listen: 0.0.0.0:8432\n", ":2:1: serve.tls_cert_file: is required, with tls_key_file: 0.0.0.0:8432 can be reached"},
		"all without TLS":      {"  listen: ':8432'\n", "serve.tls_cert_file: is required"},
		"certificate alone":    {"  tls_cert_file: /c\n", ":2:1: serve.tls_key_file: is required beside tls_cert_file"},
		"TLS key alone":        {"  tls_key_file: /k\n", ":2:1: serve.tls_cert_file: is required beside tls_key_file"},
		"region":               {"  region: US East\n", ":3:11: serve.region: must be lower-case letters"},
		"account as number":    {"  account: 000000000000\n", ":3:12: serve.account: must be text, not a number; put quotes around it"},
		"account too short":    {"  account: '123'\n", ":3:12: serve.account: must be 12 digits"},
		"one port":             {"  ports: '5500'\n", ":3:10: serve.ports: must be the first and the last port"},
		"ports the wrong way":  {"  ports: 6000-5000\n", "serve.ports: must be the first and the last port"},
		"port too low":         {"  ports: 1149-5000\n", "serve.ports: must be the first and the last port from 1150 to 65535"},
		"port too high":        {"  ports: 5000-65536\n", "serve.ports: must be the first and the last port"},
		"listen among ports":   {"  ports: 8000-9000\n", ":2:1: serve.listen: has a port of serve.ports, 8000-9000"},
		"root":                 {"  owner: root\n", ":3:10: serve.owner: must not be root"},
		"owner":                {"  owner: a b\n", "serve.owner: must be the name of an account"},
		"empty folder":         {"  bin_dirs: /a,,/b\n", ":3:13: serve.bin_dirs: must not be empty"},
		"group's id":           {"  security_groups:\n    sg_1: 10.0.0.0/8\n", ":4:5: serve.security_groups.sg_1: an id must be"},
		"group without value":  {"  security_groups:\n    sg-1:\n", ":4:5: serve.security_groups.sg-1: has no value"},
		"no range":             {"  security_groups:\n    sg-1: 10.0.0.0/33\n", `:4:11: serve.security_groups.sg-1: "10.0.0.0/33" is not a range`},
		"range's middle":       {"  security_groups:\n    sg-1: 10.0.0.5/8\n", "the range 10.0.0.5/8 begins in its middle; write 10.0.0.0/8"},
		"no address":           {"  security_groups:\n    sg-1: 10.0.0.1, localhost\n", `"localhost" is not an IP address`},
		"groups as text":       {"  security_groups: all\n", ":3:20: serve.security_groups: must be a mapping"},
		"subnet is a range":    {"  subnets:\n    subnet-a: 10.0.0.0/8\n", `:4:15: serve.subnets.subnet-a: "10.0.0.0/8" is not an IP address`},
		"subnet is everything": {"  subnets:\n    subnet-a: 0.0.0.0\n", "serve.subnets.subnet-a: 0.0.0.0 is no address that a client could connect to"},
		"subnet with a zone":   {"  subnets:\n    subnet-a: fe80::1%eth0\n", "is not an IP address"},
		"window":               {"  backup_window: 3:00-4:00\n", ":3:18: serve.backup_window: must be hh24:mi-hh24:mi in UTC"},
		"short window":         {"  backup_window: 23:50-00:10\n", "serve.backup_window: must last at least 30 minutes, not 20"},
		"access key's id":      {"  access_keys:\n    a-b: {secret_file: /s}\n", ":4:5: serve.access_keys.a-b: an access key's id"},
		"no secret file":       {"  access_keys:\n    AKID: {role: operator}\n", ":4:5: serve.access_keys.AKID.secret_file: is required"},
		"secret itself":        {"  access_keys:\n    AKID: {secret: hunter2}\n", ":4:12: serve.access_keys.AKID.secret: secrets do not belong in this file: put an access key's in a file of its own"},
		"role":                 {"  access_keys:\n    AKID: {secret_file: /s, role: admin}\n", ":4:35: serve.access_keys.AKID.role: must be one of operator, read-only"},
		"access key as text":   {"  access_keys:\n    AKID: hunter2\n", ":4:11: serve.access_keys.AKID: must be a mapping"},
		"unknown in a key":     {"  access_keys:\n    AKID: {secret_file: /s, rolle: operator}\n", `serve.access_keys.AKID.rolle: unknown key; did you mean "role"?`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(write(t, head+test.text))
			if err == nil {
				t.Fatal("Load accepted it")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error lacks %q:\n%v", test.want, err)
			}
			if n := strings.Count(err.Error(), "\n"); n > 0 {
				t.Errorf("one fault gives %d messages:\n%v", n+1, err)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

func TestServeAcceptsLoopbackWithoutTLS(t *testing.T) {
	for _, listen := range []string{"localhost:1", "127.8.9.1:0", "'[::1]:8432'"} {
		c, err := Load(write(t, "repository: {url: /r}\nserve: {listen: "+listen+"}\n"))
		if err != nil {
			t.Errorf("%s: %v", listen, err)
		} else if got := strings.Trim(listen, "'"); c.Serve.Listen != got {
			t.Errorf("listen is %q, want %q", c.Serve.Listen, got)
		}
	}
}

// TestServeDefaultsAreOnesOwn: what one file sets must not show in the next.
func TestServeDefaultsAreOnesOwn(t *testing.T) {
	if _, err := Load(write(t, whole)); err != nil {
		t.Fatal(err)
	}
	c, err := Load(write(t, "repository: {url: /r}\nserve:\n  security_groups:\n    default: 0.0.0.0/0\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Serve.Subnets[DefaultSubnet].String(); got != "127.0.0.1" || len(c.Serve.Subnets) != 1 {
		t.Errorf("subnets %v", c.Serve.Subnets)
	}
	if got := c.Serve.SecurityGroups[DefaultSecurityGroup]; len(got) != 1 || got[0].String() != "0.0.0.0/0" {
		t.Errorf("default group %v", got)
	}
}

func TestRecoveryRefuses(t *testing.T) {
	head := "repository: {url: /r}\nrecovery:\n  database: app\n  administrator: {user: boss, password_file: /p}\n"
	for text, want := range map[string]string{
		"  application: {user: app}\n":                                    "recovery.application: has a user and neither",
		"  application: {user: app, password_file: /p, secret: s}\n":      "recovery.application: has password_file and secret",
		"  maintenance_database: app\n":                                   "must be another one than recovery.database",
		"  access_key: AKID\n":                                            "recovery.access_key: needs secret_file",
		"  cutover: {method: commands}\n":                                 "recovery.cutover.commands: is required",
		"  expect:\n    rows: {least: 1}\n":                               "recovery.expect.rows.sql: is required",
		"  expect:\n    rows: {sql: SELECT 1}\n":                          "needs one of least, most and equals",
		"  expect:\n    rows: {sql: SELECT 1, least: 1, equals: \"1\"}\n": "has equals beside least",
		"  expect:\n    rows: {sql: SELECT 1, least: many}\n":             "must be a number",
		"  halt:\n    Stop: true\n":                                       "a name must be 1 to 63",
		"  prepared_transactions: ignore\n":                               "must be one of refuse, rollback",
		"  exempt_roles: a,,b\n":                                          "has an empty name",
	} {
		_, err := Load(write(t, head+text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	c, err := Load(write(t, head+"  halt:\n    b: systemctl stop b\n    a: systemctl stop a\n  expect:\n    rows: {sql: SELECT 1, least: 1, most: 2.5}\n    lock: {sql: SELECT 0, equals: \"0\"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := c.Recovery
	if len(r.Halt) != 2 || r.Halt[0].Name != "b" || len(r.Expect) != 2 || *r.Expect[0].Most != 2.5 || *r.Expect[1].Equals != "0" || r.DrainTimeout != 30*time.Minute {
		t.Errorf("%+v", r)
	}
}
