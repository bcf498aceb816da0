package cumulus

import (
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"
)

// halt records the rules, halts them, and has the records go through JSON as they do in a journal.
func (r *rig) halt() []Record {
	r.t.Helper()
	recorded, err := r.Record(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	text, err := json.Marshal(recorded)
	if err != nil {
		r.t.Fatal(err)
	}
	var kept []Record
	if err := json.Unmarshal(text, &kept); err != nil {
		r.t.Fatal(err)
	}
	for _, x := range kept {
		if err := r.Halt(r.t.Context(), x); err != nil {
			r.t.Fatal(err)
		}
	}
	return kept
}

func (r *rig) try(what string, err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("%s: %v", what, err)
	}
}

// quiet fails the test if something still triggers work.
func (r *rig) quiet(kept []Record) {
	r.t.Helper()
	loud, err := r.Quiet(r.t.Context(), kept)
	if err != nil || len(loud) > 0 {
		r.t.Fatalf("halted: %v\n%s", err, strings.Join(loud, "\n"))
	}
}

func (r *rig) resume(kept []Record) (humans []string) {
	r.t.Helper()
	for _, x := range kept {
		human, err := r.Resume(r.t.Context(), x)
		if err != nil {
			r.t.Fatal(err)
		}
		if human != "" {
			humans = append(humans, human)
		}
	}
	return humans
}

// same fails the test unless rules and triggers are as recorded, by our comparison and in the stand-in itself.
func (r *rig) same(when string, kept []Record, before string) {
	r.t.Helper()
	differ, err := r.Differences(r.t.Context(), kept)
	if err != nil || len(differ) > 0 {
		r.t.Errorf("%s: %v\n%s", when, err, strings.Join(differ, "\n"))
	}
	if now := r.aws(); now != before {
		r.t.Errorf("%s, AWS has\n%s\nand had\n%s", when, now, before)
	}
	for _, op := range []string{"DeleteEventSourceMapping", "CreateEventSourceMapping"} {
		if n := r.called(op); n > 0 {
			r.t.Errorf("%s: %d times %s, each of which loses a position in a stream", when, n, op)
		}
	}
}

// One real Cumulus for all: bringing it up takes longer than using it.
func TestCumulus(t *testing.T) {
	r := newRig(t)
	r.fiveTypes()
	for _, test := range []struct {
		name string
		run  func(*rig)
	}{
		{"idle", idle}, {"rollback", rollback}, {"interrupted", interrupted}, {"denied", denied}, {"humans", humans}, {"database", database}, {"away", away},
	} {
		if !t.Run(test.name, func(t *testing.T) {
			r := r.in(t)
			r.forget()
			test.run(r)
		}) {
			return // the next would find rules as this one left them
		}
	}
}

// rollback is what a recovery does to rules: halted, rolled back to rows of before the halt, disabled there, resumed.
func rollback(r *rig) {
	ctx, before := r.t.Context(), r.aws()
	conn := r.connect()
	if _, err := conn.Exec(ctx, "CREATE TABLE restored AS SELECT * FROM rules"); err != nil {
		r.t.Fatal(err)
	}
	kept := r.halt()
	r.quiet(kept)
	if _, err := conn.Exec(ctx, "DELETE FROM rules; INSERT INTO rules SELECT * FROM restored; DROP TABLE restored"); err != nil {
		r.t.Fatal(err)
	}
	for _, want := range []int64{9, 0} { // the second time nothing is left to do
		if n, err := DisableRules(ctx, conn); err != nil || n != want {
			r.t.Fatalf("%d rules disabled, want %d: %v", n, want, err)
		}
	}
	for _, want := range []int64{3, 0} {
		if n, err := EnableKinesis(ctx, conn, kept); err != nil || n != want {
			r.t.Fatalf("%d kinesis rules enabled, want %d: %v", n, want, err)
		}
	}
	for range 2 {
		if humans := r.resume(kept); len(humans) > 0 {
			r.t.Errorf("resumed: %q", humans)
		}
		r.same("recovered", kept, before)
	}
}

// interrupted halts are taken up again, or taken back, after each rule.
func interrupted(r *rig) {
	before := r.aws()
	kept, err := r.Record(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for n := range kept {
		for _, x := range kept[:n+1] {
			r.try("halt", r.Halt(r.t.Context(), x))
		}
		if humans := r.resume(kept); len(humans) > 0 {
			r.t.Fatalf("after %d rules: %q", n+1, humans)
		}
		r.same("taken back", kept, before)
	}
	for n := range kept { // each time it begins again from the first
		for _, x := range kept[:n+1] {
			r.try("halt", r.Halt(r.t.Context(), x))
		}
	}
	r.quiet(kept)
	if humans := r.resume(kept); len(humans) > 0 {
		r.t.Errorf("%q", humans)
	}
	r.same("resumed", kept, before)
}

// denied is AWS failing once in each call that halting and resuming need, between the row and the trigger too. What comes
// of it is an error or nothing; doing it again puts it right.
func denied(r *rig) {
	ctx, before := r.t.Context(), r.aws()
	for _, op := range []string{"UpdateEventSourceMapping", "RemovePermission", "Unsubscribe", "PutRule", "PutTargets", "ListEventSourceMappings", "GetPolicy"} {
		kept, err := r.Record(ctx)
		if err != nil {
			r.t.Fatal(err)
		}
		r.deny(op)
		failed := 0
		for _, x := range kept {
			if err := r.Halt(ctx, x); err != nil {
				failed++
				r.try("halt again after "+op+" was denied: "+err.Error(), r.Halt(ctx, x))
			}
		}
		r.t.Logf("%s: %d errors", op, failed)
		r.settle()
		r.quiet(kept)
		if humans := r.resume(kept); len(humans) > 0 {
			r.t.Errorf("%s: %q", op, humans)
		}
		r.same(op+" was denied once while halting", kept, before)
	}
	for _, op := range []string{"UpdateEventSourceMapping", "Subscribe", "AddPermission", "PutRule", "PutTargets"} {
		kept := r.halt()
		r.deny(op)
		for _, x := range kept {
			if _, err := r.Resume(ctx, x); err != nil {
				_, err2 := r.Resume(ctx, x)
				r.try("resume again after "+op+" was denied: "+err.Error(), err2)
			}
		}
		r.same(op+" was denied once while resuming", kept, before)
	}
}

// humans are told what only they can put right.
func humans(r *rig) {
	ctx := r.t.Context()
	kept := r.halt()
	conn := r.connect()
	for _, sql := range []string{
		"DELETE FROM rules WHERE name = 'once'", "UPDATE rules SET value = 'rate(2 hours)' WHERE name = 'hourly'",
		"UPDATE rules SET value = value || 'x' WHERE name = 'queue'", "UPDATE rules SET enabled = false WHERE name = 'stream3'",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			r.t.Fatal(err)
		}
	}
	for i, x := range kept {
		if x.Rule.Name == "stream1" {
			kept[i].Mappings = append(kept[i].Mappings, Mapping{UUID: "00000000-0000-0000-0000-000000000000", Function: "f", Stream: "s", Enabled: true})
		}
		if x.Rule.Name == "queue" {
			kept[i].Rule.Rule.Value += "x"
		}
	}
	told := strings.Join(r.resume(kept), "\n")
	for _, want := range []string{"rule once is not in the database", "rule hourly was scheduled of rate(1 hour)", "its queue " + r.stub + "/123456789012/ingestx is missing",
		"rule stream3 is disabled in the database", "rule stream1 has lost the event-source mapping 00000000"} {
		if !strings.Contains(told, want) {
			r.t.Errorf("%q is not in\n%s", want, told)
		}
	}
	differ, err := r.Differences(ctx, kept)
	if err != nil || len(differ) < 4 {
		r.t.Errorf("%v %q", err, differ)
	}
	if n := r.called("DeleteEventSourceMapping") + r.called("CreateEventSourceMapping"); n > 0 {
		r.t.Errorf("%d mappings were deleted or created", n)
	}
}

// idle counts what is under way by all that may tell.
func idle(r *rig) {
	ctx := r.t.Context()
	count := func() map[string]int {
		r.t.Helper()
		all, err := r.Busy(ctx)
		if err != nil {
			r.t.Fatal(err)
		}
		out := map[string]int{}
		for _, w := range all {
			if w.Count > 0 {
				out[w.What] = w.Count
			}
		}
		return out
	}
	if got := count(); len(got) > 0 {
		r.t.Errorf("idle, and busy with %v", got)
	}
	out, err := r.command("write-load.js", "N=12", "FILES=1", "LEAVE_RUNNING=3", "DeadLetterQueue="+r.stub+"/123456789012/dead").CombinedOutput()
	if err != nil {
		r.t.Fatalf("%v\n%s", err, out)
	}
	r.request(http.MethodPost, r.stub+"/_stub/execution?status=RUNNING&arn=arn:aws:states:us-east-1:123456789012:execution:localrun-IngestGranule:stuck", nil, "")
	r.queue(rigPrefix+"-startSF", `{"ApproximateNumberOfMessages":"2","ApproximateNumberOfMessagesNotVisible":"5"}`)
	r.queue("custom", `{"ApproximateNumberOfMessagesNotVisible":"1"}`)
	r.Queues = []string{"custom"}
	want := map[string]int{"Step Functions executions": 1, "messages in startSF": 7, "messages in custom": 1, "running executions": 3, "running granules": 3}
	if got := count(); !maps.Equal(got, want) {
		r.t.Errorf("busy with %v, want %v", got, want)
	}
	r.Queues = []string{"misspelt"}
	if _, err := r.Busy(ctx); err == nil {
		r.t.Error("a queue that does not exist is taken for empty")
	}
	r.Queues = nil
	other := *r.Triggers
	other.prefix = "another"
	if _, err := (&Deployment{API: r.API, Triggers: &other}).Busy(ctx); err == nil {
		r.t.Error("a deployment that does not exist is taken for idle")
	}
}

// database inspects the schema that the package's own migrations made.
func database(r *rig) {
	conn := r.connect()
	found, err := Inspect(r.t.Context(), conn, time.Now())
	if err != nil || len(found) < 8 {
		r.t.Fatalf("%v %v", found, err)
	}
	for _, f := range found {
		if !f.OK {
			r.t.Errorf("%s: expected %s, found %s", f.Name, f.Expected, f.Found)
		}
	}
	counts, err := Count(r.t.Context(), conn)
	if err != nil || counts["granules"] != 12 || counts["files"] != 9 || counts["collections"] != 1 {
		r.t.Errorf("%v %v", counts, err)
	}
}

// away is the real API without its database: it answers 200, and nothing of it is believed. The last, for the server does not come back.
func away(r *rig) {
	kept, err := r.Record(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	r.server.Stop()
	if rules, err := r.Record(r.t.Context()); err == nil {
		r.t.Errorf("%d rules are believed", len(rules))
	}
	if work, err := r.Busy(r.t.Context()); err == nil {
		r.t.Errorf("%v is believed", work)
	}
	for _, x := range kept {
		if x.Rule.Name != "topic1" {
			continue
		}
		if err := r.Halt(r.t.Context(), x); err == nil {
			r.t.Error("a rule is taken for halted")
		}
	}
}
