package fleet

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"

	"pileus/internal/dbserver"
	"pileus/internal/progress"
)

var silent = progress.Silent{}

// server is a managed cluster's writer, and what it should be like.
func (f *Fleet) server(ctx context.Context, c Cluster) (*dbserver.Server, dbserver.Spec, error) {
	bin, err := f.engines.major(ctx, majorOf(c.EngineVersion))
	if err != nil {
		return nil, dbserver.Spec{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return dbserver.New(filepath.Join(f.o.DataRoot, c.ResourceID), bin, f.o.Owner), f.spec(&c, c.Port), nil
}

// spec is what a server of a cluster should be like. The caller holds mu.
func (f *Fleet) spec(c *Cluster, port int) dbserver.Spec {
	s := dbserver.Spec{Name: c.Identifier, Port: port, Listen: f.listen(c.SubnetGroup), Settings: map[string]string{}}
	s.Hosts = append(slices.Clone(s.Listen), "localhost")
	for _, id := range c.SecurityGroups {
		s.Access = append(s.Access, f.o.SecurityGroups[id]...)
	}
	if g, err := f.parameterGroup(c.ParameterGroup); err == nil {
		maps.Copy(s.Settings, g.Parameters)
	}
	return s
}

// listen are the addresses of a subnet group. The caller holds mu.
func (f *Fleet) listen(group string) []string {
	g, err := f.subnetGroup(group)
	if err != nil {
		g = &SubnetGroup{}
	}
	var out []string
	for _, id := range g.Subnets {
		if a, ok := f.o.Subnets[id]; ok && !slices.Contains(out, a.String()) {
			out = append(out, a.String())
		}
	}
	if len(out) == 0 { // a group whose subnets the configuration no longer names
		out = []string{netip.AddrFrom4([4]byte{127, 0, 0, 1}).String()}
	}
	return out
}

// host is the address that clients are told. The caller holds mu.
func (f *Fleet) host(group string) string { return f.listen(group)[0] }

// reconfigure writes a running server's settings and has it take them, with a restart if
// that is wanted and needed. It tells whether a restart is still needed.
func reconfigure(ctx context.Context, s *dbserver.Server, spec dbserver.Spec, restart bool) (pending bool, err error) {
	needed, err := s.Configure(ctx, spec)
	if err != nil {
		return false, fmt.Errorf("write the server's settings: %w", err)
	}
	if needed && restart {
		if err := s.Restart(ctx); err != nil {
			return false, fmt.Errorf("restart the server: %w", err)
		}
		return false, nil
	}
	return needed, nil
}
