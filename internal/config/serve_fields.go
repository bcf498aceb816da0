package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

func serveFields(s *Serve) []field {
	return []field{
		{
			key: "listen", standard: "127.0.0.1:8432",
			doc:  "Host and port of the RDS API. Other hosts reach it with TLS only.",
			read: readListen(&s.Listen),
		},
		{
			key: "tls_cert_file", doc: "The certificate of the RDS API with its chain, PEM; required unless listen is loopback. A renewed one is used without a restart.",
			read: readPath(&s.TLSCertFile),
		},
		{key: "tls_key_file", doc: "The certificate's private key, PEM.", read: readPath(&s.TLSKeyFile)},
		{
			key: "region", standard: "us-east-1", doc: "The region that clients sign for, and that ARNs name.",
			read: readMatch(&s.Region, regionName, "must be lower-case letters, digits and hyphens, such as us-east-1"),
		},
		{
			key: "account", standard: `"000000000000"`, doc: "The account that ARNs name: 12 digits in quotes.",
			read: readMatch(&s.Account, accountNumber, "must be 12 digits"),
		},
		{
			key: "data_root",
			doc: "The folder that the data directories of the servers are in. It needs room for them all. Without it: servers " +
				"in state_dir.",
			read: readPath(&s.DataRoot),
		},
		{
			key: "ports", standard: "5500-5999", doc: "The first and the last port that servers may get, 1150 to 65535.",
			read: readPorts(&s.FirstPort, &s.LastPort),
		},
		{
			key: "owner", standard: "postgres",
			doc:  "The account that the servers run as if Pileus runs as root; PostgreSQL refuses root itself.",
			read: readOwner(&s.Owner),
		},
		{
			key:  "bin_dirs",
			doc:  "Folders of PostgreSQL programs, one for each major version, separated by commas; without it they are looked for.",
			read: readPaths(&s.BinDirs),
		},
		{
			key: "security_groups",
			doc: "Who may connect to a server that is in a group: for each group's id, addresses and ranges separated by " +
				"commas, as in sg-office: 10.1.0.0/16, 2001:db8::/32. The group default is 127.0.0.1/32, ::1/128 unless set.",
			read: readEach("serve.security_groups", resourceID, readRanges(s)),
		},
		{
			key: "subnets",
			doc: "Where servers listen: for each subnet's id one address of this host, as in subnet-a: 10.1.2.3. " +
				"subnet-default is 127.0.0.1 unless set.",
			read: readEach("serve.subnets", resourceID, readSubnet(s)),
		},
		{
			key: "backup_window",
			doc: "The daily window for backups of clusters that name none, hh24:mi-hh24:mi in UTC, at least 30 minutes: " +
				"03:00-04:00.",
			read: readWindow(&s.BackupWindow),
		},
		{
			key: "access_keys",
			doc: "Access keys of the RDS API beside those of `pileus key create`: for each id secret_file, a file with the " +
				"secret and nothing else that only its owner can read, and role, operator (if absent) or read-only; as in " +
				"AKIDEXAMPLE: {secret_file: akid.secret, role: read-only}.",
			read: readEach("serve.access_keys", accessKeyID, readAccessKey(s)),
		},
	}
}

// naming is what the free keys of a mapping must be.
type naming struct {
	pattern *regexp.Regexp
	rule    string
}

var (
	resourceID = naming{regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{0,254}$`), "an id must be 1 to 255 letters, digits and hyphens, a letter first"}
	// accessKeyID is what a signature's credential can hold; IAM has the same letters.
	accessKeyID = naming{regexp.MustCompile(`^\w{1,128}$`), "an access key's id must be 1 to 128 letters, digits and underscores"}

	regionName    = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	accountNumber = regexp.MustCompile(`^[0-9]{12}$`)
	accountName   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}$`)
	hostName      = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)
)

// readEach reads a mapping with free keys, whose full key is prefix; value reads what
// stands behind one of them.
func readEach(prefix string, names naming, value func(d *decoder, e entry, key string) error) reader {
	return func(d *decoder, node ast.Node) error {
		for _, e := range d.entries(prefix, node) {
			key := join(prefix, e.key)
			if !names.pattern.MatchString(e.key) {
				d.faultAt(e.at, key, "%s", names.rule)
				continue
			}
			if isNull(e.value) {
				d.faultAt(e.at, key, "has no value")
				continue
			}
			if err := value(d, e, key); err != nil {
				d.faultAt(e.value.GetToken(), key, "%s", err)
			}
		}
		return nil
	}
}

func readRanges(s *Serve) func(*decoder, entry, string) error {
	return func(_ *decoder, e entry, _ string) error {
		text, err := asText(e.value)
		if err != nil {
			return err
		}
		var ranges []netip.Prefix
		for part := range strings.SplitSeq(text, ",") {
			r, err := parseRange(strings.TrimSpace(part))
			if err != nil {
				return err
			}
			ranges = append(ranges, r)
		}
		s.SecurityGroups[e.key] = ranges
		return nil
	}
}

// parseRange reads a CIDR range or one address.
func parseRange(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		addr, err := parseAddress(text)
		if err != nil {
			return netip.Prefix{}, err
		}
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	r, err := netip.ParsePrefix(text)
	switch {
	case err != nil || r.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%q is not a range such as 10.1.0.0/16", text)
	case r != r.Masked():
		return netip.Prefix{}, fmt.Errorf("the range %s begins in its middle; write %s", text, r.Masked())
	}
	return r, nil
}

// parseAddress reads an IP address without a zone.
func parseAddress(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" || addr.Is4In6() {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", text)
	}
	return addr, nil
}

func readSubnet(s *Serve) func(*decoder, entry, string) error {
	return func(_ *decoder, e entry, _ string) error {
		text, err := asText(e.value)
		if err != nil {
			return err
		}
		addr, err := parseAddress(text)
		if err != nil {
			return err
		}
		if addr.IsUnspecified() || addr.IsMulticast() {
			return fmt.Errorf("%s is no address that a client could connect to; name one of this host", addr)
		}
		s.Subnets[e.key] = addr
		return nil
	}
}

func readAccessKey(s *Serve) func(*decoder, entry, string) error {
	return func(d *decoder, e entry, key string) error {
		k := AccessKey{Role: RoleOperator}
		before := len(d.faults)
		d.section(key, e.value, []field{
			{key: "secret_file", read: readPath(&k.SecretFile)},
			{key: "role", read: readChoice(&k.Role, RoleOperator, RoleReadOnly)},
		})
		if k.SecretFile == "" && len(d.faults) == before {
			d.faultAt(e.at, join(key, "secret_file"), "is required: a file with the secret and nothing else")
		}
		s.AccessKeys[e.key] = k
		return nil
	}
}

// readMatch stores text that matches pattern; rule says what that means.
func readMatch(into *string, pattern *regexp.Regexp, rule string) reader {
	return func(_ *decoder, node ast.Node) error {
		text, err := asText(node)
		if err != nil {
			return err
		}
		if !pattern.MatchString(text) {
			return fmt.Errorf("%s, not %q", rule, text)
		}
		*into = text
		return nil
	}
}

func readListen(into *string) reader {
	return func(_ *decoder, node ast.Node) error {
		text, err := asText(node)
		if err != nil {
			return err
		}
		host, port, err := net.SplitHostPort(text)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return fmt.Errorf("must be a host and a port, such as 127.0.0.1:8432 or [::1]:8432, not %q", text)
		}
		if _, err := netip.ParseAddr(host); err != nil && host != "" && !hostName.MatchString(host) {
			return fmt.Errorf("%q is neither an address nor a host's name", host)
		}
		*into = text
		return nil
	}
}

// leastPort is the lowest port of RDS; servers below 1024 would need root besides.
const leastPort, mostPort = 1150, 65535

func readPorts(first, last *int) reader {
	return func(_ *decoder, node ast.Node) error {
		text, err := asText(node)
		if err != nil {
			return err
		}
		from, to, _ := strings.Cut(text, "-")
		low, lowErr := strconv.Atoi(strings.TrimSpace(from))
		high, highErr := strconv.Atoi(strings.TrimSpace(to))
		if lowErr != nil || highErr != nil || low < leastPort || high > mostPort || low > high {
			return fmt.Errorf("must be the first and the last port from %d to %d, such as 5500-5999, not %q", leastPort, mostPort, text)
		}
		*first, *last = low, high
		return nil
	}
}

func readOwner(into *string) reader {
	match := readMatch(into, accountName, "must be the name of an account on this host")
	return func(d *decoder, node ast.Node) error {
		if text, err := asText(node); err == nil && text == "root" {
			return errors.New("must not be root: PostgreSQL refuses to run as root")
		}
		return match(d, node)
	}
}

func readPaths(into *[]string) reader {
	return func(d *decoder, node ast.Node) error {
		text, err := asText(node)
		if err != nil {
			return err
		}
		var paths []string
		for part := range strings.SplitSeq(text, ",") {
			path, err := d.resolve(strings.TrimSpace(part))
			if err != nil {
				return err
			}
			paths = append(paths, path)
		}
		*into = paths
		return nil
	}
}

// backupWindow is hh24:mi-hh24:mi.
var backupWindow = regexp.MustCompile(`^([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])$`)

const (
	leastWindow = 30 // minutes; the limit of RDS
	dayMinutes  = 24 * 60
)

func readWindow(into *string) reader {
	return func(_ *decoder, node ast.Node) error {
		text, err := asText(node)
		if err != nil {
			return err
		}
		m := backupWindow.FindStringSubmatch(text)
		if m == nil {
			return fmt.Errorf("must be hh24:mi-hh24:mi in UTC, such as 03:00-04:00, not %q", text)
		}
		// A window may go past midnight.
		if length := (minute(m[3], m[4]) - minute(m[1], m[2]) + dayMinutes) % dayMinutes; length < leastWindow {
			return fmt.Errorf("must last at least %d minutes, not %d", leastWindow, length)
		}
		*into = text
		return nil
	}
}

// minute is that of the day; the pattern has made sure of digits.
func minute(hours, minutes string) int {
	h, _ := strconv.Atoi(hours)
	m, _ := strconv.Atoi(minutes)
	return h*60 + m
}
