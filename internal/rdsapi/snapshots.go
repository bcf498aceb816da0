package rdsapi

import (
	"context"
	"slices"

	"pileus/internal/fleet"
)

type dbSnapshot struct {
	AvailabilityZones                list[string]
	DBClusterSnapshotIdentifier      string
	DBClusterIdentifier              string
	SnapshotCreateTime               string
	Engine                           string
	EngineMode                       string
	AllocatedStorage                 int64
	Status                           string
	Port                             int
	VpcID                            string `xml:"VpcId"`
	ClusterCreateTime                string
	MasterUsername                   string
	EngineVersion                    string
	LicenseModel                     string
	SnapshotType                     string
	PercentProgress                  int
	StorageEncrypted                 bool
	BackupRetentionPeriod            int
	PreferredBackupWindow            string `xml:",omitempty"`
	KmsKeyID                         string `xml:"KmsKeyId,omitempty"`
	DBClusterSnapshotArn             string
	SourceDBClusterSnapshotArn       string `xml:",omitempty"`
	IAMDatabaseAuthenticationEnabled bool
	TagList                          list[tag]
	StorageType                      string `xml:",omitempty"`
	DbClusterResourceID              string `xml:"DbClusterResourceId"`
}

// licence is what RDS says of PostgreSQL's.
const licence = "postgresql-license"

func snapshotXML(s fleet.Snapshot) dbSnapshot {
	c := s.Cluster
	return dbSnapshot{
		AvailabilityZones: texts("AvailabilityZone", c.AvailabilityZones), DBClusterSnapshotIdentifier: s.Identifier, DBClusterIdentifier: c.Identifier,
		SnapshotCreateTime: moment(s.Created), Engine: c.Engine, EngineMode: c.EngineMode, AllocatedStorage: gigabytes(s.Bytes), Status: string(s.Status), Port: c.Port,
		VpcID: "vpc-pileus", ClusterCreateTime: moment(c.Created), MasterUsername: c.MasterUsername, EngineVersion: c.EngineVersion, LicenseModel: licence,
		SnapshotType: string(s.Type), PercentProgress: s.Percent, StorageEncrypted: c.Encrypted, BackupRetentionPeriod: c.RetentionDays,
		PreferredBackupWindow: c.BackupWindow, KmsKeyID: c.KMSKeyID, DBClusterSnapshotArn: s.ARN, SourceDBClusterSnapshotArn: s.Source, TagList: tagsOf(s.Tags),
		StorageType: c.StorageType, DbClusterResourceID: c.ResourceID,
	}
}

func snapshot(s fleet.Snapshot, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return struct{ DBClusterSnapshot dbSnapshot }{snapshotXML(s)}, nil
}

func (a *API) createSnapshot(ctx context.Context, p *params) (any, error) {
	p.need("DBClusterIdentifier", "DBClusterSnapshotIdentifier")
	if p.fault != nil {
		return nil, p.fault
	}
	return snapshot(a.o.Fleet.CreateSnapshot(ctx, fleet.CreateSnapshot{Identifier: p.text("DBClusterSnapshotIdentifier"),
		Cluster: p.text("DBClusterIdentifier"), Tags: p.tags("Tags")}))
}

func (a *API) copySnapshot(ctx context.Context, p *params) (any, error) {
	p.need("SourceDBClusterSnapshotIdentifier", "TargetDBClusterSnapshotIdentifier")
	q := fleet.CopySnapshot{Source: p.text("SourceDBClusterSnapshotIdentifier"), Target: p.text("TargetDBClusterSnapshotIdentifier"),
		CopyTags: p.bool("CopyTags"), Tags: p.tags("Tags")}
	if p.fault != nil {
		return nil, p.fault
	}
	return snapshot(a.o.Fleet.CopySnapshot(ctx, q))
}

func (a *API) deleteSnapshot(ctx context.Context, p *params) (any, error) {
	p.need("DBClusterSnapshotIdentifier")
	if p.fault != nil {
		return nil, p.fault
	}
	return snapshot(a.o.Fleet.DeleteSnapshot(ctx, p.text("DBClusterSnapshotIdentifier")))
}

func (a *API) describeSnapshots(ctx context.Context, p *params) (any, error) {
	f := p.filters("db-cluster-id", "db-cluster-snapshot-id", "snapshot-type", "engine")
	q := fleet.SnapshotQuery{Identifier: p.text("DBClusterSnapshotIdentifier"), Cluster: p.text("DBClusterIdentifier"), ResourceID: p.text("DbClusterResourceId")}
	switch kind := p.text("SnapshotType"); kind {
	case "", "shared", "public", "awsbackup":
	case string(fleet.SnapshotManual), string(fleet.SnapshotAutomated):
		q.Type = fleet.SnapshotType(kind)
	default:
		p.wrong("SnapshotType", kind, "automated, manual, shared, public or awsbackup")
	}
	if q.Identifier != "" && q.Cluster != "" && p.fault == nil {
		p.fault = &fleet.Fault{Code: fleet.CodeInvalidCombination, Message: "DBClusterIdentifier and DBClusterSnapshotIdentifier cannot be given together."}
	}
	if p.fault != nil {
		return nil, p.fault
	}
	all, err := a.o.Fleet.Snapshots(ctx, q)
	if err != nil {
		return nil, err
	}
	if kind := p.text("SnapshotType"); kind != "" && q.Type == "" {
		all = nil // nobody shares any
	}
	all = slices.DeleteFunc(all, func(s fleet.Snapshot) bool {
		return !f.holds("db-cluster-id", s.Cluster.Identifier, s.Cluster.ARN) || !f.holds("db-cluster-snapshot-id", s.Identifier, s.ARN) ||
			!f.holds("snapshot-type", string(s.Type)) || !f.holds("engine", s.Cluster.Engine)
	})
	part, marker := page(p, all, func(s fleet.Snapshot) string { return s.Created.UTC().Format(sortable) + " " + s.Identifier })
	if p.fault != nil {
		return nil, p.fault
	}
	return struct {
		Marker             string `xml:",omitempty"`
		DBClusterSnapshots list[dbSnapshot]
	}{marker, of("DBClusterSnapshot", part, snapshotXML)}, nil
}

type snapshotAttribute struct {
	AttributeName   string
	AttributeValues list[string]
}

type snapshotAttributes struct {
	DBClusterSnapshotAttributesResult struct {
		DBClusterSnapshotIdentifier string
		DBClusterSnapshotAttributes list[snapshotAttribute]
	}
}

func attributes(s fleet.Snapshot, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	var out snapshotAttributes
	out.DBClusterSnapshotAttributesResult.DBClusterSnapshotIdentifier = s.Identifier
	out.DBClusterSnapshotAttributesResult.DBClusterSnapshotAttributes = list[snapshotAttribute]{"DBClusterSnapshotAttribute", []snapshotAttribute{{"restore", texts("AttributeValue", s.Shared)}}}
	return out, nil
}

func (a *API) describeSnapshotAttributes(ctx context.Context, p *params) (any, error) {
	p.need("DBClusterSnapshotIdentifier")
	if p.fault != nil {
		return nil, p.fault
	}
	return attributes(a.o.Fleet.Snapshot(ctx, p.text("DBClusterSnapshotIdentifier")))
}

func (a *API) modifySnapshotAttribute(ctx context.Context, p *params) (any, error) {
	p.need("DBClusterSnapshotIdentifier", "AttributeName")
	if name := p.text("AttributeName"); name != "restore" {
		p.wrong("AttributeName", name, "restore")
	}
	if p.fault != nil {
		return nil, p.fault
	}
	return attributes(a.o.Fleet.ShareSnapshot(ctx, p.text("DBClusterSnapshotIdentifier"), p.list("ValuesToAdd"), p.list("ValuesToRemove")))
}

type automatedBackup struct {
	Engine                           string
	VpcID                            string `xml:"VpcId"`
	DBClusterAutomatedBackupsArn     string
	DBClusterIdentifier              string
	RestoreWindow                    restoreWindow
	MasterUsername                   string
	DbClusterResourceID              string `xml:"DbClusterResourceId"`
	Region                           string
	LicenseModel                     string
	Status                           string
	IAMDatabaseAuthenticationEnabled bool
	ClusterCreateTime                string
	StorageEncrypted                 bool
	AllocatedStorage                 int64
	EngineVersion                    string
	DBClusterArn                     string
	BackupRetentionPeriod            int
	PreferredBackupWindow            string
	EngineMode                       string
	AvailabilityZones                list[string]
	Port                             int
	KmsKeyID                         string `xml:"KmsKeyId,omitempty"`
	TagList                          list[tag]
}

type restoreWindow struct {
	EarliestTime string `xml:",omitempty"`
	LatestTime   string `xml:",omitempty"`
}

func (a *API) backupXML(b fleet.AutomatedBackup) automatedBackup {
	c := b.Cluster
	return automatedBackup{
		Engine: c.Engine, VpcID: "vpc-pileus", DBClusterAutomatedBackupsArn: "arn:aws:rds:" + a.o.Region + ":" + a.o.Account + ":cluster-auto-backup:" + c.ResourceID,
		DBClusterIdentifier: c.Identifier, RestoreWindow: restoreWindow{later(c.Earliest), moment(c.Latest)}, MasterUsername: c.MasterUsername,
		DbClusterResourceID: c.ResourceID, Region: a.o.Region, LicenseModel: licence, Status: string(b.Status), ClusterCreateTime: moment(c.Created),
		StorageEncrypted: c.Encrypted, AllocatedStorage: gigabytes(c.StorageBytes), EngineVersion: c.EngineVersion, DBClusterArn: c.ARN,
		BackupRetentionPeriod: c.RetentionDays, PreferredBackupWindow: c.BackupWindow, EngineMode: c.EngineMode,
		AvailabilityZones: texts("AvailabilityZone", c.AvailabilityZones), Port: c.Port, KmsKeyID: c.KMSKeyID, TagList: tagsOf(c.Tags),
	}
}

func (a *API) describeBackups(ctx context.Context, p *params) (any, error) {
	f := p.filters("status", "db-cluster-id", "db-cluster-resource-id")
	if p.fault != nil {
		return nil, p.fault
	}
	all, err := a.o.Fleet.AutomatedBackups(ctx)
	if err != nil {
		return nil, err
	}
	id, resource := p.text("DBClusterIdentifier"), p.text("DbClusterResourceId")
	all = slices.DeleteFunc(all, func(b fleet.AutomatedBackup) bool {
		return id != "" && b.Cluster.Identifier != id && b.Cluster.ARN != id || resource != "" && b.Cluster.ResourceID != resource || !f.holds("status", string(b.Status)) ||
			!f.holds("db-cluster-id", b.Cluster.Identifier, b.Cluster.ARN) || !f.holds("db-cluster-resource-id", b.Cluster.ResourceID)
	})
	if resource != "" && len(all) == 0 {
		return nil, &fleet.Fault{Code: fleet.CodeBackupNotFound, Message: "No automated backup has the resource ID " + resource + "."}
	}
	part, marker := page(p, all, func(b fleet.AutomatedBackup) string { return b.Cluster.Archive })
	if p.fault != nil {
		return nil, p.fault
	}
	return struct {
		Marker                    string `xml:",omitempty"`
		DBClusterAutomatedBackups list[automatedBackup]
	}{marker, of("DBClusterAutomatedBackup", part, a.backupXML)}, nil
}

func (a *API) deleteBackup(ctx context.Context, p *params) (any, error) {
	p.need("DbClusterResourceId")
	if p.fault != nil {
		return nil, p.fault
	}
	b, err := a.o.Fleet.DeleteAutomatedBackup(ctx, p.text("DbClusterResourceId"))
	if err != nil {
		return nil, err
	}
	return struct{ DBClusterAutomatedBackup automatedBackup }{a.backupXML(b)}, nil
}
