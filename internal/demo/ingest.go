package demo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// ingest writes granules as an archive's workflows do, from several sessions at
// once, and remembers every commit that the server acknowledged.
type ingest struct {
	dsn     string
	writers int

	mu   sync.Mutex
	acks map[commit]bool
}

// commit names one transaction of the ingest.
type commit struct {
	writer int
	number int64
}

func newIngest(dsn string, writers int) *ingest {
	return &ingest{dsn: dsn, writers: writers, acks: map[commit]bool{}}
}

// run writes until ctx ends, or the server goes away; both are a good end.
func (in *ingest) run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	for w := range in.writers {
		g.Go(func() error {
			err := in.write(gctx, w)
			if ctx.Err() != nil {
				return nil
			}
			return err
		})
	}
	return g.Wait()
}

func (in *ingest) write(ctx context.Context, writer int) error {
	conn, err := pgx.Connect(ctx, in.dsn)
	if err != nil {
		return fmt.Errorf("connect writer %d: %w", writer, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for n := int64(1); ctx.Err() == nil; n++ {
		if err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return ingestOne(ctx, tx, writer, n) }); err != nil {
			return fmt.Errorf("writer %d, granule %d: %w", writer, n, err)
		}
		in.mu.Lock()
		in.acks[commit{writer, n}] = true
		in.mu.Unlock()
	}
	return nil
}

// ingestOne records an execution, a granule and its files in one transaction.
func ingestOne(ctx context.Context, tx pgx.Tx, writer int, n int64) error {
	var execution, granule int64
	name := fmt.Sprintf("live-%d-%d", writer, n)
	err := tx.QueryRow(ctx, `INSERT INTO executions (arn, collection_cumulus_id, status, workflow_name)
		VALUES ($1, $2, 'completed', 'IngestGranule') RETURNING cumulus_id`, "arn:live:"+name, 1+n%24).Scan(&execution)
	if err != nil {
		return err
	}
	err = tx.QueryRow(ctx, `INSERT INTO granules (granule_id, collection_cumulus_id, provider_cumulus_id, status, published)
		VALUES ($1, $2, $3, 'completed', true) RETURNING cumulus_id`, name, 1+n%24, 1+n%6).Scan(&granule)
	if err != nil {
		return err
	}
	b := &pgx.Batch{}
	b.Queue(`INSERT INTO granules_executions VALUES ($1, $2)`, granule, execution)
	b.Queue(`INSERT INTO files (granule_cumulus_id, bucket, key, file_name) VALUES ($1, 'cumulus-protected', $2, $3)`, granule, "live/"+name, name)
	b.Queue(`INSERT INTO commit_ledger VALUES ($1, $2, $3)`, writer, n, granule)
	return tx.SendBatch(ctx, b).Close()
}

// acknowledged is a copy of what was acknowledged up to now.
func (in *ingest) acknowledged() map[commit]bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	out := make(map[commit]bool, len(in.acks))
	for c := range in.acks {
		out[c] = true
	}
	return out
}

// deleteGranules is the mistake. It returns its transaction's id, and what had
// been acknowledged before it began.
func (in *ingest) deleteGranules(ctx context.Context) (xid uint64, before map[commit]bool, rows int64, err error) {
	conn, err := pgx.Connect(ctx, in.dsn)
	if err != nil {
		return 0, nil, 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	before = in.acknowledged()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `SELECT pg_current_xact_id()::text::bigint`).Scan(&xid); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `DELETE FROM granules`)
		rows = tag.RowsAffected()
		return err
	})
	return xid, before, rows, err
}

// state is what the demo compares.
type state struct {
	commits  map[commit]bool
	granules int64
	files    int64
	orphans  int64 // ledger rows whose granule is missing: must be none before the mistake
}

func readState(ctx context.Context, dsn string) (s state, err error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return s, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	s.commits = map[commit]bool{}
	rows, err := conn.Query(ctx, `SELECT writer, number FROM commit_ledger`)
	if err != nil {
		return s, err
	}
	var c commit
	if _, err = pgx.ForEachRow(rows, []any{&c.writer, &c.number}, func() error { s.commits[c] = true; return nil }); err != nil {
		return s, err
	}
	err = errors.Join(
		conn.QueryRow(ctx, `SELECT count(*) FROM granules`).Scan(&s.granules),
		conn.QueryRow(ctx, `SELECT count(*) FROM files`).Scan(&s.files),
		conn.QueryRow(ctx, `SELECT count(*) FROM commit_ledger l WHERE NOT EXISTS
			(SELECT FROM granules g WHERE g.cumulus_id = l.granule_cumulus_id)`).Scan(&s.orphans))
	return s, err
}

// waitFor waits until so many commits were acknowledged.
func (in *ingest) waitFor(ctx context.Context, n int) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		in.mu.Lock()
		have := len(in.acks)
		in.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
