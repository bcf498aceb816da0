package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/repo"
	"pileus/internal/store"
)

// Options are choices that do not change the outcome.
type Options struct {
	Workers int // concurrent decodes; 0: the number of cores
}

// Result is what a restore came to.
type Result struct {
	Plan     Plan          `json:"plan"`
	Started  bool          `json:"started"`            // the new cluster runs, promoted and verified
	Timeline pg.TimelineID `json:"timeline,omitempty"` // the new cluster's own; of meaning if Started
	EndLSN   pg.LSN        `json:"end_lsn"`            // where replay ended, or will
	Stages   []StageTime   `json:"stages"`
	Total    time.Duration `json:"total_ns"`
	Port     int           `json:"port,omitempty"`
	Socket   string        `json:"socket_dir,omitempty"`
	LogFile  string        `json:"log_file,omitempty"`
	Next     []string      `json:"next"` // what to do now, a line each
}

// StageTime is how long one stage took.
type StageTime struct {
	Name  string        `json:"name"`
	Took  time.Duration `json:"took_ns"`
	Bytes int64         `json:"bytes,omitempty"`
}

// run is one execution of a plan.
type run struct {
	plan    *Plan
	opt     Options
	place   *place
	marker  marker
	result  Result
	since   time.Time
	cleared bool // the directories are ours
	named   bool // the new cluster is in the repository
}

// Run carries out a plan. On failure a server that it started is stopped, the new
// cluster is not in the repository, and the marker says where it failed; the same
// request can be planned and run again. Errors besides those of NewPlan:
// ErrNotPromoted, and repo.ErrDamaged for what the repository could not give back.
func Run(ctx context.Context, p Plan, opt Options) (Result, error) {
	if opt.Workers <= 0 {
		opt.Workers = runtime.GOMAXPROCS(0)
	}
	start := time.Now()
	r := run{plan: &p, opt: opt, place: p.place(), since: start}
	r.result = Result{Plan: p, EndLSN: p.Resolution.EndLSN, Port: p.Port, Socket: p.SocketDir}
	r.marker = marker{Tool: markerTool, Request: p.id, Source: p.Source, Cluster: p.NewCluster, Target: p.Target.String(),
		Backup: p.Resolution.Backup.ID, StopLSN: p.Resolution.StopLSN, Started: start.UTC().Truncate(time.Second), DataDir: p.DataDir,
		Explains: "This directory belongs to an unfinished restore. Run the same command again to start it over, or remove the directory."}
	err := r.do(ctx)
	r.result.Total = time.Since(start)
	if err != nil {
		return r.result, r.fail(context.WithoutCancel(ctx), err)
	}
	return r.result, nil
}

func (r *run) do(ctx context.Context) error {
	unlock, err := r.claim()
	if err != nil {
		return err
	}
	defer unlock()
	work := []func(context.Context) error{r.empty, r.write, r.register}
	if r.plan.request.Start {
		work = append(work, r.recover)
	}
	// Under the lock nobody else changes the marker.
	if m, ok, err := readMarker(r.plan.DataDir); err != nil {
		return err
	} else if ok && m.Request == r.plan.id && m.Stage == StageOpening {
		r.marker, work = m, []func(context.Context) error{r.reopen}
	}
	for _, step := range work {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := r.place.unmark(); err != nil {
		return err
	}
	r.next()
	return nil
}

// claim takes the directories: makes them, and locks them against a second process.
func (r *run) claim() (unlock func(), err error) {
	for _, dir := range r.place.roots() {
		if _, err := checkDir(dir, r.plan.id, "the directory"); err != nil {
			return nil, err
		}
		if err := r.place.makeDir(dir, 0o700); err != nil {
			return nil, err
		}
	}
	d, err := os.Open(r.plan.DataDir)
	if err != nil {
		return nil, err
	}
	unlock = func() { d.Close() } // closing it gives the lock up
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		unlock()
		return nil, fmt.Errorf("another process is restoring into %s: %w", r.plan.DataDir, err)
	}
	return unlock, nil
}

// empty checks the directories again, now that they are locked, ends what an
// unfinished restore left running, empties and marks them.
func (r *run) empty(ctx context.Context) error {
	for _, dir := range r.place.roots() {
		if _, err := checkDir(dir, r.plan.id, "the directory"); err != nil {
			return err
		}
	}
	in := postgres.Instance{DataDir: r.plan.DataDir}
	if _, running, err := in.Running(); err == nil && running {
		r.plan.request.Report.Note("A server of the unfinished restore runs on %s and is stopped.", r.plan.DataDir)
		if err := in.Stop(ctx, postgres.StopImmediate); err != nil {
			return err
		}
	}
	if err := r.place.clear(r.plan.id); err != nil {
		return err
	}
	r.cleared = true
	return r.mark(StageWriting)
}

func (r *run) mark(s Stage) error {
	r.marker.Stage = s
	return r.place.mark(r.marker)
}

// lap ends a stage and notes how long it took.
func (r *run) lap(name string, bytes int64) {
	now := time.Now()
	r.result.Stages = append(r.result.Stages, StageTime{Name: name, Took: now.Sub(r.since), Bytes: bytes})
	r.since = now
}

// write fills the directories. The control file comes last: before it, no server starts there.
func (r *run) write(ctx context.Context) error {
	p := r.plan
	p.request.Report.Stage("writing files", p.Bytes)
	r.since = time.Now()
	b := p.Resolution.Backup
	m, err := p.request.Repo.OpenManifest(ctx, b.Cluster, b.ID)
	if err != nil {
		return fmt.Errorf("open backup %s: %w", b.ID, err)
	}
	defer m.Close()
	var trees []*tree
	for _, dir := range r.place.roots() {
		t, err := openTree(dir)
		if err != nil {
			return err
		}
		defer t.close()
		trees = append(trees, t)
	}
	w := writer{repo: p.request.Repo, place: r.place, parallel: max(4, 2*r.opt.Workers), report: p.request.Report}
	if err := w.all(ctx, m.Entries()); err != nil {
		return fmt.Errorf("write backup %s to %s: %w", b.ID, p.DataDir, err)
	}
	r.lap("write", p.Bytes)
	if err := r.outfit(); err != nil {
		return err
	}
	p.request.Report.Stage("making it durable", 0)
	for _, t := range trees {
		if err := t.sync(); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.writeControl(ctx); err != nil {
		return fmt.Errorf("write backup %s to %s: %w", b.ID, p.DataDir, err)
	}
	r.lap("sync", 0)
	return r.mark(StageWritten)
}

// outfit adds what turns the copied files into a cluster that recovers to the target.
func (r *run) outfit() error {
	p := r.plan
	if err := r.place.complete(); err != nil {
		return err
	}
	if err := r.place.link(); err != nil {
		return err
	}
	extra, _ := outsiders(p.conf)
	for name, content := range extra {
		if err := r.place.put(p.DataDir, name, content); err != nil {
			return err
		}
	}
	s, err := readSettings(p.DataDir, &p.request)
	if err != nil {
		return err
	}
	if err := s.apply(r.place, recoverySettings(p)); err != nil {
		return err
	}
	files := map[string][]byte{pg.BackupLabelFile: []byte(p.Resolution.Backup.Label), "recovery.signal": nil}
	if spaces := tablespaceMap(p.Tablespaces); len(spaces) > 0 {
		files[pg.TablespaceMapFile] = spaces
	}
	for name, content := range files {
		if err := r.place.put(p.DataDir, name, content); err != nil {
			return err
		}
	}
	return nil
}

// register gives the new cluster its identifier in the repository.
func (r *run) register(ctx context.Context) error {
	p := r.plan
	c := repo.Cluster{Name: p.NewCluster, SystemIdentifier: p.cluster.SystemIdentifier, SegmentSize: p.cluster.SegmentSize,
		Major: p.Resolution.Backup.Version / 10000, Created: time.Now().UTC().Truncate(time.Second),
		Parent: &repo.Parent{Cluster: p.Source, Backup: p.Resolution.Backup.ID, Timeline: p.Resolution.Timeline, LSN: p.Resolution.EndLSN, Time: p.moment()}}
	err := p.request.Repo.CreateCluster(ctx, c)
	if errors.Is(err, store.ErrExists) {
		have, rerr := p.request.Repo.Cluster(ctx, p.NewCluster)
		if rerr != nil {
			return rerr
		}
		if !p.Resumes || !ourRegistration(have, p.Source) {
			return fmt.Errorf("%s: %w: it came into use meanwhile", p.NewCluster, ErrIdentifier)
		}
		// Left by the run that was killed; it may have had another target "latest".
		if err := p.request.Repo.DeleteCluster(ctx, p.NewCluster); err != nil {
			return err
		}
		err = p.request.Repo.CreateCluster(ctx, c)
	}
	r.named = err == nil
	return err
}

// moment is the time of the last commit in the result, or of the backup when none is known.
func (p *Plan) moment() time.Time {
	if c := p.Resolution.LastCommit; c != nil {
		return c.Time
	}
	return p.Resolution.Backup.Stopped
}

// fail leaves everything so that the same request can be run again.
func (r *run) fail(ctx context.Context, cause error) error {
	errs := []error{cause}
	if r.marker.Stage == StageOpening {
		return cause // the cluster is whole: the next run opens it
	}
	if r.named {
		if err := r.plan.request.Repo.DeleteCluster(ctx, r.plan.NewCluster); err != nil {
			errs = append(errs, err)
		}
	}
	if r.cleared {
		r.marker.Failed = fmt.Sprintf("%s: %v", r.marker.Stage, cause)
		if err := r.mark(StageFailed); err != nil && !errors.Is(cause, err) {
			errs = append(errs, fmt.Errorf("note the failure: %w", err))
		}
	}
	return errors.Join(errs...)
}
