package e2e

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pileus/internal/pgtest"
)

// refused runs pileus, expects the exit code, and every text in what it says.
func (r *rig) refused(code int, says []string, args ...string) {
	r.t.Helper()
	stdout, stderr, got := r.try(args...)
	all := stdout + stderr
	if got != code {
		r.t.Errorf("pileus %s: exit %d, want %d\n%s", strings.Join(args, " "), got, code, all)
		return
	}
	for _, s := range says {
		if !strings.Contains(all, s) {
			r.t.Errorf("pileus %s does not say %q:\n%s", strings.Join(args, " "), s, all)
		}
	}
}

func (r *rig) absent(path string) {
	r.t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		r.t.Errorf("%s is there although the restore failed (%v)", path, err)
	}
}

// edit changes a file and gives it back to the servers' account.
func edit(t *testing.T, path string, change func(string) string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(change(string(b))), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// find lists files below dir whose path contains part.
func find(t *testing.T, dir, part string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(p, part) {
			out = append(out, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRefusals walks bad input: each gets a clear error before anything is changed.
func TestRefusals(t *testing.T) {
	r := newRig(t, pgtest.Newest(t), flavour{})
	dir := filepath.Join(r.dir, "never")
	r.refused(1, []string{"not in the repository"}, "restore", "src", "--as", "a", "--data-dir", dir, "--latest")
	r.receive()
	r.server.Exec(`CREATE TABLE ledger (number bigint)`)
	r.run("backup", "src")
	r.caughtUp()

	restore := func(args ...string) []string {
		return append([]string{"restore", "src", "--as", "a", "--data-dir", dir}, args...)
	}
	window := []string{"restorable:", " to "}
	r.refused(4, window, restore("--to", "2h ago")...)
	r.refused(4, window, restore("--to", "2099-01-01T00:00:00Z")...)
	r.refused(4, window, restore("--to-lsn", "FF/0")...)
	r.refused(4, []string{"nonsense"}, restore("--to-name", "nonsense")...)
	r.refused(4, []string{"4000000"}, restore("--to-xid", "4000000")...)
	r.refused(2, []string{"exactly one of"}, restore()...)
	r.refused(2, []string{"exactly one of"}, restore("--latest", "--to", "1h ago")...)
	r.refused(2, []string{"is not a time"}, restore("--to", "yesterday")...)
	r.refused(2, []string{"already"}, "restore", "src", "--as", "src", "--data-dir", dir, "--latest")
	r.refused(2, []string{"--as"}, "restore", "src", "--as", "not--valid", "--data-dir", dir, "--latest")
	r.refused(1, []string{"nobody", "pileus list"}, "restore", "nobody", "--as", "a", "--data-dir", dir, "--latest")
	r.absent(dir)

	full := filepath.Join(r.dir, "full")
	if err := os.Mkdir(full, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(full, "precious"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r.refused(2, []string{"not empty"}, "restore", "src", "--as", "a", "--data-dir", full, "--latest")
	if len(find(t, full, "precious")) != 1 {
		t.Error("a file of the directory that was not empty is gone")
	}

	r.refused(2, []string{`unknown cluster "prod"`, "src"}, "backup", "prod")
	r.refused(2, []string{"unknown command"}, "bakcup")
	r.refused(2, []string{"unknown flag"}, "backup", "--fast")
	r.refused(2, []string{"--read-data"}, "verify", "--read-data", "0%")
	r.refused(2, []string{"no backup has the ID"}, "show", "20200101T000000Z-000000")
	r.refused(2, []string{"cannot name a snapshot"}, "snapshot", "create", "src", "a_b")
	r.refused(2, []string{"not in the repository"}, "snapshot", "delete", "src", "nothing")
	r.refused(6, []string{"another receive of src is under way", "process"}, "wal", "receive", "src")
	r.refused(2, []string{"is there already"}, "init")

	// An error with --json is JSON, with the exit code.
	_, stderr, _ := r.try("--json", "backup", "prod")
	if !strings.Contains(stderr, `"exit_code":2`) || !strings.HasPrefix(stderr, "{") {
		t.Errorf("an error with --json is %q", stderr)
	}

	text := r.configText()
	edit(t, r.config, func(s string) string { return s + "retension: 7d\n" })
	r.refused(2, []string{"retension", ":" + strconv.Itoa(strings.Count(text, "\n")+1) + ":", "known here"}, "list")
	edit(t, r.config, func(string) string { return text })
	r.refused(2, []string{"pileus init"}, "--config", filepath.Join(r.dir, "none.yaml"), "list")

	r.otherDatabase()
	r.newerFormat()
}

func (r *rig) configText() string {
	b, err := os.ReadFile(r.config)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

// otherDatabase points the identifier to another database: nothing may be mixed in.
func (r *rig) otherDatabase() {
	r.t.Helper()
	other := pgtest.Start(r.t, r.server.Version)
	text := r.configText()
	before := r.run("list", "src")
	edit(r.t, r.config, func(s string) string { return strings.ReplaceAll(s, r.server.DSN(), other.DSN()) })
	r.refused(1, []string{"identifier src is used in the repository by another database"}, "backup", "src")
	r.refused(5, []string{"another identifier"}, "check", "src")
	edit(r.t, r.config, func(string) string { return text })
	if after := r.run("list", "src"); strings.Count(after, "good") != strings.Count(before, "good") {
		r.t.Errorf("the repository changed:\n%s", after)
	}
}

func (r *rig) newerFormat() {
	r.t.Helper()
	path := filepath.Join(r.dir, "repo", "repository.json")
	b, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	edit(r.t, path, func(s string) string { return strings.Replace(s, `"format": 1`, `"format": 2`, 1) })
	r.refused(2, []string{"format 2", "newer"}, "list")
	edit(r.t, path, func(string) string { return string(b) })
}

// TestAccess walks wrong passwords, missing privileges and missing keys.
func TestAccess(t *testing.T) {
	const secret = "sw0rdf1sh-and-more"
	r := newRig(t, pgtest.Newest(t), flavour{encrypted: true}, pgtest.Scram(secret))
	r.server.Exec(`CREATE ROLE weak LOGIN PASSWORD '` + secret + `'`)
	passwords := filepath.Join(r.dir, "password")
	text := r.configText()
	use := func(user, password string) {
		t.Helper()
		if err := os.WriteFile(passwords, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := pgtest.Owner(t).Chown(passwords); err != nil {
			t.Fatal(err)
		}
		edit(t, r.config, func(string) string {
			out := strings.ReplaceAll(text, r.server.DSN(), r.server.TCP(user, "postgres"))
			head, cluster, _ := strings.Cut(out, "\nclusters:\n") // logins of the runbook have password files, too
			return head + "\nclusters:\n" + strings.Replace(cluster, "#password_file:", "password_file: "+passwords, 1)
		})
		out, stderr, _ := r.try("check", "src")
		if strings.Contains(out+stderr, password) {
			t.Errorf("the password is shown:\n%s%s", out, stderr)
		}
	}
	use("postgres", "wrong-"+secret)
	r.refused(5, []string{"password"}, "check", "src")
	r.refused(1, []string{"password"}, "backup", "src")
	use("weak", secret)
	r.refused(5, []string{`ALTER ROLE "weak" REPLICATION;`, `GRANT pg_monitor TO "weak";`}, "check", "src")
	stdout, stderr, code := r.try("backup", "src")
	if code != 1 || !strings.Contains(stdout+stderr, "REPLICATION") && !strings.Contains(stdout+stderr, "privilege") {
		t.Errorf("a backup without privileges: exit %d\n%s%s", code, stdout, stderr)
	}
	use("postgres", secret)
	r.run("backup", "src")
	edit(t, r.config, func(string) string { return text })

	key := filepath.Join(r.dir, "pileus.key")
	if err := os.Rename(key, key+".lost"); err != nil {
		t.Fatal(err)
	}
	r.refused(1, []string{"key file"}, "list")
	r.env = append(r.env, "PILEUS_PASSPHRASE=wrong "+passphrase)
	r.refused(2, []string{"does not open this repository"}, "list")
	r.env[len(r.env)-1] = "PILEUS_PASSPHRASE=" + passphrase
	r.run("list") // the passphrase is enough when the host's key is gone
}

// TestDamagedRepository flips and removes what a restore needs.
func TestDamagedRepository(t *testing.T) {
	r := newRig(t, pgtest.Newest(t), flavour{})
	receiver := r.receive()
	r.server.Pgbench("-i", "-q", "-s", "1")
	r.run("backup", "src")
	for range 3 {
		r.server.SwitchWAL()
		r.server.Pgbench("-n", "-t", "200")
	}
	r.caughtUp()
	receiver.stop()
	repo := filepath.Join(r.dir, "repo")

	segments := find(t, repo, "/wal/")
	if len(segments) < 3 {
		t.Fatalf("only %d segments: %v", len(segments), segments)
	}
	victim := segments[len(segments)-2]
	if err := os.Rename(victim, filepath.Join(r.dir, "segment")); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(r.dir, "gap")
	r.refused(4, []string{"missing"}, "restore", "src", "--as", "gap", "--data-dir", dir, "--latest")
	r.absent(dir)
	if err := os.Rename(filepath.Join(r.dir, "segment"), victim); err != nil {
		t.Fatal(err)
	}
	r.run("restore", "src", "--as", "whole", "--data-dir", filepath.Join(r.dir, "whole"), "--latest")

	packs := find(t, repo, "/packs/")
	largest := packs[0]
	for _, p := range packs {
		a, err1 := os.Stat(p)
		b, err2 := os.Stat(largest)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if a.Size() > b.Size() {
			largest = p
		}
	}
	whole, err := os.ReadFile(largest)
	if err != nil {
		t.Fatal(err)
	}
	for what, content := range map[string]string{
		"flipped":   string(whole[:len(whole)/2]) + string(whole[len(whole)/2]^1) + string(whole[len(whole)/2+1:]),
		"truncated": string(whole[:len(whole)/2]),
	} {
		edit(t, largest, func(string) string { return content })
		r.refused(3, []string{"DAMAGE", filepath.Base(largest), "hits backups of src"}, "verify", "--read-data", "all")
		dir := filepath.Join(r.dir, what)
		r.refused(1, []string{"damaged"}, "restore", "src", "--as", what, "--data-dir", dir, "--latest")
		r.absent(filepath.Join(dir, "global", "pg_control")) // what is not whole cannot be started
	}
	edit(t, largest, func(string) string { return string(whole) })
	r.run("verify", "--read-data", "all")
	r.run("restore", "src", "--as", "flipped", "--data-dir", filepath.Join(r.dir, "flipped"), "--latest") // begun again
}

// TestTablespaces: never written over, moved where they are told to.
func TestTablespaces(t *testing.T) {
	r := newRig(t, pgtest.Newest(t), flavour{})
	old := r.server.CreateTablespace("fast")
	r.server.Exec(`CREATE TABLE ledger TABLESPACE fast AS SELECT generate_series(1, 5000) AS number`)
	for _, mode := range []string{"files", "stream"} {
		r.run("backup", "src", "--mode", mode)
		dir := filepath.Join(r.dir, "ts-"+mode)
		args := []string{"restore", "src", "--as", "ts-" + mode, "--data-dir", dir, "--latest"}
		r.refused(2, []string{"fast", "--tablespace"}, args...)
		r.refused(2, []string{old}, append(args, "--tablespace", "fast="+old)...)
		r.absent(dir)
		moved := filepath.Join(r.dir, "moved-"+mode)
		res := r.restore("ts-"+mode, "--latest", "--tablespace", old+"="+moved)
		if len(find(t, moved, "PG_")) == 0 {
			t.Errorf("%s: the tablespace is not at its new place", mode)
		}
		if got := r.count(res, `SELECT count(*) FROM ledger`); got != 5000 {
			t.Errorf("%s: %d rows", mode, got)
		}
		res.close(t)
	}
	if r.server.Query(`SELECT count(*) FROM ledger`) != "5000" {
		t.Error("the source's tablespace was touched")
	}
}
