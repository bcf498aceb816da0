package recovery

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	htmltemplate "html/template"
	"os"
	"path/filepath"
	"strings"
	texttemplate "text/template"
	"time"
)

// Report tells what a run did, for people.
type Report struct {
	Run       Run       `json:"run"`
	Steps     []StepRow `json:"steps"`
	Source    source    `json:"source"`
	Restored  Restored  `json:"restored"`
	Validated Validated `json:"validated"`
	Compared  Compared  `json:"compared"`
	// RTO is from the beginning of the run to the end of cut-over; RPO is what was committed on the source behind the
	// target and is not in the new cluster. Negative: not known.
	RTO       time.Duration `json:"rto_nanoseconds"`
	RPO       time.Duration `json:"rpo_nanoseconds"`
	Approvals []Entry       `json:"approvals"`
	Notes     []Entry       `json:"notes"`
	ByHand    []string      `json:"by_hand"`
	Written   time.Time     `json:"written"`
}

// StepRow is one step of a Report.
type StepRow struct {
	Step   Step          `json:"step"`
	State  string        `json:"state"`
	Began  time.Time     `json:"began"`
	Took   time.Duration `json:"took_nanoseconds"`
	Result string        `json:"result"`
}

//go:embed report.md.tmpl
var reportMarkdown string

//go:embed report.html.tmpl
var reportHTML string

// Tell gathers what the journal says of a run.
func Tell(run Run, entries []Entry) Report {
	r := Report{Run: run, RTO: -1, RPO: -1, Written: time.Now().UTC()}
	w := &work{run: run, entries: entries}
	w.recall(KindFound, "source", &r.Source)
	began := map[Step]time.Time{}
	rows := map[Step]*StepRow{}
	for _, e := range entries {
		switch e.Kind {
		case KindBegin:
			if _, ok := began[e.Step]; !ok {
				began[e.Step] = e.At
				rows[e.Step] = &StepRow{Step: e.Step, State: "begun", Began: e.At}
			}
		case KindDone, KindFailed, KindUndone:
			row := rows[e.Step]
			if row == nil {
				continue
			}
			row.State, row.Took, row.Result = string(e.Kind), e.At.Sub(row.Began), e.Text
			if e.Kind == KindDone {
				r.result(e)
			}
			if e.Kind == KindDone && e.Step == StepCutover {
				r.RTO = e.At.Sub(run.Created)
			}
		case KindApprove:
			r.Approvals = append(r.Approvals, e)
		case KindNote:
			r.Notes = append(r.Notes, e)
		}
	}
	for _, s := range Steps {
		if row := rows[s]; row != nil {
			r.Steps = append(r.Steps, *row)
		}
	}
	r.lost(w)
	r.byHand()
	return r
}

// result takes over what a step left in the journal.
func (r *Report) result(e Entry) {
	var into any
	switch e.Step {
	case StepRestore:
		into = &r.Restored
	case StepCompare:
		into = &r.Compared
	case StepValidate:
		into = &r.Validated
	default:
		return
	}
	_ = json.Unmarshal(e.Data, into) // the report tells less of an entry of another version
}

// lost measures what lies between the target and the last commit.
func (r *Report) lost(w *work) {
	switch {
	case r.Run.Target.Latest && r.Source.Reachable:
		r.RPO = 0
	case !r.Run.Target.Time.IsZero():
		var mark time.Time
		if !w.recall(KindFound, "mark", &mark) {
			mark = r.Source.Latest
		}
		if !mark.IsZero() {
			r.RPO = max(0, mark.Sub(r.Run.Target.Time))
		}
	}
}

func (r *Report) byHand() {
	if r.Run.Status == Aborted {
		return
	}
	if r.Source.Reachable {
		r.ByHand = append(r.ByHand, fmt.Sprintf("%s still runs, fenced. When nobody needs it any more: take a final snapshot and delete it. To open it again: pileus unfence %s", r.Run.Cluster, r.Run.Cluster))
	}
	for _, n := range r.Notes {
		if n.Step == StepResume {
			r.ByHand = append(r.ByHand, n.Text)
		}
	}
}

var reportWords = map[string]any{
	"stamp": func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return t.UTC().Format(time.RFC3339)
	},
	"took": func(d time.Duration) string {
		if d < 0 {
			return "not known"
		}
		return d.Round(time.Millisecond).String()
	},
	"cell": func(s string) string { return strings.ReplaceAll(strings.ReplaceAll(s, "|", "\\|"), "\n", " ") },
}

// Markdown renders the report.
func (r Report) Markdown() (string, error) {
	t, err := texttemplate.New("report").Funcs(reportWords).Parse(reportMarkdown)
	if err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, r); err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	return b.String(), nil
}

// HTML renders the report as a page of its own.
func (r Report) HTML() (string, error) {
	t, err := htmltemplate.New("report").Funcs(reportWords).Parse(reportHTML)
	if err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, r); err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	return b.String(), nil
}

type reporting struct{}

// Written is where the report is.
type Written struct {
	Markdown string `json:"markdown"`
	HTML     string `json:"html"`
}

func (w Written) String() string { return w.Markdown }

func (reporting) done(context.Context, *work) (bool, error) { return true, nil }
func (reporting) undo(context.Context, *work) error         { return nil }

func (reporting) do(_ context.Context, w *work) (any, error) {
	return w.write(Tell(w.run, w.entries))
}

// write renders a report into the state folder.
func (w *work) write(r Report) (Written, error) {
	dir := filepath.Join(w.o.Config.StateDir, "runs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Written{}, fmt.Errorf("write the report: %w", err)
	}
	out := Written{Markdown: filepath.Join(dir, w.run.ID+".md"), HTML: filepath.Join(dir, w.run.ID+".html")}
	for path, render := range map[string]func() (string, error){out.Markdown: r.Markdown, out.HTML: r.HTML} {
		text, err := render()
		if err != nil {
			return out, err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return out, fmt.Errorf("write the report: %w", err)
		}
	}
	return out, nil
}
