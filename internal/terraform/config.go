package terraform

import (
	"strings"

	tfjson "github.com/hashicorp/terraform-json"
)

// configuration answers what the plan's configuration says where its changes do not.
type configuration struct {
	plan *tfjson.Plan
}

// resource finds the block of a resource, and the module calls that lead to it, outermost first.
// The block is nil if the plan's configuration does not have it.
func (c configuration) resource(moduleAddress string, mode tfjson.ResourceMode, resourceType, name string) (*tfjson.ConfigResource, []*tfjson.ModuleCall) {
	if c.plan.Config == nil {
		return nil, nil
	}
	module := c.plan.Config.RootModule
	var calls []*tfjson.ModuleCall
	for _, step := range moduleNames(moduleAddress) {
		if module == nil || module.ModuleCalls[step] == nil {
			return nil, nil
		}
		calls = append(calls, module.ModuleCalls[step])
		module = module.ModuleCalls[step].Module
	}
	if module == nil {
		return nil, nil
	}
	for _, r := range module.Resources {
		if r != nil && r.Type == resourceType && r.Name == name && r.Mode == mode {
			return r, calls
		}
	}
	return nil, nil
}

// moduleNames is ["a", "b"] for module.a["x"].module.b[0].
func moduleNames(address string) []string {
	var names []string
	for rest := address; rest != ""; {
		rest = strings.TrimPrefix(strings.TrimPrefix(rest, "."), "module.")
		end := strings.IndexAny(rest, ".[")
		if end < 0 {
			return append(names, rest)
		}
		names = append(names, rest[:end])
		rest = rest[end:]
		if rest[0] == '[' {
			rest = rest[keyLength(rest):]
		}
	}
	return names
}

// keyLength is the length of the instance key that s begins with.
func keyLength(s string) int {
	inString := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case c == ']' && !inString:
			return i + 1
		}
	}
	return len(s)
}

// value is what the configuration sets an argument to, if that is a constant or a variable
// handed down unchanged. Terraform tells which variables an expression refers to, not what it
// does with them; so a variable counts only if it is the only reference and has the name of the
// argument, at every level.
func (c configuration) value(moduleAddress string, mode tfjson.ResourceMode, resourceType, name, argument string) (value any, known bool) {
	r, calls := c.resource(moduleAddress, mode, resourceType, name)
	if r == nil {
		return nil, false
	}
	return c.evaluate(r.Expressions[argument], argument, calls)
}

// evaluate follows an expression through the module calls to the root's variables.
func (c configuration) evaluate(e *tfjson.Expression, argument string, calls []*tfjson.ModuleCall) (any, bool) {
	if e == nil || e.ExpressionData == nil {
		return nil, true // not set
	}
	if e.ConstantValue != nil && e.ConstantValue != tfjson.UnknownConstantValue {
		return e.ConstantValue, true
	}
	if len(e.NestedBlocks) > 0 {
		return nil, false
	}
	if len(e.References) != 1 { // none: null, or the call of a function, which look the same
		return nil, false
	}
	variable, ok := strings.CutPrefix(e.References[0], "var.")
	if !ok || !sameName(variable, argument) {
		return nil, false
	}
	return c.variable(variable, argument, calls)
}

// variable is the value of a variable of the module that calls lead to.
func (c configuration) variable(name, argument string, calls []*tfjson.ModuleCall) (any, bool) {
	if len(calls) == 0 {
		v := c.plan.Variables[name]
		if v != nil {
			return v.Value, true
		}
		if c.plan.Config == nil || c.plan.Config.RootModule == nil || c.plan.Config.RootModule.Variables[name] == nil {
			return nil, false
		}
		return c.plan.Config.RootModule.Variables[name].Default, true
	}
	last := calls[len(calls)-1]
	if given := last.Expressions[name]; given != nil {
		return c.evaluate(given, argument, calls[:len(calls)-1])
	}
	if last.Module == nil || last.Module.Variables[name] == nil {
		return nil, false
	}
	return last.Module.Variables[name].Default, true
}

// sameName compares names as snake_case and camelCase write them.
func sameName(a, b string) bool {
	fold := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "")) }
	return fold(a) == fold(b)
}
