package backup

import (
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"pileus/internal/pgtest"
)

// priorities are the calling thread's: 20 less its niceness, and ioprio's value.
func priorities(t *testing.T) (cpu, disk int) {
	t.Helper()
	cpu, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Error(err)
	}
	got, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, ioWhoThread, 0, 0)
	if errno != 0 {
		t.Error(errno)
	}
	return cpu, int(got)
}

func TestWorkersGiveWay(t *testing.T) {
	usual, _ := priorities(t)
	for _, nice := range []bool{false, true} {
		_, store := newStore(t)
		r := &run{Options: Options{Repo: store, Workers: 3, Nice: nice}, abort: func(error) {}}
		r.packer = store.NewPacker(t.Context())
		r.Progress = &notes{t: t}
		var all sync.WaitGroup // each worker stays until all are there, so that each has a thread of its own
		all.Add(r.Workers)
		err := r.crew(func() error { return nil }, func(*worker) error {
			all.Done()
			all.Wait()
			cpu, disk := priorities(t)
			if lowered := cpu < usual && disk == ioLowest; lowered != nice && usual > 20-niceness {
				t.Errorf("nice %v: a worker has CPU priority %d (others %d) and disk priority %d", nice, cpu, usual, disk)
			}
			return nil
		}, func(*worker) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.packer.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// What runs afterwards is not affected, on whatever thread.
	var others sync.WaitGroup
	for range 20 {
		others.Go(func() {
			if cpu, _ := priorities(t); cpu != usual {
				t.Errorf("after the backup a thread has CPU priority %d instead of %d", cpu, usual)
			}
		})
	}
	others.Wait()
}

func TestNiceBackup(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	o := l.options(ModeFiles)
	o.Nice = true
	b := l.run(o)
	if b.Files == 0 || l.notes.lines.String() != "" {
		t.Errorf("%d files, notes %q", b.Files, l.notes.lines.String())
	}
}
