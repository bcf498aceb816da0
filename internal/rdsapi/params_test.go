package rdsapi

import (
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"pileus/internal/fleet"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func parse(t testing.TB, query string) *params {
	t.Helper()
	form, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	return &params{form: form}
}

func TestLists(t *testing.T) {
	for query, want := range map[string][]string{
		"":                               nil,
		"L=":                             nil,
		"L.1=a&L.2=b":                    {"a", "b"},
		"L.member.1=a&L.member.2=b":      {"a", "b"},
		"L.Thing.2=b&L.Thing.1=a":        {"a", "b"},
		"L.Thing.10=c&L.Thing.9=b":       {"b", "c"},
		"L.Thing.0=x&L.Thing.-1=x&L.x=y": nil,
		"Longer.1=a":                     nil,
	} {
		if diff := cmp.Diff(want, parse(t, query).list("L")); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
	}
	want := []fleet.Tag{{Key: "a", Value: "1"}, {Key: "b"}}
	if diff := cmp.Diff(want, parse(t, "Tags.Tag.1.Key=a&Tags.Tag.1.Value=1&Tags.Tag.2.Key=b").tags("Tags")); diff != "" {
		t.Error(diff)
	}
	p := parse(t, "Filters.Filter.1.Name=engine&Filters.Filter.1.Values.Value.1=x&Filters.Filter.1.Values.Value.2=y")
	if diff := cmp.Diff(filters{"engine": {"x", "y"}}, p.filters("engine")); diff != "" || p.fault != nil {
		t.Error(diff, p.fault)
	}
	if p.filters("other"); p.fault == nil {
		t.Error("an unknown filter is taken")
	}
}

func TestScalars(t *testing.T) {
	p := parse(t, "n=5&bad=x&yes=true&No=False&t=2015-03-07T23:45:00Z&z=2015-03-07T23:45:00.5%2B01:00&d=2015-03-07T23:45:00&f=0.5")
	if n := p.intp("n"); n == nil || *n != 5 {
		t.Error(n)
	}
	if p.intp("absent") != nil || p.boolp("absent") != nil || p.textp("absent") != nil || !p.time("absent").IsZero() {
		t.Error("something was made of nothing")
	}
	if !p.bool("yes") || p.bool("No") || *p.floatp("f") != 0.5 {
		t.Error("a value is wrong")
	}
	at := time.Date(2015, 3, 7, 23, 45, 0, 0, time.UTC)
	for name, want := range map[string]time.Time{"t": at, "d": at, "z": at.Add(-time.Hour + 500*time.Millisecond)} {
		if got := p.time(name); !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if p.fault != nil {
		t.Error(p.fault)
	}
	for _, read := range []func(){func() { p.intp("bad") }, func() { p.boolp("bad") }, func() { p.time("bad") }, func() { p.floatp("bad") }} {
		p.fault = nil
		if read(); p.fault == nil || p.fault.Code != fleet.CodeInvalidParameter || !strings.Contains(p.fault.Message, "bad") {
			t.Error(p.fault)
		}
	}
}

// TestPages reads any list page by page, while elements come and go, and must see every one that stays, once.
func TestPages(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.IntRange(minRecords, maxRecords).Draw(rt, "size")
		n := rapid.IntRange(0, 350).Draw(rt, "n")
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf("e%04d", 2*i))
		}
		seen := map[string]int{}
		form := url.Values{"MaxRecords": {fmt.Sprint(size)}}
		for pages := 0; ; pages++ {
			if pages > n/size+2 {
				rt.Fatal("there is no end")
			}
			p := &params{form: form}
			part, marker := page(p, all, func(s string) string { return s })
			if p.fault != nil || len(part) > size {
				rt.Fatal(p.fault, len(part))
			}
			for _, s := range part {
				seen[s]++
			}
			if marker == "" {
				break
			}
			form.Set("Marker", marker)
			if rapid.Bool().Draw(rt, "goes") { // the one that the marker names
				last := part[len(part)-1]
				var left []string
				for _, s := range all {
					if s != last {
						left = append(left, s)
					}
				}
				all = left
			}
		}
		for _, s := range all {
			if seen[s] != 1 {
				rt.Fatalf("%s was seen %d times", s, seen[s])
			}
		}
	})
	for _, query := range []string{"MaxRecords=19", "MaxRecords=101", "MaxRecords=x", "Marker=!"} {
		p := parse(t, query)
		if page(p, []string{"a"}, func(s string) string { return s }); p.fault == nil {
			t.Errorf("%s is taken", query)
		}
	}
}

// TestEmptyListsAreThere: clients tell an empty list from none.
func TestEmptyListsAreThere(t *testing.T) {
	text, err := encode("DescribeDBClusters", "id", struct {
		Marker     string `xml:",omitempty"`
		DBClusters list[dbCluster]
	}{})
	if err != nil || !strings.Contains(string(text), "<DescribeDBClustersResult><DBClusters></DBClusters></DescribeDBClustersResult>") {
		t.Errorf("%s %v", text, err)
	}
}

func TestMoments(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_901_000, time.UTC)
	if got := moment(at); got != "2026-01-02T03:04:05.678Z" {
		t.Errorf("latest %s", got)
	}
	if got := later(at); got != "2026-01-02T03:04:05.679Z" {
		t.Errorf("earliest %s", got)
	}
	if moment(time.Time{}) != "" || later(time.Time{}) != "" {
		t.Error("no time is one")
	}
}

// FuzzRequest sends any form with a good signature to actions that change nothing and need no fleet.
func FuzzRequest(f *testing.F) {
	f.Add("Action=DescribeGlobalClusters&Version=2014-10-31&Filters.Filter.1.Name=db-cluster-id&Filters.Filter.1.Values.Value.1=x")
	f.Add("Action=DescribeGlobalClusters&Version=2014-10-31&GlobalClusterIdentifier=%3Cx%3E%26")
	f.Add("Action=Nothing&Version=2014-10-31")
	f.Add("Action=&Version=2014-10-31")
	f.Add("%zz")
	api := newAPI()
	api.o.Log = quiet()
	for name := range api.operations {
		if name != "DescribeGlobalClusters" {
			delete(api.operations, name)
		}
	}
	f.Fuzz(func(t *testing.T, body string) {
		w := httptest.NewRecorder()
		api.ServeHTTP(w, signed(t, body, ring, "us-east-1", "rds", signedAt, nil))
		if w.Code == http.StatusInternalServerError {
			t.Fatalf("%q: %s", body, w.Body)
		}
		d := xml.NewDecoder(w.Body)
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%q is answered with no XML: %v", body, err)
			}
		}
	})
}

// TestIdentifierBesideFilters: an identifier is one more value of the filter of identifiers, and must meet the others.
func TestIdentifierBesideFilters(t *testing.T) {
	s := newSDK(t, ring)
	for _, id := range []string{"a", "b", "c"} {
		c := full[fleet.Cluster]("")
		c.Identifier = id
		s.fleet.clusters = append(s.fleet.clusters, c)
	}
	for _, c := range []struct{ id, filter, value, want string }{
		{"a", "db-cluster-id", "b", "[a b]"},
		{"none", "db-cluster-id", "b", "[b]"},
		{"none", "db-cluster-id", "nobody", "DBClusterNotFoundFault"},
		{"a", "engine", "mysql", "DBClusterNotFoundFault"},
		{"", "engine", "mysql", "[]"},
	} {
		q := &rds.DescribeDBClustersInput{Filters: []types.Filter{{Name: &c.filter, Values: []string{c.value}}}}
		if c.id != "" {
			q.DBClusterIdentifier = &c.id
		}
		out, err := s.DescribeDBClusters(t.Context(), q)
		_, got, _ := failure(err)
		if err == nil {
			ids := []string{}
			for _, found := range out.DBClusters {
				ids = append(ids, *found.DBClusterIdentifier)
			}
			got = fmt.Sprint(ids)
		}
		if got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
