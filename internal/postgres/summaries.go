package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"pileus/internal/pg"
)

// summary is one file of the server's WAL summarizer.
type summary struct {
	tli        pg.TimelineID
	start, end pg.LSN
}

// CutRelations tells to which length, in blocks, the main forks of relations were cut between two positions at
// the least, according to the server's WAL summaries: zero where the relation was created or dropped. path is the
// ancestry of the server's timeline. PostgreSQL 17 and later. Errors: ErrNotPrivileged; summaries are missing.
func (c *Conn) CutRelations(ctx context.Context, path pg.History, from, to pg.LSN) (map[pg.RelFile]uint32, error) {
	all, err := c.summaries(ctx, from, to)
	if err != nil {
		return nil, fmt.Errorf("list WAL summaries: %w", privilege(err))
	}
	cuts, at := map[pg.RelFile]uint32{}, from
	for _, s := range all {
		left, ended := path.End(s.tli)
		if !path.Contains(s.tli) || ended && s.start >= left {
			continue // of WAL that is none of this server's past
		}
		if s.start > at {
			break
		}
		if at = max(at, s.end); ended {
			at = min(at, left)
		}
		if err := c.cutsIn(ctx, s, cuts); err != nil {
			return nil, fmt.Errorf("read the WAL summary from %s to %s: %w", s.start, s.end, privilege(err))
		}
	}
	if at < to {
		return nil, fmt.Errorf("the server has no WAL summary from %s on, up to %s", at, to)
	}
	return cuts, nil
}

// summaries lists those that overlap a range, in the order of the WAL.
func (c *Conn) summaries(ctx context.Context, from, to pg.LSN) ([]summary, error) {
	rows, err := c.sql.Query(ctx, `SELECT tli, start_lsn::text, end_lsn::text FROM pg_available_wal_summaries() s
		WHERE end_lsn > $1::text::pg_lsn AND start_lsn < $2::text::pg_lsn ORDER BY s.start_lsn, tli`, from.String(), to.String())
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (s summary, err error) {
		var tli int64
		var start, end string
		if err = row.Scan(&tli, &start, &end); err != nil {
			return s, err
		}
		s.tli = pg.TimelineID(tli)
		if s.start, err = pg.ParseLSN(start); err == nil {
			s.end, err = pg.ParseLSN(end)
		}
		return s, err
	})
}

// cutsIn adds what one summary tells.
func (c *Conn) cutsIn(ctx context.Context, s summary, cuts map[pg.RelFile]uint32) error {
	rows, err := c.sql.Query(ctx, `SELECT reltablespace, reldatabase, relfilenode, relblocknumber
		FROM pg_wal_summary_contents($1, $2::text::pg_lsn, $3::text::pg_lsn) WHERE is_limit_block AND relforknumber = 0`,
		int64(s.tli), s.start.String(), s.end.String())
	if err != nil {
		return err
	}
	var space, database, relation uint32
	var block int64
	_, err = pgx.ForEachRow(rows, []any{&space, &database, &relation, &block}, func() error {
		f := pg.RelFile{Tablespace: pg.OID(space), Database: pg.OID(database), Relation: pg.OID(relation)}
		if before, known := cuts[f]; !known || uint32(block) < before {
			cuts[f] = uint32(block)
		}
		return nil
	})
	return err
}
