package rdsapi

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"pileus/internal/fleet"
	"pileus/internal/ledger"
)

// one narrows a list to the element that a parameter names; an unknown one is not found.
func one[T any](p *params, parameter string, all []T, name func(T) string, missing fleet.Code, what string) ([]T, error) {
	want := p.text(parameter)
	if want == "" {
		return all, nil
	}
	for _, v := range all {
		if strings.EqualFold(name(v), want) {
			return []T{v}, nil
		}
	}
	return nil, &fleet.Fault{Code: missing, Message: fmt.Sprintf("%s not found: %s", what, want)}
}

func (a *API) addTags(ctx context.Context, p *params) (any, error) {
	p.need("ResourceName")
	if p.fault != nil {
		return nil, p.fault
	}
	return nil, a.o.Fleet.AddTags(ctx, p.text("ResourceName"), p.tags("Tags"))
}

func (a *API) removeTags(ctx context.Context, p *params) (any, error) {
	p.need("ResourceName")
	if p.fault != nil {
		return nil, p.fault
	}
	return nil, a.o.Fleet.RemoveTags(ctx, p.text("ResourceName"), p.list("TagKeys"))
}

func (a *API) listTags(ctx context.Context, p *params) (any, error) {
	p.need("ResourceName")
	p.filters()
	if p.fault != nil {
		return nil, p.fault
	}
	tags, err := a.o.Fleet.Tags(ctx, p.text("ResourceName"))
	if err != nil {
		return nil, err
	}
	return struct{ TagList list[tag] }{tagsOf(tags)}, nil
}

const (
	eventDefault = time.Hour
	eventLongest = 14 * 24 * time.Hour
)

var sourceTypes = []string{"db-instance", "db-parameter-group", "db-security-group", "db-snapshot", "db-cluster", "db-cluster-snapshot", "custom-engine-version", "db-proxy", "blue-green-deployment"}

type event struct {
	SourceIdentifier string
	SourceType       string
	Message          string
	EventCategories  list[string]
	Date             string
	SourceArn        string
}

func (a *API) describeEvents(ctx context.Context, p *params) (any, error) {
	p.filters()
	q := ledger.EventQuery{SourceType: p.text("SourceType"), Source: p.text("SourceIdentifier"), From: p.time("StartTime"), To: p.time("EndTime"), Categories: p.list("EventCategories")}
	minutes := p.intp("Duration")
	now := a.o.Now().UTC()
	switch {
	case p.fault != nil:
	case q.Source != "" && q.SourceType == "":
		p.fault = &fleet.Fault{Code: fleet.CodeInvalidCombination, Message: "SourceType is required with SourceIdentifier."}
	case q.SourceType != "" && !contains(sourceTypes, q.SourceType):
		p.wrong("SourceType", q.SourceType, "one of "+strings.Join(sourceTypes, ", "))
	case minutes != nil && (*minutes < 1 || time.Duration(*minutes)*time.Minute > eventLongest):
		p.wrong("Duration", strconv.Itoa(*minutes), "1 to 20160 minutes")
	case !q.From.IsZero() && now.Sub(q.From) > eventLongest:
		p.wrong("StartTime", p.text("StartTime"), "within the last 14 days")
	case !q.From.IsZero() && !q.To.IsZero() && q.To.Before(q.From):
		p.fault = &fleet.Fault{Code: fleet.CodeInvalidCombination, Message: "EndTime must not be before StartTime."}
	}
	if p.fault != nil {
		return nil, p.fault
	}
	span := eventDefault
	if minutes != nil {
		span = time.Duration(*minutes) * time.Minute
	}
	if q.To.IsZero() {
		q.To = now
		if !q.From.IsZero() && minutes != nil {
			q.To = q.From.Add(span)
		}
	}
	if q.From.IsZero() {
		q.From = q.To.Add(-span)
	}
	all, err := a.o.Fleet.Events(ctx, q)
	if err != nil {
		return nil, err
	}
	part, marker := page(p, numbered(all), func(e numberedEvent) string { return e.name })
	if p.fault != nil {
		return nil, p.fault
	}
	return struct {
		Marker string `xml:",omitempty"`
		Events list[event]
	}{marker, of("Event", part, func(e numberedEvent) event {
		return event{e.Source, e.SourceType, e.Message, texts("EventCategory", e.Categories), moment(e.Time), e.ARN}
	})}, nil
}

// sortable writes a time so that texts sort as the times do.
const sortable = "2006-01-02T15:04:05.000000000Z"

// numberedEvent has a name to page by: events of one moment and resource differ by their number.
type numberedEvent struct {
	ledger.Event
	name string
}

func numbered(all []ledger.Event) []numberedEvent {
	out := make([]numberedEvent, len(all))
	seen := map[string]int{}
	for i, e := range all {
		at := e.Time.UTC().Format(sortable)
		out[i] = numberedEvent{e, fmt.Sprintf("%s %09d", at, seen[at])}
		seen[at]++
	}
	return out
}

func contains(all []string, s string) bool {
	for _, v := range all {
		if v == s {
			return true
		}
	}
	return false
}

func (a *API) describeGlobalClusters(_ context.Context, p *params) (any, error) {
	if id := p.text("GlobalClusterIdentifier"); id != "" {
		return nil, &problem{"GlobalClusterNotFoundFault", http.StatusNotFound, "Global cluster " + id + " not found."}
	}
	p.filters("db-cluster-id", "region")
	if p.fault != nil {
		return nil, p.fault
	}
	return struct{ GlobalClusters list[string] }{list[string]{element: "GlobalClusterMember"}}, nil
}

type upgradeTarget struct{}

type engineVersion struct {
	Engine                              string
	MajorEngineVersion                  string
	EngineVersion                       string
	DBParameterGroupFamily              string
	DBEngineDescription                 string
	DBEngineVersionDescription          string
	ValidUpgradeTarget                  list[upgradeTarget]
	ExportableLogTypes                  list[string]
	SupportsLogExportsToCloudwatchLogs  bool
	SupportsReadReplica                 bool
	SupportedEngineModes                list[string]
	SupportedFeatureNames               list[string]
	Status                              string
	SupportsParallelQuery               bool
	SupportsGlobalDatabases             bool
	TagList                             list[tag]
	SupportsBabelfish                   bool
	SupportsLimitlessDatabase           bool
	SupportsLocalWriteForwarding        bool
	SupportsIntegrations                bool
	SupportsCertificateRotationNoReboot bool `xml:"SupportsCertificateRotationWithoutRestart"`
}

func (a *API) describeEngineVersions(ctx context.Context, p *params) (any, error) {
	f := p.filters("db-parameter-group-family", "engine", "engine-mode", "engine-version", "status")
	onlyDefault := p.bool("DefaultOnly")
	if p.fault != nil {
		return nil, p.fault
	}
	all, err := a.o.Fleet.EngineVersions(ctx)
	if err != nil {
		return nil, err
	}
	var kept []fleet.EngineVersion
	for _, v := range all {
		asked := p.text("EngineVersion")
		if (p.text("Engine") == "" || p.text("Engine") == v.Engine) && (asked == "" || asked == v.Version || asked == strconv.Itoa(v.Major)) &&
			(p.text("DBParameterGroupFamily") == "" || p.text("DBParameterGroupFamily") == v.Family) && (!onlyDefault || v.Default) &&
			f.holds("engine", v.Engine) && f.holds("engine-version", v.Version) && f.holds("db-parameter-group-family", v.Family) &&
			f.holds("engine-mode", "provisioned") && f.holds("status", "available") {
			kept = append(kept, v)
		}
	}
	part, marker := page(p, kept, func(v fleet.EngineVersion) string { return v.Engine + " " + v.Version })
	if p.fault != nil {
		return nil, p.fault
	}
	return struct {
		Marker           string `xml:",omitempty"`
		DBEngineVersions list[engineVersion]
	}{marker, of("DBEngineVersion", part, func(v fleet.EngineVersion) engineVersion {
		return engineVersion{Engine: v.Engine, MajorEngineVersion: strconv.Itoa(v.Major), EngineVersion: v.Version, DBParameterGroupFamily: v.Family,
			DBEngineDescription: "PostgreSQL", DBEngineVersionDescription: "PostgreSQL " + v.Version, SupportsReadReplica: true,
			SupportedEngineModes: texts("member", []string{"provisioned"}), Status: "available"}
	})}, nil
}

// classes are the instance classes that clients may name. All are this host.
var classes = []string{"db.serverless", "db.t3.medium", "db.t4g.medium", "db.t4g.large", "db.r5.large", "db.r5.xlarge", "db.r6g.large", "db.r6g.xlarge", "db.r6g.2xlarge", "db.r7g.large", "db.r7g.xlarge"}

type orderable struct {
	Engine                            string
	EngineVersion                     string
	DBInstanceClass                   string
	LicenseModel                      string
	AvailabilityZones                 list[zoneName]
	MultiAZCapable                    bool
	ReadReplicaCapable                bool
	Vpc                               bool
	SupportsStorageEncryption         bool
	StorageType                       string
	SupportsIops                      bool
	SupportsEnhancedMonitoring        bool
	SupportsIAMDatabaseAuthentication bool
	SupportsPerformanceInsights       bool
	SupportedEngineModes              list[string]
	SupportsStorageAutoscaling        bool
	SupportsKerberosAuthentication    bool
	OutpostCapable                    bool
	SupportsGlobalDatabases           bool
	SupportsClusters                  bool
}

type zoneName struct{ Name string }

func (a *API) describeOrderable(ctx context.Context, p *params) (any, error) {
	p.need("Engine")
	p.filters()
	if p.fault != nil {
		return nil, p.fault
	}
	versions, err := a.o.Fleet.EngineVersions(ctx)
	if err != nil {
		return nil, err
	}
	var all []orderable
	for _, v := range versions {
		for _, c := range classes {
			asked := p.text("EngineVersion")
			if v.Engine != p.text("Engine") || asked != "" && asked != v.Version || p.text("DBInstanceClass") != "" && p.text("DBInstanceClass") != c {
				continue
			}
			all = append(all, orderable{Engine: v.Engine, EngineVersion: v.Version, DBInstanceClass: c, LicenseModel: licence, Vpc: true, ReadReplicaCapable: true,
				AvailabilityZones: list[zoneName]{"AvailabilityZone", []zoneName{{a.zone()}}}, StorageType: "aurora",
				SupportedEngineModes: texts("member", []string{"provisioned"}), SupportsClusters: true})
		}
	}
	part, marker := page(p, all, func(o orderable) string { return o.EngineVersion + " " + o.DBInstanceClass })
	if p.fault != nil {
		return nil, p.fault
	}
	return struct {
		OrderableDBInstanceOptions list[orderable]
		Marker                     string `xml:",omitempty"`
	}{list[orderable]{"OrderableDBInstanceOption", part}, marker}, nil
}
