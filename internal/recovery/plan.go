package recovery

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Step names one step of the runbook.
type Step string

// The steps, in order.
const (
	StepPreflight Step = "preflight"
	StepHalt      Step = "halt"
	StepDrain     Step = "drain"
	StepFence     Step = "fence"
	StepWAL       Step = "wal"
	StepRestore   Step = "restore"
	StepCompare   Step = "compare"
	StepValidate  Step = "validate"
	StepCutover   Step = "cutover"
	StepResume    Step = "resume"
	StepReport    Step = "report"
)

// Steps are all of them, in order.
var Steps = []Step{StepPreflight, StepHalt, StepDrain, StepFence, StepWAL, StepRestore, StepCompare, StepValidate, StepCutover, StepResume, StepReport}

// ParseStep reads a step's name.
func ParseStep(name string) (Step, error) {
	if s := Step(name); slices.Contains(Steps, s) {
		return s, nil
	}
	var names []string
	for _, s := range Steps {
		names = append(names, string(s))
	}
	return "", fmt.Errorf("there is no step %q; there are %s", name, strings.Join(names, ", "))
}

// Target is where to recover to; exactly one of its ways is set.
type Target struct {
	Time     time.Time `json:"time,omitzero"`
	Latest   bool      `json:"latest,omitempty"`
	Snapshot string    `json:"snapshot,omitempty"` // of the cluster, identifier or ARN
	// XID and LSN are what RDS has no word for; `pileus serve` alone has. Exclusive: stop just before.
	XID       string `json:"xid,omitempty"`
	LSN       string `json:"lsn,omitempty"`
	Exclusive bool   `json:"exclusive,omitempty"`
}

// String says it in a person's words.
func (t Target) String() string {
	before := ""
	if t.Exclusive {
		before = "just before "
	}
	switch {
	case t.Latest:
		return "the latest moment there is"
	case t.Snapshot != "":
		return "snapshot " + t.Snapshot
	case t.XID != "":
		return before + "transaction " + t.XID
	case t.LSN != "":
		return before + "LSN " + t.LSN
	}
	return t.Time.UTC().Format(time.RFC3339Nano)
}

// Check refuses a target that is none, or two.
func (t Target) Check() error {
	n := 0
	for _, set := range []bool{!t.Time.IsZero(), t.Latest, t.Snapshot != "", t.XID != "", t.LSN != ""} {
		if set {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("give exactly one of --to, --latest, --snapshot, --to-xid and --to-lsn")
	}
	if t.Exclusive && t.XID == "" && t.LSN == "" {
		return fmt.Errorf("--exclusive goes with --to-xid or --to-lsn; a time stands for the last commit up to it")
	}
	return nil
}

// Choices are what an operator decides when a run begins.
type Choices struct {
	StopBefore Step `json:"stop_before,omitempty"`
	PauseAfter Step `json:"pause_after,omitempty"`
	// Approved are questions that are answered beforehand: the names of steps.
	Approved []Step `json:"approved,omitempty"`
	// Only is the one step that is done, by itself; empty: all are.
	Only Step `json:"only,omitempty"`
	// DrainTimeout is used instead of the configured one unless it is 0.
	DrainTimeout time.Duration `json:"drain_timeout_nanoseconds,omitempty"`
}
