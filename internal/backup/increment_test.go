package backup

import (
	"strings"
	"testing"

	"pileus/internal/pgtest"
	"pileus/internal/repo"
)

// summarizing makes the server note which blocks change.
var summarizing = pgtest.With("summarize_wal", "on")

// eachSummarizing runs f for each version that can.
func eachSummarizing(t *testing.T, f func(t *testing.T, v pgtest.Version)) {
	t.Helper()
	pgtest.Each(t, func(t *testing.T, v pgtest.Version) {
		if v.Major >= 17 {
			f(t, v)
		}
	})
}

// sent takes what the server says that changed since parent.
func (l *lab) sent(parent repo.Backup, trusting bool) repo.Backup {
	l.t.Helper()
	o := l.options(ModeStream)
	o.Parent = &parent
	b, err := start(l.t.Context(), &run{Options: o, trusting: trusting})
	l.check(err)
	if !b.Incremental || b.WhyFull != "" || b.Parent != parent.ID || strings.Contains(b.Label, "INCREMENTAL") {
		l.t.Fatalf("the backup is not incremental: %s", b.WhyFull)
	}
	return b
}

func TestTheServerSendsOnlyWhatChanged(t *testing.T) {
	eachSummarizing(t, func(t *testing.T, v pgtest.Version) {
		l := newLab(t, v, kept, summarizing)
		l.server.CreateTablespace("elsewhere")
		l.script(setUp + `
	\c postgres
	CREATE TABLE cut AS SELECT i, repeat('x', 400) AS t FROM generate_series(1, 12000) i; VACUUM cut`)
		first := l.run(l.options(ModeStream))
		l.same(first, l.full())
		idle := l.sent(first, false)
		l.same(idle, l.full())
		if idle.Read > first.Read/5 {
			t.Errorf("nothing changed, but %d of %d bytes were sent", idle.Read, first.Read)
		}
		l.script(everything + `;
	DELETE FROM cut WHERE i > 6000;
	VACUUM (DISABLE_PAGE_SKIPPING) cut;
	COPY cut FROM PROGRAM 'seq -f "%g x" 2000' (DELIMITER ' ')`)
		changed := l.sent(idle, false)
		full := l.full()
		l.same(changed, full)
		t.Log(l.differences(l.sent(idle, true), full))
		if changed.Read > full.Read*6/10 || changed.Stored > full.Stored*6/10 {
			t.Errorf("%d bytes were read and %d stored, %d and %d for a full backup", changed.Read, changed.Stored, full.Read, full.Stored)
		}
	})
}
