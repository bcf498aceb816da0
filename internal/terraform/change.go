package terraform

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	tfjson "github.com/hashicorp/terraform-json"
)

// change is one planned change, with what the rules ask of it.
type change struct {
	*tfjson.ResourceChange
	kind          kind
	before, after map[string]any // nil if there is no such object
}

func newChange(c *tfjson.ResourceChange) *change {
	before, _ := c.Change.Before.(map[string]any)
	after, _ := c.Change.After.(map[string]any)
	return &change{ResourceChange: c, kind: kindOf(c.Type), before: before, after: after}
}

func (c *change) does(a tfjson.Action) bool { return slices.Contains(c.Change.Actions, a) }

// destroys: an object that exists ceases to, or is left behind for a new one.
func (c *change) destroys() bool {
	return c.does(tfjson.ActionDelete) || c.does(tfjson.ActionForget) && c.does(tfjson.ActionCreate)
}

// understood tells whether all that happens is something this program knows of.
func (c *change) understood() bool {
	known := []tfjson.Action{tfjson.ActionNoop, tfjson.ActionCreate, tfjson.ActionRead, tfjson.ActionUpdate, tfjson.ActionDelete, tfjson.ActionForget}
	for _, a := range c.Change.Actions {
		if !slices.Contains(known, a) {
			return false
		}
	}
	return true
}

// action is the word for what happens.
func (c *change) action() string {
	actions := c.Change.Actions
	switch {
	case !c.understood():
		words := make([]string, len(actions))
		for i, a := range actions {
			words[i] = printable(string(a))
		}
		return strings.Join(words, "+")
	case c.does(tfjson.ActionCreate) && c.destroys():
		return "replace"
	case c.does(tfjson.ActionDelete):
		return "delete"
	case len(actions) == 1 && actions.NoOp() && c.moved():
		return "move"
	case len(actions) == 1 && actions.NoOp() && c.Change.Importing != nil:
		return "import"
	}
	return string(actions[len(actions)-1])
}

func (c *change) moved() bool { return c.PreviousAddress != "" && c.PreviousAddress != c.Address }

// attribute is what the plan says of a top-level attribute.
type attribute struct {
	name          string
	before, after any
	unknown       bool // at least a part of it is known only after apply
	sensitive     bool
	show          bool // values may be reported
}

func (c *change) attribute(name string) attribute {
	return attribute{
		name:      name,
		before:    c.before[name],
		after:     c.after[name],
		unknown:   marked(c.Change.AfterUnknown, name),
		sensitive: marked(c.Change.BeforeSensitive, name) || marked(c.Change.AfterSensitive, name),
		show:      c.kind.holdsData() && shown(name),
	}
}

// marked reads Terraform's "deep object of booleans": true stands for all below it.
func marked(marks any, name string) bool {
	if object, ok := marks.(map[string]any); ok {
		return anyTrue(object[name])
	}
	return anyTrue(marks)
}

func anyTrue(marks any) bool {
	switch m := marks.(type) {
	case bool:
		return m
	case map[string]any:
		for _, v := range m {
			if anyTrue(v) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(m, anyTrue)
	}
	return false
}

// empty: providers write "not set" in all of these ways, and change from one to the
// other between versions.
func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case bool:
		return !v
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// changes tells whether the attribute changes, or may.
func (a attribute) changes() bool {
	if a.unknown {
		return true
	}
	if empty(a.before) && empty(a.after) {
		return false
	}
	return !reflect.DeepEqual(a.before, a.after)
}

// String is the attribute with its values, where these may be shown.
func (a attribute) String() string {
	name := printable(a.name)
	switch {
	case a.sensitive:
		return name + " (sensitive)"
	case !a.show:
		return name
	case a.unknown:
		return fmt.Sprintf("%s: %s → known after apply", name, display(a.before))
	}
	return fmt.Sprintf("%s: %s → %s", name, display(a.before), display(a.after))
}

// display shows plain values; what is nested may hold anything.
func display(v any) string {
	switch v := v.(type) {
	case nil:
		return "none"
	case string:
		if v == "" {
			return `""`
		}
		return printable(v)
	case []any, map[string]any:
		return "…"
	}
	return printable(fmt.Sprint(v))
}

// changing lists the attributes that change, sorted.
func (c *change) changing() []string {
	var names []string
	for _, object := range []any{c.before, c.after, c.Change.AfterUnknown} {
		m, _ := object.(map[string]any)
		for name := range m {
			if !slices.Contains(names, name) && c.attribute(name).changes() {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// causes lists what Terraform says forces the replacement.
func (c *change) causes() []string {
	var found []string
	for _, p := range c.Change.ReplacePaths {
		steps, ok := p.([]any)
		if !ok || len(steps) == 0 {
			continue
		}
		text := ""
		if name, ok := steps[0].(string); ok && len(steps) == 1 {
			text = c.attribute(name).String()
		} else {
			text = path(steps)
		}
		if !slices.Contains(found, text) {
			found = append(found, text)
		}
	}
	return found
}

// path writes an attribute path as HCL does. Only positions and the names of a block's
// arguments are written: what else a path has are keys of maps and elements of sets, which
// are values.
func path(steps []any) string {
	var b strings.Builder
	afterName := false
	for i, s := range steps {
		name, isName := s.(string)
		number, isNumber := s.(json.Number)
		switch {
		case isName && i == 0:
			b.WriteString(printable(name))
		case isName && !afterName:
			b.WriteString("." + printable(name))
		case isNumber:
			b.WriteString("[" + number.String() + "]")
		default:
			b.WriteString("[…]")
		}
		afterName = isName
	}
	return b.String()
}

// describe lists the given attributes with their values.
func (c *change) describe(names []string) []string {
	found := make([]string, len(names))
	for i, name := range names {
		found[i] = c.attribute(name).String()
	}
	return found
}
