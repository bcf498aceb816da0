package fleet

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
)

// parameterGroup finds a group; the default one of every family is always there. The caller holds mu.
func (f *Fleet) parameterGroup(name string) (*ParameterGroup, error) {
	name = strings.ToLower(name)
	if g, ok := f.parameterGroups[name]; ok {
		return g, nil
	}
	if fam, ok := strings.CutPrefix(name, "default."); ok && slices.Contains(families(), fam) {
		return &ParameterGroup{Name: name, Family: fam, Description: "Default cluster parameter group for " + fam}, nil
	}
	return nil, fault(CodeParameterGroupMissing, "DBClusterParameterGroup not found: %s", name)
}

func (f *Fleet) seenParameterGroup(g ParameterGroup) ParameterGroup {
	g.Parameters, g.Tags = maps.Clone(g.Parameters), slices.Clone(g.Tags)
	g.ARN = f.arn(kindParameterGroup, g.Name)
	return g
}

// CreateParameterGroup makes a group in which every parameter has its default.
func (f *Fleet) CreateParameterGroup(_ context.Context, g ParameterGroup) (ParameterGroup, error) {
	if err := checkGroupName("DBClusterParameterGroupName", g.Name); err != nil {
		return ParameterGroup{}, err
	}
	switch {
	case !slices.Contains(families(), g.Family):
		return ParameterGroup{}, fault(CodeInvalidParameter, "ParameterGroupFamily %s is not a valid parameter group family: there are %s.", g.Family, strings.Join(families(), ", "))
	case g.Description == "":
		return ParameterGroup{}, fault(CodeMissingParameter, "The request must contain the parameter Description.")
	case strings.HasPrefix(strings.ToLower(g.Name), "default."):
		return ParameterGroup{}, fault(CodeInvalidParameter, "The parameter DBClusterParameterGroupName must not begin with default., which is reserved.")
	}
	if err := checkTags(g.Tags); err != nil {
		return ParameterGroup{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	g.Name = strings.ToLower(g.Name)
	if _, ok := f.parameterGroups[g.Name]; ok {
		return ParameterGroup{}, fault(CodeParameterGroupExists, "Parameter group %s already exists", g.Name)
	}
	g.Tags, g.Parameters = mergeTags(nil, g.Tags), maps.Clone(g.Parameters)
	if err := f.docs.parameterGroups.save(g.Name, &g); err != nil {
		return ParameterGroup{}, err
	}
	f.parameterGroups[g.Name] = &g
	return f.seenParameterGroup(g), nil
}

// ParameterGroups lists the groups, by name: those that were made, and the default ones of what
// is installed.
func (f *Fleet) ParameterGroups(ctx context.Context) ([]ParameterGroup, error) {
	versions, err := f.EngineVersions(ctx)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []ParameterGroup{}
	for _, v := range versions {
		g, err := f.parameterGroup("default." + v.Family)
		if err != nil {
			return nil, err
		}
		out = append(out, f.seenParameterGroup(*g))
	}
	for _, g := range f.parameterGroups {
		out = append(out, f.seenParameterGroup(*g))
	}
	slices.SortFunc(out, func(a, b ParameterGroup) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// ParameterGroup is one group, by its name.
func (f *Fleet) ParameterGroup(_ context.Context, name string) (ParameterGroup, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g, err := f.parameterGroup(name)
	if err != nil {
		return ParameterGroup{}, err
	}
	return f.seenParameterGroup(*g), nil
}

// Parameters lists what a group's family has, with the values that were set. source is
// user, system, engine-default, or empty for all.
func (f *Fleet) Parameters(ctx context.Context, group, source string) ([]Parameter, error) {
	g, err := f.ParameterGroup(ctx, group)
	if err != nil {
		return nil, err
	}
	bin, err := f.engines.major(ctx, familyMajor(g.Family))
	if err != nil {
		return nil, fault(CodeInvalidCombination, "The parameters of %s are not known: %v.", g.Family, err)
	}
	all, err := f.parameters.of(ctx, bin)
	if err != nil {
		return nil, err
	}
	out := []Parameter{}
	for _, p := range all {
		p.Source = "engine-default"
		if v, ok := g.Parameters[p.Name]; ok {
			p.Value, p.Source = v, "user"
		} else if !p.Modifiable {
			p.Source = "system"
		}
		if source == "" || p.Source == source {
			out = append(out, p)
		}
	}
	return out, nil
}

// familyMajor is the major of a family's name.
func familyMajor(family string) int {
	return majorOf(strings.TrimPrefix(strings.TrimPrefix(family, engineAurora), enginePostgres))
}

// ModifyParameterGroup sets parameters. Dynamic ones reach the servers of the group's clusters at
// once, static ones with their next restart.
func (f *Fleet) ModifyParameterGroup(ctx context.Context, name string, changes []ParameterChange) error {
	known, err := f.Parameters(ctx, name, "")
	if err != nil {
		return err
	}
	for _, c := range changes {
		if err := checkParameter(known, c); err != nil {
			return err
		}
	}
	return f.changeGroup(name, func(g *ParameterGroup) {
		for _, c := range changes {
			g.Parameters[strings.ToLower(c.Name)] = c.Value
		}
	})
}

func checkParameter(known []Parameter, c ParameterChange) error {
	i := slices.IndexFunc(known, func(p Parameter) bool { return strings.EqualFold(p.Name, c.Name) })
	switch {
	case i < 0:
		return fault(CodeInvalidParameter, "Could not find parameter with name: %s", c.Name)
	case !known[i].Modifiable:
		return fault(CodeInvalidParameter, "The parameter %s cannot be modified: Pileus sets it.", c.Name)
	case known[i].Static && c.Immediate:
		return fault(CodeInvalidCombination, "cannot use immediate apply method for static parameter %s: use pending-reboot.", c.Name)
	}
	return known[i].check(c.Value)
}

// ResetParameterGroup gives parameters their defaults back.
func (f *Fleet) ResetParameterGroup(_ context.Context, name string, all bool, names []string) error {
	if !all && len(names) == 0 {
		return fault(CodeInvalidCombination, "Either ResetAllParameters or Parameters must be given.")
	}
	return f.changeGroup(name, func(g *ParameterGroup) {
		for n := range g.Parameters {
			if all || slices.ContainsFunc(names, func(r string) bool { return strings.EqualFold(r, n) }) {
				delete(g.Parameters, n)
			}
		}
	})
}

// changeGroup changes a group that was made, and has the clusters that use it take the change.
func (f *Fleet) changeGroup(name string, change func(*ParameterGroup)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	g, err := f.parameterGroup(name)
	if err != nil {
		return err
	}
	if strings.HasPrefix(g.Name, "default.") {
		return fault(CodeInvalidParameter, "The default parameter group %s cannot be modified: create one and use that.", g.Name)
	}
	changed := f.seenParameterGroup(*g)
	if changed.Parameters == nil {
		changed.Parameters = map[string]string{}
	}
	change(&changed)
	for _, c := range f.clusters {
		if c.ParameterGroup == g.Name && c.Operation != nil {
			return fault(CodeParameterGroupState, "DB cluster %s, which uses the parameter group %s, is in %s state: try again later.", c.Identifier, g.Name, c.Status)
		}
	}
	if err := f.docs.parameterGroups.save(g.Name, &changed); err != nil {
		return err
	}
	f.parameterGroups[g.Name] = &changed
	f.event(kindParameterGroup, g.Name, "configuration change", "Updated the parameter group")
	for _, c := range f.clusters {
		if c.ParameterGroup == g.Name && c.Status == StatusAvailable {
			if err := f.begin(c, StatusModifying, Operation{Kind: OpModify}); err != nil {
				return err
			}
		}
	}
	return nil
}

// DeleteParameterGroup removes a group that no cluster uses.
func (f *Fleet) DeleteParameterGroup(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	g, err := f.parameterGroup(name)
	if err != nil {
		return err
	}
	if strings.HasPrefix(g.Name, "default.") {
		return fault(CodeParameterGroupState, "The default parameter group %s cannot be deleted.", g.Name)
	}
	for _, c := range f.clusters {
		if c.ParameterGroup == g.Name {
			return fault(CodeParameterGroupState, "One or more DB clusters are still members of this parameter group %s: %s, for one.", g.Name, c.Identifier)
		}
	}
	if err := f.docs.parameterGroups.remove(g.Name); err != nil {
		return err
	}
	delete(f.parameterGroups, g.Name)
	return nil
}
