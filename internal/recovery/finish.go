package recovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"pileus/internal/config"
	"pileus/internal/cumulus"
)

// Checked is one expectation and what there was.
type Checked struct {
	Name     string `json:"name"`
	Expected string `json:"expected"`
	Found    string `json:"found"`
	OK       bool   `json:"ok"`
}

// Validated is the table of expected and found.
type Validated struct {
	Rows     []Checked `json:"rows"`
	Approved bool      `json:"approved,omitempty"`
}

func (v Validated) String() string {
	bad := v.failed()
	if len(bad) == 0 {
		return fmt.Sprintf("%d of %d as expected", len(v.Rows), len(v.Rows))
	}
	return fmt.Sprintf("%d of %d not as expected", len(bad), len(v.Rows))
}

func (v Validated) failed() []string {
	var out []string
	for _, r := range v.Rows {
		if !r.OK {
			out = append(out, fmt.Sprintf("%s: expected %s, found %s", r.Name, r.Expected, r.Found))
		}
	}
	return out
}

type validating struct{}

func (validating) done(context.Context, *work) (bool, error) { return true, nil }
func (validating) undo(context.Context, *work) error         { return nil }

func (validating) do(ctx context.Context, w *work) (any, error) {
	var at Place
	if !w.recall(KindDid, "endpoint", &at) {
		return nil, errors.New("the journal does not say where the new cluster is")
	}
	v, err := w.env.validate(ctx, at, w.run.Target.Time)
	if err != nil {
		return nil, err
	}
	if err := w.sinceDrill(ctx, at, &v); err != nil {
		return nil, err
	}
	if bad := v.failed(); len(bad) > 0 {
		if err := w.did(ctx, "validated", v.String(), v); err != nil {
			return nil, err
		}
		if err := w.approve("the recovered data is not as expected", bad...); err != nil {
			return nil, err
		}
		v.Approved = true
	}
	return v, nil
}

// sinceDrill compares how many rows there are with what the last drill that succeeded found: a cluster that lost more
// than half of a table since is looked at by a person.
func (w *work) sinceDrill(ctx context.Context, at Place, v *Validated) error {
	if w.env.cumulus == nil {
		return nil
	}
	drills, err := w.o.Journal.Drills(ctx, w.run.Cluster)
	if err != nil {
		return err
	}
	for _, d := range drills {
		if !d.OK || d.Counts == nil {
			continue
		}
		now, err := w.env.countRows(ctx, at)
		if err != nil {
			return err
		}
		for _, t := range slices.Sorted(maps.Keys(d.Counts)) {
			v.Rows = append(v.Rows, Checked{Name: "rows of " + t, Expected: fmt.Sprintf("%d or more, half of what the drill of %s found", d.Counts[t]/2, d.At.Format(time.DateOnly)),
				Found: fmt.Sprint(now[t]), OK: now[t] >= d.Counts[t]/2})
		}
		return nil
	}
	return nil
}

// validate asks a cluster for everything that is expected of it.
func (e *environment) validate(ctx context.Context, at Place, target time.Time) (Validated, error) {
	conn, err := e.asApplication(ctx, at)
	if err != nil {
		return Validated{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var v Validated
	var tables int
	err = conn.QueryRow(ctx, "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_'").Scan(&tables)
	if err != nil {
		return v, fmt.Errorf("look at the tables of %s: %w", e.c.Database, err)
	}
	v.Rows = append(v.Rows, Checked{"tables", "1 or more", strconv.Itoa(tables), tables > 0})
	if e.cumulus != nil {
		found, err := cumulus.Inspect(ctx, conn, target)
		if err != nil {
			return v, err
		}
		for _, f := range found {
			v.Rows = append(v.Rows, Checked(f))
		}
	}
	for _, x := range e.c.Expect {
		v.Rows = append(v.Rows, ask(ctx, conn, x))
	}
	return v, nil
}

// ask compares one value. A query that fails has not found what was expected.
func ask(ctx context.Context, conn *pgx.Conn, x config.Expectation) Checked {
	c := Checked{Name: x.Name, Expected: expected(x)}
	var found *string
	// The value as text, whatever its type.
	err := conn.QueryRow(ctx, "SELECT (SELECT (x.v)::text FROM ("+strings.TrimRight(x.SQL, "; \t")+") AS x(v))").Scan(&found)
	switch {
	case err != nil:
		c.Found = "an error: " + err.Error()
	case found == nil:
		c.Found = "nothing"
	default:
		c.Found = *found
		c.OK = meets(x, *found)
	}
	return c
}

func expected(x config.Expectation) string {
	switch {
	case x.Equals != nil:
		return *x.Equals
	case x.Least != nil && x.Most != nil:
		return fmt.Sprintf("%g to %g", *x.Least, *x.Most)
	case x.Least != nil:
		return fmt.Sprintf("%g or more", *x.Least)
	}
	return fmt.Sprintf("%g or less", *x.Most)
}

func meets(x config.Expectation, found string) bool {
	if x.Equals != nil {
		return found == *x.Equals
	}
	v, err := strconv.ParseFloat(found, 64)
	return err == nil && (x.Least == nil || v >= *x.Least) && (x.Most == nil || v <= *x.Most)
}

type cutover struct{}

// Handed is how clients were sent to the new cluster.
type Handed struct {
	Method string   `json:"method"`
	At     Place    `json:"at"`
	Ran    []string `json:"ran,omitempty"`
	Secret *Secret  `json:"secret,omitempty"`
}

func (h Handed) String() string {
	switch h.Method {
	case config.CutoverSecret:
		return fmt.Sprintf("the secret %s names %s in its version %s, and did not in %s", h.Secret.ID, h.At, h.Secret.New, h.Secret.Old)
	case config.CutoverPrint:
		return fmt.Sprintf("point clients at %s", h.At)
	}
	return fmt.Sprintf("clients were sent to %s by %s", h.At, strings.Join(h.Ran, ", "))
}

func (cutover) done(context.Context, *work) (bool, error) { return true, nil }

func (cutover) do(ctx context.Context, w *work) (any, error) {
	s, err := w.source()
	if err != nil {
		return nil, err
	}
	h := Handed{Method: w.env.c.Cutover.Method}
	if !w.recall(KindDid, "endpoint", &h.At) {
		return nil, errors.New("the journal does not say where the new cluster is")
	}
	if err := w.protect(ctx, s); err != nil {
		return nil, err
	}
	// From here on clients may write to the new cluster, and nothing is taken back by itself.
	if err := w.did(ctx, handedOver, "clients are sent to the new cluster", h); err != nil {
		return nil, err
	}
	switch h.Method {
	case config.CutoverCommands:
		h.Ran, err = w.each(ctx, "cutover", w.env.c.Cutover.Commands)
	case config.CutoverSecret:
		h.Secret, err = w.pointSecret(ctx, h.At)
	}
	return h, err
}

// handedOver is what cut-over writes down before it begins.
const handedOver = "handed-over"

func (cutover) undo(context.Context, *work) error { return nil }

type resuming struct{}

func (resuming) done(context.Context, *work) (bool, error) { return true, nil }

func (resuming) do(ctx context.Context, w *work) (any, error) {
	if len(w.env.c.Resume) == 0 && w.env.cumulus == nil {
		return nil, w.note(ctx, "nothing is configured that would start the application's work again: start it by hand")
	}
	r, err := w.resumeRules(ctx)
	if err != nil {
		return nil, err
	}
	r.Ran, err = w.each(ctx, "resume", w.env.c.Resume)
	return r, err
}

func (resuming) undo(context.Context, *work) error { return nil }
