package cumulus

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// DisableRules makes every rule of a restored database disabled, before anything is pointed at it: those rows say what was
// enabled at the moment that was restored, while AWS is halted, and sqs rules go live by themselves. It returns how many
// were enabled. As the API does it, an sns rule also loses the ARN of its subscription, which is gone: the API refuses to
// enable one that has it.
func DisableRules(ctx context.Context, conn *pgx.Conn) (int64, error) {
	tag, err := conn.Exec(ctx, "UPDATE public.rules SET enabled = false, arn = CASE type WHEN 'sns' THEN NULL ELSE arn END WHERE enabled")
	if err != nil {
		return 0, fmt.Errorf("disable the rules of the restored database: %w", err)
	}
	return tag.RowsAffected(), nil
}

// EnableKinesis sets the kinesis rules of a restored database as they were recorded: enabled, and with the mappings that
// the stream has now. It is the part of resuming that the API cannot do: it ends every PATCH of a kinesis rule by deleting
// the mappings of the row before, unless another rule has the same. Rules that are not there, or read another stream, are
// left alone, for Resume to report. It must come before any mapping is enabled, for what a mapping reads while its rule is
// disabled is lost. It returns how many rows it changed; done twice it changes nothing.
func EnableKinesis(ctx context.Context, conn *pgx.Conn, kept []Record) (int64, error) {
	var n int64
	for _, k := range kept {
		if !k.On() || k.Rule.Rule.Type != Kinesis {
			continue
		}
		tag, err := conn.Exec(ctx, `UPDATE public.rules SET enabled = true, arn = NULLIF($3, ''), log_event_arn = NULLIF($4, '') WHERE name = $1 AND type = 'kinesis' AND value = $2
			AND (NOT enabled OR (arn, log_event_arn) IS DISTINCT FROM (NULLIF($3, ''), NULLIF($4, '')))`,
			k.Rule.Name, k.Rule.Rule.Value, k.Rule.Rule.ARN, k.Rule.Rule.LogARN)
		if err != nil {
			return n, fmt.Errorf("enable the kinesis rule %s in the database: %w", k.Rule.Name, err)
		}
		n += tag.RowsAffected()
	}
	return n, nil
}
