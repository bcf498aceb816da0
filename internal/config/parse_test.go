package config

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1s": time.Second, "500ms": 500 * time.Millisecond, "24h": 24 * time.Hour, "7d": 168 * time.Hour,
		"2w": 336 * time.Hour, "1h30m": 90 * time.Minute, "0s": 0,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%q = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "1", "s", "-1s", "1.5h", "1 s", "1y", "1s ", "s1", "1h30", "9999999999999999999s", "200000000d", "100000d100000d"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q = %v", text, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"256MiB": 256 << 20, "10GB": 10e9, "4 GiB": 4 << 30, "1B": 1, "3kB": 3000, "3KB": 3000, "1PiB": 1 << 50, "0B": 0,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "1", "MiB", "-1MiB", "1.5GiB", "1gib", "1GiB1MiB", "1GiB ", "9223372036854775807KiB", "8192PiB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q = %v", text, got)
		}
	}
}

func TestUnitsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, math.MaxInt64).Draw(t, "size")
		if got, err := ParseSize(formatSize(size)); err != nil || got != size {
			t.Fatalf("%d -> %s -> %d, %v", size, formatSize(size), got, err)
		}
		d := time.Duration(rapid.Int64Range(0, math.MaxInt64/1_000_000).Draw(t, "ms")) * time.Millisecond
		if got, err := ParseDuration(formatDuration(d)); err != nil || got != d {
			t.Fatalf("%d -> %s -> %d, %v", d, formatDuration(d), got, err)
		}
	})
}

func TestValidateIdentifier(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, name := range []string{"a", "A", "orders", "web-2", "a-b-c", long} {
		if err := ValidateIdentifier(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "1a", "-a", "a-", "a--b", "a_b", "a.b", "a/b", "ä", "a b", long + "a"} {
		if err := ValidateIdentifier(name); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}

// TestDefaultSlot: every identifier gives a valid slot, and no two the same.
func TestDefaultSlot(t *testing.T) {
	if got := defaultSlot("web-2"); got != "pileus_web_2" {
		t.Errorf("slot of web-2 is %q", got)
	}
	identifier := rapid.StringMatching(`[a-z](-?[a-z0-9]){0,31}`)
	long := rapid.Map(rapid.StringMatching(`[a-b]{1,3}`), func(end string) string { return strings.Repeat("a", 60) + end })
	rapid.Check(t, func(t *rapid.T) {
		either := rapid.OneOf(identifier, long)
		a, b := either.Draw(t, "a"), either.Draw(t, "b")
		if err := validateSlot(defaultSlot(a)); err != nil {
			t.Fatal(err)
		}
		if a != b && defaultSlot(a) == defaultSlot(b) {
			t.Fatalf("%s and %s share the slot %s", a, b, defaultSlot(a))
		}
	})
}

func TestNearest(t *testing.T) {
	known := []string{"url", "retention", "state_dir", "wal", "workers"}
	for text, want := range map[string]string{
		"ulr": "url", "retenion": "retention", "statedir": "state_dir", "state-dir": "state_dir", "worker": "workers",
		"x": "", "colour": "", "": "", "wall": "wal",
	} {
		if got := nearest(text, known); got != want {
			t.Errorf("nearest(%q) = %q, want %q", text, got, want)
		}
	}
}

// FuzzLoad: no text makes the reader panic; each gives a whole configuration or
// faults that name the file.
func FuzzLoad(f *testing.F) {
	f.Add(whole)
	f.Add(string(Template(Params{Cluster: "orders"})))
	for _, seed := range []string{
		"", "\t", "a", "- a", "a: b: c", "{", "}", "[", "? a", "&a *a", "!!x y", "---\n...\n---", "%YAML 1.2", "a: |\n b", "a: \"\\x", "'",
		"repository: {url: 1}", "repository:\n  url: [", "clusters:\n  a:\n   - b", "clusters: {a: {wal: {}}}", "\xff\xfe", "a: 0x", "a: .inf", "<<: a", "null: a",
		"serve: {listen: a, ports: 1-2}", "serve:\n  subnets: {a: }\n  access_keys: {a: {role: }}", "serve: {security_groups: {default: ''}}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parse("pileus.yaml", "/etc", []byte(text))
		if err == nil {
			if c.Repository.URL == "" || c.StateDir == "" {
				t.Fatalf("incomplete: %+v", c)
			}
			for name, cluster := range c.Clusters {
				if ValidateIdentifier(name) != nil || cluster.Connection == "" || validateSlot(cluster.Slot) != nil {
					t.Fatalf("invalid cluster: %+v", cluster)
				}
			}
			return
		}
		var fault *Error
		if !errors.As(err, &fault) || fault.Path != "pileus.yaml" || fault.Problem == "" {
			t.Fatalf("no fault with a place: %v", err)
		}
	})
}

func FuzzParseQuantities(f *testing.F) {
	for _, seed := range []string{"1s", "7d12h", "256MiB", "9223372036854775807PB", "1", "", "-1s", "٣s"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := ParseDuration(text); err == nil && d < 0 {
			t.Fatalf("%q is the negative %v", text, d)
		}
		if n, err := ParseSize(text); err == nil && n < 0 {
			t.Fatalf("%q is the negative %d", text, n)
		}
	})
}
