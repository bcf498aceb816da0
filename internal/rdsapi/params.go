package rdsapi

import (
	"cmp"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"pileus/internal/fleet"
	"pileus/internal/pg"
)

// params are the parameters of a request. The first that cannot be read is remembered
// in fault; what is not given is nil or empty.
type params struct {
	form  url.Values
	fault *fleet.Fault
}

func (p *params) wrong(name, value, must string) {
	if p.fault == nil {
		p.fault = &fleet.Fault{Code: fleet.CodeInvalidParameter, Message: "The parameter " + name + " must be " + must + ": " + strconv.Quote(value) + " is not."}
	}
}

// text is a parameter, "" if it is not given.
func (p *params) text(name string) string { return p.form.Get(name) }

func given[T any](p *params, name, must string, parse func(string) (T, error)) *T {
	if !p.form.Has(name) {
		return nil
	}
	s := p.form.Get(name)
	v, err := parse(s)
	if err != nil {
		p.wrong(name, s, must)
		return nil
	}
	return &v
}

func (p *params) textp(name string) *string {
	return given(p, name, "text", func(s string) (string, error) { return s, nil })
}

func (p *params) intp(name string) *int { return given(p, name, "a whole number", strconv.Atoi) }

func (p *params) floatp(name string) *float64 {
	return given(p, name, "a number", func(s string) (float64, error) {
		v, err := strconv.ParseFloat(s, 64)
		if err == nil && (math.IsNaN(v) || math.IsInf(v, 0)) {
			err = strconv.ErrRange
		}
		return v, err
	})
}

func (p *params) boolp(name string) *bool {
	return given(p, name, "true or false", func(s string) (bool, error) {
		switch strings.ToLower(s) {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return false, strconv.ErrSyntax
	})
}

func (p *params) bool(name string) bool {
	v := p.boolp(name)
	return v != nil && *v
}

// xid is a transaction's number, 0 if it is not given.
func (p *params) xid(name string) uint64 {
	v := given(p, name, "the number of a transaction, 3 or more", func(s string) (uint64, error) {
		v, err := strconv.ParseUint(s, 10, 64)
		if err == nil && uint32(v) < 3 {
			err = strconv.ErrRange
		}
		return v, err
	})
	if v == nil {
		return 0
	}
	return *v
}

// lsn is a place in the WAL, 0 if it is not given.
func (p *params) lsn(name string) pg.LSN {
	v := given(p, name, "an LSN such as 0/16B3748", func(s string) (pg.LSN, error) {
		v, err := pg.ParseLSN(s)
		if err == nil && v == 0 {
			err = strconv.ErrRange
		}
		return v, err
	})
	if v == nil {
		return 0
	}
	return *v
}

// time is a moment in ISO 8601; zero if it is not given. Without a zone it is UTC.
func (p *params) time(name string) time.Time {
	v := given(p, name, "a time such as 2015-03-07T23:45:00Z", func(s string) (time.Time, error) {
		var err error
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02"} {
			var t time.Time
			if t, err = time.Parse(layout, s); err == nil {
				return t.UTC(), nil
			}
		}
		return time.Time{}, err
	})
	if v == nil {
		return time.Time{}
	}
	return *v
}

// indexes lists the elements of a list in order: the prefixes Name.1, or Name.Element.1 whatever the
// element is called. A list without elements is given as Name=.
func (p *params) indexes(name string) []string {
	found := map[string]int{}
	for key := range p.form {
		rest, ok := strings.CutPrefix(key, name+".")
		if !ok {
			continue
		}
		parts := strings.Split(rest, ".")
		for i := range min(2, len(parts)) {
			if n, err := strconv.Atoi(parts[i]); err == nil && n > 0 {
				found[name+"."+strings.Join(parts[:i+1], ".")] = n
				break
			}
		}
	}
	out := make([]string, 0, len(found))
	for prefix := range found {
		out = append(out, prefix)
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(cmp.Compare(found[a], found[b]), cmp.Compare(a, b)) })
	return out
}

// list is a list of texts, nil if it is not given.
func (p *params) list(name string) []string {
	var out []string
	for _, prefix := range p.indexes(name) {
		out = append(out, p.form.Get(prefix))
	}
	return out
}

func (p *params) tags(name string) []fleet.Tag {
	var out []fleet.Tag
	for _, prefix := range p.indexes(name) {
		out = append(out, fleet.Tag{Key: p.form.Get(prefix + ".Key"), Value: p.form.Get(prefix + ".Value")})
	}
	return out
}

// parameters are those of a parameter group.
func (p *params) parameters(name string) []fleet.ParameterChange {
	var out []fleet.ParameterChange
	for _, prefix := range p.indexes(name) {
		out = append(out, fleet.ParameterChange{Name: p.form.Get(prefix + ".ParameterName"), Value: p.form.Get(prefix + ".ParameterValue"),
			Immediate: p.form.Get(prefix+".ApplyMethod") == "immediate"})
	}
	return out
}

// settings are what create, restore and modify have in common.
func (p *params) settings() fleet.Settings {
	return fleet.Settings{
		Port: p.intp("Port"), SubnetGroup: p.textp("DBSubnetGroupName"), ParameterGroup: p.textp("DBClusterParameterGroupName"),
		SecurityGroups: p.list("VpcSecurityGroupIds"), RetentionDays: p.intp("BackupRetentionPeriod"), BackupWindow: p.textp("PreferredBackupWindow"),
		MaintenanceWindow: p.textp("PreferredMaintenanceWindow"), DeletionProtection: p.boolp("DeletionProtection"),
		CopyTagsToSnapshot: p.boolp("CopyTagsToSnapshot"), AutoMinorUpgrade: p.boolp("AutoMinorVersionUpgrade"),
		IAMAuth: p.boolp("EnableIAMDatabaseAuthentication"), EngineMode: p.textp("EngineMode"), StorageType: p.textp("StorageType"),
		ServerlessMin: p.floatp("ServerlessV2ScalingConfiguration.MinCapacity"), ServerlessMax: p.floatp("ServerlessV2ScalingConfiguration.MaxCapacity"),
		LogExports: p.list("EnableCloudwatchLogsExports"), KMSKeyID: p.textp("KmsKeyId"), Encrypted: p.boolp("StorageEncrypted"),
		AvailabilityZones: p.list("AvailabilityZones"), InstanceClass: p.textp("DBClusterInstanceClass"), AllocatedStorage: p.intp("AllocatedStorage"),
		IOPS: p.intp("Iops"), Public: p.boolp("PubliclyAccessible"),
	}
}

// need remembers a fault if a parameter is missing or blank, for which AWS has different codes.
func (p *params) need(names ...string) {
	for _, n := range names {
		switch {
		case p.form.Get(n) != "" || p.fault != nil:
		case p.form.Has(n):
			p.fault = &fleet.Fault{Code: fleet.CodeInvalidParameter, Message: "The parameter " + n + " must be provided and must not be blank."}
		default:
			p.fault = &fleet.Fault{Code: fleet.CodeMissingParameter, Message: "The request must contain the parameter " + n + "."}
		}
	}
}
