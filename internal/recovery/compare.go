package recovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/jackc/pgx/v5"

	"pileus/internal/cumulus"
)

// Difference is one thing that is not the same on both clusters.
type Difference struct {
	What    string `json:"what"`
	Source  string `json:"source"`
	New     string `json:"new"`
	Matters bool   `json:"matters"` // someone has to look at it
}

// Compared is the outcome of the comparison.
type Compared struct {
	Refilled    []string     `json:"refilled,omitempty"` // what the restore had dropped
	Differences []Difference `json:"differences,omitempty"`
	Approved    bool         `json:"approved,omitempty"`
}

func (c Compared) String() string {
	return fmt.Sprintf("%d settings refilled, %d differences", len(c.Refilled), len(c.Differences))
}

type comparing struct{}

func (comparing) done(context.Context, *work) (bool, error) { return true, nil }

func (comparing) undo(context.Context, *work) error { return nil }

func (comparing) do(ctx context.Context, w *work) (any, error) {
	s, err := w.source()
	if err != nil {
		return nil, err
	}
	var out Compared
	if s.Described != nil {
		if out.Refilled, err = w.refill(ctx, s.Described); err != nil {
			return nil, err
		}
	}
	c, err := w.available(ctx, w.run.New)
	if err != nil {
		return nil, err
	}
	if s.Described != nil {
		out.Differences = described(s.Described, c)
	}
	if s.Reachable {
		more, err := w.inDatabase(ctx, s.At, placeOf(c))
		if err != nil {
			return nil, err
		}
		out.Differences = append(out.Differences, more...)
	}
	more, err := w.rowCounts(ctx, placeOf(c))
	if err != nil {
		return nil, err
	}
	out.Differences = append(out.Differences, more...)
	var matter []string
	for _, d := range out.Differences {
		if d.Matters {
			matter = append(matter, fmt.Sprintf("%s: %s here, %s there", d.What, d.Source, d.New))
		}
	}
	if len(matter) > 0 {
		if err := w.approve(fmt.Sprintf("%s differs from %s in what matters", w.run.New, w.run.Cluster), matter...); err != nil {
			return nil, err
		}
		out.Approved = true
	}
	return out, nil
}

// refill sets what a restore drops and a request to restore cannot carry. Deletion protection comes last, with cut-over, so
// that until then a run can be taken back.
func (w *work) refill(ctx context.Context, from *types.DBCluster) ([]string, error) {
	c, err := w.available(ctx, w.run.New)
	if err != nil {
		return nil, err
	}
	in := &rds.ModifyDBClusterInput{DBClusterIdentifier: &w.run.New, ApplyImmediately: aws.Bool(true)}
	var set []string
	differ := func(what, a, b string) bool {
		if a == b || a == "" {
			return false
		}
		set = append(set, what+" "+a)
		return true
	}
	if differ("backup retention", days(from.BackupRetentionPeriod), days(c.BackupRetentionPeriod)) {
		in.BackupRetentionPeriod = from.BackupRetentionPeriod
	}
	if differ("backup window", aws.ToString(from.PreferredBackupWindow), aws.ToString(c.PreferredBackupWindow)) {
		in.PreferredBackupWindow = from.PreferredBackupWindow
	}
	if differ("maintenance window", aws.ToString(from.PreferredMaintenanceWindow), aws.ToString(c.PreferredMaintenanceWindow)) {
		in.PreferredMaintenanceWindow = from.PreferredMaintenanceWindow
	}
	if differ("copying tags to snapshots", fmt.Sprint(aws.ToBool(from.CopyTagsToSnapshot)), fmt.Sprint(aws.ToBool(c.CopyTagsToSnapshot))) {
		in.CopyTagsToSnapshot = from.CopyTagsToSnapshot
	}
	if len(set) == 0 {
		return nil, nil
	}
	if _, err := w.env.api.ModifyDBCluster(ctx, in); err != nil {
		return nil, fmt.Errorf("set on %s what the restore dropped: %w", w.run.New, err)
	}
	return set, nil
}

func days(n *int32) string {
	if aws.ToInt32(n) == 0 {
		return ""
	}
	return fmt.Sprintf("%d days", *n)
}

// described compares what the API says.
func described(a, b *types.DBCluster) []Difference {
	var out []Difference
	add := func(what, x, y string, matters bool) {
		if x != y {
			out = append(out, Difference{what, x, y, matters})
		}
	}
	groups := func(c *types.DBCluster) string {
		var ids []string
		for _, g := range c.VpcSecurityGroups {
			ids = append(ids, aws.ToString(g.VpcSecurityGroupId))
		}
		slices.Sort(ids)
		return strings.Join(ids, ", ")
	}
	tags := func(c *types.DBCluster) string {
		var all []string
		for _, t := range c.TagList {
			if k := aws.ToString(t.Key); k != runTag {
				all = append(all, k+"="+aws.ToString(t.Value))
			}
		}
		slices.Sort(all)
		return strings.Join(all, ", ")
	}
	scaling := func(c *types.DBCluster) string {
		if v := c.ServerlessV2ScalingConfiguration; v != nil {
			return fmt.Sprintf("%g to %g", aws.ToFloat64(v.MinCapacity), aws.ToFloat64(v.MaxCapacity))
		}
		return ""
	}
	add("engine", aws.ToString(a.Engine), aws.ToString(b.Engine), true)
	add("engine version", aws.ToString(a.EngineVersion), aws.ToString(b.EngineVersion), true)
	add("parameter group", aws.ToString(a.DBClusterParameterGroup), aws.ToString(b.DBClusterParameterGroup), true)
	add("subnet group", aws.ToString(a.DBSubnetGroup), aws.ToString(b.DBSubnetGroup), true)
	add("security groups", groups(a), groups(b), true)
	add("storage encrypted", fmt.Sprint(aws.ToBool(a.StorageEncrypted)), fmt.Sprint(aws.ToBool(b.StorageEncrypted)), true)
	add("KMS key", aws.ToString(a.KmsKeyId), aws.ToString(b.KmsKeyId), true)
	add("IAM authentication", fmt.Sprint(aws.ToBool(a.IAMDatabaseAuthenticationEnabled)), fmt.Sprint(aws.ToBool(b.IAMDatabaseAuthenticationEnabled)), true)
	add("serverless capacity", scaling(a), scaling(b), true)
	add("master user", aws.ToString(a.MasterUsername), aws.ToString(b.MasterUsername), true)
	add("backup retention", days(a.BackupRetentionPeriod), days(b.BackupRetentionPeriod), false)
	add("backup window", aws.ToString(a.PreferredBackupWindow), aws.ToString(b.PreferredBackupWindow), false)
	add("maintenance window", aws.ToString(a.PreferredMaintenanceWindow), aws.ToString(b.PreferredMaintenanceWindow), false)
	add("deletion protection", fmt.Sprint(aws.ToBool(a.DeletionProtection)), fmt.Sprint(aws.ToBool(b.DeletionProtection)), false)
	add("log exports", strings.Join(a.EnabledCloudwatchLogsExports, ", "), strings.Join(b.EnabledCloudwatchLogsExports, ", "), false)
	add("port", fmt.Sprint(aws.ToInt32(a.Port)), fmt.Sprint(aws.ToInt32(b.Port)), false)
	add("instances", fmt.Sprint(len(a.DBClusterMembers)), fmt.Sprint(len(b.DBClusterMembers)), false)
	add("tags", tags(a), tags(b), false)
	return out
}

// own are settings that belong to one server and not to the application.
var ownSettings = []string{"config_file", "data_directory", "external_pid_file", "hba_file", "ident_file", "listen_addresses", "log_directory", "port",
	"primary_conninfo", "primary_slot_name", "promote_trigger_file", "recovery_target_action", "restore_command", "ssl_ca_file", "ssl_cert_file", "ssl_crl_file",
	"ssl_key_file", "unix_socket_directories", "cluster_name", "archive_command", "application_name", "client_encoding", "transaction_read_only",
	"recovery_target", "recovery_target_inclusive", "recovery_target_lsn", "recovery_target_name", "recovery_target_time", "recovery_target_timeline", "recovery_target_xid",
	"transaction_isolation", "transaction_deferrable", "TimeZone", "DateStyle"}

// facts are what is compared within the databases: for each thing, by name, what it is.
type facts map[string]map[string]string

const (
	factRoles      = "role"
	factExtensions = "extension"
	factSettings   = "setting"
	factSize       = "size of the database"
)

func (w *work) facts(ctx context.Context, at Place) (facts, error) {
	conn, err := w.env.inside(ctx, at)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	out := facts{}
	for what, query := range map[string]string{
		factRoles: `SELECT rolname, concat_ws(' ', CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END,
			CASE WHEN rolreplication THEN 'REPLICATION' END, CASE WHEN rolbypassrls THEN 'BYPASSRLS' END, 'limit ' || rolconnlimit) FROM pg_roles WHERE rolname !~ '^(pg_|rds|pileus_)'`,
		factExtensions: "SELECT extname, extversion FROM pg_extension",
		factSettings:   "SELECT name, setting FROM pg_settings WHERE source NOT IN ('default', 'override', 'session', 'client') AND NOT name = ANY ($1)",
		factSize:       "SELECT current_database(), pg_size_pretty(pg_database_size(current_database()))",
	} {
		var args []any
		if what == factSettings {
			args = append(args, ownSettings)
		}
		rows, err := conn.Query(ctx, query, args...)
		if err != nil {
			return nil, fmt.Errorf("read the %ss of %s: %w", what, at, err)
		}
		m := map[string]string{}
		var name, value string
		if _, err := pgx.ForEachRow(rows, []any{&name, &value}, func() error { m[name] = value; return nil }); err != nil {
			return nil, fmt.Errorf("read the %ss of %s: %w", what, at, err)
		}
		out[what] = m
	}
	return out, nil
}

// inDatabase compares what SQL says.
func (w *work) inDatabase(ctx context.Context, a, b Place) ([]Difference, error) {
	x, err := w.facts(ctx, a)
	if err != nil {
		return nil, err
	}
	y, err := w.facts(ctx, b)
	if err != nil {
		return nil, err
	}
	var out []Difference
	for _, what := range slices.Sorted(maps.Keys(x)) {
		names := map[string]bool{}
		for name := range x[what] {
			names[name] = true
		}
		for name := range y[what] {
			names[name] = true
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if p, q := x[what][name], y[what][name]; p != q {
				out = append(out, Difference{What: what + " " + name, Source: orNone(p), New: orNone(q), Matters: what != factSize})
			}
		}
	}
	return out, nil
}

// rowCounts compares with what there was before the fence: a recovery to an earlier moment is meant to differ.
func (w *work) rowCounts(ctx context.Context, at Place) ([]Difference, error) {
	var before cumulus.Counts
	if w.env.cumulus == nil || !w.recall(KindFound, "counts", &before) {
		return nil, nil
	}
	now, err := w.env.countRows(ctx, at)
	if err != nil {
		return nil, err
	}
	var out []Difference
	for _, t := range slices.Sorted(maps.Keys(before)) {
		if before[t] != now[t] {
			out = append(out, Difference{What: "rows of " + t, Source: fmt.Sprint(before[t]), New: fmt.Sprint(now[t])})
		}
	}
	return out, nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// protect turns deletion protection on where the source has it.
func (w *work) protect(ctx context.Context, s source) error {
	if s.Described == nil || !aws.ToBool(s.Described.DeletionProtection) {
		return nil
	}
	c, err := w.available(ctx, w.run.New)
	if err != nil || aws.ToBool(c.DeletionProtection) {
		return err
	}
	_, err = w.env.api.ModifyDBCluster(ctx, &rds.ModifyDBClusterInput{DBClusterIdentifier: &w.run.New, DeletionProtection: aws.Bool(true), ApplyImmediately: aws.Bool(true)})
	if err != nil {
		return fmt.Errorf("turn deletion protection on for %s: %w", w.run.New, err)
	}
	deadline := time.Now().Add(10 * time.Minute)
	return w.wait(ctx, func() (bool, string, error) {
		c, err := w.env.cluster(ctx, w.run.New)
		if err != nil || c == nil {
			return false, "", errors.Join(err, gone(err == nil, w.run.New))
		}
		if time.Now().After(deadline) {
			return false, "", fmt.Errorf("deletion protection of %s does not come on", w.run.New)
		}
		return aws.ToBool(c.DeletionProtection), "deletion protection of " + w.run.New, nil
	})
}
