package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// table lines columns up.
type table struct {
	w    io.Writer
	tw   *tabwriter.Writer
	head []string
	rows int
}

func newTable(w io.Writer, head ...string) *table {
	return &table{w: w, tw: tabwriter.NewWriter(w, 0, 4, 2, ' ', 0), head: head}
}

func (t *table) row(cells ...string) {
	if t.rows == 0 {
		fmt.Fprintln(t.tw, strings.Join(t.head, "\t"))
	}
	t.rows++
	fmt.Fprintln(t.tw, strings.Join(cells, "\t"))
}

// end prints the table, or empty if it has no rows.
func (t *table) end(empty string) error {
	if t.rows == 0 {
		_, err := fmt.Fprintln(t.w, empty)
		return err
	}
	return t.tw.Flush()
}
