package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pileus/internal/control"
	"pileus/internal/damage"
)

// chart is a cluster's activity over time, as `pileus timeline` draws it.
type chart struct {
	Cluster string          `json:"cluster"`
	From    time.Time       `json:"from"`
	To      time.Time       `json:"to"`
	Step    string          `json:"interval"`
	Buckets []damage.Bucket `json:"buckets"` // without those in which nothing committed
	Marks   []mark          `json:"marks"`
	Earlier time.Time       `json:"earliest_restorable,omitzero"`
	Latest  time.Time       `json:"latest_restorable,omitzero"`
	Stopped string          `json:"stopped,omitempty"`

	step time.Duration
}

// mark is a moment that matters.
type mark struct {
	Time time.Time `json:"time"`
	Kind string    `json:"kind"` // backup, snapshot or damage
	Text string    `json:"text"`
}

func (a *app) timelineCommand() *cobra.Command {
	var (
		span     spanFlags
		interval time.Duration
		svg      string
	)
	cmd := &cobra.Command{
		Use:   "timeline CLUSTER",
		Short: "Draw what happened when: commits, rows, WAL, backups, damage",
		Long: `Reads the archived WAL of CLUSTER and draws, for each interval, how many transactions committed,
how many rows they inserted, updated and deleted, and how much WAL there was, with backups,
snapshots, the largest damage and the restorable window marked.`,
		Example: `  pileus timeline prod
  pileus timeline prod --since 1d --interval 30m
  pileus timeline prod --svg activity.svg`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			now := time.Now()
			from, to, err := span.bounds(now, cmd.Flags().Changed("since"))
			if err != nil {
				return err
			}
			if to.IsZero() {
				to = now.UTC()
			}
			if interval == 0 {
				interval = niceStep(to.Sub(from))
			}
			if interval < time.Second || to.Sub(from)/interval > 5000 {
				return usageError{errors.New("--interval must be at least 1s, and give at most 5000 intervals")}
			}
			return a.timeline(cmd.Context(), strings.ToLower(given[0]), from, to, interval, svg)
		},
	}
	span.add(cmd, "2h")
	cmd.Flags().DurationVar(&interval, "interval", 0, "length of an interval (default: one that gives about 30)")
	cmd.Flags().StringVar(&svg, "svg", "", "write a picture to this `FILE` instead")
	return cmd
}

// niceStep is a round interval of which about thirty fill a span.
func niceStep(span time.Duration) time.Duration {
	for _, s := range []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute,
		30 * time.Minute, time.Hour, 2 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour} {
		if span/s <= 40 {
			return s
		}
	}
	return 7 * 24 * time.Hour
}

const chartFinds = 5

func (a *app) timeline(ctx context.Context, cluster string, from, to time.Time, step time.Duration, svg string) error {
	d, err := a.open(ctx)
	if err != nil {
		return err
	}
	rep, end := a.reporter()
	r, err := d.Find(ctx, control.FindRequest{Cluster: cluster, Filter: damage.Filter{From: from, To: to, MinRows: 1}, Keep: chartFinds, Interval: step}, rep)
	end()
	if err != nil {
		return err
	}
	views, err := d.View(ctx, cluster)
	if err != nil {
		return err
	}
	c := newChart(cluster, from, to, step, r, views[0])
	if svg != "" {
		if err := os.WriteFile(svg, []byte(c.svg()), 0o644); err != nil {
			return err
		}
	} else if err := a.print(c, c.draw); err != nil {
		return err
	}
	if r.Stopped != "" {
		return codeError(ExitDamage)
	}
	return nil
}

func newChart(cluster string, from, to time.Time, step time.Duration, r damage.Report, v control.ClusterView) chart {
	c := chart{Cluster: cluster, From: from.UTC(), To: to.UTC(), Step: step.String(), Buckets: r.Buckets, Marks: []mark{}, Earlier: v.Window.Earliest, Latest: v.Window.Latest,
		Stopped: r.Stopped, step: step}
	within := func(t time.Time) bool { return !t.Before(from) && !t.After(to) }
	for _, b := range v.Backups {
		if within(b.Stopped) {
			c.Marks = append(c.Marks, mark{b.Stopped.UTC(), "backup", "backup " + b.ID})
		}
	}
	for _, s := range v.Snapshots {
		if within(s.Time) {
			c.Marks = append(c.Marks, mark{s.Time.UTC(), "snapshot", "snapshot " + s.Name})
		}
	}
	for _, t := range r.Transactions {
		var what []string
		for _, db := range t.Dropped {
			what = append(what, "database "+db+" DROPPED")
		}
		for _, table := range t.Tables {
			what = append(what, describeTable(table))
		}
		c.Marks = append(c.Marks, mark{t.Time.UTC(), "damage", fmt.Sprintf("transaction %d: %s", t.XID, strings.Join(what, "; "))})
	}
	return c
}

// every yields all intervals, also those in which nothing happened, with the marks in them.
func (c *chart) every(do func(b damage.Bucket, marks []mark)) {
	known := map[int64]damage.Bucket{}
	for _, b := range c.Buckets {
		known[b.From.UnixNano()] = b
	}
	for at := c.From.Truncate(c.step); at.Before(c.To); at = at.Add(c.step) {
		b, ok := known[at.UnixNano()]
		if !ok {
			b.From = at
		}
		var marks []mark
		for _, m := range c.Marks {
			if !m.Time.Before(at) && m.Time.Before(at.Add(c.step)) {
				marks = append(marks, m)
			}
		}
		do(b, marks)
	}
}

const barWidth = 24

// draw draws it on a terminal, a line for each interval.
func (c *chart) draw(w io.Writer) error {
	most := int64(1)
	for _, b := range c.Buckets {
		most = max(most, b.Inserted+b.Updated+b.Deleted)
	}
	fmt.Fprintf(w, "%s, %s to %s, an interval is %s.\n", c.Cluster, stamp(c.From), stamp(c.To), c.Step)
	if !c.Earlier.IsZero() {
		fmt.Fprintf(w, "Restorable from %s to %s (shown by |).\n", stamp(c.Earlier), stamp(c.Latest))
	}
	fmt.Fprintf(w, "\n%-20s %8s %9s  %-*s %9s %9s %9s\n", "FROM", "COMMITS", "WAL", barWidth+1, "ROWS (+ in, ~ changed, - out)", "IN", "CHANGED", "OUT")
	c.every(func(b damage.Bucket, marks []mark) {
		restorable := " "
		if !c.Earlier.IsZero() && b.From.Add(c.step).After(c.Earlier) && b.From.Before(c.Latest) {
			restorable = "|"
		}
		bar := strings.Repeat("+", int(b.Inserted*barWidth/most)) + strings.Repeat("~", int(b.Updated*barWidth/most)) + strings.Repeat("-", int(b.Deleted*barWidth/most))
		fmt.Fprintf(w, "%-20s %8d %9s %s%-*s %9d %9d %9d\n", b.From.Format(time.RFC3339), b.Commits, size(b.Bytes), restorable, barWidth+5, bar, b.Inserted, b.Updated, b.Deleted)
		for _, m := range marks {
			sign := "*"
			if m.Kind == "damage" {
				sign = "!"
			}
			fmt.Fprintf(w, "%-20s   %s %s %s\n", "", sign, m.Time.Format("15:04:05"), m.Text)
		}
	})
	if c.Stopped != "" {
		fmt.Fprintf(w, "\nNOT ALL WAS READ: %s\n", c.Stopped)
	}
	return nil
}

// Sizes of the picture in its own units.
const (
	svgWidth, svgHeight = 1000, 320
	svgLeft, svgTop     = 60, 40
	svgRight, svgBottom = 20, 60
)

// svg draws a picture that explains itself: bars of rows, a line of WAL, marks with their texts as tooltips.
func (c *chart) svg() string {
	var b strings.Builder
	mostRows, mostBytes := int64(1), int64(1)
	for _, v := range c.Buckets {
		mostRows, mostBytes = max(mostRows, v.Inserted+v.Updated+v.Deleted), max(mostBytes, v.Bytes)
	}
	width, height := float64(svgWidth-svgLeft-svgRight), float64(svgHeight-svgTop-svgBottom)
	start := c.From.Truncate(c.step)
	x := func(t time.Time) float64 {
		return svgLeft + width*float64(t.Sub(start))/float64(c.To.Sub(start))
	}
	y := func(n, most int64) float64 { return svgTop + height*(1-float64(n)/float64(most)) }
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" font-family="sans-serif" font-size="12">`+"\n", svgWidth, svgHeight)
	fmt.Fprintf(&b, "<title>%s from %s to %s</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", escapeXML(c.Cluster), stamp(c.From), stamp(c.To))
	if !c.Earlier.IsZero() {
		from, to := max(x(c.Earlier), svgLeft), min(x(c.Latest), svgLeft+width)
		if to > from {
			fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%.0f" fill="#e8f3ec"><title>restorable</title></rect>`+"\n", from, svgTop, to-from, height)
		}
	}
	bar := width * float64(c.step) / float64(c.To.Sub(start))
	var line []string
	c.every(func(v damage.Bucket, _ []mark) {
		base := int64(0)
		for _, part := range []struct {
			n            int64
			colour, what string
		}{{v.Inserted, "#5b8def", "inserted"}, {v.Updated, "#e0a030", "updated"}, {v.Deleted, "#d04545", "deleted"}} {
			if part.n > 0 {
				top := y(base+part.n, mostRows)
				fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s: %d rows %s, %d commits</title></rect>`+"\n",
					x(v.From), top, max(bar-1, 0.5), y(base, mostRows)-top, part.colour, v.From.Format(time.RFC3339), part.n, part.what, v.Commits)
			}
			base += part.n
		}
		line = append(line, fmt.Sprintf("%.1f,%.1f", x(v.From)+bar/2, y(v.Bytes, mostBytes)))
	})
	fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="#777" stroke-width="1"/>`+"\n", strings.Join(line, " "))
	for _, m := range c.Marks {
		colour := map[string]string{"backup": "#2e8b57", "snapshot": "#6a4fb3", "damage": "#b00020"}[m.Kind]
		fmt.Fprintf(&b, `<g><line x1="%.1f" y1="%d" x2="%.1f" y2="%.0f" stroke="%s" stroke-dasharray="3 2"/><circle cx="%.1f" cy="%d" r="5" fill="%s"/><title>%s %s</title></g>`+"\n",
			x(m.Time), svgTop, x(m.Time), svgTop+height, colour, x(m.Time), svgTop-8, colour, stamp(m.Time), escapeXML(m.Text))
	}
	for i := 0; i <= 5; i++ {
		at := start.Add(c.To.Sub(start) * time.Duration(i) / 5)
		fmt.Fprintf(&b, `<text x="%.1f" y="%.0f" text-anchor="middle" fill="#333">%s</text>`+"\n", x(at), svgTop+height+18, at.Format("01-02 15:04:05"))
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end" fill="#333">%d rows</text><text x="%d" y="%d" fill="#777">line: WAL, up to %s an interval of %s</text>`+"\n",
		svgLeft-4, svgTop+8, mostRows, svgLeft, svgHeight-12, size(mostBytes), c.Step)
	b.WriteString("</svg>\n")
	return b.String()
}

var xmlEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;")

func escapeXML(s string) string { return xmlEscapes.Replace(s) }
