package e2e

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"pileus/internal/pg"
	"pileus/internal/pgtest"
)

// The ledger is the oracle. One session writes numbered rows, one transaction
// each, so their commits have one known order; the load beside it only makes
// noise. Some transactions are rolled back, some are prepared and committed
// later, some have subtransactions, some touch nothing but the ledger.

// event is one thing the ledger's session did, in the order of the WAL.
type event struct {
	number int64     // of the row that was committed; 0 for a restore point
	xid    uint64    // of the transaction
	time   time.Time // of the commit, as the server recorded it
	lsn    pg.LSN    // after the commit or the restore point
	point  string    // name of the restore point
}

type ledger struct {
	t      *testing.T
	conn   *pgx.Conn
	rng    *rand.Rand
	next   int64
	events []event
}

func newLedger(t *testing.T, s *pgtest.Server, seed uint64) *ledger {
	t.Helper()
	s.Exec(`CREATE TABLE ledger (number bigint PRIMARY KEY, filler text)`)
	conn, err := pgx.Connect(t.Context(), s.DSN())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return &ledger{t: t, conn: conn, rng: rand.New(rand.NewPCG(seed, 1)), next: 1}
}

// step does one random thing.
func (l *ledger) step(ctx context.Context) error {
	n := l.next
	l.next++
	filler := fmt.Sprintf("%0*d", l.rng.IntN(1500), n)
	switch kind := l.rng.IntN(20); {
	case kind == 0:
		name := fmt.Sprintf("point-%d", n)
		_, err := l.conn.Exec(ctx, `SELECT pg_create_restore_point($1)`, name)
		if err == nil {
			err = l.note(ctx, event{point: name})
		}
		return err
	case kind == 1: // rolled back: must never be seen
		tx, err := l.conn.Begin(ctx)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO ledger VALUES ($1, $2)`, n, filler); err != nil {
			return err
		}
		return tx.Rollback(ctx)
	case kind == 2:
		return l.prepared(ctx, n, filler)
	case kind == 3:
		return l.commit(ctx, n, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SAVEPOINT a; INSERT INTO ledger VALUES (-1, 'undone'); ROLLBACK TO a; SAVEPOINT b`); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, `INSERT INTO ledger VALUES ($1, $2)`, n, filler)
			return err
		})
	}
	return l.commit(ctx, n, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO ledger VALUES ($1, $2)`, n, filler)
		return err
	})
}

func (l *ledger) commit(ctx context.Context, n int64, work func(pgx.Tx) error) error {
	var xid int64
	err := pgx.BeginFunc(ctx, l.conn, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `SELECT pg_current_xact_id()::text::bigint`).Scan(&xid); err != nil {
			return err
		}
		return work(tx)
	})
	if err != nil {
		return err
	}
	return l.note(ctx, event{number: n, xid: uint64(xid)})
}

func (l *ledger) prepared(ctx context.Context, n int64, filler string) error {
	var xid int64
	gid := fmt.Sprintf("ledger-%d", n)
	tx, err := l.conn.Begin(ctx)
	if err != nil {
		return err
	}
	if err := tx.QueryRow(ctx, `SELECT pg_current_xact_id()::text::bigint`).Scan(&xid); err != nil {
		return err
	}
	for _, q := range []string{fmt.Sprintf(`INSERT INTO ledger VALUES (%d, '%s')`, n, filler), fmt.Sprintf(`PREPARE TRANSACTION '%s'`, gid)} {
		if _, err := tx.Exec(ctx, q); err != nil {
			return err
		}
	}
	tx.Rollback(ctx) // the transaction is the server's now; this only resets the session's state
	if _, err := l.conn.Exec(ctx, fmt.Sprintf(`COMMIT PREPARED '%s'`, gid)); err != nil {
		return err
	}
	return l.note(ctx, event{number: n, xid: uint64(xid)})
}

// note completes an event with what the server says of it.
func (l *ledger) note(ctx context.Context, e event) error {
	var lsn string
	if err := l.conn.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text`).Scan(&lsn); err != nil {
		return err
	}
	var err error
	if e.lsn, err = pg.ParseLSN(lsn); err != nil {
		return err
	}
	if e.number > 0 {
		if err := l.conn.QueryRow(ctx, `SELECT pg_xact_commit_timestamp($1::text::xid)`, fmt.Sprint(uint32(e.xid))).Scan(&e.time); err != nil {
			return err
		}
	}
	l.events = append(l.events, e)
	return nil
}

// numbers are the rows that must be there after the first n events.
func numbers(events []event) []int64 {
	set := map[int64]bool{}
	for _, e := range events {
		if e.number > 0 {
			set[e.number] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// target is one restore to try: command-line flags, and how many events it keeps.
type target struct {
	flags []string
	keep  int
}

// randomTarget picks a moment at or after the event first.
func (l *ledger) randomTarget(first int) target {
	for {
		i := first + l.rng.IntN(len(l.events)-first)
		e := l.events[i]
		switch kind := l.rng.IntN(8); {
		case kind == 0 && e.number > 0: // exactly a commit's own time
			return target{[]string{"--to", e.time.UTC().Format(time.RFC3339Nano)}, i + 1}
		case kind == 1 && e.number > 0 && i > first:
			return target{[]string{"--to", e.time.UTC().Format(time.RFC3339Nano), "--exclusive"}, i}
		case kind == 2 && e.number > 0: // between two commits
			for j := i + 1; j < len(l.events); j++ {
				if n := l.events[j]; n.number > 0 && n.time.Sub(e.time) > 2*time.Microsecond {
					mid := e.time.Add(n.time.Sub(e.time) / 2).Truncate(time.Microsecond)
					return target{[]string{"--to", mid.UTC().Format(time.RFC3339Nano)}, j}
				}
			}
		case kind == 3:
			return target{[]string{"--to-lsn", e.lsn.String()}, i + 1}
		case kind == 4:
			return target{[]string{"--to-lsn", e.lsn.String(), "--exclusive"}, i + 1}
		case kind == 5 && e.number > 0:
			return target{[]string{"--to-xid", fmt.Sprint(e.xid)}, i + 1}
		case kind == 6 && e.number > 0 && i > first:
			return target{[]string{"--to-xid", fmt.Sprint(e.xid), "--exclusive"}, i}
		case kind == 7 && e.point != "":
			return target{[]string{"--to-name", e.point}, i + 1}
		}
	}
}
