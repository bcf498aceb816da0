package rdsapi

import (
	"context"
	"net"

	"pileus/internal/fleet"
)

type clusterMember struct {
	DBInstanceIdentifier          string
	IsClusterWriter               bool
	DBClusterParameterGroupStatus string
	PromotionTier                 int
}

type scaling struct{ MinCapacity, MaxCapacity float64 }

type pendingCluster struct {
	DBClusterIdentifier   string `xml:",omitempty"`
	MasterUserPassword    string `xml:",omitempty"`
	EngineVersion         string `xml:",omitempty"`
	BackupRetentionPeriod int    `xml:",omitempty"`
}

type dbCluster struct {
	AllocatedStorage                 int64
	AvailabilityZones                list[string]
	BackupRetentionPeriod            int
	DatabaseName                     string `xml:",omitempty"`
	DBClusterIdentifier              string
	DBClusterParameterGroup          string
	DBSubnetGroup                    string
	Status                           string
	EarliestRestorableTime           string `xml:",omitempty"`
	Endpoint                         string `xml:",omitempty"`
	ReaderEndpoint                   string `xml:",omitempty"`
	MultiAZ                          bool
	Engine                           string
	EngineVersion                    string
	LatestRestorableTime             string `xml:",omitempty"`
	Port                             int
	MasterUsername                   string
	DBClusterOptionGroupMemberships  list[string]
	PreferredBackupWindow            string
	PreferredMaintenanceWindow       string
	ReadReplicaIdentifiers           list[string]
	DBClusterMembers                 list[clusterMember]
	VpcSecurityGroups                list[securityGroup]
	HostedZoneID                     string `xml:"HostedZoneId"`
	StorageEncrypted                 bool
	KmsKeyID                         string `xml:"KmsKeyId,omitempty"`
	DbClusterResourceID              string `xml:"DbClusterResourceId"`
	DBClusterArn                     string
	AssociatedRoles                  list[string]
	IAMDatabaseAuthenticationEnabled bool
	ClusterCreateTime                string
	EnabledCloudwatchLogsExports     list[string]
	PendingModifiedValues            *pendingCluster `xml:",omitempty"`
	EngineMode                       string
	StorageType                      string `xml:",omitempty"`
	DBClusterInstanceClass           string `xml:",omitempty"`
	Iops                             int    `xml:",omitempty"`
	PubliclyAccessible               bool
	AutoMinorVersionUpgrade          bool
	DeletionProtection               bool
	HTTPEndpointEnabled              bool `xml:"HttpEndpointEnabled"`
	ActivityStreamStatus             string
	CopyTagsToSnapshot               bool
	CrossAccountClone                bool
	DomainMemberships                list[string]
	TagList                          list[tag]
	GlobalWriteForwardingRequested   bool
	NetworkType                      string
	ServerlessV2ScalingConfiguration *scaling `xml:",omitempty"`
}

// allocated is the storage that was asked for, which clients hold against their plans, or else the size of the
// newest backup's files.
func allocated(c fleet.Cluster) int64 {
	if c.AllocatedStorage > 0 {
		return int64(c.AllocatedStorage)
	}
	return gigabytes(c.StorageBytes)
}

func clusterXML(c fleet.Cluster) dbCluster {
	out := dbCluster{
		AllocatedStorage: allocated(c), AvailabilityZones: texts("AvailabilityZone", c.AvailabilityZones), BackupRetentionPeriod: c.RetentionDays,
		DatabaseName: c.DatabaseName, DBClusterIdentifier: c.Identifier, DBClusterParameterGroup: c.ParameterGroup, DBSubnetGroup: c.SubnetGroup,
		Status: string(c.Status), EarliestRestorableTime: later(c.Earliest), Endpoint: c.Endpoint, ReaderEndpoint: c.ReaderHost, Engine: c.Engine,
		EngineVersion: c.EngineVersion, LatestRestorableTime: moment(c.Latest), Port: c.Port, MasterUsername: c.MasterUsername,
		PreferredBackupWindow: c.BackupWindow, PreferredMaintenanceWindow: c.MaintenanceWindow, VpcSecurityGroups: securityGroups(c.SecurityGroups),
		HostedZoneID: "Z0PILEUS", StorageEncrypted: c.Encrypted, KmsKeyID: c.KMSKeyID, DbClusterResourceID: c.ResourceID, DBClusterArn: c.ARN,
		ClusterCreateTime: moment(c.Created), EnabledCloudwatchLogsExports: texts("member", c.LogExports), EngineMode: c.EngineMode, StorageType: c.StorageType,
		DBClusterInstanceClass: c.InstanceClass, Iops: c.IOPS, PubliclyAccessible: c.Public,
		AutoMinorVersionUpgrade: c.AutoMinorUpgrade, DeletionProtection: c.DeletionProtection, ActivityStreamStatus: "stopped",
		CopyTagsToSnapshot: c.CopyTagsToSnapshot, TagList: tagsOf(c.Tags), NetworkType: "IPV4",
	}
	if net.ParseIP(c.Endpoint).To4() == nil && net.ParseIP(c.Endpoint) != nil {
		out.NetworkType = "DUAL"
	}
	out.DBClusterMembers = of("DBClusterMember", c.Members, func(m fleet.Member) clusterMember {
		status := "in-sync"
		if !m.InSync {
			status = "pending-reboot"
		}
		return clusterMember{m.Instance, m.Writer, status, m.Tier}
	})
	if p := c.Pending; p != nil {
		out.PendingModifiedValues = &pendingCluster{DBClusterIdentifier: p.Identifier, EngineVersion: p.EngineVersion}
		if p.Password != "" {
			out.PendingModifiedValues.MasterUserPassword = "****"
		}
	}
	if c.ServerlessMax > 0 {
		out.ServerlessV2ScalingConfiguration = &scaling{c.ServerlessMin, c.ServerlessMax}
	}
	return out
}

type clusterResult struct{ DBCluster dbCluster }

// cluster makes an answer of what an operation of the fleet returned.
func cluster(c fleet.Cluster, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return clusterResult{clusterXML(c)}, nil
}

func (a *API) describeClusters(ctx context.Context, p *params) (any, error) {
	f := p.filters("db-cluster-id", "engine", "db-cluster-resource-id", "clone-group-id", "domain")
	if p.fault != nil {
		return nil, p.fault
	}
	id := p.text("DBClusterIdentifier")
	kept, err := described(ctx, f, "db-cluster-id", id, a.o.Fleet.Cluster, a.o.Fleet.Clusters, func(c fleet.Cluster) bool {
		return f.holds("db-cluster-id", c.Identifier, c.ARN) && f.holds("engine", c.Engine) && f.holds("db-cluster-resource-id", c.ResourceID) && f.holds("clone-group-id") && f.holds("domain")
	})
	if err != nil {
		return nil, err
	}
	if id != "" && len(kept) == 0 {
		return nil, &fleet.Fault{Code: fleet.CodeClusterNotFound, Message: "DBCluster " + id + " not found."}
	}
	part, marker := page(p, kept, func(c fleet.Cluster) string { return c.Identifier })
	if p.fault != nil {
		return nil, p.fault
	}
	return struct {
		Marker     string `xml:",omitempty"`
		DBClusters list[dbCluster]
	}{marker, of("DBCluster", part, clusterXML)}, nil
}

func (a *API) createCluster(ctx context.Context, p *params) (any, error) {
	p.need("DBClusterIdentifier", "Engine")
	q := fleet.CreateCluster{Identifier: p.text("DBClusterIdentifier"), Engine: p.text("Engine"), EngineVersion: p.text("EngineVersion"),
		MasterUsername: p.text("MasterUsername"), MasterPassword: p.text("MasterUserPassword"), DatabaseName: p.text("DatabaseName"),
		Tags: p.tags("Tags"), Settings: p.settings()}
	if err := managed(p); err != nil {
		return nil, err
	}
	if p.fault != nil {
		return nil, p.fault
	}
	return cluster(a.o.Fleet.CreateCluster(ctx, q))
}

// managed refuses what would leave a client without what it asked for.
func managed(p *params) error {
	if p.bool("ManageMasterUserPassword") {
		if p.text("MasterUserPassword") != "" {
			return &fleet.Fault{Code: fleet.CodeInvalidCombination, Message: "MasterUserPassword and ManageMasterUserPassword cannot be given together."}
		}
		return &fleet.Fault{Code: fleet.CodeInvalidCombination, Message: "ManageMasterUserPassword is not supported: there is no Secrets Manager here. Give MasterUserPassword."}
	}
	for _, name := range []string{"ReplicationSourceIdentifier", "GlobalClusterIdentifier", "Domain"} {
		if p.text(name) != "" {
			return &fleet.Fault{Code: fleet.CodeInvalidCombination, Message: "The parameter " + name + " is not supported."}
		}
	}
	if seconds := p.intp("BacktrackWindow"); seconds != nil && *seconds != 0 {
		return &fleet.Fault{Code: fleet.CodeInvalidParameter, Message: "Backtrack is not enabled for the postgres engine."}
	}
	return nil
}

func (a *API) modifyCluster(ctx context.Context, p *params) (any, error) {
	p.need("DBClusterIdentifier")
	q := fleet.ModifyCluster{Identifier: p.text("DBClusterIdentifier"), NewIdentifier: p.text("NewDBClusterIdentifier"), MasterPassword: p.text("MasterUserPassword"),
		EngineVersion: p.text("EngineVersion"), Immediately: p.bool("ApplyImmediately"), EnableLogs: p.list("CloudwatchLogsExportConfiguration.EnableLogTypes"),
		DisableLogs: p.list("CloudwatchLogsExportConfiguration.DisableLogTypes"), Settings: p.settings()}
	if err := managed(p); err != nil {
		return nil, err
	}
	if p.fault != nil {
		return nil, p.fault
	}
	return cluster(a.o.Fleet.ModifyCluster(ctx, q))
}

func (a *API) deleteCluster(ctx context.Context, p *params) (any, error) {
	keep := p.boolp("DeleteAutomatedBackups")
	q := fleet.DeleteCluster{Identifier: p.text("DBClusterIdentifier"), SkipFinalSnapshot: p.bool("SkipFinalSnapshot"),
		FinalSnapshot: p.text("FinalDBSnapshotIdentifier"), RetainBackups: keep != nil && !*keep}
	if p.fault != nil {
		return nil, p.fault
	}
	return cluster(a.o.Fleet.DeleteCluster(ctx, q))
}

func (a *API) startCluster(ctx context.Context, p *params) (any, error) {
	p.need("DBClusterIdentifier")
	if p.fault != nil {
		return nil, p.fault
	}
	return cluster(a.o.Fleet.StartCluster(ctx, p.text("DBClusterIdentifier")))
}

func (a *API) stopCluster(ctx context.Context, p *params) (any, error) {
	p.need("DBClusterIdentifier")
	if p.fault != nil {
		return nil, p.fault
	}
	return cluster(a.o.Fleet.StopCluster(ctx, p.text("DBClusterIdentifier")))
}

func (a *API) restoreToTime(ctx context.Context, p *params) (any, error) {
	q := fleet.RestoreToPointInTime{Identifier: p.text("DBClusterIdentifier"), Source: p.text("SourceDBClusterIdentifier"),
		SourceResourceID: p.text("SourceDbClusterResourceId"), Time: p.time("RestoreToTime"), Latest: p.bool("UseLatestRestorableTime"),
		RestoreType: p.text("RestoreType"), XID: p.xid("PileusRestoreToXid"), LSN: p.lsn("PileusRestoreToLsn"), Exclusive: p.bool("PileusExclusive"),
		Tags: p.tags("Tags"), Settings: p.settings()}
	if err := managed(p); err != nil {
		return nil, err
	}
	if p.fault != nil {
		return nil, p.fault
	}
	return cluster(a.o.Fleet.RestoreToPointInTime(ctx, q))
}

func (a *API) restoreFromSnapshot(ctx context.Context, p *params) (any, error) {
	p.need("Engine")
	q := fleet.RestoreFromSnapshot{Identifier: p.text("DBClusterIdentifier"), Snapshot: p.text("SnapshotIdentifier"), Engine: p.text("Engine"),
		EngineVersion: p.text("EngineVersion"), DatabaseName: p.text("DatabaseName"), Tags: p.tags("Tags"), Settings: p.settings()}
	if err := managed(p); err != nil {
		return nil, err
	}
	if p.fault != nil {
		return nil, p.fault
	}
	return cluster(a.o.Fleet.RestoreFromSnapshot(ctx, q))
}
