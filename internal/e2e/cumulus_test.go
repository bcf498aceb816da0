package e2e

import (
	"bufio"
	"bytes"
	"context"
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

	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/jackc/pgx/v5"

	"pileus/internal/pgtest"
	"pileus/internal/recovery"
)

// archive is a real Cumulus: its schema on a managed cluster, its archive API, and a stand-in for AWS.
type archive struct {
	*plane
	modules string // the folder that has node_modules
	scripts string
	stub    string // URL
	api     string
	token   string
	serving *exec.Cmd // the API
	port    int
	cluster types.DBCluster
}

const appPassword = "cumulus-app-23"

// newArchive brings it up with rules of all five types, on streams and topics that are shared and that are not.
func newArchive(t *testing.T) *archive {
	t.Helper()
	a := &archive{plane: newPlane(t), modules: os.Getenv("PILEUS_CUMULUS")}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	a.scripts = filepath.Join(wd, "..", "..", "test", "cumulus")
	a.cluster = a.create("cumulus")
	admin := a.sql(a.cluster)
	for _, sql := range []string{"CREATE ROLE app LOGIN PASSWORD '" + appPassword + "'", "GRANT ALL ON DATABASE cumulus TO app", "GRANT ALL ON SCHEMA public TO app"} {
		a.exec(admin, sql)
	}
	stubPort := pgtest.FreePort(t)
	a.stub = fmt.Sprintf("http://127.0.0.1:%d", stubPort)
	a.node("aws-stub.js", []string{fmt.Sprintf("PORT=%d", stubPort)}, "aws-stub on")
	if out, err := a.command("migrate.js", a.database(a.cluster)).CombinedOutput(); err != nil {
		t.Fatalf("migrate: %v\n%s", err, out)
	}
	a.port = pgtest.FreePort(t)
	a.api = fmt.Sprintf("http://127.0.0.1:%d", a.port)
	a.serveAPI(a.cluster)

	a.post("/providers", `{"id":"prov1","protocol":"s3","host":"bucket1","globalConnectionLimit":10}`)
	a.post("/collections", `{"name":"MOD09GQ","version":"006","granuleId":"^G.*$","granuleIdExtraction":"(G.*)","sampleFileName":"G1.hdf","files":[{"bucket":"private","regex":"^.*$","sampleFileName":"G1.hdf"}]}`)
	a.aws("AmazonSQS.CreateQueue", `{"QueueName":"ingest","Attributes":{"RedrivePolicy":"{}","VisibilityTimeout":"30"}}`)
	for _, q := range []string{"startSF", "backgroundProcessing", "sfEventSqsToDbRecordsInputQueue"} {
		a.aws("AmazonSQS.CreateQueue", `{"QueueName":"localrun-`+q+`"}`)
	}
	for name, trigger := range map[string]string{
		"once":    `{"type":"onetime"}`,
		"hourly":  `{"type":"scheduled","value":"rate(1 hour)"}`,
		"stream1": `{"type":"kinesis","value":"arn:aws:kinesis:us-east-1:123456789012:stream/shared"}`,
		"stream2": `{"type":"kinesis","value":"arn:aws:kinesis:us-east-1:123456789012:stream/shared"}`,
		"stream3": `{"type":"kinesis","value":"arn:aws:kinesis:us-east-1:123456789012:stream/alone"}`,
		"topic1":  `{"type":"sns","value":"arn:aws:sns:us-east-1:123456789012:shared"}`,
		"topic2":  `{"type":"sns","value":"arn:aws:sns:us-east-1:123456789012:shared"}`,
		"topic3":  `{"type":"sns","value":"arn:aws:sns:us-east-1:123456789012:alone"}`,
		"queue":   fmt.Sprintf(`{"type":"sqs","value":"%s/123456789012/ingest"}`, a.stub),
	} {
		a.post("/rules", fmt.Sprintf(`{"name":%q,"state":"ENABLED","workflow":"HelloWorldWorkflow","provider":"prov1","collection":{"name":"MOD09GQ","version":"006"},"rule":%s}`, name, trigger))
	}
	a.post("/rules", `{"name":"off","state":"DISABLED","workflow":"HelloWorldWorkflow","provider":"prov1","collection":{"name":"MOD09GQ","version":"006"},"rule":{"type":"scheduled","value":"rate(1 day)"}}`)
	return a
}

func (a *archive) database(c types.DBCluster) []string {
	return []string{"PG_HOST=" + *c.Endpoint, fmt.Sprintf("PG_PORT=%d", *c.Port), "PG_USER=app", "PG_PASSWORD=" + appPassword, "PG_DATABASE=cumulus",
		"DISABLE_PG_SSL=false", "REJECT_UNAUTHORIZED=false", "AWS_ENDPOINT_URL=" + a.stub, "NODE_NO_WARNINGS=1"}
}

// command is a script of test/cumulus.
func (a *archive) command(script string, env []string) *exec.Cmd {
	cmd := exec.CommandContext(a.t.Context(), "node", filepath.Join(a.scripts, script))
	cmd.Dir = a.modules
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + a.dir, "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x", "AWS_REGION=us-east-1"}, env...)
	return cmd
}

// node starts a script that runs beside the test, and returns the line that says that it is ready.
func (a *archive) node(script string, env []string, ready string) (*exec.Cmd, string) {
	a.t.Helper()
	cmd := a.command(script, env)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		a.t.Fatal(err)
	}
	var errs syncBuffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if strings.Contains(lines.Text(), ready) {
			line := lines.Text()
			var rest sync.WaitGroup
			rest.Go(func() { _, _ = io.Copy(io.Discard, out) }) // ends with the process
			a.t.Cleanup(func() {
				_ = cmd.Process.Kill() // it may have ended
				rest.Wait()
				_ = cmd.Wait()
			})
			return cmd, line
		}
	}
	a.t.Fatalf("%s ended before it was ready:\n%s", script, errs.String())
	return nil, ""
}

// serveAPI starts the archive API on a cluster, in place of the one before.
func (a *archive) serveAPI(c types.DBCluster) {
	a.t.Helper()
	if a.serving != nil {
		if err := a.serving.Process.Kill(); err != nil {
			a.t.Fatal(err)
		}
		at := fmt.Sprintf("http://127.0.0.1:%d", a.port)
		pgtest.WaitFor(a.t, "the API to end", func() bool {
			resp, err := http.Get(at)
			if err == nil {
				resp.Body.Close()
			}
			return err != nil
		})
	}
	var line string
	a.serving, line = a.node("serve-api.js", append(a.database(c), fmt.Sprintf("PORT=%d", a.port)), `"ready"`)
	var ready struct{ Token string }
	if err := json.Unmarshal([]byte(line), &ready); err != nil {
		a.t.Fatal(err)
	}
	a.token = ready.Token
	a.write("token", a.token+"\n")
}

func (a *archive) request(method, url string, header map[string]string, body string) (int, []byte) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return resp.StatusCode, text
}

func (a *archive) call(method, path, body string) (int, []byte) {
	a.t.Helper()
	return a.request(method, a.api+path, map[string]string{"Authorization": "Bearer " + a.token, "Content-Type": "application/json", "Cumulus-API-Version": "2"}, body)
}

func (a *archive) post(path, body string) {
	a.t.Helper()
	if status, text := a.call(http.MethodPost, path, body); status != http.StatusOK {
		a.t.Fatalf("POST %s: %d %s", path, status, text)
	}
}

func (a *archive) aws(target, body string) {
	a.t.Helper()
	if status, text := a.request(http.MethodPost, a.stub, map[string]string{"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.0"}, body); status != http.StatusOK {
		a.t.Fatalf("%s: %d %s", target, status, text)
	}
}

// rules are all rules as the API tells them, without what changes by itself.
func (a *archive) rules() map[string]map[string]any {
	a.t.Helper()
	status, text := a.call(http.MethodGet, "/rules?limit=100", "")
	var list struct{ Results []map[string]any }
	if err := json.Unmarshal(text, &list); err != nil || status != http.StatusOK {
		a.t.Fatalf("%d %s %v", status, text, err)
	}
	out := map[string]map[string]any{}
	for _, r := range list.Results {
		for _, key := range []string{"createdAt", "updatedAt"} {
			delete(r, key)
		}
		if trigger, ok := r["rule"].(map[string]any); ok && trigger["type"] == "sns" {
			delete(trigger, "arn") // a subscription's is another one each time
		}
		out[r["name"].(string)] = r
	}
	return out
}

// triggers is what AWS has: mappings with their state, subscriptions, schedules.
func (a *archive) triggers() string {
	a.t.Helper()
	_, text := a.request(http.MethodGet, a.stub+"/_stub/state", nil, "")
	var st struct {
		ESM   map[string]struct{ UUID, FunctionName, EventSourceArn, State string }
		Subs  map[string]struct{ TopicArn, Endpoint string }
		Rules map[string]struct{ Name, State, ScheduleExpression string }
	}
	if err := json.Unmarshal(text, &st); err != nil {
		a.t.Fatal(err)
	}
	var lines []string
	for _, m := range st.ESM {
		lines = append(lines, fmt.Sprintf("mapping %s %s %s %s", m.UUID, m.FunctionName, m.EventSourceArn, m.State))
	}
	for _, s := range st.Subs {
		lines = append(lines, fmt.Sprintf("subscription %s %s", s.TopicArn, s.Endpoint))
	}
	for _, r := range st.Rules {
		lines = append(lines, fmt.Sprintf("schedule %s %s %s", r.Name, r.ScheduleExpression, r.State))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// called counts the calls of an operation that AWS got.
func (a *archive) called(op string) int {
	a.t.Helper()
	_, text := a.request(http.MethodGet, a.stub+"/_stub/calls", nil, "")
	var calls []struct{ Op string }
	if err := json.Unmarshal(text, &calls); err != nil {
		a.t.Fatal(err)
	}
	n := 0
	for _, c := range calls {
		if c.Op == op {
			n++
		}
	}
	return n
}

// ingest drives the real record writer.
func (a *archive) ingest(n int, c types.DBCluster) {
	a.t.Helper()
	out, err := a.command("write-load.js", append(a.database(c), fmt.Sprintf("N=%d", n), "FILES=2", "DeadLetterQueue="+a.stub+"/123456789012/localrun-sfEventSqsToDbRecordsDeadLetterQueue")).CombinedOutput()
	var told struct{ BatchItemFailures, DeadLettered int }
	if err == nil {
		err = json.Unmarshal(bytes.TrimSpace(out), &told)
	}
	if err != nil || told.BatchItemFailures+told.DeadLettered > 0 {
		a.t.Fatalf("ingest: %v\n%s", err, out)
	}
}

func (a *archive) app(c types.DBCluster) (*pgx.Conn, error) {
	return pgx.Connect(a.t.Context(), fmt.Sprintf("host=%s port=%d user=app password=%s dbname=cumulus sslmode=require", *c.Endpoint, *c.Port, appPassword))
}

func (a *archive) asApp(c types.DBCluster, sql string) string {
	a.t.Helper()
	conn, err := a.app(c)
	if err != nil {
		a.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	return a.ask(conn, sql)
}

func (a *archive) configure() {
	a.t.Helper()
	a.write("master.password", masterPassword+"\n")
	a.write("app.password", appPassword+"\n")
	a.write("operator2.secret", operatorSecret+"\n")
	head, rest, _ := strings.Cut(a.configText(), "\nrecovery:\n")
	_, rest, _ = strings.Cut(rest, "\ndefaults:\n")
	a.write("pileus.yaml", head+fmt.Sprintf(`
recovery:
  endpoint: http://%s
  access_key: %s
  secret_file: operator2.secret
  database: cumulus
  administrator: {user: boss, password_file: master.password}
  application: {user: app, password_file: app.password}
  drain_timeout: 2s
  cumulus: {api: "%s", token_file: token, prefix: localrun}
  expect:
    collections: {sql: SELECT count(*) FROM collections, least: 1}
  cutover: {method: secret, secret: db-login}
defaults:
`, a.at, operatorKey, a.api)+rest)
	secret := fmt.Sprintf(`{"host":"old","port":%d,"username":"app"}`, *a.cluster.Port)
	a.aws("secretsmanager.CreateSecret", fmt.Sprintf(`{"Name":"db-login","SecretString":%q}`, secret))
	a.env = append(a.env, "AWS_ENDPOINT_URL="+a.stub, "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x", "AWS_REGION=us-east-1")
}

// A deployment of the real Cumulus is recovered to before a mass delete, while its record writer works.
func TestRecoverCumulus(t *testing.T) {
	if os.Getenv("PILEUS_CUMULUS") == "" {
		t.Skip("NOTE: the recovery of a Cumulus was NOT tested. `make test-cumulus` tests it.")
	}
	a := newArchive(t)
	a.configure()
	a.ingest(20, a.cluster)
	rules, triggers := a.rules(), a.triggers()
	if len(rules) != 10 || !strings.Contains(triggers, "Enabled") {
		t.Fatalf("%d rules\n%s", len(rules), triggers)
	}
	var before time.Time
	conn, err := a.app(a.cluster)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.QueryRow(t.Context(), "SELECT clock_timestamp()").Scan(&before); err != nil {
		t.Fatal(err)
	}
	granules := a.ask(conn, "SELECT count(*)::text FROM granules")
	a.exec(conn, "DELETE FROM granules")
	conn.Close(t.Context())
	a.ingest(10, a.cluster) // goes on, and is what the recovery gives up
	a.restorable("cumulus", before)

	// Aborted after the halt everything is triggered as before.
	at := before.Format(time.RFC3339Nano)
	_, stderr, code := a.try("recover", "cumulus", "--as", "cumulus-2", "--to", at, "--yes", "--pause-after", "fence")
	if code != 7 || !strings.Contains(stderr, "paused after fence") {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	if halted := a.triggers(); strings.Contains(halted, " Enabled") || strings.Contains(halted, "subscription") || strings.Contains(halted, "ENABLED") {
		t.Errorf("halted, AWS still has\n%s", halted)
	}
	var runs []recovery.Run
	a.runJSON(&runs, "run", "list")
	// The API needs the database to resume rules, so the fence goes first, as abort does.
	a.run("run", "abort", runs[0].ID)
	a.same("aborted", rules, triggers)

	// A rule that is edited while ingest is halted is left to a person; the others come back.
	if _, _, code := a.try("recover", "cumulus", "--as", "cumulus-2", "--to", at, "--yes", "--pause-after", "halt"); code != 7 {
		t.Fatalf("paused after halt: exit %d", code)
	}
	if status, text := a.call(http.MethodPatch, "/rules/hourly", `{"name":"hourly","rule":{"value":"rate(2 hours)"}}`); status != http.StatusOK {
		t.Fatalf("edit a rule: %d %s", status, text)
	}
	a.runJSON(&runs, "run", "list")
	out, _, code := a.try("run", "abort", runs[0].ID)
	if code != 0 {
		t.Errorf("exit %d %s", code, out)
	}
	if shown := a.run("run", "show", runs[0].ID); !strings.Contains(shown, "rule hourly was scheduled of rate(1 hour)") {
		t.Errorf("nobody is told of the edited rule:\n%s", shown)
	}
	for _, body := range []string{`{"name":"hourly","rule":{"value":"rate(1 hour)"}}`, `{"name":"hourly","state":"ENABLED"}`} {
		if status, text := a.call(http.MethodPatch, "/rules/hourly", body); status != http.StatusOK {
			t.Fatalf("mend the rule: %d %s", status, text)
		}
	}
	a.same("mended", rules, triggers)

	// A stuck execution stops the drain, until an operator decides.
	arn := "arn:aws:states:us-east-1:123456789012:execution:localrun-IngestGranule:stuck"
	a.request(http.MethodPost, a.stub+"/_stub/execution?status=RUNNING&arn="+arn, nil, "")
	_, stderr, code = a.try("recover", "cumulus", "--as", "cumulus-2", "--to", at, "--yes", "--stop-before", "resume")
	if code != 7 || !strings.Contains(stderr, "1 Step Functions executions") {
		t.Fatalf("a stuck execution: exit %d\n%s", code, stderr)
	}
	a.runJSON(&runs, "run", "list")
	_, stderr, code = a.try("run", "resume", runs[0].ID, "--approve", "drain", "--stop-before", "resume")
	if code != 7 || !strings.Contains(stderr, "stopped before resume") {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	// Nobody can write to the old cluster, no rule is live on the new one, and every commit up to the target is there.
	if conn, err := a.app(a.cluster); err == nil {
		conn.Close(t.Context())
		t.Error("the application gets at the old cluster")
	}
	restored := a.plane.cluster("cumulus-2")
	if got := a.asApp(restored, "SELECT count(*)::text FROM rules WHERE enabled"); got != "0" {
		t.Errorf("%s rules are live before resume", got)
	}
	if got := a.asApp(restored, "SELECT count(*)::text FROM granules"); got != granules {
		t.Errorf("%s granules, want %s", got, granules)
	}
	_, state := a.request(http.MethodGet, a.stub+"/_stub/state", nil, "")
	var st struct{ Secrets map[string]string }
	if err := json.Unmarshal(state, &st); err != nil || st.Secrets["db-login"] != fmt.Sprintf(`{"host":%q,"port":%d,"username":"app"}`, *restored.Endpoint, *restored.Port) {
		t.Errorf("the secret is %s, %v", st.Secrets["db-login"], err)
	}
	a.serveAPI(restored) // which is how its clients are sent there
	out = a.run("run", "resume", runs[0].ID)
	a.same("recovered", rules, triggers)
	for _, op := range []string{"DeleteEventSourceMapping"} {
		if n := a.called(op); n != 0 {
			t.Errorf("%d times %s: a position in a stream was lost", n, op)
		}
	}
	if n := a.called("CreateEventSourceMapping"); n != 4 {
		t.Errorf("%d event-source mappings were created, want the 4 of the beginning", n)
	}
	if report := a.run("run", "report", runs[0].ID); !strings.Contains(report, "foreign keys") || !strings.Contains(report, "although work was left") || !strings.Contains(out, "recovered") {
		t.Errorf("%s\n%s", out, report)
	}
	a.ingest(5, restored) // and work goes on there
}

// same compares rules and triggers with what there was.
func (a *archive) same(when string, rules map[string]map[string]any, triggers string) {
	a.t.Helper()
	if got := a.triggers(); got != triggers {
		a.t.Errorf("%s, AWS has\n%s\nand had\n%s", when, got, triggers)
	}
	now := a.rules()
	for name, was := range rules {
		x, _ := json.Marshal(was)       // maps of JSON
		y, _ := json.Marshal(now[name]) // are JSON
		if string(x) != string(y) {
			a.t.Errorf("%s, rule %s is\n%s\nand was\n%s", when, name, y, x)
		}
	}
}
