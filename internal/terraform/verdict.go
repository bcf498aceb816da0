package terraform

import (
	"cmp"
	"slices"
	"strings"
	"unicode"
)

// Level is how bad a change is.
type Level string

// The levels, from harmless to worst.
const (
	Expected   Level = "expected"   // loses nothing
	Allowed    Level = "allowed"    // not expected, but its address was allowed
	Unexpected Level = "unexpected" // to be looked at; can be allowed
	Refused    Level = "refused"    // could lose the database; cannot be allowed
)

// blocks tells whether a plan with such a change is unsafe.
func (l Level) blocks() bool { return l == Unexpected || l == Refused }

func (l Level) rank() int {
	return slices.Index([]Level{Refused, Unexpected, Allowed, Expected}, l)
}

// WholePlan stands in [Verdict.Address] for what concerns no single resource.
const WholePlan = "(plan)"

// Verdict is what the guard thinks of one change.
type Verdict struct {
	// Address is the resource instance's address, or [WholePlan]. A deposed object
	// has its instance's address.
	Address string `json:"address"`
	// Action is create, read, update, delete, replace, forget, move, import, no-op or,
	// for what happened outside Terraform, drift.
	Action string `json:"action"`
	Level  Level  `json:"level"`
	// Attributes are those that cause the action or the level, with their values where
	// these may be shown.
	Attributes []string `json:"attributes"`
	// Reason says what is wrong with it, or why it is expected. One sentence.
	Reason string `json:"reason"`
	// Do says what to do about it; empty if nothing.
	Do string `json:"do,omitempty"`
	// Notes are worth knowing, and not wrong.
	Notes []string `json:"notes,omitempty"`
}

// Report is the verdict on a plan.
type Report struct {
	// Safe: the plan may be applied. No verdict is unexpected or refused.
	Safe bool `json:"safe"`
	// TerraformVersion made the plan.
	TerraformVersion string `json:"terraform_version"`
	// Verdicts, the worst first, then by address.
	Verdicts []Verdict `json:"verdicts"`
	// Unchanged counts the resources that nothing happens to, and Read the data
	// sources that are only read.
	Unchanged int `json:"unchanged"`
	Read      int `json:"read"`
	// UnusedAllowances were given, and apply to no unexpected change.
	UnusedAllowances []string `json:"unused_allowances,omitempty"`
}

// Count is the number of verdicts of a level.
func (r *Report) Count(l Level) int {
	n := 0
	for _, v := range r.Verdicts {
		if v.Level == l {
			n++
		}
	}
	return n
}

// settle applies the allowances, sorts the verdicts and decides.
func (r *Report) settle(allow []string) {
	used := map[string]bool{}
	r.Safe = true
	for i := range r.Verdicts {
		v := &r.Verdicts[i]
		for _, a := range allow {
			if (v.Level == Unexpected || v.Level == Allowed) && covers(a, v.Address) {
				v.Level, v.Do, used[a] = Allowed, "", true
			}
		}
		r.Safe = r.Safe && !v.Level.blocks()
	}
	for _, a := range allow {
		if !used[a] && !slices.Contains(r.UnusedAllowances, a) {
			r.UnusedAllowances = append(r.UnusedAllowances, a)
		}
	}
	slices.SortStableFunc(r.Verdicts, func(a, b Verdict) int {
		return cmp.Or(cmp.Compare(a.Level.rank(), b.Level.rank()), cmp.Compare(a.Address, b.Address))
	})
}

// covers tells whether an allowance names the instance at address: exactly, or, as
// `terraform plan -target` has it, all instances of its resource.
func covers(allowance, address string) bool {
	if address == WholePlan {
		return false
	}
	return allowance == address || allowance == resourceOf(address)
}

// resourceOf is an address without the key of its last part: a.b for a.b[0], and
// module.m["x"].a.b for module.m["x"].a.b["y"].
func resourceOf(address string) string {
	if !strings.HasSuffix(address, "]") {
		return address
	}
	inString, open := false, -1
	for i := 0; i < len(address); i++ {
		switch c := address[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case !inString && c == '[':
			open = i
		}
	}
	if open < 0 {
		return address
	}
	return address[:open]
}

// printable keeps what a plan names from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}
