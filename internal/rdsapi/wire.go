package rdsapi

import (
	"encoding/xml"
	"time"

	"pileus/internal/fleet"
)

// list is a list of elements of one name. It is there even when it is empty: clients
// tell an empty list from none.
type list[T any] struct {
	element string
	items   []T
}

// MarshalXML implements xml.Marshaler.
func (l list[T]) MarshalXML(e *xml.Encoder, start xml.StartElement) error {
	if err := e.EncodeToken(start); err != nil {
		return err
	}
	for _, v := range l.items {
		if err := e.EncodeElement(v, xml.StartElement{Name: xml.Name{Local: l.element}}); err != nil {
			return err
		}
	}
	return e.EncodeToken(start.End())
}

// of makes a list of what f makes of each value.
func of[T, U any](element string, values []T, f func(T) U) list[U] {
	l := list[U]{element: element}
	for _, v := range values {
		l.items = append(l.items, f(v))
	}
	return l
}

func texts(element string, values []string) list[string] {
	return list[string]{element: element, items: values}
}

// moment is a time as the API writes it: UTC with milliseconds. Rounding down keeps
// LatestRestorableTime true.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Truncate(time.Millisecond).Format("2006-01-02T15:04:05.000Z")
}

// later is a time rounded up, for EarliestRestorableTime.
func later(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return moment(t.Add(time.Millisecond - 1))
}

type tag struct {
	Key   string
	Value string
}

func tagsOf(tags []fleet.Tag) list[tag] {
	return of("Tag", tags, func(t fleet.Tag) tag { return tag{t.Key, t.Value} })
}

type securityGroup struct {
	VpcSecurityGroupID string `xml:"VpcSecurityGroupId"`
	Status             string
}

func securityGroups(ids []string) list[securityGroup] {
	return of("VpcSecurityGroupMembership", ids, func(id string) securityGroup { return securityGroup{id, "active"} })
}

// gigabytes is a size as AllocatedStorage has it, rounded up, at least 1.
func gigabytes(bytes int64) int64 { return max(1, (bytes+1<<30-1)>>30) }
