package config

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestTemplateRoundTrip(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", "/state")
	for name, test := range map[string]struct {
		params Params
		change func(*Config)
	}{
		"nothing": {Params{}, func(c *Config) { c.Repository.URL = "/etc/pileus-repository" }},
		"everything": {
			Params{
				RepositoryURL: "s3://bucket/p", S3: S3{Endpoint: "https://s3.example.org", Region: "r-1", PathStyle: true},
				KeyFile: "/k", PassphraseFile: "/pass phrase", StateDir: "/s: #1",
				Cluster: "orders", Connection: `host=h user='o\'r'`, PasswordFile: "/pw", DataDir: "never", BinDir: "/b",
			},
			func(c *Config) {
				c.Repository.URL, c.StateDir = "s3://bucket/p", "/s: #1"
				c.Repository.S3 = S3{Endpoint: "https://s3.example.org", Region: "r-1", PathStyle: true}
				c.Repository.KeyFile, c.Repository.PassphraseFile = "/k", "/pass phrase"
				cluster := newCluster()
				cluster.Name, cluster.Slot, cluster.Connection = "orders", "pileus_orders", `host=h user='o\'r'`
				cluster.PasswordFile, cluster.DataDir, cluster.BinDir = "/pw", DataDirNever, "/b"
				c.Clusters["orders"] = cluster
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			text := Template(test.params)
			got, err := parse("t", "/etc", text)
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			want := newConfig()
			want.StateDir = "/state/pileus"
			test.change(want)
			want.Serve.DataRoot = want.StateDir + "/servers"
			if diff := cmp.Diff(want, got, addresses); diff != "" {
				t.Errorf("-want +got\n%s\n%s", diff, text)
			}
		})
	}
}

// TestTemplateShowsTheDefaults uncomments every key: the values shown must be those
// that hold when the key is absent.
func TestTemplateShowsTheDefaults(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", "/state")
	for _, cluster := range []string{"", "orders"} {
		text := Template(Params{Cluster: cluster})
		live := regexp.MustCompile(`(?m)^( *)#([a-z_0-9-]+:)`).ReplaceAll(text, []byte("$1$2"))
		name := orElse(cluster, "my-cluster")
		if cluster == "" {
			live = []byte(strings.Replace(string(live), "    connection:\n", "    connection: host=h\n", 1))
		}
		got, err := parse("t", "/etc", live)
		if err != nil {
			t.Fatalf("%v\n%s", err, live)
		}
		want := newConfig()
		want.StateDir, want.Repository.URL = "/state/pileus", "/etc/pileus-repository"
		want.Serve.DataRoot = "/state/pileus/servers"
		only := newCluster()
		only.Name, only.Slot, only.Connection = name, defaultSlot(name), got.Clusters[name].Connection
		want.Clusters[name] = only
		if diff := cmp.Diff(want, got, addresses); diff != "" {
			t.Errorf("-want +got\n%s\n%s", diff, live)
		}
	}
}

func TestEveryFieldIsExplained(t *testing.T) {
	var check func(prefix string, fields []field)
	check = func(prefix string, fields []field) {
		for _, f := range fields {
			key := join(prefix, f.key)
			if !strings.HasSuffix(f.doc, ".") {
				t.Errorf("%s: the documentation is no sentence: %q", key, f.doc)
			}
			if (f.read == nil) == (f.fields == nil) {
				t.Errorf("%s: a field is either a value or a section", key)
			}
			check(key, f.fields)
		}
	}
	var cluster Cluster
	check("", topFields(&Config{}))
	check("clusters", clusterFields(&cluster))
	for _, line := range strings.Split(string(Template(Params{})), "\n") {
		if len(line) > 100 {
			t.Errorf("line longer than 100 characters: %s", line)
		}
	}
}

// TestScalarReadsBack: whatever path a user gives init, the file holds that path.
func TestScalarReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := "/" + rapid.StringMatching(`[^\x00-\x1f\x7f-\x9f\x{2028}\x{2029}\x{feff}\x{fffd}]{0,60}`).Draw(t, "path")
		c, err := parse("t", "/etc", Template(Params{RepositoryURL: "/r", StateDir: path}))
		if err != nil {
			t.Fatal(err)
		}
		if want := filepath.Clean(path); c.StateDir != want {
			t.Fatalf("wrote %q, read %q", want, c.StateDir)
		}
	})
}
