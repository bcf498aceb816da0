package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"pileus/internal/archive"
	"pileus/internal/pg"
	"pileus/internal/postgres"
)

// serverLog is where the server's messages go while it recovers, and after it if
// its own settings name no other place.
const serverLog = "pileus_restore.log"

// recover starts the server so that nobody can reach it, waits until it has
// replayed to the stop record and promoted, checks where that was, and starts it
// again with the settings it is to keep, unless it is to be held.
func (r *run) recover(ctx context.Context) (err error) {
	p := r.plan
	if err := r.mark(StageRecovering); err != nil {
		return err
	}
	private, err := r.private()
	if err != nil {
		return err
	}
	defer os.RemoveAll(private)
	in := p.instance()
	in.SocketDir = private
	r.result.LogFile = in.LogFile
	defer func() {
		if err != nil {
			err = errors.Join(err, r.stop(in))
		}
	}()
	p.request.Report.Stage("replaying WAL", p.WALBytes)
	r.since = time.Now()
	stopAhead := r.readAhead(ctx)
	defer stopAhead()
	// hot_standby is off: nobody asks before the end, and the settings that a
	// standby needs as large as the source's do not matter then.
	err = in.Start(ctx, postgres.StartOptions{NoWait: true, Env: p.request.Env, Settings: map[string]string{
		"listen_addresses": "", "hba_file": filepath.Join(private, hbaConf), "hot_standby": "off",
		"logging_collector": "off", "log_destination": "stderr", "ssl": "off", "archive_mode": "off"}})
	if err == nil {
		err = r.follow(ctx, in)
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w %s; the server did not promote: %w", ErrNotPromoted, p.Resolution.EndLSN, err)
	}
	stopAhead()
	r.lap("replay", p.WALBytes)
	if err := r.mark(StageVerifying); err != nil {
		return err
	}
	if r.result.Timeline, err = verify(p); err != nil {
		return err
	}
	if err := in.Stop(ctx, postgres.StopFast); err != nil {
		return err
	}
	if err := r.finalSettings(); err != nil {
		return err
	}
	if p.request.Hold {
		return nil
	}
	return r.open(ctx, in)
}

// readAhead has WAL ready when the server asks for it, until stop is called.
func (r *run) readAhead(ctx context.Context) (stop func()) {
	p := r.plan
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		path, err := archive.History(ctx, p.request.Repo, p.Source, p.Resolution.Timeline)
		if err != nil {
			return // the server will ask for it as well, and is told
		}
		a := archive.Ahead{Repo: p.request.Repo, Cluster: p.cluster, Path: path, Dir: filepath.Join(p.DataDir, "pg_wal"), Own: p.owner.Chown}
		a.Run(ctx, p.WALFrom, p.WALTo)
	})
	return func() { cancel(); done.Wait() }
}

// open starts the cluster with the settings it is to keep. From here on it may be
// used, so a run that fails or is killed leaves it, and the next one only opens it.
func (r *run) open(ctx context.Context, in *postgres.Instance) error {
	if err := r.mark(StageOpening); err != nil {
		return err
	}
	in.Port, in.SocketDir = 0, "" // the configuration has them
	if _, running, err := in.Running(); err != nil || !running {
		if err := in.Start(ctx, postgres.StartOptions{}); err != nil {
			return fmt.Errorf("recovery came to its target, and the server did not start with the settings it is to keep: %w", err)
		}
	}
	if pid, running, err := in.Running(); err == nil && running {
		r.result.Port, r.result.Socket = pid.Port, pid.SocketDir
	}
	r.result.Started = true
	r.lap("open", 0)
	return nil
}

// reopen finishes a restore that was interrupted when its cluster was about to open.
func (r *run) reopen(ctx context.Context) error {
	p := r.plan
	var err error
	if r.result.Timeline, r.result.EndLSN, err = ended(p.DataDir); err != nil {
		return err
	}
	p.request.Report.Note("An earlier run restored the cluster, up to LSN %s; it is opened as it is.", r.result.EndLSN)
	in := p.instance()
	r.result.LogFile = in.LogFile
	return r.open(ctx, in)
}

// instance is the new cluster's server.
func (p *Plan) instance() *postgres.Instance {
	return &postgres.Instance{Binaries: p.binaries, DataDir: p.DataDir, RunAs: p.owner, Port: p.Port, LogFile: filepath.Join(p.DataDir, serverLog)}
}

// private makes a folder that only the server's account can enter, with a
// pg_hba.conf that lets nobody in.
func (r *run) private() (string, error) {
	dir, err := os.MkdirTemp("", "pileus-")
	if err != nil {
		return "", fmt.Errorf("prepare recovery: %w", err)
	}
	path := filepath.Join(dir, hbaConf)
	err = os.WriteFile(path, []byte("local all all reject\n"), 0o600)
	for _, name := range []string{path, dir} {
		if err == nil {
			err = r.plan.owner.Chown(name)
		}
	}
	if err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("prepare recovery: %w", err)
	}
	return dir, nil
}

// stopTime is how long a server may take to stop at once.
const stopTime = 30 * time.Second

// stop ends the server of a restore that failed.
func (r *run) stop(in *postgres.Instance) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if err := in.Stop(ctx, postgres.StopImmediate); err != nil {
		return in.Kill()
	}
	return nil
}

// finalSettings drops the recovery target and restore command.
func (r *run) finalSettings() error {
	s, err := readSettings(r.plan.DataDir, &r.plan.request)
	if err != nil {
		return err
	}
	return s.apply(r.place, nil)
}

// follow waits for the end of recovery, and reports how far replay is.
func (r *run) follow(ctx context.Context, in *postgres.Instance) error {
	pid, running, err := in.Running()
	if err == nil && running {
		watch, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.watch(watch, pid.PID)
		}()
		defer func() { stop(); <-done }()
	}
	return in.WaitRecovered(ctx)
}

// watch reads from the startup process's title which segment it replays. Where
// there is no /proc, no progress is shown.
func (r *run) watch(ctx context.Context, postmaster int) {
	p := r.plan
	seen := p.WALFrom
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		at := min(replaying(postmaster, p.Resolution.Backup.SegmentSize), p.WALTo)
		if at > seen {
			p.request.Report.Add(int64(at - seen))
			seen = at
		}
	}
}

// replaying is the start of the segment that the server replays; 0 if it cannot be told.
func replaying(postmaster int, segmentSize int64) pg.LSN {
	dir := "/proc/" + strconv.Itoa(postmaster)
	children, err := os.ReadFile(filepath.Join(dir, "task", strconv.Itoa(postmaster), "children"))
	if err != nil {
		return 0
	}
	for _, pid := range strings.Fields(string(children)) {
		title, err := os.ReadFile("/proc/" + pid + "/cmdline")
		if err != nil {
			continue
		}
		_, name, ok := strings.Cut(strings.TrimRight(string(title), "\x00 "), "recovering ")
		if s, err := pg.ParseSegmentName(name, segmentSize); ok && err == nil {
			return s.Start()
		}
	}
	return 0
}

// verify checks that recovery ended at the planned record.
func verify(p *Plan) (pg.TimelineID, error) {
	newest, end, err := ended(p.DataDir)
	if err != nil {
		return 0, err
	}
	want := p.Resolution.EndLSN
	switch {
	case newest <= p.Resolution.Timeline:
		return 0, fmt.Errorf("%w: the server is not on a timeline of its own", ErrNotPromoted)
	case p.Resolution.Immediate && end < want, !p.Resolution.Immediate && end != want:
		return 0, fmt.Errorf("%w %s: it ended at %s", ErrNotPromoted, want, end)
	}
	return newest, nil
}

// ended tells where recovery ended: the history that the promoted server wrote
// says where its timeline begins. Timeline 0: it was not promoted.
func ended(dataDir string) (newest pg.TimelineID, end pg.LSN, err error) {
	wal := filepath.Join(dataDir, "pg_wal")
	entries, err := os.ReadDir(wal)
	if err != nil {
		return 0, 0, fmt.Errorf("look where recovery ended: %w", err)
	}
	for _, e := range entries {
		if tli, ok := pg.ParseHistoryName(e.Name()); ok {
			newest = max(newest, tli)
		}
	}
	if newest == 0 {
		return 0, 0, nil
	}
	content, err := os.ReadFile(filepath.Join(wal, pg.HistoryName(newest)))
	if err == nil {
		end, err = lastSwitch(content)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("look where recovery ended: %s: %w", pg.HistoryName(newest), err)
	}
	return newest, end, nil
}

// lastSwitch is where the last line of a history says that its timeline began.
// The lines before need not be in order: a server that follows a timeline and ends
// before that one began writes both switches down, the later one first.
func lastSwitch(history []byte) (pg.LSN, error) {
	end := pg.LSN(0)
	for line := range strings.Lines(string(history)) {
		f := strings.Fields(line)
		if len(f) < 2 || strings.HasPrefix(f[0], "#") {
			continue
		}
		var err error
		if end, err = pg.ParseLSN(f[1]); err != nil {
			return 0, err
		}
	}
	return end, nil
}

// next says what a person does now.
func (r *run) next() {
	p := r.plan
	if r.result.Started {
		r.result.Next = append(r.result.Next,
			fmt.Sprintf("Connect: psql -h %s -p %d", r.result.Socket, r.result.Port),
			fmt.Sprintf("It is not protected yet: add cluster %s to pileus.yaml, then run `pileus wal receive %s` and `pileus backup %s`.", p.NewCluster, p.NewCluster, p.NewCluster))
		return
	}
	pgctl := "pg_ctl"
	if p.Binaries != "" {
		pgctl = filepath.Join(p.Binaries, "pg_ctl")
	}
	start := fmt.Sprintf("%s -D %s -l %s start", pgctl, p.DataDir, filepath.Join(p.DataDir, serverLog))
	if os.Geteuid() == 0 {
		start = fmt.Sprintf("sudo -u %s %s", p.Owner, start)
	}
	r.result.Next = append(r.result.Next, "Start it, and it recovers to its target and promotes itself: "+start)
}
