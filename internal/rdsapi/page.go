package rdsapi

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"

	"pileus/internal/fleet"
)

// The bounds of MaxRecords.
const (
	minRecords     = 20
	maxRecords     = 100
	defaultRecords = 100
)

// filters are the conditions of a Describe: all must hold, each by one of its values.
type filters map[string][]string

// filters reads them; a name that is not among the known is a fault.
func (p *params) filters(known ...string) filters {
	out := filters{}
	for _, prefix := range p.indexes("Filters") {
		name := p.form.Get(prefix + ".Name")
		if !slices.Contains(known, name) {
			p.fault = &fleet.Fault{Code: fleet.CodeInvalidParameter, Message: "Unrecognized filter name: " + name}
			return nil
		}
		values := p.list(prefix + ".Values")
		if len(values) == 0 {
			p.fault = &fleet.Fault{Code: fleet.CodeInvalidCombination, Message: "The values of the filter " + name + " must not be empty."}
			return nil
		}
		out[name] = append(out[name], values...)
	}
	return out
}

// holds tells whether a resource meets a condition: one of its names is among the values.
func (f filters) holds(name string, has ...string) bool {
	values, asked := f[name]
	if !asked {
		return true
	}
	return slices.ContainsFunc(has, func(h string) bool {
		return slices.ContainsFunc(values, func(v string) bool { return strings.EqualFold(v, h) })
	})
}

// described lists what a Describe asks for, by an identifier, by filters, or by both. RDS takes an identifier that comes
// with the filter of identifiers, whose name is given, for one more value of that.
func described[T any](ctx context.Context, f filters, name, id string, one func(context.Context, string) (T, error), list func(context.Context) ([]T, error), holds func(T) bool) ([]T, error) {
	var all []T
	var err error
	if _, filtered := f[name]; id != "" && !filtered {
		all = make([]T, 1)
		all[0], err = one(ctx, id)
	} else {
		if id != "" {
			f[name] = append(f[name], id)
		}
		all, err = list(ctx)
	}
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(v T) bool { return !holds(v) }), nil
}

// page cuts one page out of a sorted list. The marker names the last element before it, so that
// what comes and goes meanwhile moves nothing else.
func page[T any](p *params, all []T, name func(T) string) (part []T, marker string) {
	size := defaultRecords
	if n := p.intp("MaxRecords"); n != nil {
		size = *n
		if size < minRecords || size > maxRecords {
			p.wrong("MaxRecords", p.text("MaxRecords"), "20 to 100")
			return nil, ""
		}
	}
	if m := p.text("Marker"); m != "" {
		last, err := base64.RawURLEncoding.DecodeString(m)
		if err != nil {
			p.wrong("Marker", m, "what an answer before gave")
			return nil, ""
		}
		i := slices.IndexFunc(all, func(v T) bool { return name(v) == string(last) })
		if i < 0 {
			i = slices.IndexFunc(all, func(v T) bool { return name(v) > string(last) }) - 1
			if i < -1 {
				return nil, ""
			}
		}
		all = all[i+1:]
	}
	if len(all) <= size {
		return all, ""
	}
	return all[:size], base64.RawURLEncoding.EncodeToString([]byte(name(all[size-1])))
}
