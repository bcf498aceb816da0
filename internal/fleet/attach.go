package fleet

import (
	"context"
	"fmt"
	"time"

	"pileus/internal/config"
	"pileus/internal/postgres"
)

// attach brings the documents of attached clusters in line with the configuration. One that
// the configuration no longer names keeps its document, with its backups as retained.
func (f *Fleet) attach(ctx context.Context) error {
	for name, conf := range f.o.Deployment.Config.Clusters {
		for _, c := range f.clusters {
			if c.Archive == name || c.Identifier == name {
				return fmt.Errorf("%s names a cluster %s, and serve has made one of that name itself: give yours another name", f.o.Deployment.Config.Path, name)
			}
		}
		c, ok := f.attached[name]
		if !ok {
			id := derivedResourceID("cluster-", name)
			c = &Cluster{Identifier: name, ResourceID: id, Archive: name, Created: f.now(), Engine: engineAurora, BackupWindow: defaultWindow(id),
				SubnetGroup: defaultName, SecurityGroups: []string{defaultName}, EngineMode: "provisioned", Status: StatusAvailable}
			c.MaintenanceWindow = defaultMaintenance(c.BackupWindow)
		}
		c.Attached, c.Deleted = true, time.Time{}
		f.attached[name] = c
		f.ask(ctx, c, conf)
		if err := f.save(c); err != nil {
			return err
		}
	}
	for name, c := range f.attached {
		if !c.Attached && c.Deleted.IsZero() {
			c.Deleted = f.now()
			if err := f.docs.attached.save(name, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// ask learns from an attached server, or from its newest backup, what it is.
func (f *Fleet) ask(ctx context.Context, c *Cluster, conf config.Cluster) {
	if v, err := f.catalog.get(ctx, c.Archive); err == nil && len(v.Backups) > 0 {
		c.EngineVersion = postgres.FormatVersion(v.Backups[len(v.Backups)-1].Version)
	}
	info, err := f.o.Deployment.Ask(ctx, conf.Name)
	if err == nil {
		c.EngineVersion, c.MasterUsername = postgres.FormatVersion(info.VersionNum), info.User
	}
	if c.EngineVersion == "" {
		c.EngineVersion = fmt.Sprint(lastMajor)
	}
	c.ParameterGroup = defaultGroup(c.Engine, majorOf(c.EngineVersion))
}
