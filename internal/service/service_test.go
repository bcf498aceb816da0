package service_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pileus/internal/config"
	"pileus/internal/control"
	"pileus/internal/service"
)

// running is one service of a test.
type running struct {
	at   string // host:port
	log  *logs
	stop func() error // ends it and waits
}

// logs may be read while it is written.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// deployment makes a folder with a repository and a pileus.yaml whose section serve holds more.
func deployment(t *testing.T, dir, clusters, more string) *control.Deployment {
	t.Helper()
	path := filepath.Join(dir, "pileus.yaml")
	if _, err := control.Setup(t.Context(), control.SetupRequest{Path: path, Params: config.Params{RepositoryURL: filepath.Join(dir, "repository")}}); err != nil {
		t.Fatal(err)
	}
	text := "repository: {url: ./repository}\nstate_dir: ./state\nserve:\n  listen: 127.0.0.1:0\n" + more + clusters
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	d, err := control.Open(t.Context(), cfg, "1.2.3", control.Brief)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// start runs a service until the test or stop ends it.
func start(t *testing.T, d *control.Deployment) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan net.Addr, 1), make(chan error, 1)
	r := &running{log: &logs{}}
	go func() {
		ended <- service.Run(ctx, service.Options{Deployment: d, Log: slog.New(slog.NewJSONHandler(r.log, nil)), Ready: func(at net.Addr) { ready <- at }})
	}()
	var err error
	var once sync.Once
	r.stop = func() error {
		once.Do(func() { cancel(); err = <-ended })
		return err
	}
	t.Cleanup(func() { _ = r.stop() })
	select {
	case at := <-ready:
		r.at = at.String()
	case err = <-ended:
		once.Do(cancel)
		t.Fatalf("it did not start: %v", err)
	}
	return r
}

func get(t *testing.T, client *http.Client, url string) (int, string) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// TestRun looks at a service without clusters from every side, and ends it.
func TestRun(t *testing.T) {
	told := systemd(t)
	d := deployment(t, t.TempDir(), "", "")
	r := start(t, d)
	if got := told(); got != "READY=1" {
		t.Errorf("systemd was told %q", got)
	}

	status, body := get(t, http.DefaultClient, "http://"+r.at+"/healthz")
	if status != http.StatusOK || strings.TrimSpace(body) != `{"status":"ok"}` {
		t.Errorf("healthz: %d %s", status, body)
	}
	status, body = get(t, http.DefaultClient, "http://"+r.at+"/metrics")
	for _, want := range []string{"go_goroutines", "process_open_fds"} {
		if status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("metrics: %d, no %s in\n%s", status, want, body)
		}
	}
	for _, path := range []string{"/", "/status", "/?Action=DescribeDBClusters&Version=2014-10-31", "/healthz/x"} {
		if status, body := get(t, http.DefaultClient, "http://"+r.at+path); status < 400 || status > 499 || strings.Contains(body, "1.2.3") {
			t.Errorf("%s, unsigned: %d %s", path, status, body)
		}
	}

	s, err := service.Ask(t.Context(), d.Config)
	if err != nil || s.Version != "1.2.3" || !s.Protected || len(s.Clusters) != 0 || s.Looked == nil || s.Problem != "" {
		t.Errorf("status: %+v, %v", s, err)
	}
	state := filepath.Join(d.Config.StateDir, "serve")
	for path, want := range map[string]os.FileMode{state: 0o700, service.SocketPath(d.Config): 0o600, filepath.Join(state, "ledger.sqlite"): 0o600, filepath.Join(state, "lock"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want mode %o", path, info, err, want)
		}
	}

	if err := r.stop(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if got := told(); got != "STOPPING=1" {
		t.Errorf("systemd was told %q", got)
	}
	if _, err := service.Ask(t.Context(), d.Config); !errors.Is(err, service.ErrNotServing) {
		t.Errorf("asked after its end: %v", err)
	}
	for line := range strings.Lines(r.log.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a line of the log is no JSON: %s", line)
		}
	}
}

// systemd stands in for the socket of systemd; the answer waits for the next message.
func systemd(t *testing.T) func() string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		b := make([]byte, 100)
		if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(b)
		if err != nil {
			t.Fatalf("systemd was not told: %v", err)
		}
		return string(b[:n])
	}
}

// TestOnePerStateFolder: a second service is refused and disturbs nothing; after the
// first has ended, one may start.
func TestOnePerStateFolder(t *testing.T) {
	d := deployment(t, t.TempDir(), "", "")
	first := start(t, d)
	err := service.Run(t.Context(), service.Options{Deployment: d, Log: slog.New(slog.DiscardHandler)})
	var busy *service.BusyError
	if !errors.As(err, &busy) || busy.PID != strconv.Itoa(os.Getpid()) || !strings.Contains(err.Error(), busy.PID) {
		t.Errorf("the second: %v", err)
	}
	if _, err := service.Ask(t.Context(), d.Config); err != nil {
		t.Errorf("the first was disturbed: %v", err)
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	start(t, d)
	if _, err := service.Ask(t.Context(), d.Config); err != nil {
		t.Error(err)
	}
}

// TestUnprotected: a cluster whose server is away is told of, with reasons; the service itself is well.
func TestUnprotected(t *testing.T) {
	d := deployment(t, t.TempDir(), "clusters:\n  src: {connection: 'host=127.0.0.1 port=1 dbname=postgres user=postgres'}\n", "")
	r := start(t, d)
	s, err := service.Ask(t.Context(), d.Config)
	if err != nil || s.Protected || len(s.Clusters) != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	if c := s.Clusters[0]; c.Identifier != "src" || !c.Attached || c.Protected || len(c.Why) == 0 || c.Latest != nil || c.LastBackup != nil {
		t.Errorf("%+v", c)
	}
	if _, body := get(t, http.DefaultClient, "http://"+r.at+"/metrics"); !strings.Contains(body, `pileus_cluster_protected{cluster="src"} 0`) ||
		strings.Contains(body, "pileus_last_backup_age_seconds{") || strings.Contains(body, "pileus_wal_lag_bytes{") {
		t.Errorf("metrics: %s", body)
	}
	if status, body := get(t, http.DefaultClient, "http://"+r.at+"/healthz"); status != http.StatusOK {
		t.Errorf("healthz: %d %s", status, body)
	}
}

// TestDamagedLedger: history is moved aside, and said so; service goes on.
func TestDamagedLedger(t *testing.T) {
	d := deployment(t, t.TempDir(), "", "")
	dir := filepath.Join(d.Config.StateDir, "serve")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ledger.sqlite"), bytes.Repeat([]byte("x"), 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, d)
	if !strings.Contains(r.log.String(), "damaged") {
		t.Errorf("nothing is said of it: %s", r.log.String())
	}
}

// TestLongPath: the kernel's bound of a socket's path does not bound the state folder.
func TestLongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long-", 40))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d := deployment(t, dir, "", "  data_root: "+t.TempDir()+"\n")
	start(t, d)
	if _, err := service.Ask(t.Context(), d.Config); err != nil {
		t.Error(err)
	}
}

// TestTLS: with a certificate, only TLS of a present version is spoken, and a certificate
// that is renewed is used without a restart.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certificate(t, cert, key, 1)
	r := start(t, deployment(t, dir, "", "  tls_cert_file: cert.pem\n  tls_key_file: key.pem\n"))
	serial := func(most uint16) (int64, error) {
		conn, err := tls.Dial("tcp", r.at, &tls.Config{InsecureSkipVerify: true, MaxVersion: most}) // it is about which one is shown
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
	}
	if got, err := serial(0); got != 1 || err != nil {
		t.Errorf("certificate %d, %v", got, err)
	}
	if _, err := serial(tls.VersionTLS11); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	if status, body := get(t, client, "https://"+r.at+"/healthz"); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	if status, body := get(t, http.DefaultClient, "http://"+r.at+"/healthz"); status == http.StatusOK {
		t.Errorf("without TLS: %s", body)
	}
	certificate(t, cert, key, 2)
	if got, err := serial(0); got != 2 || err != nil {
		t.Errorf("after the renewal: certificate %d, %v", got, err)
	}
	if err := os.WriteFile(cert, []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := serial(0); got != 2 || err != nil {
		t.Errorf("while the file is damaged: certificate %d, %v", got, err)
	}
}

// TestRefusesToStart: what cannot be served with is said before anything runs.
func TestRefusesToStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, c := range map[string]struct{ serve, want string }{
		"no certificate": {"  tls_cert_file: absent.pem\n  tls_key_file: absent.pem\n", "serve.tls_cert_file"},
		"port taken":     {"  listen: " + taken.Addr().String() + "\n", "serve.listen"},
		"no secret":      {"  access_keys: {AKID: {secret_file: absent}}\n", "serve.access_keys"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := deployment(t, dir, "", "  region: us-east-1\n")
			text := "repository: {url: ./repository}\nstate_dir: ./state\nserve:\n" + c.serve
			if !strings.Contains(text, "listen") {
				text += "  listen: 127.0.0.1:0\n"
			}
			path := filepath.Join(dir, "pileus.yaml")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg, err := config.Load(path)
			if err != nil {
				t.Fatal(err)
			}
			d.Config = cfg
			err = service.Run(t.Context(), service.Options{Deployment: d, Log: slog.New(slog.DiscardHandler), Ready: func(net.Addr) { t.Error("it serves") }})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q in it", err, c.want)
			}
			if _, err := os.Stat(service.SocketPath(cfg)); err == nil {
				t.Error("the status socket is left")
			}
		})
	}
}

// certificate writes a new certificate for this host, and its key.
func certificate(t *testing.T, certFile, keyFile string, serial int64) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "localhost"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, of, of, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
