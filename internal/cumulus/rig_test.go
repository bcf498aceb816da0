package cumulus

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/jackc/pgx/v5"

	"pileus/internal/pgtest"
)

// rig is a real Cumulus beside a stand-in for AWS: the schema on a server of its own, and the archive API.
type rig struct {
	*Deployment
	t      *testing.T
	server *pgtest.Server
	stub   string // URL
	api    string // URL
	token  string
}

const (
	rigPrefix = "localrun"
	stream    = "arn:aws:kinesis:us-east-1:123456789012:stream/"
	topic     = "arn:aws:sns:us-east-1:123456789012:"
)

// newRig brings it up, with a provider, a collection and queues, and without rules.
func newRig(t *testing.T) *rig {
	t.Helper()
	if os.Getenv("PILEUS_CUMULUS") == "" {
		t.Skip("NOTE: nothing was tested against the real Cumulus. `make test-cumulus` does that.")
	}
	// The API keeps connections of requests that are over for half a minute.
	r := &rig{t: t, server: pgtest.Start(t, pgtest.Newest(t), pgtest.With("max_connections", "500"))}
	r.server.Exec("CREATE DATABASE cumulus")
	port := pgtest.FreePort(t)
	r.stub = fmt.Sprintf("http://127.0.0.1:%d", port)
	r.node("aws-stub.js", "aws-stub on", fmt.Sprintf("PORT=%d", port))
	if out, err := r.command("migrate.js").CombinedOutput(); err != nil {
		t.Fatalf("migrate: %v\n%s", err, out)
	}
	port = pgtest.FreePort(t)
	r.api = fmt.Sprintf("http://127.0.0.1:%d", port)
	var ready struct{ Token string }
	if err := json.Unmarshal([]byte(r.node("serve-api.js", `"ready"`, fmt.Sprintf("PORT=%d", port), "acquireTimeoutMillis=5000")), &ready); err != nil {
		t.Fatal(err)
	}
	r.token = ready.Token
	client, err := NewClient(r.api, func() (string, error) { return r.token, nil })
	if err != nil {
		t.Fatal(err)
	}
	own := aws.Config{Region: "us-east-1", BaseEndpoint: &r.stub, Credentials: credentials.NewStaticCredentialsProvider("x", "x", "")}
	r.Deployment = &Deployment{API: client, Triggers: NewTriggers(own, rigPrefix), Poll: 10 * time.Millisecond}
	r.post("/providers", `{"id":"prov1","protocol":"s3","host":"bucket1","globalConnectionLimit":10}`)
	r.post("/collections", `{"name":"MOD09GQ","version":"006","granuleId":"^G.*$","granuleIdExtraction":"(G.*)","sampleFileName":"G1.hdf","files":[{"bucket":"private","regex":"^.*$","sampleFileName":"G1.hdf"}]}`)
	r.queue("ingest", `{"RedrivePolicy":"{}","VisibilityTimeout":"30"}`)
	for _, q := range workQueues {
		r.queue(rigPrefix+"-"+q, `{}`)
	}
	return r
}

// in is the rig for a subtest.
func (r *rig) in(t *testing.T) *rig {
	c := *r
	c.t = t
	return &c
}

// command is a script of test/cumulus.
func (r *rig) command(script string, env ...string) *exec.Cmd {
	r.t.Helper()
	scripts, err := filepath.Abs(filepath.Join("..", "..", "test", "cumulus"))
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.CommandContext(r.t.Context(), "node", filepath.Join(scripts, script))
	cmd.Dir = os.Getenv("PILEUS_CUMULUS")
	cmd.Env = append(os.Environ(), append([]string{"PG_HOST=127.0.0.1", fmt.Sprintf("PG_PORT=%d", r.server.Port), "PG_USER=postgres", "PG_PASSWORD=x",
		"PG_DATABASE=cumulus", "DISABLE_PG_SSL=true", "AWS_ENDPOINT_URL=" + r.stub, "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x",
		"NODE_NO_WARNINGS=1"}, env...)...)
	return cmd
}

// node starts a script that runs beside the test, and returns the line that says that it is ready.
func (r *rig) node(script, ready string, env ...string) string {
	r.t.Helper()
	cmd := r.command(script, env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	var rest sync.WaitGroup
	r.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		rest.Wait()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if line := lines.Text(); strings.Contains(line, ready) {
			rest.Go(func() { _, _ = io.Copy(io.Discard, out) }) // ends with the process
			return line
		}
	}
	r.t.Fatalf("%s ended before it was ready", script)
	return ""
}

func (r *rig) request(method, url string, header map[string]string, body string) []byte {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		r.t.Fatalf("%s %s: %d %s %v", method, url, resp.StatusCode, text, err)
	}
	return text
}

func (r *rig) post(path, body string) {
	r.t.Helper()
	r.request(http.MethodPost, r.api+path, map[string]string{"Authorization": "Bearer " + r.token, "Content-Type": "application/json", "Cumulus-API-Version": "2"}, body)
}

func (r *rig) queue(name, attributes string) {
	r.t.Helper()
	r.request(http.MethodPost, r.stub, map[string]string{"X-Amz-Target": "AmazonSQS.CreateQueue", "Content-Type": "application/x-amz-json-1.0"},
		fmt.Sprintf(`{"QueueName":%q,"Attributes":%s}`, name, attributes))
}

// rule makes one, with a trigger such as {"type":"onetime"}.
func (r *rig) rule(name, state, trigger string) {
	r.t.Helper()
	r.post("/rules", fmt.Sprintf(`{"name":%q,"state":%q,"workflow":"HelloWorldWorkflow","provider":"prov1","collection":{"name":"MOD09GQ","version":"006"},"rule":%s}`, name, state, trigger))
}

// fiveTypes makes enabled rules of each type, with streams and topics that are shared and that are not, and disabled ones.
func (r *rig) fiveTypes() {
	r.t.Helper()
	r.rule("once", Enabled, `{"type":"onetime"}`)
	r.rule("hourly", Enabled, `{"type":"scheduled","value":"rate(1 hour)"}`)
	r.rule("stream1", Enabled, `{"type":"kinesis","value":"`+stream+`shared"}`)
	r.rule("stream2", Enabled, `{"type":"kinesis","value":"`+stream+`shared"}`)
	r.rule("stream3", Enabled, `{"type":"kinesis","value":"`+stream+`alone"}`)
	r.rule("stream4", Disabled, `{"type":"kinesis","value":"`+stream+`off"}`)
	r.rule("topic1", Enabled, `{"type":"sns","value":"`+topic+`shared"}`)
	r.rule("topic2", Enabled, `{"type":"sns","value":"`+topic+`shared"}`)
	r.rule("topic3", Enabled, `{"type":"sns","value":"`+topic+`alone"}`)
	r.rule("topic4", Disabled, `{"type":"sns","value":"`+topic+`off"}`)
	r.rule("queue", Enabled, `{"type":"sqs","value":"`+r.stub+`/123456789012/ingest"}`)
	r.rule("daily", Disabled, `{"type":"scheduled","value":"rate(1 day)"}`)
}

// aws is what the stand-in has: mappings with their state, subscriptions, schedules with their targets, permissions.
func (r *rig) aws() string {
	r.t.Helper()
	var st struct {
		ESM     map[string]struct{ UUID, FunctionName, EventSourceArn, State string }
		Subs    map[string]struct{ TopicArn, Endpoint string }
		Rules   map[string]struct{ Name, State, ScheduleExpression string }
		Targets map[string][]struct{ Arn string }
		Policy  map[string]struct{ SourceArn string }
	}
	if err := json.Unmarshal(r.request(http.MethodGet, r.stub+"/_stub/state", nil, ""), &st); err != nil {
		r.t.Fatal(err)
	}
	var lines []string
	for _, m := range st.ESM {
		lines = append(lines, fmt.Sprintf("mapping %s %s %s %s", m.UUID, m.FunctionName, m.EventSourceArn, m.State))
	}
	for _, s := range st.Subs {
		lines = append(lines, fmt.Sprintf("subscription %s %s", s.TopicArn, s.Endpoint))
	}
	for _, x := range st.Rules {
		lines = append(lines, fmt.Sprintf("schedule %s %s %s", x.Name, x.ScheduleExpression, x.State))
	}
	for name, targets := range st.Targets {
		for _, x := range targets {
			lines = append(lines, fmt.Sprintf("target %s %s", name, x.Arn))
		}
	}
	for name, p := range st.Policy {
		lines = append(lines, fmt.Sprintf("permission %s %s", name, p.SourceArn))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// deny makes the next call of an operation of AWS fail.
func (r *rig) deny(op string) {
	r.t.Helper()
	r.request(http.MethodPost, r.stub+"/_stub/fail?op="+op, nil, "")
}

// settle forgets denials that nothing met.
func (r *rig) settle() {
	r.t.Helper()
	r.request(http.MethodPost, r.stub+"/_stub/allow", nil, "")
}

// forget makes the stand-in forget its calls.
func (r *rig) forget() {
	r.t.Helper()
	r.request(http.MethodPost, r.stub+"/_stub/reset", nil, "")
}

// called counts the calls of an operation that the stand-in got.
func (r *rig) called(op string) int {
	r.t.Helper()
	var calls []struct{ Op string }
	if err := json.Unmarshal(r.request(http.MethodGet, r.stub+"/_stub/calls", nil, ""), &calls); err != nil {
		r.t.Fatal(err)
	}
	n := 0
	for _, c := range calls {
		if c.Op == op {
			n++
		}
	}
	return n
}

func (r *rig) connect() *pgx.Conn {
	r.t.Helper()
	conn, err := pgx.Connect(r.t.Context(), r.server.TCP("postgres", "cumulus"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close(r.t.Context()) }) // the server ends after it
	return conn
}
