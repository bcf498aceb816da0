package fleet

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
)

// subnetGroup finds a group. The default one is all subnets, unless somebody made one of
// that name. The caller holds mu.
func (f *Fleet) subnetGroup(name string) (*SubnetGroup, error) {
	name = strings.ToLower(name)
	if g, ok := f.subnetGroups[name]; ok {
		return g, nil
	}
	if name == defaultName {
		return &SubnetGroup{Name: defaultName, Description: "default", Subnets: slices.Sorted(maps.Keys(f.o.Subnets))}, nil
	}
	return nil, fault(CodeSubnetGroupNotFound, "DB subnet group %q does not exist.", name)
}

func (f *Fleet) seenSubnetGroup(g SubnetGroup) SubnetGroup {
	g.Subnets, g.Tags = slices.Clone(g.Subnets), slices.Clone(g.Tags)
	g.ARN = f.arn(kindSubnetGroup, g.Name)
	return g
}

func (f *Fleet) checkSubnets(ids []string) error {
	if len(ids) == 0 {
		return fault(CodeMissingParameter, "The request must contain the parameter SubnetIds.")
	}
	for _, id := range ids {
		if _, ok := f.o.Subnets[id]; !ok {
			return fault(CodeInvalidSubnet, "The subnet %s is not known: give it an address to listen on in pileus.yaml under serve.subnets.", id)
		}
	}
	return nil
}

// CreateSubnetGroup makes a group of addresses to listen on.
func (f *Fleet) CreateSubnetGroup(_ context.Context, g SubnetGroup) (SubnetGroup, error) {
	if err := checkGroupName("DBSubnetGroupName", g.Name); err != nil {
		return SubnetGroup{}, err
	}
	if g.Description == "" {
		return SubnetGroup{}, fault(CodeMissingParameter, "The request must contain the parameter DBSubnetGroupDescription.")
	}
	if err := cmp.Or(f.checkSubnets(g.Subnets), checkTags(g.Tags)); err != nil {
		return SubnetGroup{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	g.Name = strings.ToLower(g.Name)
	if _, ok := f.subnetGroups[g.Name]; ok {
		return SubnetGroup{}, fault(CodeSubnetGroupExists, "The DB subnet group %q already exists.", g.Name)
	}
	g.Tags = mergeTags(nil, g.Tags)
	if err := f.docs.subnetGroups.save(g.Name, &g); err != nil {
		return SubnetGroup{}, err
	}
	f.subnetGroups[g.Name] = &g
	return f.seenSubnetGroup(g), nil
}

// SubnetGroups lists the groups, by name.
func (f *Fleet) SubnetGroups(context.Context) ([]SubnetGroup, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []SubnetGroup{}
	if _, ok := f.subnetGroups[defaultName]; !ok {
		g, err := f.subnetGroup(defaultName)
		if err != nil {
			return nil, err
		}
		out = append(out, f.seenSubnetGroup(*g))
	}
	for _, g := range f.subnetGroups {
		out = append(out, f.seenSubnetGroup(*g))
	}
	slices.SortFunc(out, func(a, b SubnetGroup) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// ModifySubnetGroup changes a group; servers listen on new addresses after their next restart.
func (f *Fleet) ModifySubnetGroup(_ context.Context, name, description string, subnets []string) (SubnetGroup, error) {
	if err := f.checkSubnets(subnets); err != nil {
		return SubnetGroup{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	g, err := f.subnetGroup(name)
	if err != nil {
		return SubnetGroup{}, err
	}
	changed := *g
	changed.Subnets = slices.Clone(subnets)
	if description != "" {
		changed.Description = description
	}
	if err := f.docs.subnetGroups.save(changed.Name, &changed); err != nil {
		return SubnetGroup{}, err
	}
	f.subnetGroups[changed.Name] = &changed
	for _, c := range f.clusters {
		if c.SubnetGroup == changed.Name && c.Status == StatusAvailable && c.Operation == nil {
			if err := f.begin(c, StatusModifying, Operation{Kind: OpModify}); err != nil {
				return SubnetGroup{}, err
			}
		}
	}
	return f.seenSubnetGroup(changed), nil
}

// DeleteSubnetGroup removes a group that no cluster uses.
func (f *Fleet) DeleteSubnetGroup(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	g, err := f.subnetGroup(name)
	if err != nil {
		return err
	}
	if g.Name == defaultName {
		return fault(CodeSubnetGroupState, "The default DB subnet group cannot be deleted.")
	}
	for _, c := range f.clusters {
		if c.SubnetGroup == g.Name {
			return fault(CodeSubnetGroupState, "DB subnet group %s is used by DB cluster %s.", g.Name, c.Identifier)
		}
	}
	if err := f.docs.subnetGroups.remove(g.Name); err != nil {
		return err
	}
	delete(f.subnetGroups, g.Name)
	return nil
}
