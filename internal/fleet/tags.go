package fleet

import (
	"context"
	"slices"
	"strings"
)

// tagged finds the tags that an ARN's resource has, and how to make a change durable. The caller holds mu.
func (f *Fleet) tagged(name string) (*[]Tag, func() error, error) {
	kind, id, err := f.parseARN(name)
	if err != nil {
		return nil, nil, err
	}
	switch kind {
	case kindCluster:
		c, err := f.find(id)
		if err != nil {
			return nil, nil, err
		}
		return &c.Tags, func() error { return f.save(c) }, nil
	case kindInstance:
		i, err := f.findInstance(id)
		if err != nil {
			return nil, nil, err
		}
		return &i.Tags, func() error { return f.docs.instances.save(i.ResourceID, i) }, nil
	case kindSnapshot:
		if s, ok := f.snapshots[id]; ok {
			return &s.Tags, func() error { return f.docs.snapshots.save(id, s) }, nil
		}
		if strings.HasPrefix(id, automatedPrefix) {
			return nil, nil, fault(CodeSnapshotState, "The tags of an automated snapshot are those of its DB cluster: copy %s to give it others.", id)
		}
		return nil, nil, fault(CodeSnapshotNotFound, "DBClusterSnapshot %s not found.", id)
	case kindSubnetGroup:
		g, err := f.subnetGroup(id)
		if err != nil {
			return nil, nil, err
		}
		return &g.Tags, func() error {
			f.subnetGroups[g.Name] = g
			return f.docs.subnetGroups.save(g.Name, g)
		}, nil
	case kindParameterGroup:
		g, err := f.parameterGroup(id)
		if err != nil {
			return nil, nil, err
		}
		return &g.Tags, func() error {
			f.parameterGroups[g.Name] = g
			return f.docs.parameterGroups.save(g.Name, g)
		}, nil
	}
	return nil, nil, fault(CodeInvalidParameter, "%s is not a resource that has tags here.", name)
}

// document makes a document for a snapshot that only the repository knows, so that it can
// have tags.
func (f *Fleet) document(ctx context.Context, name string) error {
	kind, id, err := f.parseARN(name)
	if err != nil || kind != kindSnapshot {
		return err
	}
	s, err := f.Snapshot(ctx, id)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.snapshots[s.Identifier]; ok || s.Type == SnapshotAutomated {
		return nil
	}
	if err := f.docs.snapshots.save(s.Identifier, &s); err != nil {
		return err
	}
	f.snapshots[s.Identifier] = &s
	return nil
}

// AddTags gives a resource tags; a key that it has gets the new value.
func (f *Fleet) AddTags(ctx context.Context, arn string, tags []Tag) error {
	if err := checkTags(tags); err != nil {
		return err
	}
	return f.changeTags(ctx, arn, func(have []Tag) []Tag { return mergeTags(have, tags) })
}

// RemoveTags takes tags from a resource.
func (f *Fleet) RemoveTags(ctx context.Context, arn string, keys []string) error {
	return f.changeTags(ctx, arn, func(have []Tag) []Tag {
		return slices.DeleteFunc(slices.Clone(have), func(t Tag) bool { return slices.Contains(keys, t.Key) })
	})
}

func (f *Fleet) changeTags(ctx context.Context, arn string, change func([]Tag) []Tag) error {
	if err := f.document(ctx, arn); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	tags, save, err := f.tagged(arn)
	if err != nil {
		return err
	}
	before := *tags
	after := change(before)
	if err := checkTags(after); err != nil {
		return err
	}
	*tags = after
	if err := save(); err != nil {
		*tags = before
		return err
	}
	return nil
}

// Tags lists a resource's tags.
func (f *Fleet) Tags(ctx context.Context, arn string) ([]Tag, error) {
	kind, id, err := f.parseARN(arn)
	if err != nil {
		return nil, err
	}
	if kind == kindSnapshot {
		s, err := f.Snapshot(ctx, id)
		return s.Tags, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	tags, _, err := f.tagged(arn)
	if err != nil {
		return nil, err
	}
	return slices.Clone(*tags), nil
}
