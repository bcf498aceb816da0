package pg

import (
	"testing"

	"pgregory.net/rapid"
)

func TestParseRelationPath(t *testing.T) {
	for path, want := range map[string]RelationPath{
		"base/5/16384":       {RelFile: RelFile{1663, 5, 16384}},
		"base/5/16384.1":     {RelFile: RelFile{1663, 5, 16384}, Segment: 1},
		"base/5/16384_fsm":   {RelFile: RelFile{1663, 5, 16384}, Fork: ForkFSM},
		"base/5/16384_fsm.1": {RelFile: RelFile{1663, 5, 16384}, Fork: ForkFSM, Segment: 1},
		"base/5/16384_vm":    {RelFile: RelFile{1663, 5, 16384}, Fork: ForkVM},
		"base/5/16384_init":  {RelFile: RelFile{1663, 5, 16384}, Fork: ForkInit},
		"base/5/t3_16384":    {RelFile: RelFile{1663, 5, 16384}, Temp: true},
		"base/5/t3_16384_vm": {RelFile: RelFile{1663, 5, 16384}, Fork: ForkVM, Temp: true},
		"base/5/t12_16384.2": {RelFile: RelFile{1663, 5, 16384}, Segment: 2, Temp: true},
		"global/1262":        {RelFile: RelFile{1664, 0, 1262}},
		"global/1262_fsm":    {RelFile: RelFile{1664, 0, 1262}, Fork: ForkFSM},
		"base/5/4294967295":  {RelFile: RelFile{1663, 5, 4294967295}},
		"base/5/16384.32767": {RelFile: RelFile{1663, 5, 16384}, Segment: 32767},
		"pg_tblspc/16400/PG_15_202209061/5/16384_vm.2": {RelFile: RelFile{16400, 5, 16384}, Fork: ForkVM, Segment: 2},
	} {
		got, ok := ParseRelationPath(path)
		if !ok || got != want {
			t.Errorf("%s: %+v, %v", path, got, ok)
		}
		if !got.Temp && got.Path("PG_15_202209061") != path {
			t.Errorf("%s came back as %s", path, got.Path("PG_15_202209061"))
		}
		if !HasPages(path) {
			t.Errorf("%s has no pages", path)
		}
	}
	for _, path := range []string{
		"", "base", "base/5", "base/5/", "base/5/PG_VERSION", "base/5/pg_filenode.map", "base/5/pg_internal.init", "base/5/pg_internal.init.123",
		"global/pg_control", "global/pg_filenode.map", "global/5/1262", "base/16384", "base/5/6/16384", "base/5/0", "base/5/016384", "base/0/16384",
		"base/5/16384_", "base/5/16384_xyz", "base/5/16384.", "base/5/16384.0", "base/5/16384.01", "base/5/16384.x", "base/5/16384.32768", "base/5/16384.1.2",
		"base/5/16384_fsm_vm", "base/5/4294967296", "base/5/-1", "base/5/+1", "base/5/t_16384", "base/5/t3", "base/5/tx_1", "base/5/t3_", "base/pgsql_tmp/1",
		"pg_tblspc/16400/5/16384", "pg_tblspc/16400/PG_15_202209061/16384", "pg_tblspc/x/PG_15_202209061/5/16384", "pg_wal/000000010000000000000001",
		"postgresql.conf", "/base/5/16384", "base//16384", "base/x/16384",
	} {
		if p, ok := ParseRelationPath(path); ok || HasPages(path) {
			t.Errorf("%q was taken for %+v", path, p)
		}
	}
	if p, _ := ParseRelationPath("base/5/16384.3"); p.FirstBlock() != 3*131072 {
		t.Errorf("first block is %d", p.FirstBlock())
	}
}

func TestRelationPathRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := RelationPath{
			RelFile: RelFile{
				Tablespace: OID(rapid.SampledFrom([]uint32{1663, 1664, 16400}).Draw(t, "tablespace")),
				Relation:   OID(rapid.Uint32Min(1).Draw(t, "relation")),
			},
			Fork:    Fork(rapid.IntRange(0, 3).Draw(t, "fork")),
			Segment: rapid.Uint32Range(0, 32767).Draw(t, "segment"),
		}
		if p.Tablespace != GlobalTablespace {
			p.Database = OID(rapid.Uint32Min(1).Draw(t, "database"))
		}
		dir := TablespaceVersionDir(15, 202209061)
		if back, ok := ParseRelationPath(p.Path(dir)); !ok || back != p {
			t.Fatalf("%s: %+v, %v", p.Path(dir), back, ok)
		}
	})
}

func FuzzParseRelationPath(f *testing.F) {
	f.Add("base/5/16384_fsm.1")
	f.Add("pg_tblspc/16400/PG_15_202209061/5/t3_16384")
	f.Add("global/1262")
	f.Fuzz(func(t *testing.T, s string) {
		p, ok := ParseRelationPath(s)
		if !ok || p.Temp {
			return
		}
		if back, ok := ParseRelationPath(p.Path("PG_18_202506291")); !ok || back.Relation != p.Relation || back.Fork != p.Fork || back.Segment != p.Segment {
			t.Errorf("%q: %+v came back as %+v", s, p, back)
		}
	})
}

func TestForkNames(t *testing.T) {
	if ForkVM.String() != "vm" || Fork(9).String() != "fork 9" || (RelFile{1663, 5, 1}).String() != "1663/5/1" {
		t.Error("wrong names")
	}
}

func TestExcluded(t *testing.T) {
	for _, c := range []struct {
		path string
		dir  bool
		want Exclusion
	}{
		{"base", true, Included}, {"base/5", true, Included}, {"base/5/16384", false, Included}, {"PG_VERSION", false, Included},
		{"base/5/PG_VERSION", false, Included}, {"base/5/pg_filenode.map", false, Included}, {"global/pg_control", false, Included},
		{"postgresql.conf", false, Included}, {"postgresql.auto.conf", false, Included}, {"log/backup_label", false, Included},
		{"pg_xact/0000", false, Included}, {"pg_multixact/offsets/0000", false, Included}, {"pg_stat/pgstat.stat", false, Included},
		{"pg_twophase/000002D5", false, Included}, {"pg_logical/mappings/x", false, Included}, {"pg_tblspc", true, Included}, {"pg_walls", true, Included},
		{"pg_wal", true, Emptied}, {"pg_wal", false, Emptied}, {"pg_wal/000000010000000000000001", false, Skipped}, {"pg_wal/archive_status", true, Skipped},
		{"pg_wal/summaries/x", false, Skipped}, {"pg_replslot", true, Emptied}, {"pg_replslot/s/state", false, Skipped}, {"pg_dynshmem", true, Emptied},
		{"pg_notify/0000", false, Skipped}, {"pg_serial", true, Emptied}, {"pg_snapshots", true, Emptied}, {"pg_stat_tmp/x", false, Skipped}, {"pg_subtrans/0000", false, Skipped},
		{"postmaster.pid", false, Skipped}, {"postmaster.opts", false, Skipped}, {"postgresql.auto.conf.tmp", false, Skipped}, {"current_logfiles.tmp", false, Skipped},
		{"current_logfiles", false, Included}, {"backup_label", false, Skipped}, {"backup_label.old", false, Skipped}, {"tablespace_map", false, Skipped}, {"backup_manifest", false, Skipped},
		{"base/pgsql_tmp", true, Skipped}, {"base/pgsql_tmp/pgsql_tmp12.0", false, Skipped}, {"pg_tblspc/16400/PG_15_202209061/pgsql_tmp", true, Skipped},
		{"global/pg_internal.init", false, Skipped}, {"base/5/pg_internal.init.4711", false, Skipped},
		{"base/5/t3_16384", false, Skipped}, {"base/5/t3_16384_fsm", false, Skipped}, {"pg_tblspc/16400/PG_15_202209061/5/t3_16384", false, Skipped},
		{"base/5/16384_init", false, Included},
	} {
		if got := Excluded(c.path, c.dir); got != c.want {
			t.Errorf("%s: %d, want %d", c.path, got, c.want)
		}
	}
}

func TestInitFork(t *testing.T) {
	for path, want := range map[string]string{
		"base/5/16384": "base/5/16384_init", "base/5/16384.2": "base/5/16384_init", "base/5/16384_fsm.1": "base/5/16384_init",
		"pg_tblspc/16400/PG_15_202209061/5/16384_vm": "pg_tblspc/16400/PG_15_202209061/5/16384_init",
		"base/5/16384_init":                          "", "base/5/t3_16384": "", "base/5/PG_VERSION": "",
	} {
		if got, ok := InitFork(path); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v", path, got, ok)
		}
	}
}
