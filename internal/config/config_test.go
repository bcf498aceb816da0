package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// addresses lets cmp compare what has no fields of its own to look into.
var addresses = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

// write puts text in a configuration file of its own.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), FileName)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const whole = `
repository:
  url: s3://bucket/prefix/
  s3:
    endpoint: http://localhost:7070
    region: eu-central-1
    path_style: true
  key_file: keys/host.key
  passphrase_file: /etc/pileus/passphrase
  pack_size: 32MiB
  compression: {algorithm: none, level: best}
state_dir: state
workers: 3
serve:
  listen: 0.0.0.0:9443
  tls_cert_file: tls/cert.pem
  tls_key_file: tls/key.pem
  region: eu-central-1
  account: "012345678901"
  data_root: /srv/servers
  ports: 6000-6010
  owner: pg
  bin_dirs: /usr/lib/postgresql/17/bin, pg18/bin
  security_groups:
    sg-office: 10.1.0.0/16, 192.0.2.7, 2001:db8::/32
  subnets:
    subnet-default: 10.1.2.3
    subnet-b: "::1"
  backup_window: 23:45-00:15
  access_keys:
    AKIDEXAMPLE: {secret_file: akid.secret, role: read-only}
    ci:
      secret_file: /run/ci.secret
clusters: # before defaults, which hold all the same
  Orders:
    connection: postgresql://backup@db1:5433/postgres
    password_file: orders.password
    data_dir: ../pgdata
    slot: my_slot
    checkpoint: fast
    max_rate: none
    nice: false
    wal: {flush_interval: 10ms, slot_create: false}
  web-2:
    connection: host=db2
    data_dir: never
defaults:
  retention: 2w
  max_rate: 20MiB
  nice: true
  checkpoint: spread
  bin_dir: /usr/lib/postgresql/17/bin
  wal:
    spool_max: 100MB
    primary_retain_max: 1GiB
    push_queue_max: 2TiB
`

func TestLoadReadsEveryKey(t *testing.T) {
	path := write(t, whole)
	dir := filepath.Dir(path)
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	wal := WAL{FlushInterval: time.Second, SpoolMax: 100e6, PrimaryRetainMax: 1 << 30, PushQueueMax: 2 << 40, SlotCreate: true}
	own := wal
	own.FlushInterval, own.SlotCreate = 10*time.Millisecond, false
	want := &Config{
		Path: path,
		Repository: Repository{
			URL:            "s3://bucket/prefix",
			S3:             S3{Endpoint: "http://localhost:7070", Region: "eu-central-1", PathStyle: true},
			KeyFile:        filepath.Join(dir, "keys/host.key"),
			PassphraseFile: "/etc/pileus/passphrase",
			PackSize:       32 << 20,
			Compression:    Compression{Algorithm: "none", Level: "best"},
		},
		StateDir: filepath.Join(dir, "state"),
		Workers:  3,
		Recovery: newRecovery(),
		Serve: Serve{
			Listen: "0.0.0.0:9443", TLSCertFile: filepath.Join(dir, "tls/cert.pem"), TLSKeyFile: filepath.Join(dir, "tls/key.pem"),
			Region: "eu-central-1", Account: "012345678901", DataRoot: "/srv/servers", FirstPort: 6000, LastPort: 6010,
			Owner: "pg", BinDirs: []string{"/usr/lib/postgresql/17/bin", filepath.Join(dir, "pg18/bin")},
			SecurityGroups: map[string][]netip.Prefix{
				"default":   newServe().SecurityGroups["default"],
				"sg-office": {netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8::/32")},
			},
			Subnets:      map[string]netip.Addr{"subnet-default": netip.MustParseAddr("10.1.2.3"), "subnet-b": netip.MustParseAddr("::1")},
			BackupWindow: "23:45-00:15",
			AccessKeys: map[string]AccessKey{
				"AKIDEXAMPLE": {SecretFile: filepath.Join(dir, "akid.secret"), Role: RoleReadOnly},
				"ci":          {SecretFile: "/run/ci.secret", Role: RoleOperator},
			},
		},
		Defaults: Cluster{
			DataDir: DataDirAuto, Retention: 14 * day, BinDir: "/usr/lib/postgresql/17/bin", Checkpoint: "spread", MaxRate: 20 << 20, Nice: true, WAL: wal,
		},
		Clusters: map[string]Cluster{
			"orders": {
				Name: "orders", Connection: "postgresql://backup@db1:5433/postgres",
				PasswordFile: filepath.Join(dir, "orders.password"), DataDir: filepath.Join(filepath.Dir(dir), "pgdata"),
				Retention: 14 * day, Slot: "my_slot", BinDir: "/usr/lib/postgresql/17/bin", Checkpoint: "fast", WAL: own,
			},
			"web-2": {
				Name: "web-2", Connection: "host=db2", DataDir: DataDirNever,
				Retention: 14 * day, Slot: "pileus_web_2", BinDir: "/usr/lib/postgresql/17/bin", Checkpoint: "spread", MaxRate: 20 << 20, Nice: true, WAL: wal,
			},
		},
	}
	if diff := cmp.Diff(want, got, addresses); diff != "" {
		t.Errorf("Load: -want +got\n%s", diff)
	}
	if got.WorkerCount() != 3 || (&Config{}).WorkerCount() < 1 {
		t.Errorf("WorkerCount = %d and %d", got.WorkerCount(), (&Config{}).WorkerCount())
	}
}

// TestLoadRefuses gives each fault with the place and the words that a person needs.
func TestLoadRefuses(t *testing.T) {
	const url = "repository: {url: /r}\n"
	const orders = url + "clusters:\n  orders:\n    connection: host=h\n"
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"empty":                   {"", []string{"repository.url: is required"}},
		"url without value":       {"repository:\n  url:\n", []string{":1:1: repository.url: is required"}},
		"misspelt key":            {"repository:\n  ulr: /r\n", []string{`:2:3: repository.ulr: unknown key; did you mean "url"?`}},
		"misspelt deep key":       {orders + "    wal: {flush_intervall: 1s}\n", []string{`:5:11: clusters.orders.wal.flush_intervall: unknown key; did you mean "flush_interval"?`}},
		"key of another section":  {url + "flush_interval: 1s\n", []string{`:2:1: flush_interval: unknown key here; it belongs under "clusters.NAME.wal"`}},
		"key of nowhere":          {url + "colour: blue\n", []string{":2:1: colour: unknown key; known here: repository, state_dir, workers, serve, recovery, defaults, clusters"}},
		"connection in defaults":  {url + "defaults:\n  connection: host=h\n", []string{`:3:3: defaults.connection: unknown key here; it belongs under "clusters.NAME"`}},
		"key twice":               {url + "workers: 1\nworkers: 2\n", []string{":3:1:", "already defined"}},
		"cluster twice":           {orders + "  ORDERS:\n    connection: host=h\n", []string{":5:3: clusters.ORDERS: is there twice"}},
		"bad name":                {url + "clusters:\n  my_db:\n    connection: host=h\n", []string{":3:3: clusters.my_db:", "letters, digits and hyphens only"}},
		"number for name":         {url + "clusters:\n  12:\n    connection: host=h\n", []string{":3:3: clusters.12:", "must begin with a letter"}},
		"no connection":           {url + "clusters:\n  orders:\n", []string{":3:3: clusters.orders.connection: is required"}},
		"password key":            {orders + "    password: hunter2\n", []string{":5:5: clusters.orders.password: secrets do not belong", "password_file", "PGPASSFILE"}},
		"cloud secret":            {"repository:\n  url: s3://b\n  s3: {secret_access_key: hunter2}\n", []string{":3:8: repository.s3.secret_access_key:", "AWS_SECRET_ACCESS_KEY"}},
		"password in connection":  {url + "clusters:\n  o:\n    connection: host=h password = hunter2\n", []string{":4:17: clusters.o.connection: must not hold a password"}},
		"password in user part":   {url + "clusters:\n  o:\n    connection: postgres://u:hunter2@h,g/db\n", []string{"must not hold a password"}},
		"password in query":       {url + "clusters:\n  o:\n    connection: postgres://h/db?x=y&password=hunter2\n", []string{"must not hold a password"}},
		"credentials in url":      {"repository: {url: 's3://id:hunter2@bucket'}\n", []string{":1:19: repository.url: must not hold credentials"}},
		"unparsable url":          {"repository: {url: 's3://id:hunter2@ bucket'}\n", []string{"repository.url: is not a URL"}},
		"url without bucket":      {"repository: {url: 's3:///p'}\n", []string{"must name a bucket: s3://bucket/prefix"}},
		"url with options":        {"repository: {url: 's3://b?region=x'}\n", []string{"must not have options"}},
		"unknown scheme":          {"repository: {url: ftp://b}\n", []string{`unknown scheme "ftp"`}},
		"s3 keys for a folder":    {"repository:\n  url: /r\n  s3: {region: x}\n", []string{"repository.s3: is set, but repository.url is not s3://"}},
		"endpoint without scheme": {"repository:\n  url: s3://b\n  s3: {endpoint: localhost}\n", []string{":3:18: repository.s3.endpoint: must be a URL"}},
		"size too small":          {"repository:\n  url: /r\n  pack_size: 1MiB\n", []string{":3:14: repository.pack_size: must be from 4MiB to 128MiB, not 1MiB"}},
		"size without unit":       {"repository:\n  url: /r\n  pack_size: 16\n", []string{`repository.pack_size: "16" is not a size`}},
		"duration without unit":   {orders + "    retention: 7\n", []string{`clusters.orders.retention: "7" is not a duration`}},
		"duration too long":       {orders + "    retention: 36d\n", []string{":5:16: clusters.orders.retention: must be from 1d to 35d, not 36d"}},
		"rate":                    {orders + "    max_rate: 1KiB\n", []string{`:5:15: clusters.orders.max_rate: must be from 64KiB to 1TiB a second, or none, not 1KiB`}},
		"choice":                  {orders + "    checkpoint: slow\n", []string{`:5:17: clusters.orders.checkpoint: must be one of fast, spread, not "slow"`}},
		"number for text":         {orders + "    bin_dir: 15\n", []string{"clusters.orders.bin_dir: must be text, not a number; put quotes around it"}},
		"mapping for text":        {orders + "    bin_dir: {a: b}\n", []string{"clusters.orders.bin_dir: must be text, not a mapping"}},
		"text for mapping":        {orders + "    wal: yes please\n", []string{":5:10: clusters.orders.wal: must be a mapping"}},
		"text for boolean":        {orders + "    wal: {slot_create: maybe}\n", []string{"slot_create: must be true or false, not text"}},
		"text for number":         {url + "workers: many\n", []string{":2:10: workers: must be a whole number, not text"}},
		"number out of range":     {url + "workers: 257\n", []string{":2:10: workers: must be a whole number from 0 to 256"}},
		"fraction":                {url + "workers: 1.5\n", []string{"workers: must be a whole number"}},
		"slot":                    {orders + "    slot: My-Slot\n", []string{":5:11: clusters.orders.slot:", "lower-case letters"}},
		"empty path":              {orders + "    data_dir: ''\n", []string{"clusters.orders.data_dir: must not be empty"}},
		"two lines":               {orders + "    bin_dir: |\n      a\n      b\n", []string{"clusters.orders.bin_dir: must be one line"}},
		"list":                    {url + "clusters:\n  - orders\n", []string{":3:3: a list"}},
		"top is text":             {"hello\n", []string{":1:1: must be a mapping"}},
		"anchor":                  {"repository: &r {url: /r}\n", []string{":1:13:", "not used in this file"}},
		"not YAML":                {"repository: {url: /r\n", []string{":1:13:"}},
		"tab":                     {"repository:\n\turl: /r\n", []string{":2:1:"}},
		"two documents":           {url + "---\nworkers: 1\n", []string{"a second YAML document"}},
		"deep braces":             {strings.Repeat("{a: ", 100), []string{":1:65: mappings in braces nest deeper than 16"}},
		"long line":               {"#" + strings.Repeat("-", maxLine), []string{":1:1: the line is longer than 4096 bytes"}},
		"too large":               {strings.Repeat("#\n", maxFile), []string{"is larger than 256KiB"}},
		"several at once":         {"repository:\n  ulr: /r\nworkers: -1\nclusters: 7\n", []string{":2:3: repository.ulr", ":3:10: workers", ":4:11: clusters"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, test.text)
			c, err := Load(path)
			if err == nil {
				t.Fatalf("Load accepted it: %+v", c)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q:\n%v", want, err)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

func TestFaultsAreTypedAndInOrder(t *testing.T) {
	_, err := Load(write(t, "workers: x\nrepository: {url: /r}\nstate: y\n"))
	var first *Error
	if !errors.As(err, &first) {
		t.Fatalf("no *Error in %v", err)
	}
	if first.Line != 1 || first.Column != 10 || first.Key != "workers" {
		t.Errorf("first fault is %+v", first)
	}
	if a, b := strings.Index(err.Error(), "workers"), strings.Index(err.Error(), "state"); a < 0 || b < a {
		t.Errorf("not in the order of the file: %v", err)
	}
}

func TestLoadWithoutFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "absent.yaml"))
	if !errors.Is(err, ErrNoFile) || !strings.Contains(err.Error(), "pileus init") {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("folder: %v", err)
	}
}

func TestLoadWarnsWhenOthersMayWrite(t *testing.T) {
	path := write(t, "repository: {url: /r}\n")
	for mode, warned := range map[os.FileMode]bool{0o600: false, 0o644: false, 0o664: true, 0o602: true} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		c, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.ContainsFunc(c.Warnings, func(w string) bool { return strings.Contains(w, "chmod go-w") }); got != warned {
			t.Errorf("mode %v: warnings %q", mode, c.Warnings)
		}
	}
}

func TestDefaultStateDirAndHome(t *testing.T) {
	t.Setenv("HOME", "/home/u")
	t.Setenv("XDG_STATE_HOME", "")
	for text, want := range map[string][2]string{
		"repository: {url: ~/r}":                        {"/home/u/r", "/home/u/.local/state/pileus"},
		"repository: {url: 'file:///r/'}":               {"/r", "/home/u/.local/state/pileus"},
		"repository: {url: /r}\nstate_dir: /s/../t":     {"/r", "/t"},
		"repository: {url: azblob://c/p}\nstate_dir: ~": {"azblob://c/p", "/home/u/.local/state/pileus"},
	} {
		c, err := Load(write(t, text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := [2]string{c.Repository.URL, c.StateDir}; got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
	t.Setenv("XDG_STATE_HOME", "/var/state")
	if dir, err := DefaultStateDir(); err != nil || dir != "/var/state/pileus" {
		t.Errorf("with XDG_STATE_HOME: %q, %v", dir, err)
	}
	t.Setenv("XDG_STATE_HOME", "")
	t.Setenv("HOME", "")
	if _, err := Load(write(t, "repository: {url: /r}")); err == nil || !strings.Contains(err.Error(), "set state_dir") {
		t.Errorf("without a home folder: %v", err)
	}
}

func TestCluster(t *testing.T) {
	c, err := Load(write(t, whole))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Cluster("ORDERS"); err != nil || got.Name != "orders" {
		t.Errorf("Cluster(ORDERS) = %+v, %v", got, err)
	}
	_, err = c.Cluster("order")
	if !errors.Is(err, ErrUnknownCluster) || !strings.Contains(err.Error(), `has orders, web-2; did you mean "orders"?`) {
		t.Errorf("unknown cluster: %v", err)
	}
	_, err = (&Config{Path: "p"}).Cluster("x")
	if !errors.Is(err, ErrUnknownCluster) || !strings.Contains(err.Error(), "names no cluster") {
		t.Errorf("no clusters: %v", err)
	}
}

func TestFind(t *testing.T) {
	home, work := t.TempDir(), t.TempDir()
	t.Chdir(work)
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("PILEUS_CONFIG", "")
	if _, err := os.Stat("/etc/pileus/pileus.yaml"); err != nil {
		_, err := Find("")
		if !errors.Is(err, ErrNoFile) || !strings.Contains(err.Error(), home) || !strings.Contains(err.Error(), "pileus init") {
			t.Errorf("nothing there: %v", err)
		}
	}
	expect := func(explicit, want string) {
		t.Helper()
		if got, err := Find(explicit); err != nil || got != want {
			t.Errorf("Find(%q) = %q, %v; want %q", explicit, got, err, want)
		}
	}
	users := filepath.Join(home, ".config/pileus/pileus.yaml")
	create := func(path string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	create(users)
	expect("", users)
	create(filepath.Join(work, FileName))
	expect("", FileName)
	t.Setenv("PILEUS_CONFIG", "/absent/from-environment")
	expect("", "/absent/from-environment")
	expect("/absent/from-flag", "/absent/from-flag")
}
