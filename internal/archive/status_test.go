package archive

import (
	"os"
	"reflect"
	"testing"
	"time"
)

func TestStatusFile(t *testing.T) {
	dir := t.TempDir()
	if s, err := ReadStatus(dir, theCluster); s != nil || err != nil {
		t.Fatalf("of a receiver that never ran: %v, %v", s, err)
	}
	since := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	want := Status{Cluster: theCluster, Updated: since, Host: "host", PID: 7, Timeline: 2, Received: 30, Durable: 20, ServerEnd: 40, LagBytes: 20,
		LastCommit: since, Synchronous: true, SpoolBytes: 10, RepositoryFailingSince: &since, RepositoryError: "away",
		ConnectionFailingSince: &since, ConnectionError: "refused", Gap: &GapInfo{Since: since, From: 1, To: 2, Reason: "removed"}}
	for range 2 {
		if err := WriteStatus(dir, want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadStatus(dir, theCluster)
	if err != nil || !reflect.DeepEqual(*got, want) {
		t.Fatalf("%+v, %v; want %+v", got, err, want)
	}
	info, err := os.Stat(statusPath(dir, theCluster))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	if err := os.WriteFile(statusPath(dir, theCluster), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadStatus(dir, theCluster); err == nil {
		t.Error("half a file was read")
	}
}
