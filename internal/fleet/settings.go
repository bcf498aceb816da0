package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
)

// The group and subnet that are always there.
const (
	defaultName   = "default"
	defaultSubnet = "subnet-default"
)

// check refuses settings that cannot be met, whatever cluster they are for.
func (f *Fleet) check(s Settings) error {
	return errors.Join(
		f.checkPort(s.Port),
		checkRetention(s.RetentionDays),
		checkWindow(s.BackupWindow, parseDayWindow),
		checkWindow(s.MaintenanceWindow, parseWeekWindow),
		f.checkSecurityGroups(s.SecurityGroups),
		checkUnsupported(s),
	)
}

// first is the first of several faults, as the API tells one.
func first(errs error) error {
	var f *Fault
	if errors.As(errs, &f) {
		return f
	}
	return errs
}

func checkRetention(days *int) error {
	if days != nil && (*days < 1 || *days > 35) {
		return fault(CodeInvalidParameter, "Invalid backup retention period %d: it must be 1 to 35 days.", *days)
	}
	return nil
}

func checkWindow(s *string, parse func(string) (span, error)) error {
	if s == nil {
		return nil
	}
	_, err := parse(*s)
	return err
}

func (f *Fleet) checkPort(port *int) error {
	if port != nil && (*port < 1150 || *port > 65535) {
		return fault(CodeInvalidParameter, "Invalid endpoint port %d: it must be 1150 to 65535.", *port)
	}
	return nil
}

func (f *Fleet) checkSecurityGroups(ids []string) error {
	for _, id := range ids {
		if _, ok := f.o.SecurityGroups[id]; !ok {
			return fault(CodeInvalidParameter, "Invalid security group %s: name its address ranges in pileus.yaml under serve.security_groups.", id)
		}
	}
	return nil
}

// checkUnsupported refuses what a client would rely on and PostgreSQL here cannot do.
func checkUnsupported(s Settings) error {
	if s.IAMAuth != nil && *s.IAMAuth {
		return fault(CodeInvalidCombination, "IAM Database Authentication is not supported: use passwords.")
	}
	if s.EngineMode != nil && *s.EngineMode != "provisioned" && *s.EngineMode != "serverless" {
		return fault(CodeInvalidCombination, "The engine mode %s is not available: use provisioned.", *s.EngineMode)
	}
	return nil
}

// checkGroups refuses groups that do not exist or do not fit. The caller holds mu.
func (f *Fleet) checkGroups(s Settings, engine string, major int) error {
	if s.SubnetGroup != nil {
		if _, err := f.subnetGroup(*s.SubnetGroup); err != nil {
			return err
		}
	}
	if s.ParameterGroup != nil {
		g, err := f.parameterGroup(*s.ParameterGroup)
		if err != nil {
			return fault(CodeClusterGroupMissing, "DBClusterParameterGroup not found: %s", *s.ParameterGroup)
		}
		if g.Family != family(engine, major) {
			return fault(CodeInvalidCombination, "The parameter group %s is of family %s and cannot be used with %s %d.", g.Name, g.Family, engine, major)
		}
	}
	return nil
}

// apply puts settings into a document. Ports are given out elsewhere.
func (s Settings) apply(c *Cluster) {
	set(&c.SubnetGroup, s.SubnetGroup)
	set(&c.ParameterGroup, s.ParameterGroup)
	set(&c.RetentionDays, s.RetentionDays)
	set(&c.BackupWindow, s.BackupWindow)
	if s.MaintenanceWindow != nil {
		c.MaintenanceWindow = strings.ToLower(*s.MaintenanceWindow)
	}
	set(&c.DeletionProtection, s.DeletionProtection)
	set(&c.CopyTagsToSnapshot, s.CopyTagsToSnapshot)
	set(&c.AutoMinorUpgrade, s.AutoMinorUpgrade)
	set(&c.EngineMode, s.EngineMode)
	set(&c.StorageType, s.StorageType)
	set(&c.ServerlessMin, s.ServerlessMin)
	set(&c.ServerlessMax, s.ServerlessMax)
	set(&c.KMSKeyID, s.KMSKeyID)
	set(&c.Encrypted, s.Encrypted)
	set(&c.InstanceClass, s.InstanceClass)
	set(&c.AllocatedStorage, s.AllocatedStorage)
	set(&c.IOPS, s.IOPS)
	set(&c.Public, s.Public)
	if s.SecurityGroups != nil {
		c.SecurityGroups = slices.Clone(s.SecurityGroups)
	}
	if s.LogExports != nil {
		c.LogExports = slices.Clone(s.LogExports)
	}
	if s.AvailabilityZones != nil {
		c.AvailabilityZones = slices.Clone(s.AvailabilityZones)
	}
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// checkWindows refuses a backup window and a maintenance window that overlap.
func checkWindows(c *Cluster) error {
	day, err := parseDayWindow(c.BackupWindow)
	if err != nil {
		return err
	}
	week, err := parseWeekWindow(c.MaintenanceWindow)
	if err != nil {
		return err
	}
	if overlaps(day, week) {
		return fault(CodeInvalidParameter, "The backup window %s and the maintenance window %s must not overlap.", c.BackupWindow, c.MaintenanceWindow)
	}
	return nil
}

// newCluster is a document with what a cluster has that nothing was asked for.
func (f *Fleet) newCluster(identifier, engine string, version EngineVersion) *Cluster {
	id := newResourceID("cluster-")
	window := f.o.BackupWindow
	if window == "" {
		window = defaultWindow(id)
	}
	return &Cluster{
		Identifier: strings.ToLower(identifier), ResourceID: id, Status: StatusCreating, Created: f.now(), Engine: engine, EngineVersion: version.Version,
		RetentionDays: 1, BackupWindow: window, SubnetGroup: defaultName, ParameterGroup: defaultGroup(engine, version.Major),
		SecurityGroups: []string{defaultName}, EngineMode: "provisioned", AutoMinorUpgrade: true,
	}
}

// complete fills in what depends on the settings, and checks them together. The
// caller holds mu.
func (f *Fleet) complete(ctx context.Context, c *Cluster, s Settings) error {
	if err := first(f.check(s)); err != nil {
		return err
	}
	if err := f.checkGroups(s, c.Engine, majorOf(c.EngineVersion)); err != nil {
		return err
	}
	s.apply(c)
	if c.MaintenanceWindow == "" {
		c.MaintenanceWindow = defaultMaintenance(c.BackupWindow)
	}
	if err := checkWindows(c); err != nil {
		return err
	}
	var err error
	if c.Port, err = f.choosePort(s.Port, c.SubnetGroup); err != nil {
		return err
	}
	c.Archive, err = f.chooseArchive(ctx, c)
	return err
}

// choosePort takes the port that was asked for, or the first free one. The caller holds mu.
func (f *Fleet) choosePort(asked *int, group string) (int, error) {
	used := map[int]string{}
	for _, c := range f.clusters {
		used[c.Port] = "DB cluster " + c.Identifier
		if c.Pending != nil && c.Pending.Port != 0 {
			used[c.Pending.Port] = "DB cluster " + c.Identifier
		}
	}
	for _, i := range f.instances {
		if i.Reader {
			used[i.Port] = "DB instance " + i.Identifier
		}
	}
	hosts := f.listen(group)
	if asked != nil {
		if by, ok := used[*asked]; ok {
			return 0, fault(CodeInvalidParameter, "Port %d is used by %s: choose another, or none to be given a free one.", *asked, by)
		}
		if !free(hosts, *asked) {
			return 0, fault(CodeInvalidParameter, "Port %d is used by another process on this host: choose another, or none to be given a free one.", *asked)
		}
		return *asked, nil
	}
	for p := f.o.FirstPort; p <= f.o.LastPort; p++ {
		if _, ok := used[p]; !ok && free(hosts, p) {
			return p, nil
		}
	}
	return 0, fault(CodeInsufficientCapacity, "No port between %d and %d is free: delete a cluster, or widen serve.ports in pileus.yaml.", f.o.FirstPort, f.o.LastPort)
}

// free tells whether a server could listen there.
func free(hosts []string, port int) bool {
	for _, h := range hosts {
		l, err := net.Listen("tcp", net.JoinHostPort(h, fmt.Sprint(port)))
		if err != nil {
			return false
		}
		l.Close() // nobody connected to it
	}
	return true
}

// chooseArchive finds the cluster's name in the repository: its identifier, unless another
// database had that name before. The caller holds mu.
func (f *Fleet) chooseArchive(ctx context.Context, c *Cluster) (string, error) {
	names, err := f.catalog.all(ctx)
	if err != nil {
		return "", err
	}
	taken := func(name string) bool {
		for _, known := range []map[string]*Cluster{f.clusters, f.attached, f.retained} {
			for _, o := range known {
				if o.Archive == name {
					return true
				}
			}
		}
		_, configured := f.o.Deployment.Config.Clusters[name]
		return configured || slices.Contains(names, name)
	}
	if !taken(c.Identifier) {
		return c.Identifier, nil
	}
	suffix := "-" + strings.ToLower(strings.TrimPrefix(c.ResourceID, "cluster-")[:8])
	return strings.TrimRight(c.Identifier[:min(len(c.Identifier), 63-len(suffix))], "-") + suffix, nil
}
