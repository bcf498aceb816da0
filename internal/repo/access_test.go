package repo

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"filippo.io/age"
	"pgregory.net/rapid"

	"pileus/internal/pg"
	"pileus/internal/store"
	"pileus/internal/store/storetest"
)

const testPassphrase = "correct horse"

func TestOpenRefuses(t *testing.T) {
	ctx := t.Context()
	if _, err := Open(ctx, storetest.NewMem(t), nil, Options{}); !errors.Is(err, ErrNoRepository) {
		t.Errorf("no repository: %v", err)
	}
	_, st := newTestRepo(t, false, Options{})
	if _, err := Init(ctx, st, nil, Options{}); !errors.Is(err, ErrRepositoryExists) {
		t.Errorf("a second init: %v", err)
	}
	st.Corrupt(repositoryFileName, func(b []byte) []byte { return bytes.Replace(b, []byte(`"format": 1`), []byte(`"format": 2`), 1) })
	var format *FormatError
	if _, err := Open(ctx, st, nil, Options{}); !errors.As(err, &format) || format.Found != 2 {
		t.Errorf("a newer format: %v", err)
	}
	st.Corrupt(repositoryFileName, func(b []byte) []byte { return b[:len(b)/2] })
	if _, err := Open(ctx, st, nil, Options{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("half a repository.json: %v", err)
	}
}

func TestKeys(t *testing.T) {
	ctx := t.Context()
	st := storetest.NewMem(t)
	file := filepath.Join(t.TempDir(), "host.key")
	host, err := GenerateHostKey(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := GenerateHostKey(file); err == nil {
		t.Error("a key file was overwritten")
	}
	pass, err := PassphraseSlot("passphrase", testPassphrase)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := PassphraseSlot("short", "1234567"); err == nil {
		t.Error("a short passphrase was taken")
	}
	r, err := Init(ctx, st, []KeySlot{pass, {Name: "host", Recipients: []age.Recipient{host.Recipient()}}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.PutHistory(ctx, "c", 2, []byte("1\t0/1000000\tx")); err != nil {
		t.Fatal(err)
	}
	open := func(keyFile, passphrase string) error {
		ids, err := LoadIdentities(keyFile, passphrase)
		if err != nil {
			return err
		}
		r, err := Open(ctx, st, ids, Options{})
		if err == nil {
			_, err = r.History(ctx, "c", 2)
		}
		return err
	}
	for _, way := range [][2]string{{file, ""}, {"", testPassphrase}, {file, "wrong passphrase"}, {"/nonexistent", testPassphrase}} {
		if err := open(way[0], way[1]); err != nil {
			t.Errorf("open with %q: %v", way, err)
		}
	}
	if err := open("", ""); !errors.Is(err, ErrLocked) {
		t.Errorf("without a key: %v", err)
	}
	if err := open("", "wrong passphrase"); !errors.Is(err, ErrWrongKey) {
		t.Errorf("with a wrong passphrase: %v", err)
	}
	if err := r.RemoveKeySlot(ctx, "passphrase"); err != nil {
		t.Error(err)
	}
	if err := open("", testPassphrase); !errors.Is(err, ErrWrongKey) {
		t.Errorf("a removed key still opens: %v", err)
	}
	if err := r.RemoveKeySlot(ctx, "host"); err == nil {
		t.Error("the last key was removed")
	}
	if err := r.AddKeySlot(ctx, KeySlot{Name: "../x", Recipients: []age.Recipient{host.Recipient()}}); err == nil {
		t.Error("a bad name was taken")
	}
}

func TestClusterIdentity(t *testing.T) {
	r, _ := newTestRepo(t, false, Options{})
	c := Cluster{Name: "c", SystemIdentifier: 7, SegmentSize: pg.DefaultSegmentSize}
	for range 2 {
		if _, err := r.EnsureCluster(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	other := c
	other.SystemIdentifier = 8
	var id *IdentityError
	if _, err := r.EnsureCluster(t.Context(), other); !errors.As(err, &id) || id.Have != 7 {
		t.Errorf("another database under the name: %v", err)
	}
	if err := r.CreateCluster(t.Context(), c); !errors.Is(err, store.ErrExists) {
		t.Errorf("a used name: %v", err)
	}
}

func TestSegmentsAreNeverReplaced(t *testing.T) {
	both(t, func(t *testing.T, sealed bool) {
		r, _ := newTestRepo(t, sealed, Options{})
		seg := pg.Segment{Timeline: 1, Number: 3, Size: 1 << 20}
		content := someBytes(rand.New(rand.NewPCG(4, 4)), 1<<20)
		for range 2 {
			if err := r.PutSegment(t.Context(), "c", seg, bytes.NewReader(content)); err != nil {
				t.Fatal(err)
			}
		}
		other := bytes.Clone(content)
		other[len(other)-1] ^= 1
		if err := r.PutSegment(t.Context(), "c", seg, bytes.NewReader(other)); !errors.Is(err, ErrConflict) {
			t.Errorf("other content: %v", err)
		}
		if err := r.PutSegment(t.Context(), "c", seg.Next(), bytes.NewReader(content[1:])); err == nil {
			t.Error("a segment that is too short was stored")
		}
		rc, err := r.OpenSegment(t.Context(), "c", seg)
		if err != nil {
			t.Fatal(err)
		}
		defer rc.Close()
		if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// Parts in any order and overlap give the longest beginning without a hole.
func TestPartsJoin(t *testing.T) {
	content := someBytes(rand.New(rand.NewPCG(5, 5)), 1000)
	seg := pg.Segment{Timeline: 2, Number: 1, Size: 1 << 20}
	rapid.Check(t, func(rt *rapid.T) {
		r, _ := newTestRepo(t, false, Options{})
		covered := make([]bool, len(content)+1)
		for range rapid.IntRange(0, 12).Draw(rt, "parts") {
			from := rapid.IntRange(0, len(content)-1).Draw(rt, "from")
			to := rapid.IntRange(from+1, len(content)).Draw(rt, "to")
			if err := r.PutPart(t.Context(), "c", Part{seg, int64(from), int64(to)}, content[from:to]); err != nil {
				rt.Fatal(err)
			}
			for i := from; i < to; i++ {
				covered[i] = true
			}
		}
		want := slices.Index(covered, false)
		got, err := r.ReadParts(t.Context(), "c", seg)
		if err != nil || !bytes.Equal(got, content[:want]) {
			rt.Fatalf("%d bytes, want %d: %v", len(got), want, err)
		}
	})
}

func TestWatermarksKeepTheNewest(t *testing.T) {
	r, _ := newTestRepo(t, false, Options{})
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 10 {
		w := Watermark{Timeline: 1, LSN: pg.LSN(i), Time: base.Add(time.Duration(i) * time.Second)}
		if err := r.PutWatermark(t.Context(), "c", w); err != nil {
			t.Fatal(err)
		}
	}
	got, err := r.Watermarks(t.Context(), "c")
	if err != nil || len(got) == 0 || len(got) > 3 || got[len(got)-1].LSN != 9 || !got[len(got)-1].Time.Equal(base.Add(9*time.Second)) {
		t.Errorf("%v, %v", got, err)
	}
}
