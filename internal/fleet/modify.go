package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"pileus/internal/dbserver"
)

// ModifyCluster changes a cluster. What does not disturb its clients is done now; the rest
// now if Immediately is set, and otherwise in the maintenance window.
func (f *Fleet) ModifyCluster(ctx context.Context, q ModifyCluster) (Cluster, error) {
	if q.Identifier == "" {
		return Cluster{}, fault(CodeMissingParameter, "The request must contain the parameter DBClusterIdentifier.")
	}
	later, err := f.disturbing(ctx, q)
	if err != nil {
		return Cluster{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.find(q.Identifier)
	if err != nil {
		return Cluster{}, err
	}
	if c.Attached {
		return f.modifyAttached(c, q)
	}
	if c.Status == StatusFailed && onlyProtection(q) {
		return f.protect(c, *q.DeletionProtection)
	}
	if err := idle(c, "modified", StatusAvailable, StatusStopped); err != nil {
		return Cluster{}, err
	}
	if c.Status == StatusStopped && q.Immediately && (later.Password != "" || c.Pending != nil && c.Pending.Password != "") {
		return Cluster{}, fault(CodeClusterState, "DB cluster %s is stopped: start it to reset the master password.", c.Identifier)
	}
	changed := c.clone()
	if err := f.settle(&changed, q.Settings); err != nil {
		return Cluster{}, err
	}
	changed.LogExports = exports(c.LogExports, q.EnableLogs, q.DisableLogs)
	if err := f.checkDisturbing(c, &later); err != nil {
		return Cluster{}, err
	}
	if q.Immediately && later.ParameterGroup != "" { // takes effect with the next restart, as on RDS
		changed.ParameterGroup, later.ParameterGroup = later.ParameterGroup, ""
	}
	merged := merge(c.Pending, later)
	changed.Pending = merged
	before := c.clone()
	*c = changed
	op := Operation{Kind: OpModify}
	if q.Immediately && merged != nil {
		op.NewIdentifier = merged.Identifier
	}
	op.Immediately = q.Immediately
	if err := f.begin(c, statusOf(q, merged), op); err != nil {
		*c = before
		return Cluster{}, err
	}
	return f.seen(c), nil
}

// onlyProtection tells whether a request changes deletion protection and nothing else.
func onlyProtection(q ModifyCluster) bool {
	rest := ModifyCluster{Identifier: q.Identifier, Immediately: q.Immediately}
	rest.DeletionProtection = q.DeletionProtection
	return q.DeletionProtection != nil && reflect.DeepEqual(q, rest)
}

// protect sets the deletion protection of a cluster that failed, whose leftovers could not be removed otherwise.
func (f *Fleet) protect(c *Cluster, on bool) (Cluster, error) {
	before := c.DeletionProtection
	c.DeletionProtection = on
	if err := f.save(c); err != nil {
		c.DeletionProtection = before
		return Cluster{}, err
	}
	return f.seen(c), nil
}

// statusOf names the state of a cluster that is being modified.
func statusOf(q ModifyCluster, p *Pending) Status {
	switch {
	case q.Immediately && p != nil && p.Identifier != "":
		return StatusRenaming
	case q.Immediately && p != nil && p.Password != "":
		return StatusResetting
	}
	return StatusModifying
}

// disturbing gathers the changes that a client's sessions would notice.
func (f *Fleet) disturbing(ctx context.Context, q ModifyCluster) (Pending, error) {
	var p Pending
	if q.NewIdentifier != "" {
		if err := checkIdentifier("NewDBClusterIdentifier", q.NewIdentifier); err != nil {
			return p, err
		}
		p.Identifier = strings.ToLower(q.NewIdentifier)
	}
	if q.MasterPassword != "" {
		if err := checkPassword(q.MasterPassword); err != nil {
			return p, err
		}
		v, err := dbserver.Verifier(q.MasterPassword)
		if err != nil {
			return p, fmt.Errorf("prepare the master password: %w", err)
		}
		p.Password = v
	}
	p.EngineVersion = q.EngineVersion
	if err := first(f.check(q.Settings)); err != nil {
		return p, err
	}
	if q.Port != nil {
		p.Port = *q.Port
	}
	if q.ParameterGroup != nil {
		p.ParameterGroup = *q.ParameterGroup
	}
	return p, nil
}

// checkDisturbing holds them against the cluster, and drops those that change
// nothing. The caller holds mu.
func (f *Fleet) checkDisturbing(c *Cluster, p *Pending) error {
	if p.Identifier == c.Identifier {
		p.Identifier = ""
	}
	if p.Identifier != "" {
		if err := f.unused(p.Identifier); err != nil {
			return err
		}
	}
	if v := p.EngineVersion; v != "" {
		if v != c.EngineVersion && v != fmt.Sprint(majorOf(c.EngineVersion)) {
			return fault(CodeInvalidCombination, "Cannot upgrade %s from %s to %s: the version is that of the PostgreSQL on this host.", c.Engine, c.EngineVersion, v)
		}
		p.EngineVersion = ""
	}
	if p.Port == c.Port {
		p.Port = 0
	}
	if p.Port != 0 {
		if _, err := f.choosePort(&p.Port, c.SubnetGroup); err != nil {
			return err
		}
	}
	if p.ParameterGroup == c.ParameterGroup {
		p.ParameterGroup = ""
	}
	return nil
}

// settle applies what is done at once. The caller holds mu.
func (f *Fleet) settle(c *Cluster, s Settings) error {
	if s.SubnetGroup != nil && *s.SubnetGroup != c.SubnetGroup {
		return fault(CodeInvalidCombination, "The subnet group of a DB cluster cannot be changed: restore it into another.")
	}
	if err := f.checkGroups(s, c.Engine, majorOf(c.EngineVersion)); err != nil {
		return err
	}
	s.ParameterGroup, s.AvailabilityZones, s.KMSKeyID, s.Encrypted = nil, nil, nil, nil
	s.apply(c)
	return checkWindows(c)
}

// modifyAttached changes what is Pileus's own about an attached cluster. The caller holds mu.
func (f *Fleet) modifyAttached(c *Cluster, q ModifyCluster) (Cluster, error) {
	s := q.Settings
	only := Settings{DeletionProtection: s.DeletionProtection, CopyTagsToSnapshot: s.CopyTagsToSnapshot, BackupWindow: s.BackupWindow, MaintenanceWindow: s.MaintenanceWindow}
	if q.NewIdentifier != "" || q.MasterPassword != "" || s.Port != nil || s.RetentionDays != nil || s.ParameterGroup != nil || s.SecurityGroups != nil {
		return Cluster{}, fault(CodeInvalidCombination, "DB cluster %s is attached: only its windows, deletion protection and copying of tags can be changed here; the rest is in %s.", c.Identifier, f.o.Deployment.Config.Path)
	}
	changed := c.clone()
	if err := f.settle(&changed, only); err != nil {
		return Cluster{}, err
	}
	if err := f.save(&changed); err != nil {
		return Cluster{}, err
	}
	*c = changed
	f.event(kindCluster, c.Identifier, "configuration change", "Finished modifying the DB cluster")
	return f.seen(c), nil
}

// merge adds changes to those that wait already; nil if none do.
func merge(have *Pending, add Pending) *Pending {
	var p Pending
	if have != nil {
		p = *have
	}
	keep := func(to *string, from string) {
		if from != "" {
			*to = from
		}
	}
	keep(&p.Password, add.Password)
	keep(&p.Identifier, add.Identifier)
	keep(&p.ParameterGroup, add.ParameterGroup)
	if add.Port != 0 {
		p.Port = add.Port
	}
	if p == (Pending{}) {
		return nil
	}
	return &p
}

// exports are the log types that are exported after a change.
func exports(have, enable, disable []string) []string {
	all := map[string]bool{}
	for _, l := range append(slices.Clone(have), enable...) {
		all[l] = true
	}
	for _, l := range disable {
		delete(all, l)
	}
	return slices.Sorted(maps.Keys(all))
}

// doModify brings a cluster's server to what its document says, and carries out the
// waiting changes if they are due.
func (f *Fleet) doModify(ctx context.Context, c Cluster) error {
	if c.Operation.Immediately && c.Pending != nil {
		if err := f.applyPending(ctx, c, *c.Pending); err != nil {
			return err
		}
		c, _ = f.snapshotOf(c.ResourceID)
	}
	if c.Operation == nil || c.Operation.From == StatusStopped {
		return nil // the next start configures it
	}
	s, spec, err := f.server(ctx, c)
	if err != nil {
		return err
	}
	pending, err := reconfigure(ctx, s, spec, false)
	if err != nil {
		return err
	}
	f.update(c.ResourceID, func(c *Cluster) { c.ParametersPending = pending })
	return nil
}

// applyPending carries out the changes that clients notice. Each is idempotent; the document
// says that they are done in one step at the end.
func (f *Fleet) applyPending(ctx context.Context, c Cluster, p Pending) error {
	if p.Password != "" {
		if err := f.setPassword(ctx, c, p.Password); err != nil {
			return err
		}
	}
	moved := p.Port != 0 || p.ParameterGroup != ""
	var before string
	f.update(c.ResourceID, func(c *Cluster) {
		before = c.Identifier
		if p.Identifier != "" {
			c.Identifier = p.Identifier
		}
		if p.Port != 0 {
			c.Port = p.Port
		}
		if p.ParameterGroup != "" {
			c.ParameterGroup = p.ParameterGroup
		}
		c.Pending = nil
	})
	if p.Identifier != "" {
		f.event(kindCluster, p.Identifier, "configuration change", "Renamed DB cluster from %s to %s", before, p.Identifier)
	}
	if !moved || c.Operation.From == StatusStopped {
		return nil
	}
	now, ok := f.snapshotOf(c.ResourceID)
	if !ok {
		return errors.New("the cluster is gone")
	}
	return f.restart(ctx, now)
}

func (f *Fleet) setPassword(ctx context.Context, c Cluster, verifier string) error {
	s, _, err := f.server(ctx, c)
	if err != nil {
		return err
	}
	if err := s.SetMaster(ctx, c.MasterUsername, verifier); err != nil {
		return fmt.Errorf("reset the master password: %w", err)
	}
	f.event(kindCluster, c.Identifier, "configuration change", "Reset master credentials")
	return nil
}

// restart takes a cluster's runtime down, starts its server with the settings that the
// document names, and brings the runtime back when the operation ends.
func (f *Fleet) restart(ctx context.Context, c Cluster) error {
	if err := f.halt(ctx, c); err != nil {
		return fmt.Errorf("stop the server: %w", err)
	}
	s, spec, err := f.server(ctx, c)
	if err != nil {
		return err
	}
	if _, err := s.Configure(ctx, spec); err != nil {
		return fmt.Errorf("write the server's settings: %w", err)
	}
	if err := s.Start(ctx); err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	f.update(c.ResourceID, func(c *Cluster) { c.ParametersPending = false })
	f.startReaders(c)
	return nil
}
