package rdsapi

import (
	"context"

	"pileus/internal/fleet"
)

type endpoint struct {
	Address      string
	Port         int
	HostedZoneID string `xml:"HostedZoneId"`
}

type parameterStatus struct {
	DBParameterGroupName string
	ParameterApplyStatus string
}

type optionGroup struct{ OptionGroupName, Status string }

type dbInstance struct {
	DBInstanceIdentifier             string
	DBInstanceClass                  string
	Engine                           string
	DBInstanceStatus                 string
	MasterUsername                   string
	DBName                           string    `xml:",omitempty"`
	Endpoint                         *endpoint `xml:",omitempty"`
	AllocatedStorage                 int
	InstanceCreateTime               string
	PreferredBackupWindow            string
	BackupRetentionPeriod            int
	DBSecurityGroups                 list[string]
	VpcSecurityGroups                list[securityGroup]
	DBParameterGroups                list[parameterStatus]
	AvailabilityZone                 string
	DBSubnetGroup                    dbSubnetGroup
	PreferredMaintenanceWindow       string
	PendingModifiedValues            struct{}
	MultiAZ                          bool
	EngineVersion                    string
	AutoMinorVersionUpgrade          bool
	ReadReplicaDBInstanceIdentifiers list[string]
	LicenseModel                     string
	OptionGroupMemberships           list[optionGroup]
	PubliclyAccessible               bool
	StorageType                      string
	DbInstancePort                   int
	DBClusterIdentifier              string
	StorageEncrypted                 bool
	KmsKeyID                         string `xml:"KmsKeyId,omitempty"`
	DbiResourceID                    string `xml:"DbiResourceId"`
	CACertificateIdentifier          string
	DomainMemberships                list[string]
	CopyTagsToSnapshot               bool
	MonitoringInterval               int
	PromotionTier                    int
	DBInstanceArn                    string
	IAMDatabaseAuthenticationEnabled bool
	PerformanceInsightsEnabled       bool
	EnabledCloudwatchLogsExports     list[string]
	DeletionProtection               bool
	AssociatedRoles                  list[string]
	TagList                          list[tag]
	NetworkType                      string
	BackupTarget                     string
}

func (a *API) instanceXML(i fleet.Instance, groups map[string]fleet.SubnetGroup) dbInstance {
	c := i.ClusterView
	out := dbInstance{
		DBInstanceIdentifier: i.Identifier, DBInstanceClass: i.Class, Engine: c.Engine, DBInstanceStatus: string(i.Status), MasterUsername: c.MasterUsername,
		DBName: c.DatabaseName, AllocatedStorage: 1, InstanceCreateTime: moment(i.Created), PreferredBackupWindow: c.BackupWindow,
		BackupRetentionPeriod: c.RetentionDays, VpcSecurityGroups: securityGroups(c.SecurityGroups), AvailabilityZone: i.Zone,
		DBSubnetGroup: a.subnetGroupXML(groups[c.SubnetGroup]), PreferredMaintenanceWindow: i.Maintenance, EngineVersion: c.EngineVersion,
		AutoMinorVersionUpgrade: i.AutoMinor, LicenseModel: licence, PubliclyAccessible: i.Public, StorageType: "aurora", DBClusterIdentifier: c.Identifier,
		StorageEncrypted: c.Encrypted, KmsKeyID: c.KMSKeyID, DbiResourceID: i.ResourceID, CACertificateIdentifier: "pileus", CopyTagsToSnapshot: i.CopyTags,
		MonitoringInterval: i.Monitoring, PromotionTier: i.Tier, DBInstanceArn: i.ARN, PerformanceInsightsEnabled: i.Insights, TagList: tagsOf(i.Tags),
		NetworkType: "IPV4", BackupTarget: "region",
		OptionGroupMemberships: list[optionGroup]{"OptionGroupMembership", []optionGroup{{"default:" + c.Engine, "in-sync"}}},
	}
	if out.AvailabilityZone == "" {
		out.AvailabilityZone = a.zone()
	}
	group := i.ParamGroup
	if group == "" {
		group = c.ParameterGroup
	}
	out.DBParameterGroups = list[parameterStatus]{"DBParameterGroup", []parameterStatus{{group, "in-sync"}}}
	if i.EndpointHost != "" && i.Status != fleet.StatusCreating {
		out.Endpoint = &endpoint{i.EndpointHost, i.Port, "Z0PILEUS"}
	}
	return out
}

// zone is the one availability zone that there is.
func (a *API) zone() string { return a.o.Region + "a" }

func (a *API) instances(ctx context.Context, all []fleet.Instance) (list[dbInstance], error) {
	groups, err := a.o.Fleet.SubnetGroups(ctx)
	byName := map[string]fleet.SubnetGroup{}
	for _, g := range groups {
		byName[g.Name] = g
	}
	return of("DBInstance", all, func(i fleet.Instance) dbInstance { return a.instanceXML(i, byName) }), err
}

func (a *API) instance(ctx context.Context, i fleet.Instance, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	one, err := a.instances(ctx, []fleet.Instance{i})
	if err != nil {
		return nil, err
	}
	return struct{ DBInstance dbInstance }{one.items[0]}, nil
}

func (a *API) createInstance(ctx context.Context, p *params) (any, error) {
	p.need("DBInstanceIdentifier", "DBInstanceClass", "Engine")
	q := fleet.CreateInstance{Identifier: p.text("DBInstanceIdentifier"), Cluster: p.text("DBClusterIdentifier"), Class: p.text("DBInstanceClass"), Engine: p.text("Engine"),
		Tier: p.intp("PromotionTier"), Public: p.boolp("PubliclyAccessible"), AutoMinor: p.boolp("AutoMinorVersionUpgrade"), Maintenance: p.textp("PreferredMaintenanceWindow"),
		Zone: p.textp("AvailabilityZone"), ParamGroup: p.textp("DBParameterGroupName"), CopyTags: p.boolp("CopyTagsToSnapshot"),
		Monitoring: p.intp("MonitoringInterval"), Insights: p.boolp("EnablePerformanceInsights"), Tags: p.tags("Tags")}
	if p.fault != nil {
		return nil, p.fault
	}
	i, err := a.o.Fleet.CreateInstance(ctx, q)
	return a.instance(ctx, i, err)
}

func (a *API) modifyInstance(ctx context.Context, p *params) (any, error) {
	p.need("DBInstanceIdentifier")
	q := fleet.ModifyInstance{Identifier: p.text("DBInstanceIdentifier"), NewIdentifier: p.text("NewDBInstanceIdentifier"), Class: p.text("DBInstanceClass"),
		Immediately: p.bool("ApplyImmediately"), Tier: p.intp("PromotionTier"), Public: p.boolp("PubliclyAccessible"), AutoMinor: p.boolp("AutoMinorVersionUpgrade"),
		Maintenance: p.textp("PreferredMaintenanceWindow"), ParamGroup: p.textp("DBParameterGroupName"), CopyTags: p.boolp("CopyTagsToSnapshot"),
		Monitoring: p.intp("MonitoringInterval"), Insights: p.boolp("EnablePerformanceInsights")}
	if p.fault != nil {
		return nil, p.fault
	}
	i, err := a.o.Fleet.ModifyInstance(ctx, q)
	return a.instance(ctx, i, err)
}

func (a *API) deleteInstance(ctx context.Context, p *params) (any, error) {
	p.need("DBInstanceIdentifier")
	if p.fault != nil {
		return nil, p.fault
	}
	i, err := a.o.Fleet.DeleteInstance(ctx, p.text("DBInstanceIdentifier"))
	return a.instance(ctx, i, err)
}

func (a *API) rebootInstance(ctx context.Context, p *params) (any, error) {
	p.need("DBInstanceIdentifier")
	if p.bool("ForceFailover") {
		return nil, &fleet.Fault{Code: fleet.CodeInvalidCombination, Message: "ForceFailover is not supported: a reader takes over when the writer is deleted."}
	}
	if p.fault != nil {
		return nil, p.fault
	}
	i, err := a.o.Fleet.RebootInstance(ctx, p.text("DBInstanceIdentifier"))
	return a.instance(ctx, i, err)
}

func (a *API) describeInstances(ctx context.Context, p *params) (any, error) {
	f := p.filters("db-cluster-id", "db-instance-id", "dbi-resource-id", "domain", "engine")
	if p.fault != nil {
		return nil, p.fault
	}
	id := p.text("DBInstanceIdentifier")
	all, err := described(ctx, f, "db-instance-id", id, a.o.Fleet.Instance, a.o.Fleet.Instances, func(i fleet.Instance) bool {
		return f.holds("db-cluster-id", i.ClusterView.Identifier, i.ClusterView.ARN) && f.holds("db-instance-id", i.Identifier, i.ARN) &&
			f.holds("dbi-resource-id", i.ResourceID) && f.holds("engine", i.ClusterView.Engine) && f.holds("domain")
	})
	if err != nil {
		return nil, err
	}
	if id != "" && len(all) == 0 {
		return nil, &fleet.Fault{Code: fleet.CodeInstanceNotFound, Message: "DBInstance " + id + " not found."}
	}
	part, marker := page(p, all, func(i fleet.Instance) string { return i.Identifier })
	if p.fault != nil {
		return nil, p.fault
	}
	shown, err := a.instances(ctx, part)
	if err != nil {
		return nil, err
	}
	return struct {
		Marker      string `xml:",omitempty"`
		DBInstances list[dbInstance]
	}{marker, shown}, nil
}
