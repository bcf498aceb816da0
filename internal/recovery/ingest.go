package recovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pileus/internal/cumulus"
)

// rules checks for preflight that Cumulus can be halted, drained and resumed.
func rules(ctx context.Context, e *environment, f *Findings) {
	if e.cumulus == nil {
		return
	}
	all, err := e.cumulus.Record(ctx)
	if err != nil {
		f.bad("rules", "%v", err)
		return
	}
	on := 0
	for _, r := range all {
		if r.On() {
			on++
		}
	}
	f.good("rules", "%d, of which %d are enabled", len(all), on)
	work, err := e.cumulus.Busy(ctx)
	if err != nil {
		f.bad("work under way", "%v", err)
		return
	}
	f.good("work under way", "%s", orNone(strings.Join(underWay(work), ", ")))
}

func underWay(all []cumulus.Work) []string {
	var out []string
	for _, x := range all {
		if x.Count > 0 {
			out = append(out, fmt.Sprintf("%d %s", x.Count, x.What))
		}
	}
	return out
}

// recorded are the rules as they were before the halt.
func (w *work) recorded() ([]cumulus.Record, bool) {
	var all []cumulus.Record
	ok := w.recall(KindFound, "rules", &all)
	return all, ok
}

// haltRules records every rule outside the database, halts what was live, and makes sure that nothing triggers work any
// more.
func (w *work) haltRules(ctx context.Context) error {
	d := w.env.cumulus
	if d == nil {
		return nil
	}
	var all []cumulus.Record
	err := w.found(ctx, "rules", "every rule and its trigger", &all, func() (err error) {
		all, err = d.Record(ctx)
		return err
	})
	if err != nil {
		return err
	}
	for _, r := range all {
		if !r.Live() {
			continue
		}
		if err := d.Halt(ctx, r); err != nil {
			return err
		}
		if err := w.did(ctx, "halted:"+r.Rule.Name, "rule "+r.Rule.Name+" ("+r.Rule.Rule.Type+")", nil); err != nil {
			return err
		}
	}
	loud, err := d.Quiet(ctx, all)
	if err != nil {
		return err
	}
	if len(loud) > 0 {
		return errors.New("work is still triggered:\n  " + strings.Join(loud, "\n  "))
	}
	return nil
}

// busy says what is under way, in words.
func (w *work) busy(ctx context.Context) ([]string, error) {
	if w.env.cumulus == nil {
		return nil, nil
	}
	all, err := w.env.cumulus.Busy(ctx)
	return underWay(all), err
}

// disableRules makes every rule of the new cluster disabled. The administrator may not have the right to, since the tables are
// the application's; then false is returned, and it is done again as that, once it may connect.
func (w *work) disableRules(ctx context.Context, at Place, asApplication bool) (bool, error) {
	if w.env.cumulus == nil {
		return true, nil
	}
	connect := w.env.inside
	if asApplication {
		connect = w.env.asApplication
	}
	conn, err := connect(ctx, at)
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	n, err := cumulus.DisableRules(ctx, conn)
	var denied *pgconn.PgError
	if errors.As(err, &denied) && denied.Code == "42501" && !asApplication {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, w.did(ctx, "rules-disabled", fmt.Sprintf("%d rules were enabled in the restored data, and are disabled", n), n)
}

// Resumed is how ingest came back.
type Resumed struct {
	Rules  int      `json:"rules,omitempty"`
	Humans []string `json:"humans,omitempty"` // what only a person can put right
	Ran    []string `json:"ran,omitempty"`
}

func (r Resumed) String() string {
	return fmt.Sprintf("%d rules, %d for a person to look at", r.Rules, len(r.Humans))
}

// How long triggers may take until they agree with what was recorded.
const agreeTime = 3 * time.Minute

// resumeRules starts the recorded rules again, and compares their triggers in AWS until they agree.
func (w *work) resumeRules(ctx context.Context) (Resumed, error) {
	var out Resumed
	all, recorded := w.recorded()
	if w.env.cumulus == nil || !recorded {
		return out, nil
	}
	var at Place
	if w.run.Status != Aborting && w.recall(KindDid, "endpoint", &at) {
		if err := w.enableKinesis(ctx, at, all); err != nil {
			return out, err
		}
	}
	for _, r := range all {
		human, err := w.env.cumulus.Resume(ctx, r)
		if err != nil {
			return out, err
		}
		if human != "" {
			out.Humans = append(out.Humans, human)
			if err := w.note(ctx, "%s", human); err != nil {
				return out, err
			}
		} else if r.On() {
			out.Rules++
		}
	}
	began := time.Now()
	var differ []string
	err := w.wait(ctx, func() (bool, string, error) {
		var err error
		if differ, err = w.env.cumulus.Differences(ctx, all); err != nil {
			return false, "", err
		}
		differ = slices.DeleteFunc(differ, func(d string) bool {
			return slices.ContainsFunc(out.Humans, func(h string) bool { return ruleOf(h) == ruleOf(d) })
		})
		return len(differ) == 0 || time.Since(began) > agreeTime, strings.Join(differ, "; "), nil
	})
	if err == nil && len(differ) > 0 && w.run.Status != Aborting {
		err = w.approve("rules or their triggers are not as before the halt", differ...)
	}
	if err == nil {
		for _, d := range differ {
			if err = w.note(ctx, "%s", d); err != nil {
				return out, err
			}
		}
	}
	return out, err
}

// enableKinesis makes the kinesis rules of the new cluster as they were recorded, which the archive API cannot.
func (w *work) enableKinesis(ctx context.Context, at Place, all []cumulus.Record) error {
	conn, err := w.env.asApplication(ctx, at)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	n, err := cumulus.EnableKinesis(ctx, conn, all)
	if err != nil {
		return err
	}
	return w.did(ctx, "kinesis-enabled", fmt.Sprintf("%d kinesis rules were enabled in the recovered data", n), n)
}

// ruleOf is the name in a sentence about a rule, "rule NAME …".
func ruleOf(sentence string) string {
	words := strings.Fields(sentence)
	if len(words) < 2 {
		return ""
	}
	return strings.TrimSuffix(words[1], ":")
}

// countRows counts what people think in, before the fence comes up.
func (e *environment) countRows(ctx context.Context, at Place) (cumulus.Counts, error) {
	conn, err := e.asApplication(ctx, at)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return cumulus.Count(ctx, conn)
}
