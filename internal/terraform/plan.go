package terraform

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	tfjson "github.com/hashicorp/terraform-json"
)

// maxPlanSize is the largest plan that is read, in bytes. Decoded it takes several times
// as much memory. Plans of large installations have tens of megabytes.
const maxPlanSize = 256 << 20

// UnreadableError says that something is no plan that can be judged. Its text says
// what it is instead, if that can be told, and what to do.
type UnreadableError struct{ Err error }

func (u *UnreadableError) Error() string { return u.Err.Error() }

func (u *UnreadableError) Unwrap() error { return u.Err }

func unreadable(format string, args ...any) error {
	return &UnreadableError{fmt.Errorf(format, args...)}
}

// Plan is a plan that has been read and can be judged with [Check].
type Plan struct {
	tf      *tfjson.Plan
	errored bool
	config  configuration
}

// envelope is what tells a plan from other documents, and what the library does not read.
type envelope struct {
	FormatVersion string          `json:"format_version"`
	Errored       bool            `json:"errored"`
	PlannedValues json.RawMessage `json:"planned_values"`
	Configuration json.RawMessage `json:"configuration"`
	Changes       json.RawMessage `json:"resource_changes"`
	// What other documents have.
	Values     json.RawMessage `json:"values"`              // `show -json` of a state
	Lineage    string          `json:"lineage"`             // a state file
	Level      string          `json:"@level"`              // a line of `plan -json`
	Redacted   string          `json:"plan_format_version"` // HCP Terraform's redacted form
	Diagnostic json.RawMessage `json:"diagnostics"`         // `validate -json`
}

// Decode reads the output of `terraform show -json PLAN`. Every error is an
// [UnreadableError].
func Decode(b []byte) (*Plan, error) {
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, unreadable("there is no plan: the input is empty; did `terraform show -json PLAN` fail?")
	}
	if bytes.HasPrefix(b, []byte("\xff\xfe")) || bytes.HasPrefix(b, []byte("\xfe\xff")) {
		return nil, unreadable("the plan is UTF-16, as Windows PowerShell's > writes it: write it as UTF-8, or pipe it to `pileus plan check -`")
	}
	var e envelope
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&e); err != nil {
		return nil, unreadable("this is neither a saved plan nor the JSON of one: %w", plain(err))
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	tf := &tfjson.Plan{}
	tf.UseJSONNumber(true) // so that numbers are compared by their digits
	if err := json.Unmarshal(b, tf); err != nil {
		return nil, unreadable("the plan cannot be understood: %w", plain(err))
	}
	p := &Plan{tf: tf, errored: e.Errored, config: configuration{plan: tf}}
	return p, p.checkShape()
}

// plain drops from a JSON error what it quotes of the document: that may be a secret.
func plain(err error) error {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return fmt.Errorf("a value of the wrong type at byte %d, in %s", kind.Offset, kind.Field)
	}
	return err
}

// check refuses other documents that would pass for a plan without changes.
func (e *envelope) check() error {
	switch {
	case e.Level != "":
		return unreadable("this is the log of `terraform plan -json`, not a plan: save one with `terraform plan -out PLAN` and give that, or the output of `terraform show -json PLAN`")
	case e.Lineage != "", e.FormatVersion != "" && e.Values != nil:
		return unreadable("this is a state, not a plan: save a plan with `terraform plan -out PLAN` and give that")
	case e.Redacted != "":
		return unreadable("this is a redacted plan, which leaves out what has to be looked at: give the output of `terraform show -json PLAN`")
	case e.FormatVersion == "":
		return unreadable("this JSON is not a plan: it has no format_version; give a saved plan or the output of `terraform show -json PLAN`")
	case e.PlannedValues == nil && e.Configuration == nil && e.Changes == nil:
		return unreadable("this JSON is not a plan: it has neither planned values nor changes; give a saved plan or the output of `terraform show -json PLAN`")
	}
	return nil
}

// checkShape refuses a plan with changes that do not say what they change.
func (p *Plan) checkShape() error {
	all := append(p.tf.ResourceChanges[:len(p.tf.ResourceChanges):len(p.tf.ResourceChanges)], p.tf.ResourceDrift...)
	for i, d := range p.tf.DeferredChanges {
		if d == nil {
			return unreadable("the plan cannot be understood: deferred change %d is null", i)
		}
		all = append(all, d.ResourceChange)
	}
	for i, c := range all {
		switch {
		case c == nil || c.Change == nil:
			return unreadable("the plan cannot be understood: change %d of %d says nothing", i+1, len(all))
		case c.Address == "" || c.Type == "":
			return unreadable("the plan cannot be understood: change %d of %d has no address or no type", i+1, len(all))
		case len(c.Change.Actions) == 0:
			return unreadable("the plan cannot be understood: it does not say what happens to %s", printable(c.Address))
		}
	}
	return nil
}
