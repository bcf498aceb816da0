package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pileus/internal/service"
)

// host is a folder with a repository and a pileus.yaml.
type host struct {
	t    *testing.T
	file string
}

func newHost(t *testing.T) host {
	h := host{t, filepath.Join(t.TempDir(), "pileus.yaml")}
	h.pileus(ExitOK, "init", "--repository", filepath.Join(filepath.Dir(h.file), "repository"))
	h.write("")
	return h
}

// write replaces pileus.yaml, with these clusters.
func (h host) write(clusters string) {
	h.t.Helper()
	text := "repository: {url: ./repository}\nstate_dir: ./state\nserve: {listen: '127.0.0.1:0'}\n" + clusters
	if err := os.WriteFile(h.file, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h host) pileus(want int, args ...string) (stdout, stderr string) {
	h.t.Helper()
	var out, errs bytes.Buffer
	if code := Run(h.t.Context(), "1.2.3", append(args, "--config", h.file), strings.NewReader(""), &out, &errs); code != want {
		h.t.Fatalf("pileus %s: exit %d, want %d: %s%s", strings.Join(args, " "), code, want, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// serve runs `pileus serve` until end is called, which returns its exit code.
func (h host) serve() (end func() int) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	out, in := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- Run(ctx, "1.2.3", []string{"serve", "--config", h.file}, strings.NewReader(""), in, io.Discard)
		in.Close()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "serving on 127.0.0.1:") {
		cancel()
		h.t.Fatalf("serve printed %q, %v, and ended with %d", line, err, <-code)
	}
	return func() int { cancel(); return <-code }
}

// TestServeAndStatus walks what one host sees: no service, one, a second, and what status exits with.
func TestServeAndStatus(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	h := newHost(t)
	if _, says := h.pileus(ExitFailed, "status"); !strings.Contains(says, "is not running here") || !strings.Contains(says, "pileus check") {
		t.Errorf("without a service, status says %q", says)
	}
	h.pileus(ExitUsage, "status", "surplus")
	h.pileus(ExitUsage, "serve", "surplus")

	end := h.serve()
	if says, _ := h.pileus(ExitOK, "status"); !strings.Contains(says, "pileus 1.2.3 serves since") || !strings.Contains(says, "There are no clusters") {
		t.Errorf("status says %q", says)
	}
	if _, says := h.pileus(ExitBusy, "serve"); !strings.Contains(says, "process "+strconv.Itoa(os.Getpid())) || !strings.Contains(says, "state_dir") {
		t.Errorf("the second says %q", says)
	}
	if code := end(); code != ExitOK {
		t.Errorf("serve ended with %d", code)
	}
	h.pileus(ExitFailed, "status")

	h.write("clusters:\n  src: {connection: 'host=127.0.0.1 port=1 dbname=postgres user=postgres'}\n")
	end = h.serve()
	defer end()
	says, _ := h.pileus(ExitUnprotected, "status")
	if !strings.Contains(says, "src") || !strings.Contains(says, "NO") || !strings.Contains(says, "no backup yet") {
		t.Errorf("status says %q", says)
	}
	var s service.Status
	text, _ := h.pileus(ExitUnprotected, "status", "--json")
	if err := json.Unmarshal([]byte(text), &s); err != nil || s.Protected || len(s.Clusters) != 1 || s.Clusters[0].Identifier != "src" || len(s.Clusters[0].Why) == 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestPrintStatus is about what is hard to bring about: looks that are missing or old.
func TestPrintStatus(t *testing.T) {
	at := time.Date(2026, 3, 7, 23, 45, 0, 0, time.UTC)
	a := service.ClusterStatus{Identifier: "a", Status: "available", Protected: true, Since: &at, Latest: &at}
	b := service.ClusterStatus{Identifier: "b", Status: "failed", Why: []string{"it is failed. ", "one more"}}
	for name, c := range map[string]struct {
		status service.Status
		has    []string
		hasNot []string
	}{
		"never looked": {service.Status{Problem: "hung"}, []string{"NOT KNOWN", "hung"}, []string{"There are no clusters", "CLUSTER"}},
		"old look":     {service.Status{Problem: "hung", Clusters: []service.ClusterStatus{a}}, []string{"NOT KNOWN", "2026-03-07T23:45:00Z"}, nil},
		"two":          {service.Status{Clusters: []service.ClusterStatus{a, b}}, []string{"yes", "NO", "b: it is failed.\n", "b: one more\n"}, []string{"NOT KNOWN", "a: "}},
	} {
		var out strings.Builder
		if err := printStatus(&out, c.status); err != nil {
			t.Error(err)
		}
		for _, want := range c.has {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: no %q in\n%s", name, want, out.String())
			}
		}
		for _, not := range c.hasNot {
			if strings.Contains(out.String(), not) {
				t.Errorf("%s: %q in\n%s", name, not, out.String())
			}
		}
	}
}
