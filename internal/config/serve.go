package config

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/token"
)

// Serve is what `pileus serve` listens on, and what it may give to the servers that
// it runs: the `serve` section.
type Serve struct {
	// Listen is host:port of the RDS API; port 0 takes a free one.
	Listen string
	// TLSCertFile and TLSKeyFile are PEM files; both or none are set, and both
	// are if Listen is not loopback.
	TLSCertFile string
	TLSKeyFile  string
	// Region and Account (12 digits) stand in ARNs and in what clients sign.
	Region  string
	Account string
	// DataRoot is the folder that holds the data directories of the servers.
	DataRoot string
	// FirstPort and LastPort bound the ports that servers get, 1150 to 65535.
	FirstPort int
	LastPort  int
	// Owner is the account that the servers run as if Pileus runs as root.
	Owner string
	// BinDirs are folders of PostgreSQL programs; empty means: look for them.
	BinDirs []string
	// SecurityGroups say by id who may connect; DefaultSecurityGroup is always there.
	SecurityGroups map[string][]netip.Prefix
	// Subnets say by id on which address of this host a server listens; DefaultSubnet
	// is always there.
	Subnets map[string]netip.Addr
	// BackupWindow is the daily window of clusters that name none, hh24:mi-hh24:mi in
	// UTC; empty if they may choose any.
	BackupWindow string
	// AccessKeys are the keys of the RDS API by id, beside those of `pileus key create`.
	AccessKeys map[string]AccessKey
}

// AccessKey is one access key of the RDS API; its secret is in a file of its own.
type AccessKey struct {
	SecretFile string
	Role       string // RoleOperator or RoleReadOnly
}

// What AccessKey.Role may be.
const (
	RoleOperator = "operator"
	RoleReadOnly = "read-only"
)

// What a server gets that names no security group or subnet.
const (
	DefaultSecurityGroup = "default"
	DefaultSubnet        = "subnet-default"
)

func newServe() Serve {
	v4, v6 := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()
	return Serve{
		Listen:    "127.0.0.1:8432",
		Region:    "us-east-1",
		Account:   "000000000000",
		FirstPort: 5500,
		LastPort:  5999,
		Owner:     "postgres",
		SecurityGroups: map[string][]netip.Prefix{
			DefaultSecurityGroup: {netip.PrefixFrom(v4, v4.BitLen()), netip.PrefixFrom(v6, v6.BitLen())},
		},
		Subnets:    map[string]netip.Addr{DefaultSubnet: v4},
		AccessKeys: map[string]AccessKey{},
	}
}

// serve checks what keys of the section have to do with each other; at is where it
// begins.
func (d *decoder) serve(at *token.Token, s *Serve) {
	const cert, key, listen = "serve.tls_cert_file", "serve.tls_key_file", "serve.listen"
	if d.faulted(cert, key, listen, "serve.ports") {
		return
	}
	switch {
	case s.TLSCertFile != "" && s.TLSKeyFile == "":
		d.faultAt(at, key, "is required beside tls_cert_file")
	case s.TLSKeyFile != "" && s.TLSCertFile == "":
		d.faultAt(at, cert, "is required beside tls_key_file")
	case s.TLSCertFile == "" && !loopback(s.Listen):
		d.faultAt(at, cert, "is required, with tls_key_file: %s can be reached from other hosts; or listen on 127.0.0.1 and put a proxy with TLS before it", s.Listen)
	}
	if port := portOf(s.Listen); port >= s.FirstPort && port <= s.LastPort {
		d.faultAt(at, listen, "has a port of serve.ports, %d-%d, which belong to the servers", s.FirstPort, s.LastPort)
	}
}

// loopback tells whether only this host reaches listen, a valid host:port.
func loopback(listen string) bool {
	host, _, _ := net.SplitHostPort(listen)
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// portOf is the port of listen, a valid host:port.
func portOf(listen string) int {
	_, text, _ := net.SplitHostPort(listen)
	port, _ := strconv.Atoi(text) // was checked when it was read
	return port
}
