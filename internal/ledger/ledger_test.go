package ledger_test

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pileus/internal/ledger"
)

func open(t *testing.T, path string) (*ledger.Ledger, string) {
	t.Helper()
	l, notice, err := ledger.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, notice
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEvents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l, _ := open(t, path)
	now := time.Now().UTC().Truncate(time.Microsecond)
	old := ledger.Event{Time: now.Add(-15 * 24 * time.Hour), SourceType: "db-cluster", Source: "a", Categories: []string{"creation"}, Message: "too old"}
	a := ledger.Event{Time: now.Add(-time.Hour), SourceType: "db-cluster", Source: "a", ARN: "arn:a", Categories: []string{"backup", "failure"}, Message: "one"}
	b := ledger.Event{Time: now, SourceType: "db-instance", Source: "b", ARN: "arn:b", Categories: []string{"creation"}, Message: "two"}
	for _, e := range []ledger.Event{b, old, a} {
		must(t, l.AddEvent(t.Context(), e))
	}
	must(t, l.Close())
	l, _ = open(t, path)
	for name, c := range map[string]struct {
		q    ledger.EventQuery
		want []ledger.Event
	}{
		"all":        {ledger.EventQuery{}, []ledger.Event{a, b}},
		"type":       {ledger.EventQuery{SourceType: "db-cluster"}, []ledger.Event{a}},
		"source":     {ledger.EventQuery{Source: "b"}, []ledger.Event{b}},
		"from":       {ledger.EventQuery{From: now}, []ledger.Event{b}},
		"to":         {ledger.EventQuery{To: now.Add(-time.Minute)}, []ledger.Event{a}},
		"category":   {ledger.EventQuery{Categories: []string{"failure", "other"}}, []ledger.Event{a}},
		"part of it": {ledger.EventQuery{Categories: []string{"fail"}}, []ledger.Event{}},
	} {
		got, err := l.Events(t.Context(), c.q)
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

func TestAuditIsAppendOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l, _ := open(t, path)
	first := ledger.AuditEntry{Time: time.Now().UTC().Truncate(time.Microsecond), RequestID: "r", AccessKey: "k", Role: "operator", SourceAddress: "::1", Action: "DeleteDBCluster",
		Resource: "a", Parameters: map[string]string{"SkipFinalSnapshot": "true"}, Result: "ok", Status: 200}
	second := first
	second.Time, second.Action = first.Time.Add(time.Second), "StopDBCluster"
	must(t, l.Audit(t.Context(), first))
	must(t, l.Audit(t.Context(), second))
	got, err := l.AuditLog(t.Context(), ledger.AuditQuery{})
	if diff := cmp.Diff([]ledger.AuditEntry{second, first}, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	got, err = l.AuditLog(t.Context(), ledger.AuditQuery{Action: "DeleteDBCluster", To: first.Time, Limit: 5})
	if diff := cmp.Diff([]ledger.AuditEntry{first}, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	reader, err := ledger.Read(t.Context(), path) // while it is written
	must(t, err)
	got, err = reader.AuditLog(t.Context(), ledger.AuditQuery{Limit: 1})
	if diff := cmp.Diff([]ledger.AuditEntry{second}, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if err := reader.Audit(t.Context(), first); err == nil {
		t.Error("a reader can write")
	}
	must(t, reader.Close())
	db, err := sql.Open("sqlite", path)
	must(t, err)
	defer db.Close()
	for _, q := range []string{"DELETE FROM audit", "UPDATE audit SET result = 'x'",
		"REPLACE INTO audit SELECT id, 0, request, access_key, role, address, action, resource, parameters, 'x', status FROM audit"} {
		if _, err := db.Exec(q); err == nil {
			t.Errorf("%s succeeded", q)
		}
	}
	got, err = l.AuditLog(t.Context(), ledger.AuditQuery{})
	if diff := cmp.Diff([]ledger.AuditEntry{second, first}, got); err != nil || diff != "" {
		t.Errorf("afterwards: %v %s", err, diff)
	}
}

func TestAttempts(t *testing.T) {
	l, _ := open(t, filepath.Join(t.TempDir(), "ledger"))
	now := time.Now().UTC().Truncate(time.Microsecond)
	boom := errors.New("boom")
	for i, c := range []struct {
		err  error
		want ledger.Attempt
	}{{boom, ledger.Attempt{At: now, Failures: 1, Err: "boom"}}, {boom, ledger.Attempt{At: now, Failures: 2, Err: "boom"}}, {nil, ledger.Attempt{At: now}}, {boom, ledger.Attempt{At: now, Failures: 1, Err: "boom"}}} {
		must(t, l.Attempt(t.Context(), "c", "backup", now, c.err))
		if got, err := l.LastAttempt(t.Context(), "c", "backup"); err != nil || got != c.want {
			t.Errorf("%d: %+v, %v; want %+v", i, got, err, c.want)
		}
	}
	if got, err := l.LastAttempt(t.Context(), "other", "backup"); err != nil || got != (ledger.Attempt{}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestDamagedLedgerIsMovedAside(t *testing.T) {
	for name, content := range map[string]string{"no database": "this is not a database, whatever its name says, and long enough to be read", "another one": ""} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger")
			if content != "" {
				must(t, os.WriteFile(path, []byte(content), 0o600))
			} else {
				db, err := sql.Open("sqlite", path)
				must(t, err)
				_, err = db.Exec("CREATE TABLE theirs (x)")
				must(t, errors.Join(err, db.Close()))
			}
			l, notice := open(t, path)
			if notice == "" {
				t.Error("nothing is said of it")
			}
			must(t, l.AddEvent(t.Context(), ledger.Event{Time: time.Now(), Message: "x"}))
			aside, err := filepath.Glob(path + ".damaged-*")
			if err != nil || len(aside) == 0 {
				t.Errorf("%v %v", aside, err)
			}
		})
	}
}

func TestConcurrentUse(t *testing.T) {
	l, _ := open(t, filepath.Join(t.TempDir(), "ledger"))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				if err := l.AddEvent(t.Context(), ledger.Event{Time: time.Now(), Message: "x"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got, err := l.Events(t.Context(), ledger.EventQuery{}); err != nil || len(got) != 80 {
		t.Errorf("%d events, %v", len(got), err)
	}
}

// TestFolderNames: what stands in a folder's name is no part of SQLite's URI.
func TestFolderNames(t *testing.T) {
	for _, name := range []string{"a b", "50%41", "a#b", "a?mode=memory", "ä&b=c", "a:b"} {
		path := filepath.Join(t.TempDir(), name, "ledger")
		must(t, os.Mkdir(filepath.Dir(path), 0o700))
		l, notice := open(t, path)
		must(t, l.AddEvent(t.Context(), ledger.Event{Time: time.Now(), Message: "x"}))
		must(t, l.Close())
		if info, err := os.Stat(path); err != nil || info.Size() == 0 || notice != "" {
			t.Errorf("%q: the file is not where it should be: %v, %q", name, err, notice)
		}
		l, _ = open(t, path)
		if got, err := l.Events(t.Context(), ledger.EventQuery{}); err != nil || len(got) != 1 {
			t.Errorf("%q: %d events, %v", name, len(got), err)
		}
	}
}

// TestForeignDatabase: another program's file may have our version number by chance.
func TestForeignDatabase(t *testing.T) {
	for name, text := range map[string]string{
		"same version": "CREATE TABLE theirs (x); PRAGMA user_version = 1",
		"newer":        "CREATE TABLE event (x); PRAGMA user_version = 99",
		"empty":        "PRAGMA user_version = 1",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger")
			db, err := sql.Open("sqlite", path)
			must(t, err)
			_, err = db.Exec(text)
			must(t, errors.Join(err, db.Close()))
			l, notice := open(t, path)
			if notice == "" {
				t.Error("nothing is said of it")
			}
			must(t, l.Audit(t.Context(), ledger.AuditEntry{Time: time.Now()}))
		})
	}
}

// TestDamagedPages: a ledger with overwritten pages, or cut short, is replaced, and the damaged one kept.
func TestDamagedPages(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"overwritten": func(b []byte) []byte {
			for i := 4096; i < len(b); i++ {
				b[i] ^= 0x5a
			}
			return b
		},
		"cut":    func(b []byte) []byte { return b[:len(b)/2+7] },
		"header": func(b []byte) []byte { return append(make([]byte, 512), b[512:]...) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger")
			l, _ := open(t, path)
			for range 200 {
				must(t, l.Audit(t.Context(), ledger.AuditEntry{Time: time.Now(), Action: "CreateDBCluster", Resource: "a"}))
			}
			must(t, l.Close())
			b, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, damage(b), 0o600))
			l, notice := open(t, path)
			if notice == "" {
				t.Error("nothing is said of it")
			}
			must(t, l.Audit(t.Context(), ledger.AuditEntry{Time: time.Now()}))
			if aside, err := filepath.Glob(path + ".damaged-*"); err != nil || len(aside) == 0 {
				t.Errorf("%v %v", aside, err)
			}
		})
	}
}
