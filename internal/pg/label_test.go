package pg

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const fullLabel = `START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
CHECKPOINT LOCATION: 0/2000060
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2024-01-01 00:00:00 UTC
LABEL: nightly: the first
START TIMELINE: 1
`

func TestBackupLabel(t *testing.T) {
	want := BackupLabel{
		Start: 0x2000028, StartFile: "000000010000000000000002", Checkpoint: 0x2000060, Method: "streamed", From: "primary",
		StartTime: "2024-01-01 00:00:00 UTC", Label: "nightly: the first", StartTimeline: 1,
	}
	got, err := ParseBackupLabel([]byte(fullLabel))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(fullLabel, string(got.Render())); d != "" {
		t.Error(d)
	}

	incremental := fullLabel + "INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n"
	got, err = ParseBackupLabel([]byte(incremental))
	if err != nil || got.IncrementalFrom != 0x1000028 || got.IncrementalTLI != 1 || string(got.Render()) != incremental {
		t.Errorf("%+v, %v", got, err)
	}
	if complete := CompleteLabel(incremental); complete != fullLabel {
		t.Errorf("%q", complete)
	}
	// A label may hold line breaks and so imitate lines that follow; these may not win over the server's earlier ones.
	got, err = ParseBackupLabel([]byte(fullLabel[:len(fullLabel)-len("START TIMELINE: 1\n")] + "CHECKPOINT LOCATION: 9/9\nSTART TIMELINE: 1\n"))
	if err != nil || got.Checkpoint != 0x2000060 {
		t.Errorf("%+v, %v", got, err)
	}
	// A backup history file has lines between.
	got, err = ParseBackupLabel([]byte("START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nSTOP WAL LOCATION: 0/2000138 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\nLABEL:\n"))
	if err != nil || got.Start != 0x2000028 || got.Label != "" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestBackupLabelRefused(t *testing.T) {
	for _, s := range []string{
		"", "nonsense", "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n", "CHECKPOINT LOCATION: 0/2000060\n",
		"START WAL LOCATION: 0/2000028\nCHECKPOINT LOCATION: 0/2000060\n",
		"START WAL LOCATION: 0/2000028 (file x)\nCHECKPOINT LOCATION: 0/2000060\n",
		"START WAL LOCATION: 0/2000028 (file 000000010000000000000002\nCHECKPOINT LOCATION: 0/2000060\n",
		fullLabel + "INCREMENTAL FROM TLI: zero\n",
	} {
		if b, err := ParseBackupLabel([]byte(s)); err == nil {
			t.Errorf("%q was taken for %+v", s, b)
		}
	}
}

func FuzzBackupLabel(f *testing.F) {
	f.Add([]byte(fullLabel))
	f.Add([]byte("START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\r\nCHECKPOINT LOCATION: 0/2000060"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseBackupLabel(b)
		if err != nil {
			return
		}
		l.IncrementalFrom, l.IncrementalTLI = 0, 0 // rendered as a pair only
		back, err := ParseBackupLabel(l.Render())
		if err != nil || back != l {
			t.Errorf("%+v came back as %+v, %v", l, back, err)
		}
	})
}

func TestTablespaceMap(t *testing.T) {
	got, err := ParseTablespaceMap([]byte("16400 /srv/fast disk\n16401 /srv/back\\\\slash and\\\nnewline\n"))
	want := []TablespaceMapping{{16400, "/srv/fast disk"}, {16401, "/srv/back\\slash and\nnewline"}}
	if err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, s := range []string{"16400\n", "x /srv\n", "0 /srv\n", "16400 /srv", "16400 /srv\\\n", "16400 \n"} {
		if m, err := ParseTablespaceMap([]byte(s)); err == nil {
			t.Errorf("%q was taken for %+v", s, m)
		}
	}
}

func TestTablespaceMapRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		maps := rapid.SliceOf(rapid.Custom(func(t *rapid.T) TablespaceMapping {
			path := rapid.StringOfN(rapid.RuneFrom([]rune("ab/ \\\r\n\té")), 1, 20, -1).Draw(t, "path")
			return TablespaceMapping{OID: OID(rapid.Uint32Min(1).Draw(t, "oid")), Path: path}
		})).Draw(t, "maps")
		back, err := ParseTablespaceMap(RenderTablespaceMap(maps))
		if err != nil || len(back) != len(maps) {
			t.Fatalf("%+v came back as %+v, %v", maps, back, err)
		}
		for i := range maps {
			if maps[i] != back[i] {
				t.Fatalf("%+v came back as %+v", maps[i], back[i])
			}
		}
	})
}

func FuzzTablespaceMap(f *testing.F) {
	f.Add([]byte("16400 /srv/a\\\\b\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		maps, err := ParseTablespaceMap(b)
		if err != nil {
			return
		}
		back, err := ParseTablespaceMap(RenderTablespaceMap(maps))
		if err != nil || cmp.Diff(maps, back) != "" {
			t.Errorf("%+v came back as %+v, %v", maps, back, err)
		}
	})
}
