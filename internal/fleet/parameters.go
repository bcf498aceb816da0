package fleet

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"pileus/internal/dbserver"
	"pileus/internal/postgres"
)

// parameters asks the installed servers which settings they have, once for each version.
type parameters struct {
	owner *postgres.Owner

	mu    sync.Mutex
	known map[int][]Parameter // by VersionNum
}

// of lists the settings of one installation, by name.
func (p *parameters) of(ctx context.Context, bin postgres.Binaries) ([]Parameter, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known, ok := p.known[bin.VersionNum]; ok {
		return known, nil
	}
	// --describe-config needs no data directory, and prints a line for each setting:
	// name, context, group, type, default, minimum, maximum, descriptions.
	cmd := exec.CommandContext(ctx, bin.Path("postgres"), "--describe-config")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.owner.Credential()} // postgres refuses root
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("ask PostgreSQL %s for its settings: %w", bin.Version, err)
	}
	known := parseParameters(out)
	if len(known) == 0 {
		return nil, fmt.Errorf("ask PostgreSQL %s for its settings: it names none", bin.Version)
	}
	p.known[bin.VersionNum] = known
	return known, nil
}

// parseParameters reads what `postgres --describe-config` prints.
func parseParameters(out []byte) []Parameter {
	var list []Parameter
	for line := range bytes.Lines(out) {
		c := strings.Split(strings.TrimRight(string(line), "\n"), "\t")
		if len(c) < 8 {
			continue
		}
		p := Parameter{Name: strings.ToLower(c[0]), Static: c[1] == "postmaster", DataType: dataTypes[c[3]], Description: c[7],
			Modifiable: c[1] != "internal" && !dbserver.Ours(strings.ToLower(c[0]))}
		if p.DataType == "" {
			p.DataType = "string"
		}
		switch p.DataType {
		case "boolean":
			p.Allowed = "0,1"
		case "integer", "float":
			p.Allowed = c[5] + "-" + c[6]
			p.low, p.high = c[5], c[6]
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Parameter) int { return strings.Compare(a.Name, b.Name) })
	return list
}

var dataTypes = map[string]string{"BOOLEAN": "boolean", "INTEGER": "integer", "REAL": "float", "STRING": "string", "ENUM": "string"}

var booleans = []string{"0", "1", "on", "off", "true", "false", "yes", "no"}

// check refuses a value that the server would not take: with it, it would not start. Values with
// a unit are left to the server, which is asked before a restart.
func (p Parameter) check(value string) error {
	wrong := func() error {
		return fault(CodeInvalidParameter, "Invalid parameter value: %s for: %s allowed values are: %s", value, p.Name, p.Allowed)
	}
	if strings.ContainsAny(value, "\n\r\x00") || len(value) > 8000 {
		return fault(CodeInvalidParameter, "Invalid parameter value for %s: it must be one line.", p.Name)
	}
	switch p.DataType {
	case "boolean":
		if !slices.Contains(booleans, strings.ToLower(value)) {
			return wrong()
		}
	case "integer", "float":
		n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		low, lerr := strconv.ParseFloat(p.low, 64)
		high, herr := strconv.ParseFloat(p.high, 64)
		if err != nil && !unit(value) || err == nil && lerr == nil && herr == nil && (n < low || n > high) {
			return wrong()
		}
	}
	return nil
}

// unit tells whether a value is a number with one of PostgreSQL's units.
func unit(value string) bool {
	number := strings.TrimRight(value, "abcdefghijklmnopqrstuvwxyzGMTB ")
	_, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	return err == nil && slices.Contains([]string{"B", "kB", "MB", "GB", "TB", "us", "ms", "s", "min", "h", "d"}, strings.TrimSpace(value[len(number):]))
}
