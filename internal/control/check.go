package control

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pileus/internal/archive"
	"pileus/internal/config"
	"pileus/internal/postgres"
	"pileus/internal/repo"
)

// Level says how a finding weighs.
type Level string

// Levels of findings.
const (
	LevelOK   Level = "ok"
	LevelWarn Level = "warning" // works, and should be better
	LevelBad  Level = "problem" // the cluster is not protected, or will not be for long
)

// Finding is one line of a check.
type Finding struct {
	Subject string `json:"subject"`
	Level   Level  `json:"level"`
	Text    string `json:"text"`
	Do      string `json:"do,omitempty"` // what to do about it
}

// CheckReport tells whether one cluster is protected.
type CheckReport struct {
	Cluster   string         `json:"cluster"`
	Protected bool           `json:"protected"` // nothing is a problem
	Findings  []Finding      `json:"findings"`
	Window    archive.Window `json:"window"`
}

func (r *CheckReport) add(level Level, subject, do, format string, args ...any) {
	r.Findings = append(r.Findings, Finding{Subject: subject, Level: level, Text: fmt.Sprintf(format, args...), Do: do})
}

// when adds a finding of the level if bad holds, and an OK otherwise.
func (r *CheckReport) when(bad bool, level Level, subject, fine, wrong, do string) {
	if bad {
		r.add(level, subject, do, "%s", wrong)
		return
	}
	r.add(LevelOK, subject, "", "%s", fine)
}

// Limits of a check.
const (
	maxSkew   = 2 * time.Second // between the server's clock and this host's
	maxLag    = time.Minute     // of the archive behind the server, in time
	staleView = 30 * time.Second
)

// Check looks at everything that protects a cluster, and changes nothing but a
// probe object that it writes to the repository and deletes. An error means
// that not even looking was possible; what is wrong is in the report.
func (d *Deployment) Check(ctx context.Context, name string) (CheckReport, error) {
	c, conn, err := d.cluster(name)
	if err != nil {
		return CheckReport{}, err
	}
	r := CheckReport{Cluster: c.Name}
	d.checkRepository(ctx, &r)
	info, size, ok := checkConnection(ctx, &r, conn)
	if ok {
		checkPrivileges(&r, c, info)
		checkSettings(&r, c, info)
		checkReplication(ctx, &r, conn)
		d.checkSlot(ctx, &r, c, conn, info)
		d.checkBinaries(ctx, &r, c, info, size)
	}
	if err := d.checkArchive(ctx, &r, c, info, ok); err != nil {
		return r, err
	}
	r.Protected = true
	for _, f := range r.Findings {
		r.Protected = r.Protected && f.Level != LevelBad
	}
	return r, nil
}

func (d *Deployment) checkRepository(ctx context.Context, r *CheckReport) {
	// Writing is tried, as a full disk or a read-only key shows in no other way.
	_, err := d.Repo.Holders(ctx, repo.LeasePrune)
	if err != nil {
		r.add(LevelBad, "repository", "", "it cannot be written: %v", err)
		return
	}
	sealed := "not encrypted"
	if d.Repo.Encrypted() {
		sealed = "encrypted"
	}
	r.add(LevelOK, "repository", "", "%s, writable, %s", d.Config.Repository.URL, sealed)
}

func checkConnection(ctx context.Context, r *CheckReport, conn connector) (postgres.Info, int64, bool) {
	sql, err := conn.SQL(ctx)
	if err != nil {
		r.add(LevelBad, "connection", "", "%v", err)
		return postgres.Info{}, 0, false
	}
	defer sql.Close(context.WithoutCancel(ctx))
	info, err := sql.Info(ctx)
	if err != nil {
		r.add(LevelBad, "connection", "", "%v", err)
		return info, 0, false
	}
	r.add(LevelOK, "connection", "", "PostgreSQL %s as %s", info.Version, info.User)
	r.when(info.Major < 13 || info.Major > 18, LevelBad, "version", fmt.Sprintf("%d is supported", info.Major),
		fmt.Sprintf("PostgreSQL %d is not supported", info.Major), "use PostgreSQL 13 to 18")
	skew := info.ClockSkew.Abs()
	r.when(skew > maxSkew, LevelWarn, "clock", "agrees with this host's", fmt.Sprintf("the server's clock differs from this host's by %s", skew.Round(time.Millisecond)),
		"run NTP on both; times of recovery are the server's")
	var size int64
	// What the role may not see counts as nothing: the disk check then says so.
	if err := sql.SQL().QueryRow(ctx, `SELECT coalesce(sum(pg_database_size(oid)), 0)::bigint FROM pg_database WHERE has_database_privilege(oid, 'CONNECT')`).Scan(&size); err != nil {
		size = 0
	}
	return info, size, true
}

func checkPrivileges(r *CheckReport, c config.Cluster, info postgres.Info) {
	role := postgres.QuoteIdent(info.User)
	r.when(!info.Replication && !info.Superuser, LevelBad, "replication privilege", "given", "the role may not replicate: neither WAL nor base backups can be streamed",
		"ALTER ROLE "+role+" REPLICATION;")
	r.when(!info.Privileges.ReadAllSettings && !info.Superuser, LevelWarn, "settings privilege", "given", "the role does not see all settings, so it is not known where the data directory is",
		"GRANT pg_read_all_settings TO "+role+";")
	r.when(!info.Privileges.ReadAllStats && !info.Superuser, LevelWarn, "statistics privilege", "given", "the role does not see the state of replication",
		"GRANT pg_monitor TO "+role+";")
	if !filesHere(c, info) {
		return // backups are streamed, and need no more privileges
	}
	if !info.Privileges.BackupStart || !info.Privileges.BackupStop {
		start, stop := "pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"
		if info.Major < 15 {
			start, stop = "pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)"
		}
		r.add(LevelWarn, "backup privilege", fmt.Sprintf("GRANT EXECUTE ON FUNCTION %s, %s TO %s;", start, stop, role),
			"the data directory is on this host, but the role may not start a backup: files are streamed instead of read directly")
	}
}

// filesHere tells whether backups can read the server's files, as far as shows without reading them.
func filesHere(c config.Cluster, info postgres.Info) bool {
	if c.DataDir == config.DataDirNever || info.DataDirectory == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(info.DataDirectory, "PG_VERSION"))
	return err == nil
}

func checkSettings(r *CheckReport, c config.Cluster, info postgres.Info) {
	if info.Major >= 17 && !filesHere(c, info) {
		r.when(!info.SummarizeWAL, LevelWarn, "summarize_wal", "on: the server sends only what changed since the last backup",
			"it is off: the server sends every page for each backup, as its files cannot be read here", "ALTER SYSTEM SET summarize_wal = on;  -- and SELECT pg_reload_conf();")
	}
	r.when(info.WALLevel == "minimal", LevelBad, "wal_level", info.WALLevel, "it is minimal: the WAL cannot restore anything", "ALTER SYSTEM SET wal_level = replica;  -- and restart the server")
	r.when(!info.FullPageWrites, LevelBad, "full_page_writes", "on", "it is off: a backup taken meanwhile may hold torn pages", "ALTER SYSTEM SET full_page_writes = on;  -- and SELECT pg_reload_conf();")
	r.when(!info.Fsync, LevelBad, "fsync", "on", "it is off: a crash of the server's host corrupts the database", "ALTER SYSTEM SET fsync = on;  -- and SELECT pg_reload_conf();")
	r.when(!info.DataChecksums, LevelWarn, "data checksums", "on, checked at every backup", "they are off: backups cannot tell damaged pages", "pg_checksums --enable, while the server is stopped")
}

func checkReplication(ctx context.Context, r *CheckReport, conn connector) {
	c, err := conn.Replication(ctx)
	if err != nil {
		r.add(LevelBad, "replication connection", "", "%v", err)
		return
	}
	defer c.Close(context.WithoutCancel(ctx))
	if _, err := c.IdentifySystem(ctx); err != nil {
		r.add(LevelBad, "replication connection", "", "%v", err)
		return
	}
	r.add(LevelOK, "replication connection", "", "open")
}

// checkBinaries looks for what a restore needs on this host.
func (d *Deployment) checkBinaries(ctx context.Context, r *CheckReport, c config.Cluster, info postgres.Info, size int64) {
	var hints []string
	if c.BinDir != "" {
		hints = []string{c.BinDir}
	}
	if b, err := postgres.FindBinaries(ctx, info.Major, hints); err != nil {
		r.add(LevelWarn, "programs", "install PostgreSQL's server programs here, or set bin_dir; without them --start cannot be used on this host", "%v", err)
	} else {
		r.add(LevelOK, "programs", "", "%s in %s", b.Version, b.Dir)
	}
	where := d.Config.StateDir
	if info.DataDirectory != "" {
		if _, err := os.Stat(info.DataDirectory); err == nil {
			where = filepath.Dir(info.DataDirectory)
		}
	}
	free, err := postgres.DiskFree(where)
	switch {
	case err != nil:
		r.add(LevelWarn, "disk for a restore", "", "%v", err)
	case size == 0:
		r.add(LevelWarn, "disk for a restore", "", "%s are free at %s; how large the databases are is not visible to the role", bytesText(free), where)
	default:
		r.when(free < size+size/10, LevelWarn, "disk for a restore", fmt.Sprintf("%s free at %s, the databases have %s", bytesText(free), where, bytesText(size)),
			fmt.Sprintf("%s free at %s, the databases have %s: a restore beside the source would not fit there", bytesText(free), where, bytesText(size)), "keep space somewhere for --data-dir")
	}
}

// checkArchive tells what can be restored, and how far behind that is.
func (d *Deployment) checkArchive(ctx context.Context, r *CheckReport, c config.Cluster, info postgres.Info, connected bool) error {
	views, err := d.View(ctx, c.Name)
	if err != nil {
		return err
	}
	if len(views) == 0 || views[0].Identity == nil {
		r.add(LevelBad, "backups", "pileus wal receive "+c.Name+" &  pileus backup "+c.Name, "nothing of this cluster is in the repository yet")
		return nil
	}
	v := views[0]
	r.Window = v.Window
	if connected && info.SystemIdentifier != 0 && info.SystemIdentifier != v.Identity.SystemIdentifier {
		r.add(LevelBad, "identity", "give this server another identifier in pileus.yaml", "the server has system identifier %d, the backups in the repository are of %d", info.SystemIdentifier, v.Identity.SystemIdentifier)
	}
	for _, p := range append(v.Problems, v.Window.Problems...) {
		r.add(LevelBad, "repository content", "pileus verify "+c.Name, "%s", p)
	}
	if lost, err := archive.ReadLost(d.Config.StateDir, c.Name); err != nil {
		r.add(LevelWarn, "given-up segments", "", "%v", err)
	} else if lost != nil {
		r.add(LevelBad, "given-up segments", "pileus backup "+c.Name, "unprotected since %s: %d segments from %s on were not archived (%s)", lost.Since.Format(time.RFC3339), lost.Count, lost.First, lost.Reason)
	}
	if !v.Window.Restorable() {
		r.add(LevelBad, "restorable window", "pileus backup "+c.Name, "there is none: no backup with all of its WAL")
		return nil
	}
	r.add(LevelOK, "restorable window", "", "%s to %s", timeText(v.Window.Earliest), timeText(v.Window.Latest))
	if newest := v.Backups[len(v.Backups)-1]; newest.Problem == "" {
		old := time.Since(newest.Stopped)
		r.when(old > c.Retention && old > 48*time.Hour, LevelWarn, "last backup", timeText(newest.Stopped), fmt.Sprintf("it is %s old: a restore has that much WAL to replay", old.Round(time.Hour)), "pileus backup "+c.Name)
		if newest.DamagedPages > 0 {
			r.add(LevelBad, "damaged pages", "see `pileus show "+newest.ID+"`", "the newest backup found %d pages with a wrong checksum", newest.DamagedPages)
		}
	}
	d.checkLag(r, v, info, connected)
	return nil
}

func (d *Deployment) checkLag(r *CheckReport, v ClusterView, info postgres.Info, connected bool) {
	receive := "keep `pileus wal receive " + v.Name + "` running, for example by the systemd unit pileus-wal@" + v.Name
	st := v.Receiver
	if st != nil && time.Since(st.Updated) < staleView {
		if st.RepositoryFailingSince != nil {
			r.add(LevelBad, "receiver", "make the repository reachable or give it space; the WAL follows by itself", "the repository refuses WAL since %s: %s", timeText(*st.RepositoryFailingSince), st.RepositoryError)
		}
		if st.ConnectionFailingSince != nil {
			r.add(LevelBad, "receiver", "", "no connection to the server since %s: %s", timeText(*st.ConnectionFailingSince), st.ConnectionError)
		}
		if st.Gap != nil && st.Gap.To > v.Window.EarliestLSN && st.Gap.Since.After(v.Window.Earliest) {
			r.add(LevelBad, "gap", "pileus backup "+v.Name, "WAL from %s to %s is lost since %s: %s", st.Gap.From, st.Gap.To, timeText(st.Gap.Since), st.Gap.Reason)
		}
	}
	if !connected {
		return
	}
	behind := int64(0)
	if info.FlushLSN > v.Window.LatestLSN {
		behind = int64(info.FlushLSN - v.Window.LatestLSN)
	}
	lag := info.Clock.Sub(v.Window.Latest)
	switch {
	case behind == 0:
		r.add(LevelOK, "archive", "", "it holds everything that the server has written")
	case lag < maxLag:
		r.add(LevelOK, "archive", "", "it is %s behind, %s of WAL", lag.Round(time.Second), bytesText(behind))
	case pushes(info) && behind <= v.Identity.SegmentSize:
		r.add(LevelWarn, "archive", "set archive_timeout, or stream with `pileus wal receive`", "the segment that is being filled, %s since %s, is archived when it is full", bytesText(behind), timeText(v.Window.Latest))
	default:
		r.add(LevelBad, "archive", receive, "it is behind since %s: %s of WAL are only on the server", timeText(v.Window.Latest), bytesText(behind))
	}
}

// checkSlot looks at the replication slot and its bounds.
func (d *Deployment) checkSlot(ctx context.Context, r *CheckReport, c config.Cluster, conn connector, info postgres.Info) {
	if pushes(info) {
		r.add(LevelOK, "WAL by", "", "archive_command")
	}
	sql, err := conn.SQL(ctx)
	if err != nil {
		return // said already
	}
	defer sql.Close(context.WithoutCancel(ctx))
	slot, err := sql.ReadSlot(ctx, c.Slot)
	if err != nil {
		if !pushes(info) {
			r.when(info.MaxReplicationSlots == 0, LevelBad, "slots", fmt.Sprintf("%s will be created by `pileus wal receive %s`", c.Slot, c.Name), "max_replication_slots is 0", "ALTER SYSTEM SET max_replication_slots = 10;  -- and restart the server")
		}
		return
	}
	switch {
	case slot.Lost():
		r.add(LevelBad, "slot "+c.Slot, "pileus wal receive "+c.Name+" makes a new one; then pileus backup "+c.Name, "it has lost WAL: there is a gap in the archive")
	case !slot.Active:
		r.add(LevelBad, "slot "+c.Slot, "start `pileus wal receive "+c.Name+"`, or drop it: SELECT pg_drop_replication_slot('"+c.Slot+"');", "nobody reads from it, and it keeps WAL on the server from %s on", slot.RestartLSN)
	default:
		r.add(LevelOK, "slot "+c.Slot, "", "in use, keeps WAL from %s", slot.RestartLSN)
	}
	r.when(info.MaxSlotWALKeepSize < 0, LevelWarn, "max_slot_wal_keep_size", bytesText(info.MaxSlotWALKeepSize),
		"it is not limited: if Pileus stays away for long, pg_wal grows until the disk is full", "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB';  -- and SELECT pg_reload_conf();")
	if !strings.Contains(info.SynchronousStandbyNames, postgres.DefaultApplicationName) {
		r.add(LevelOK, "loss at worst", "", "what was committed in the last %s (for none: synchronous_standby_names = 'pileus')", c.WAL.FlushInterval)
	} else {
		r.add(LevelOK, "loss at worst", "", "none: commits wait for the repository")
	}
}

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func bytesText(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
