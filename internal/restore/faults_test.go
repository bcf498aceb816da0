package restore

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pileus/internal/pgtest"
	"pileus/internal/postgres"
	"pileus/internal/progress"
	"pileus/internal/repo"
)

// simpleLab has one table, one backup after row 3, and rows to 9 in the archive.
func simpleLab(t *testing.T, opts ...pgtest.Option) (*lab, repo.Backup, map[int]step) {
	t.Helper()
	l := newLab(t, pgtest.Newest(t), opts...)
	l.server.Exec("CREATE TABLE ledger (n int PRIMARY KEY)")
	early := l.steps(1, 3)
	b := l.backup(nil)
	known := l.steps(4, 9)
	known[2] = early[2]
	l.archive()
	return l, b, known
}

func TestPlanRefusals(t *testing.T) {
	l, b, known := simpleLab(t)
	full := filepath.Join(l.home, "full")
	l.check(os.Mkdir(full, 0o755))
	l.check(os.WriteFile(filepath.Join(full, "keep"), []byte("mine"), 0o644))
	tests := []struct {
		name   string
		change func(*Request)
		is     error
		says   string
	}{
		{"directory not empty", func(r *Request) { r.DataDir = full }, ErrNotEmpty, "it holds keep"},
		{"directory of a live server", func(r *Request) { r.DataDir = l.server.Instance.DataDir }, ErrNotEmpty, "a server may be running"},
		{"within a data directory", func(r *Request) { r.DataDir = filepath.Join(l.server.Instance.DataDir, "base", "x") }, nil, "of another cluster"},
		{"parent missing", func(r *Request) { r.DataDir = filepath.Join(l.home, "no", "where") }, nil, "create it first"},
		{"the source's own identifier", func(r *Request) { r.NewCluster = "Source" }, ErrIdentifier, "the source's own"},
		{"bad identifier", func(r *Request) { r.NewCluster = "a--b" }, ErrIdentifier, "1 to 63 letters"},
		{"identifier used", func(r *Request) { r.NewCluster = "used" }, ErrIdentifier, "is in the repository"},
		{"unknown source", func(r *Request) { r.Source = "nobody" }, repo.ErrNotFound, "pileus list"},
		{"unknown backup", func(r *Request) { r.Target = Target{Kind: ToBackup, Name: "x"} }, ErrNoBackup, "has no backup x"},
		{"unknown snapshot", func(r *Request) { r.Target = Target{Kind: ToSnapshot, Name: "x"} }, ErrNoBackup, "has no snapshot x"},
		{"before the first backup's end", func(r *Request) { r.Target = Target{Kind: ToTime, Time: known[2].time} }, errWindow, "earlier than the end of the first backup"},
		{"in the future", func(r *Request) { r.Target = Target{Kind: ToTime, Time: time.Now().Add(time.Hour)} }, errWindow, "restorable: " + formatTime(b.Stopped) + " to "},
		{"LSN beyond the WAL", func(r *Request) { r.Target = Target{Kind: ToLSN, LSN: known[9].after + 1<<20} }, errWindow, "ends at LSN"},
		{"unknown timeline", func(r *Request) { r.Target = Target{Kind: ToLatest, Timeline: 5} }, repo.ErrNotFound, "00000005.history"},
		{"tablespace that is not there", func(r *Request) { r.Tablespaces = []TablespaceMap{{Old: "x", New: filepath.Join(l.home, "ts")}} }, ErrTablespace, `no tablespace "x"`},
		{"restore command fails", func(r *Request) {
			r.Probe = func(context.Context, *postgres.Owner) error { return errors.New("permission denied") }
		}, nil, "could not fetch WAL: permission denied"},
		{"exclusive name", func(r *Request) { r.Target = Target{Kind: ToName, Name: "a", Exclusive: true} }, nil, "cannot be exclusive"},
		{"programs missing", func(r *Request) { r.BinDirs = nil; l.fakeMajor(r) }, nil, "PostgreSQL 99"},
	}
	l.check(l.repo.CreateCluster(t.Context(), repo.Cluster{Name: "used", SystemIdentifier: 1, SegmentSize: b.SegmentSize}))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := l.request("refused", Target{Kind: ToLatest})
			tt.change(&r)
			_, err := NewPlan(t.Context(), r)
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("error %v; want %v that says %q", err, tt.is, tt.says)
			}
			if _, err := os.Stat(filepath.Join(l.home, "refused")); err == nil {
				t.Error("something was written")
			}
		})
	}
	if got, err := os.ReadFile(filepath.Join(full, "keep")); err != nil || string(got) != "mine" {
		t.Errorf("the file that was there: %q, %v", got, err)
	}
}

// fakeMajor makes the target a backup of a version that has no programs.
func (l *lab) fakeMajor(r *Request) {
	l.t.Helper()
	for b, err := range l.repo.Backups(l.t.Context(), source) {
		l.check(err)
		b.ID, b.Version = "future", 990000
		l.check(l.repo.WriteManifest(l.t.Context(), b, nil, nil))
		break
	}
	r.Target = Target{Kind: ToBackup, Name: "future"}
}

func TestPlanRefusesTooSmallADisk(t *testing.T) {
	all := []Disk{{Path: "/a", Need: 100 << 20, Free: 99 << 20}, {Path: "/b", Need: 1, Free: 2}}
	if err := checkDisks(all, 0); !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "/a needs 100 MiB and has 99 MiB") {
		t.Fatalf("error %v", err)
	}
	if err := checkDisks(all, 1<<20); err != nil {
		t.Fatalf("what clearing gives back does not count: %v", err)
	}
	if os.Geteuid() != 0 {
		return // mounting takes root; the check itself was tested above
	}
	l, _, _ := simpleLab(t)
	tiny := filepath.Join(l.home, "tiny")
	l.check(os.Mkdir(tiny, 0o755))
	l.check(unix.Mount("tmpfs", tiny, "tmpfs", 0, "size=8m"))
	t.Cleanup(func() { unix.Unmount(tiny, 0) })
	r := l.request("small", Target{Kind: ToLatest})
	r.DataDir = filepath.Join(tiny, "data")
	if _, err := NewPlan(t.Context(), r); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("error %v, want the disk refused", err)
	}
}

func TestGapInTheArchive(t *testing.T) {
	l := newLab(t, pgtest.Newest(t), pgtest.WALSegmentSize(1<<20))
	l.server.Exec("CREATE TABLE ledger (n int PRIMARY KEY)")
	l.backup(nil)
	known := l.steps(1, 3)
	l.server.SwitchWAL()
	l.steps(4, 6)
	l.server.SwitchWAL()
	l.steps(7, 9)
	l.archive()
	c, err := l.repo.Cluster(t.Context(), source)
	l.check(err)
	n := 0
	for s, err := range l.repo.Segments(t.Context(), source, 1, c.SegmentSize, known[3].after+(1<<20)) {
		l.check(err)
		if n == 0 {
			l.check(l.repo.DeleteSegment(t.Context(), source, s))
		}
		n++
	}
	if n == 0 {
		t.Fatal("there was no segment to lose")
	}
	_, err = NewPlan(t.Context(), l.request("gap", Target{Kind: ToLatest}))
	var gap *GapError
	var window *WindowError
	if !errors.As(err, &gap) || gap.To <= gap.From || !errors.As(err, &window) {
		t.Fatalf("error %v, want the gap and the window", err)
	}
	res, err := l.restore(l.request("before", Target{Kind: ToXID, XID: known[3].xid}))
	if err != nil {
		t.Fatal(err)
	}
	if got := l.ask(res, "SELECT count(*) FROM ledger"); got != "3" {
		t.Errorf("%s rows, want 3", got)
	}
}

func TestDamagedWALIsAGap(t *testing.T) {
	l, b, _ := simpleLab(t)
	l.server.SwitchWAL()
	l.steps(10, 12)
	l.archive()
	// The complete segment that holds the backup's end, changed in the middle of its object.
	paths, err := filepath.Glob(filepath.Join(l.dir, "clusters", source, "wal", "00000001", "*", "*"))
	l.check(err)
	for _, path := range paths {
		content, err := os.ReadFile(path)
		l.check(err)
		content[len(content)/2] ^= 1
		l.check(os.WriteFile(path, content, 0o600))
	}
	_, err = NewPlan(t.Context(), l.request("damaged", Target{Kind: ToLatest}))
	if !errors.Is(err, repo.ErrDamaged) || !errors.Is(err, errWindow) {
		t.Fatalf("error %v, want the damage named (backup %s)", err, b.ID)
	}
}

func TestTruncatedPackFailsAndCanBeRerun(t *testing.T) {
	l, _, _ := simpleLab(t)
	r := l.request("again", Target{Kind: ToLatest})
	p, err := NewPlan(t.Context(), r)
	l.check(err)
	flipPacks(t, l.dir, 20000)
	_, err = Run(t.Context(), p, Options{})
	if !errors.Is(err, repo.ErrDamaged) {
		t.Fatalf("error %v, want damage", err)
	}
	if _, err := os.Stat(filepath.Join(r.DataDir, controlPath)); err == nil {
		t.Error("the directory can be started")
	}
	if m, ok, err := readMarker(r.DataDir); err != nil || !ok || m.Stage != StageFailed || !strings.Contains(m.Failed, "writing") {
		t.Errorf("marker %+v, %v, %v", m, ok, err)
	}
	if _, err := l.repo.Cluster(t.Context(), "again"); !errors.Is(err, repo.ErrNotFound) {
		t.Errorf("the new cluster is registered: %v", err)
	}
	other := r
	other.NewCluster = "other"
	if _, err := NewPlan(t.Context(), other); !errors.Is(err, ErrNotEmpty) || !strings.Contains(err.Error(), "unfinished restore") {
		t.Errorf("error %v, want another request refused", err)
	}
	flipPacks(t, l.dir, 20000) // as it was
	res, err := l.restore(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.ask(res, "SELECT count(*) FROM ledger"); got != "9" {
		t.Errorf("%s rows, want 9", got)
	}
}

func TestUnreachableRepositoryNeverPromotes(t *testing.T) {
	l, _, _ := simpleLab(t)
	for name, command := range map[string]string{
		"gone":   "exit 1",       // says that there is no such segment
		"killed": "kill -9 $$ #", // dies by a signal
	} {
		r := l.request(name, Target{Kind: ToLatest})
		r.RestoreCommand = command
		res, err := l.restore(r)
		if !errors.Is(err, ErrNotPromoted) || res.Started {
			t.Fatalf("%s: error %v, want the server not promoted", name, err)
		}
		in := postgres.Instance{DataDir: r.DataDir}
		if _, running, err := in.Running(); running || err != nil {
			t.Errorf("%s: a server is left running (%v)", name, err)
		}
		if m, ok, _ := readMarker(r.DataDir); !ok || m.Stage != StageFailed || !strings.HasPrefix(m.Failed, "recovering") {
			t.Errorf("%s: marker %+v", name, m)
		}
	}
}

// stopper cancels a restore when its report comes to the given count.
type stopper struct {
	progress.Silent
	left   atomic.Int64
	cancel context.CancelFunc
}

func (s *stopper) count() {
	if s.left.Add(-1) == 0 {
		s.cancel()
	}
}
func (s *stopper) Stage(string, int64) { s.count() }
func (s *stopper) Add(int64)           { s.count() }

func TestInterruptedAnywhereAndRerun(t *testing.T) {
	l, _, _ := simpleLab(t)
	r := l.request("resumed", Target{Kind: ToLatest})
	for _, after := range []int64{1, 5, 100, 700} {
		ctx, cancel := context.WithCancel(t.Context())
		s := &stopper{cancel: cancel}
		p, err := NewPlan(t.Context(), r)
		l.check(err)
		s.left.Store(after)
		p.request.Report = s
		_, err = Run(ctx, p, Options{})
		cancel()
		if err == nil {
			t.Fatalf("the restore was not interrupted by report %d", after)
		}
		if _, err := l.repo.Cluster(t.Context(), "resumed"); !errors.Is(err, repo.ErrNotFound) {
			t.Errorf("after %d: the new cluster is registered: %v", after, err)
		}
	}
	res, err := l.restore(r)
	if err != nil {
		t.Fatal(err)
	}
	if !res.Plan.Resumes {
		t.Error("the plan does not say that it clears what was there")
	}
	if got := l.ask(res, "SELECT count(*) FROM ledger"); got != "9" {
		t.Errorf("%s rows, want 9", got)
	}
	if _, err := NewPlan(t.Context(), r); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("error %v, want the finished cluster left alone", err)
	}
}

func TestInterruptedWhenOpeningKeepsTheCluster(t *testing.T) {
	l, _, _ := simpleLab(t)
	r := l.request("opened", Target{Kind: ToLatest})
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	l.check(err)
	r.Port = taken.Addr().(*net.TCPAddr).Port // nothing hears of it before the cluster opens
	if _, err := l.restore(r); err == nil || !strings.Contains(err.Error(), "did not start with the settings it is to keep") {
		t.Fatalf("error %v, want the port refused", err)
	}
	proof := filepath.Join(r.DataDir, "proof")
	l.check(os.WriteFile(proof, nil, 0o600))
	l.check(taken.Close())
	l.steps(10, 12) // behind what was restored
	l.archive()
	res, err := l.restore(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(proof); err != nil {
		t.Error("the cluster was restored anew, though somebody may have used it")
	}
	if got := l.ask(res, "SELECT count(*) FROM ledger"); got != "9" || res.Timeline != 2 {
		t.Errorf("%s rows on timeline %d, want 9 on 2", got, res.Timeline)
	}
	if _, err := l.repo.Cluster(t.Context(), "opened"); err != nil {
		t.Errorf("the cluster is not registered: %v", err)
	}
}

func TestTwoProcessesAtOnce(t *testing.T) {
	l, _, _ := simpleLab(t)
	r := l.request("twice", Target{Kind: ToLatest})
	p, err := NewPlan(t.Context(), r)
	l.check(err)
	first := run{plan: &p, place: p.place(), marker: marker{Tool: markerTool, Request: p.id}}
	unlock, err := first.claim()
	l.check(err)
	defer unlock()
	l.check(first.empty(t.Context()))
	again, err := NewPlan(t.Context(), r)
	l.check(err)
	if _, err := Run(t.Context(), again, Options{}); err == nil || !strings.Contains(err.Error(), "another process is restoring") {
		t.Fatalf("error %v, want the second refused", err)
	}
	if m, ok, err := readMarker(r.DataDir); err != nil || !ok || m.Stage != StageWriting {
		t.Errorf("the first one's marker is %+v, %v", m, err)
	}
}
