package postgres

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"pgregory.net/rapid"

	"pileus/internal/pg"
)

func FuzzParseWALMessage(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("w2345678123456781234567812345678"))
	f.Add([]byte("k12345678123456781"))
	f.Add([]byte("k1234"))
	f.Fuzz(func(t *testing.T, b []byte) {
		msg, err := parseWALMessage(b)
		if (msg == nil) == (err == nil) {
			t.Fatalf("%v and %v", msg, err)
		}
		if d, ok := msg.(XLogData); ok && len(d.Data)+xlogDataHeader != len(b) {
			t.Fatalf("%d of %d bytes", len(d.Data), len(b))
		}
	})
}

func FuzzParseBaseFrame(f *testing.F) {
	f.Add([]byte("nbase.tar\x00\x00"))
	f.Add([]byte("n16390.tar\x00/path\x00"))
	f.Add([]byte("d123"))
	f.Add([]byte("p12345678"))
	f.Add([]byte("m"))
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := parseBaseFrame(b)
		if err != nil {
			return
		}
		if fr.kind == 'd' && !bytes.Equal(fr.data, b[1:]) || fr.kind == 'n' && fr.archive == "" {
			t.Fatalf("%q gave %+v", b, fr)
		}
		if oid, err := archiveOID(fr.archive); err == nil && oid == 0 && fr.archive != "base.tar" {
			t.Fatalf("%q counts as the data directory", fr.archive)
		}
	})
}

func FuzzParsePIDFile(f *testing.F) {
	f.Add([]byte("4711\n/data\n1700000000\n5432\n/tmp\nlocalhost\n  1234   56\nready   \n"))
	f.Add([]byte("4711\n"))
	f.Add([]byte("-3\n/data"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parsePIDFile(b); err == nil && p.PID <= 0 {
			t.Fatalf("%q gave process %d", b, p.PID)
		}
	})
}

func TestStatusMessageLayout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, fl, a := rapid.Uint64().Draw(t, "w"), rapid.Uint64().Draw(t, "f"), rapid.Uint64().Draw(t, "a")
		us := rapid.Int64Range(0, 1<<50).Draw(t, "us")
		b := encodeStatus(pg.LSN(w), pg.LSN(fl), pg.LSN(a), fromMicros(us), true)
		if len(b) != statusSize || b[0] != 'r' || b[33] != 1 || binary.BigEndian.Uint64(b[1:]) != w || binary.BigEndian.Uint64(b[9:]) != fl ||
			binary.BigEndian.Uint64(b[17:]) != a || int64(binary.BigEndian.Uint64(b[25:])) != us {
			t.Fatalf("%x", b)
		}
	})
}

func TestServerTimesReadFromTheirEpoch(t *testing.T) {
	if got := fromMicros(0); !got.Equal(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Error(got)
	}
}

func TestParseVersion(t *testing.T) {
	for line, want := range map[string]int{
		"postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)\n": 150013,
		"postgres (PostgreSQL) 13.23\n":                          130023,
		"postgres (PostgreSQL) 18beta1\n":                        180000,
		"postgres (PostgreSQL) 17rc2":                            170000,
		"postgres (PostgreSQL) 9.6.24":                           0,
		"psql (PostgreSQL) 15.1":                                 0,
		"":                                                       0,
	} {
		_, num, err := parseVersion(line)
		if num != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %d, %v", line, num, err)
		}
	}
}

func TestQuoting(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{QuoteIdent(`a"b`), `"a""b"`},
		{QuoteLiteral(`it's`), `'it''s'`},
		{QuoteLiteral(`a\b`), `E'a\\b'`},
		{QuoteConninfoValue(`a b'\`), `'a b\'\\'`},
		{QuoteConninfoValue(``), `''`},
		{QuoteConninfoValue(`plain`), `plain`},
		{DSN("/tmp/a b", 5433, "me", ""), `host='/tmp/a b' port=5433 user=me`},
		{string(lastLines([]byte("a\nb\nc\n"), 2)), "b\nc"},
		{string(lastLines([]byte("a"), 5)), "a"},
		{FormatVersion(150013), "15.13"},
	} {
		if c.got != c.want {
			t.Errorf("%s instead of %s", c.got, c.want)
		}
	}
}

// The command's syntax changed with 15; the label is the only foreign text in it.
func TestBaseBackupCommand(t *testing.T) {
	o := BaseBackupOptions{Label: "it's", Fast: true, EstimateSize: true, MaxRateKiB: 64}
	for version, want := range map[int]string{
		140005: "BASE_BACKUP LABEL 'it''s' PROGRESS FAST NOWAIT MAX_RATE 64 TABLESPACE_MAP NOVERIFY_CHECKSUMS MANIFEST 'no'",
		150000: "BASE_BACKUP (LABEL 'it''s', PROGRESS, CHECKPOINT 'fast', WAIT 0, MAX_RATE 64, TABLESPACE_MAP, VERIFY_CHECKSUMS 0, MANIFEST 'no')",
	} {
		if got := baseBackupCommand(version, o); got != want {
			t.Errorf("%d: %s", version, got)
		}
	}
}
