package rdsapi

import (
	"context"

	"pileus/internal/fleet"
)

type subnet struct {
	SubnetIdentifier       string
	SubnetAvailabilityZone struct{ Name string }
	SubnetOutpost          struct{}
	SubnetStatus           string
}

type dbSubnetGroup struct {
	DBSubnetGroupName        string
	DBSubnetGroupDescription string
	VpcID                    string `xml:"VpcId"`
	SubnetGroupStatus        string
	Subnets                  list[subnet]
	DBSubnetGroupArn         string
	SupportedNetworkTypes    list[string]
}

func (a *API) subnetGroupXML(g fleet.SubnetGroup) dbSubnetGroup {
	return dbSubnetGroup{DBSubnetGroupName: g.Name, DBSubnetGroupDescription: g.Description, VpcID: "vpc-pileus", SubnetGroupStatus: "Complete",
		Subnets: of("Subnet", g.Subnets, func(id string) subnet {
			s := subnet{SubnetIdentifier: id, SubnetStatus: "Active"}
			s.SubnetAvailabilityZone.Name = a.zone()
			return s
		}), DBSubnetGroupArn: g.ARN, SupportedNetworkTypes: texts("member", []string{"IPV4"})}
}

func (a *API) subnetGroup(g fleet.SubnetGroup, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return struct{ DBSubnetGroup dbSubnetGroup }{a.subnetGroupXML(g)}, nil
}

func (a *API) createSubnetGroup(ctx context.Context, p *params) (any, error) {
	p.need("DBSubnetGroupName", "DBSubnetGroupDescription")
	if p.fault != nil {
		return nil, p.fault
	}
	return a.subnetGroup(a.o.Fleet.CreateSubnetGroup(ctx, fleet.SubnetGroup{Name: p.text("DBSubnetGroupName"), Description: p.text("DBSubnetGroupDescription"),
		Subnets: p.list("SubnetIds"), Tags: p.tags("Tags")}))
}

func (a *API) modifySubnetGroup(ctx context.Context, p *params) (any, error) {
	p.need("DBSubnetGroupName")
	if p.fault != nil {
		return nil, p.fault
	}
	return a.subnetGroup(a.o.Fleet.ModifySubnetGroup(ctx, p.text("DBSubnetGroupName"), p.text("DBSubnetGroupDescription"), p.list("SubnetIds")))
}

func (a *API) deleteSubnetGroup(ctx context.Context, p *params) (any, error) {
	p.need("DBSubnetGroupName")
	if p.fault != nil {
		return nil, p.fault
	}
	return nil, a.o.Fleet.DeleteSubnetGroup(ctx, p.text("DBSubnetGroupName"))
}

func (a *API) describeSubnetGroups(ctx context.Context, p *params) (any, error) {
	p.filters()
	if p.fault != nil {
		return nil, p.fault
	}
	all, err := a.o.Fleet.SubnetGroups(ctx)
	if err != nil {
		return nil, err
	}
	if all, err = one(p, "DBSubnetGroupName", all, func(g fleet.SubnetGroup) string { return g.Name }, fleet.CodeSubnetGroupNotFound, "DB subnet group"); err != nil {
		return nil, err
	}
	part, marker := page(p, all, func(g fleet.SubnetGroup) string { return g.Name })
	if p.fault != nil {
		return nil, p.fault
	}
	return struct {
		Marker         string `xml:",omitempty"`
		DBSubnetGroups list[dbSubnetGroup]
	}{marker, of("DBSubnetGroup", part, a.subnetGroupXML)}, nil
}

type parameterGroup struct {
	DBClusterParameterGroupName string
	DBParameterGroupFamily      string
	Description                 string
	DBClusterParameterGroupArn  string
}

func parameterGroupXML(g fleet.ParameterGroup) parameterGroup {
	return parameterGroup{g.Name, g.Family, g.Description, g.ARN}
}

func (a *API) createParameterGroup(ctx context.Context, p *params) (any, error) {
	p.need("DBClusterParameterGroupName", "DBParameterGroupFamily", "Description")
	if p.fault != nil {
		return nil, p.fault
	}
	g, err := a.o.Fleet.CreateParameterGroup(ctx, fleet.ParameterGroup{Name: p.text("DBClusterParameterGroupName"), Family: p.text("DBParameterGroupFamily"),
		Description: p.text("Description"), Tags: p.tags("Tags")})
	if err != nil {
		return nil, err
	}
	return struct{ DBClusterParameterGroup parameterGroup }{parameterGroupXML(g)}, nil
}

func (a *API) describeParameterGroups(ctx context.Context, p *params) (any, error) {
	p.filters()
	if p.fault != nil {
		return nil, p.fault
	}
	all, err := a.o.Fleet.ParameterGroups(ctx)
	if err != nil {
		return nil, err
	}
	if all, err = one(p, "DBClusterParameterGroupName", all, func(g fleet.ParameterGroup) string { return g.Name }, fleet.CodeParameterGroupMissing, "DBClusterParameterGroup"); err != nil {
		return nil, err
	}
	part, marker := page(p, all, func(g fleet.ParameterGroup) string { return g.Name })
	if p.fault != nil {
		return nil, p.fault
	}
	return struct {
		Marker                   string `xml:",omitempty"`
		DBClusterParameterGroups list[parameterGroup]
	}{marker, of("DBClusterParameterGroup", part, parameterGroupXML)}, nil
}

type parameter struct {
	ParameterName        string
	ParameterValue       string `xml:",omitempty"`
	Description          string
	Source               string
	ApplyType            string
	DataType             string
	AllowedValues        string `xml:",omitempty"`
	IsModifiable         bool
	ApplyMethod          string
	SupportedEngineModes list[string]
}

func parameterXML(v fleet.Parameter) parameter {
	out := parameter{ParameterName: v.Name, ParameterValue: v.Value, Description: v.Description, Source: v.Source, ApplyType: "dynamic", DataType: v.DataType,
		AllowedValues: v.Allowed, IsModifiable: v.Modifiable, ApplyMethod: "immediate", SupportedEngineModes: texts("member", []string{"provisioned"})}
	if v.Static {
		out.ApplyType, out.ApplyMethod = "static", "pending-reboot"
	}
	return out
}

func (a *API) describeParameters(ctx context.Context, p *params) (any, error) {
	p.need("DBClusterParameterGroupName")
	f := p.filters("parameter-name")
	if p.fault != nil {
		return nil, p.fault
	}
	all, err := a.o.Fleet.Parameters(ctx, p.text("DBClusterParameterGroupName"), p.text("Source"))
	if err != nil {
		return nil, err
	}
	var kept []fleet.Parameter
	for _, v := range all {
		if f.holds("parameter-name", v.Name) {
			kept = append(kept, v)
		}
	}
	part, marker := page(p, kept, func(v fleet.Parameter) string { return v.Name })
	if p.fault != nil {
		return nil, p.fault
	}
	return struct {
		Parameters list[parameter]
		Marker     string `xml:",omitempty"`
	}{of("Parameter", part, parameterXML), marker}, nil
}

func named(p *params, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return struct{ DBClusterParameterGroupName string }{p.text("DBClusterParameterGroupName")}, nil
}

func (a *API) modifyParameterGroup(ctx context.Context, p *params) (any, error) {
	p.need("DBClusterParameterGroupName")
	changes := p.parameters("Parameters")
	if len(changes) == 0 {
		p.need("Parameters")
	}
	if p.fault != nil {
		return nil, p.fault
	}
	return named(p, a.o.Fleet.ModifyParameterGroup(ctx, p.text("DBClusterParameterGroupName"), changes))
}

func (a *API) resetParameterGroup(ctx context.Context, p *params) (any, error) {
	p.need("DBClusterParameterGroupName")
	var names []string
	for _, c := range p.parameters("Parameters") {
		names = append(names, c.Name)
	}
	all := p.bool("ResetAllParameters")
	if p.fault != nil {
		return nil, p.fault
	}
	return named(p, a.o.Fleet.ResetParameterGroup(ctx, p.text("DBClusterParameterGroupName"), all, names))
}

func (a *API) deleteParameterGroup(ctx context.Context, p *params) (any, error) {
	p.need("DBClusterParameterGroupName")
	if p.fault != nil {
		return nil, p.fault
	}
	return nil, a.o.Fleet.DeleteParameterGroup(ctx, p.text("DBClusterParameterGroupName"))
}
