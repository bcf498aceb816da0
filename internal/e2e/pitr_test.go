package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"pileus/internal/pg"
	"pileus/internal/pgtest"
	"pileus/internal/repo"
)

// targets is how many random moments each server is restored to.
const targets = 20

// TestPointInTime runs pgbench and the ledger, backs up and streams meanwhile,
// and restores to random moments. Every major runs on one kind of repository,
// and 15 on all four.
func TestPointInTime(t *testing.T) {
	flavours := []flavour{{false, false}, {true, true}, {false, true}, {true, false}}
	for i, v := range pgtest.Versions(t) {
		if v.Major != 15 {
			f := flavours[i%len(flavours)]
			t.Run(v.Name()+"/"+f.String(), func(t *testing.T) { pointInTime(t, v, f, uint64(v.Major)) })
			continue
		}
		for k, f := range flavours {
			t.Run(v.Name()+"/"+f.String(), func(t *testing.T) { pointInTime(t, v, f, uint64(100+k)) })
		}
	}
}

func pointInTime(t *testing.T, v pgtest.Version, f flavour, seed uint64) {
	r := newRig(t, v, f)
	r.server.Pgbench("-i", "-q", "-s", "1")
	receiver := r.receive()
	streamed := r.elsewhere()
	l := newLedger(t, r.server, seed)
	first := r.load(l, func() { r.run("backup", "src", "--mode", "files") }, func() {
		if out := r.run("backup", "src", "--mode", "stream"); !strings.Contains(out, streamed) {
			t.Errorf("%q is not in\n%s", streamed, out)
		}
	}, func() {
		var b repo.Backup
		r.runJSON(&b, "backup", "src", "--mode", "files")
		if !b.Incremental || b.ReadWAL == 0 || b.Read >= b.Size {
			t.Errorf("the third backup is not incremental: %+v", b)
		}
	})
	r.caughtUp()
	for i := range targets {
		target := l.randomTarget(first)
		if i == 0 {
			target.flags, target.keep = []string{"--latest"}, len(l.events)
		}
		res := r.restore(fmt.Sprintf("r%d", i), target.flags...)
		r.compare(l, res, target)
		res.close(t)
	}
	receiver.stop()
	r.run("verify", "src", "--read-data", "all")
}

// elsewhere does what `pileus check` advises where the server's files cannot be read, and returns what a backup over the
// replication protocol says from then on.
func (r *rig) elsewhere() string {
	r.t.Helper()
	if r.server.Version.Major < 17 {
		return "every page was read: over the replication protocol"
	}
	var before string
	edit(r.t, r.config, func(s string) string {
		before = s
		return strings.Replace(s, "#data_dir: auto", "data_dir: never", 1)
	})
	const advice = "ALTER SYSTEM SET summarize_wal = on;"
	if out, _, _ := r.try("check", "src"); !strings.Contains(out, advice) {
		r.t.Errorf("check does not advise %s\n%s", advice, out)
	}
	r.server.Exec(advice)
	r.server.Exec("SELECT pg_reload_conf()")
	pgtest.WaitFor(r.t, "the setting", func() bool { return r.server.Query("SHOW summarize_wal") == "on" })
	if out, _, _ := r.try("check", "src"); strings.Contains(out, advice) {
		r.t.Errorf("check still advises %s\n%s", advice, out)
	}
	edit(r.t, r.config, func(string) string { return before })
	return "received: what changed since"
}

// load runs pgbench and the ledger while the backups are taken one after the
// other, and a while longer. It returns the first event after the first backup.
func (r *rig) load(l *ledger, backups ...func()) (first int) {
	r.t.Helper()
	ctx, stop := context.WithCancel(r.t.Context())
	defer stop()
	bench := r.server.PgbenchCommand(ctx, "-n", "-c", "2", "-T", "600", "-R", "300")
	if err := bench.Start(); err != nil {
		r.t.Fatal(err)
	}
	done := make(chan int, len(backups))
	var g errgroup.Group
	g.Go(func() error {
		defer close(done)
		for i, b := range backups {
			b()
			done <- i
		}
		return nil
	})
	pause := time.NewTicker(2 * time.Millisecond)
	defer pause.Stop()
	open, after := 0, 0
	for after < 250 { // events after the last backup
		if err := l.step(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
		select {
		case _, ok := <-done:
			if open++; ok && open == 1 {
				first = len(l.events)
			}
			if !ok {
				done = nil
			}
		case <-pause.C:
		}
		if done == nil {
			after++
		}
	}
	if err := g.Wait(); err != nil {
		r.t.Fatal(err)
	}
	stop()
	bench.Wait() // it was killed
	return first
}

// compare checks a restored server against the oracle.
func (r *rig) compare(l *ledger, res *restored, target target) {
	r.t.Helper()
	conn, err := pgx.Connect(r.t.Context(), res.dsn())
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	got := column(r.t, conn, `SELECT number FROM ledger ORDER BY number`)
	want := numbers(l.events[:target.keep])
	if !slices.Equal(got, want) && !r.raced(l, res, target, got) {
		r.t.Errorf("restore %s: %d rows, want %d; first difference %s", strings.Join(target.flags, " "), len(got), len(want), difference(got, want))
	}
	// pgbench's transactions keep these sums equal, whole or not at all.
	sums := column(r.t, conn, `SELECT sum(abalance)::bigint FROM pgbench_accounts UNION ALL SELECT sum(tbalance)::bigint FROM pgbench_tellers
		UNION ALL SELECT sum(bbalance)::bigint FROM pgbench_branches UNION ALL SELECT coalesce(sum(delta), 0)::bigint FROM pgbench_history`)
	if sums[0] != sums[1] || sums[1] != sums[2] || sums[2] != sums[3] {
		r.t.Errorf("restore %s: a transaction of pgbench is there in part: %v", strings.Join(target.flags, " "), sums)
	}
}

// raced allows for the one freedom PostgreSQL's own rule leaves: with a target at
// a commit's very own time, another session's later commit may precede it in the WAL.
func (r *rig) raced(l *ledger, res *restored, target target, got []int64) bool {
	out := res.Plan.Resolution.FirstExcluded
	if target.flags[0] != "--to" || len(target.flags) > 1 || out == nil || target.keep == 0 {
		return false
	}
	lsn, err := pg.ParseLSN(out.LSN)
	e := l.events[target.keep-1]
	return err == nil && lsn < e.lsn && out.Time.After(e.time) && slices.Equal(got, numbers(l.events[:target.keep-1]))
}

func column(t *testing.T, conn *pgx.Conn, query string) []int64 {
	t.Helper()
	rows, err := conn.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func difference(got, want []int64) string {
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return fmt.Sprintf("%d is missing", want[i])
		case i >= len(want):
			return fmt.Sprintf("%d is too much", got[i])
		case got[i] < want[i]:
			return fmt.Sprintf("%d is too much", got[i])
		case got[i] > want[i]:
			return fmt.Sprintf("%d is missing", want[i])
		}
	}
	return "none"
}

// TestPrimaryKilled kills the server in the middle of its load and restores from
// the repository alone.
func TestPrimaryKilled(t *testing.T) {
	for _, v := range pgtest.Versions(t) {
		if v.Major%2 == 0 && v.Major != pgtest.NewestMajor {
			continue // the odd majors and the newest: the code is one
		}
		for _, synchronous := range []bool{true, false} {
			name := map[bool]string{true: "synchronous", false: "asynchronous"}[synchronous]
			t.Run(v.Name()+"/"+name, func(t *testing.T) { primaryKilled(t, v, synchronous) })
		}
	}
}

// acked is a commit that a client was told of.
type acked struct {
	number int64
	at     time.Time
}

func primaryKilled(t *testing.T, v pgtest.Version, synchronous bool) {
	opts := []pgtest.Option{pgtest.Durable()}
	r := newRig(t, v, flavour{}, opts...)
	r.server.Exec(`CREATE TABLE acks (number bigint PRIMARY KEY)`)
	r.receive()
	r.run("backup", "src")
	if synchronous {
		r.server.Exec(`ALTER SYSTEM SET synchronous_standby_names = 'pileus'`)
		r.server.Exec(`SELECT pg_reload_conf()`)
		pgtest.WaitFor(t, "the receiver to count as a synchronous standby", func() bool {
			return r.server.Query(`SELECT sync_state FROM pg_stat_replication WHERE application_name = 'pileus'`) == "sync"
		})
	}
	var lists [3][]acked
	var g errgroup.Group
	for w := range lists {
		g.Go(func() error {
			var err error
			lists[w], err = writeUntilDeath(r.server.DSN(), int64(w)*1e9)
			return err
		})
	}
	timer := time.After(4 * time.Second)
	<-timer
	died := time.Now()
	r.server.Kill()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	// What the receiver had got is stored within its interval; then the host of
	// the primary is gone for good.
	res := r.restoreWhenStored()
	conn, err := pgx.Connect(t.Context(), res.dsn())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	have := map[int64]bool{}
	for _, n := range column(t, conn, `SELECT number FROM acks`) {
		have[n] = true
	}
	total, lost := 0, 0
	for _, list := range lists {
		for _, a := range list {
			total++
			if !have[a.number] && (synchronous || died.Sub(a.at) > 1500*time.Millisecond) {
				lost++
			}
		}
	}
	t.Logf("%d commits acknowledged, %d rows restored, %d lost", total, len(have), lost)
	if total < 20 {
		t.Fatalf("only %d commits: the test proves nothing", total)
	}
	if lost > 0 {
		t.Errorf("%d of %d acknowledged commits are lost", lost, total)
	}
}

// restoreWhenStored restores to the latest moment once the repository's window stands still.
func (r *rig) restoreWhenStored() *restored {
	r.t.Helper()
	last, same := "", 0
	pgtest.WaitFor(r.t, "the repository to have what was received", func() bool {
		var views []struct {
			Window struct {
				LatestLSN string `json:"latest_lsn"`
			} `json:"window"`
		}
		r.runJSON(&views, "list", "src")
		if views[0].Window.LatestLSN == last {
			same++
		} else {
			last, same = views[0].Window.LatestLSN, 0
		}
		return same >= 15
	})
	return r.restore("after-death", "--latest")
}

// writeUntilDeath commits numbered rows until the server is gone.
func writeUntilDeath(dsn string, first int64) ([]acked, error) {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	var out []acked
	for n := first + 1; ; n++ {
		if _, err := conn.Exec(ctx, `INSERT INTO acks VALUES ($1)`, n); err != nil {
			if conn.IsClosed() {
				return out, nil
			}
			return out, errors.Join(errors.New("the server refused a row while it lived"), err)
		}
		out = append(out, acked{n, time.Now()})
	}
}
