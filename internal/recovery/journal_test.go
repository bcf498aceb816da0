package recovery

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func openTestJournal(t *testing.T) *Journal {
	t.Helper()
	j, err := OpenJournal(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// A journal grows, without gaps, and nothing in it changes.
func TestJournal(t *testing.T) {
	j := openTestJournal(t)
	r := Run{ID: newRunID(time.Now()), Cluster: "prod", New: "prod-2", Status: Running, Created: time.Now().UTC()}
	if _, err := j.Append(t.Context(), Entry{Run: r.ID, Kind: KindBegin}); err == nil {
		t.Error("an entry of a run that is not there was taken")
	}
	if err := j.Save(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		e, err := j.Append(t.Context(), Entry{Run: r.ID, Step: StepFence, Kind: KindFound, Key: "access", Data: []byte(`{"a":1}`)})
		if err != nil || e.Seq != i+1 {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	for _, sql := range []string{"UPDATE entry SET text = 'x'", "DELETE FROM entry"} {
		if _, err := j.db.ExecContext(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	r.Status = Done
	if err := j.Save(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{r.ID, r.ID[:12], r.ID[len(r.ID)-6:]} {
		if got, err := j.Run(t.Context(), id); err != nil || got.Status != Done {
			t.Errorf("%s: %+v, %v", id, got, err)
		}
	}
	for _, id := range []string{"", "x", "20"} {
		if _, err := j.Run(t.Context(), id); !errors.Is(err, ErrNoRun) {
			t.Errorf("%q: %v", id, err)
		}
	}
	entries, err := j.Entries(t.Context(), r.ID)
	if err != nil || len(entries) != 5 || string(entries[4].Data) != `{"a":1}` {
		t.Errorf("%+v, %v", entries, err)
	}
}

// What was found before a change is kept once: what is there later may be the change.
func TestFoundIsKeptOnce(t *testing.T) {
	j := openTestJournal(t)
	w := &work{Runbook: &Runbook{o: Options{Journal: j}}, run: Run{ID: "r"}, step: StepFence}
	if err := j.Save(t.Context(), w.run); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		var got int
		if err := w.found(t.Context(), "access", "", &got, func() error { got = i + 7; return nil }); err != nil || got != 7 {
			t.Errorf("look %d: %d, %v", i, got, err)
		}
	}
	failed := errors.New("away")
	var other int
	if err := w.found(t.Context(), "other", "", &other, func() error { return failed }); !errors.Is(err, failed) {
		t.Errorf("%v", err)
	}
	if w.recall(KindFound, "other", &other) {
		t.Error("what could not be looked at is in the journal")
	}
	for range 2 {
		if err := w.did(t.Context(), "part", "", "x"); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.entries) != 2 {
		t.Errorf("%d entries, want one found and one did", len(w.entries))
	}
}

func TestTargets(t *testing.T) {
	now := time.Now()
	for _, bad := range []Target{{}, {Time: now, Latest: true}, {Snapshot: "s", XID: "7"}, {Time: now, Exclusive: true}, {Latest: true, Exclusive: true}} {
		if err := bad.Check(); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	for _, good := range []Target{{Time: now}, {Latest: true}, {Snapshot: "s"}, {XID: "7", Exclusive: true}, {LSN: "0/1"}} {
		if err := good.Check(); err != nil || good.String() == "" {
			t.Errorf("%+v: %v", good, err)
		}
	}
	if _, err := ParseStep("fense"); err == nil || !strings.Contains(err.Error(), "fence") {
		t.Errorf("%v", err)
	}
}

// A report renders whatever state its run is in.
func TestReport(t *testing.T) {
	r := Run{ID: "20260308T001502Z-4f2a91", Cluster: "prod", New: "prod-2", Target: Target{Latest: true}, Created: time.Now(), By: "<script>"}
	for _, entries := range [][]Entry{
		nil,
		{{Step: StepPreflight, Kind: KindBegin, At: time.Now()}, {Step: StepPreflight, Kind: KindFailed, Text: "a | b\nc <script>"}},
		{{Step: StepRestore, Kind: KindDone, Data: []byte(`"not what it was"`)}, {Step: StepResume, Kind: KindNote, Text: "a rule needs you"}},
	} {
		told := Tell(r, entries)
		md, err := told.Markdown()
		if err != nil || !strings.Contains(md, "prod-2") {
			t.Errorf("%v\n%s", err, md)
		}
		html, err := told.HTML()
		if err != nil || strings.Contains(html, "<script>") {
			t.Errorf("%v\n%s", err, html)
		}
	}
}
