package cumulus

import (
	"encoding/json"
	"strings"
	"testing"
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
	for _, op := range []string{"DeleteEventSourceMapping"} {
		if n := r.called(op); n > 0 {
			r.t.Errorf("%s: %d times %s, each of which loses a position in a stream", when, n, op)
		}
	}
}

// What a recovery does to rules: halted, rolled back to rows that are older than the halt, disabled there, resumed.
func TestCumulusRulesOverARollback(t *testing.T) {
	r := newRig(t)
	r.fiveTypes()
	before := r.aws()
	conn := r.connect()
	if _, err := conn.Exec(t.Context(), "CREATE TABLE restored AS SELECT * FROM rules"); err != nil {
		t.Fatal(err)
	}
	kept := r.halt()
	loud, err := r.Quiet(t.Context(), kept)
	if err != nil || len(loud) > 0 {
		t.Errorf("halted: %v %q", err, loud)
	}
	// The rows of before the halt come back.
	if _, err := conn.Exec(t.Context(), "DELETE FROM rules; INSERT INTO rules SELECT * FROM restored"); err != nil {
		t.Fatal(err)
	}
	if n, err := DisableRules(t.Context(), conn); err != nil || n == 0 {
		t.Fatalf("%d rules disabled: %v", n, err)
	}
	if n, err := EnableKinesis(t.Context(), conn, kept); err != nil || n != 3 {
		t.Fatalf("%d kinesis rules enabled, want 3: %v", n, err)
	}
	if n, err := EnableKinesis(t.Context(), conn, kept); err != nil || n != 0 {
		t.Errorf("done twice it changes %d: %v", n, err)
	}
	if humans := r.resume(kept); len(humans) > 0 {
		t.Errorf("resumed: %q", humans)
	}
	r.same("recovered", kept, before)
}
