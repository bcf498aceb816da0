package restore

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzMarker: whatever lies in a directory under the marker's name, it is taken
// for ours only if it says so.
func FuzzMarker(f *testing.F) {
	f.Add([]byte(`{"tool":"pileus restore","request":"ab","stage":"writing"}`))
	f.Add([]byte(`{"tool":"other"}`))
	f.Add([]byte("{"))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, markerName), content, 0o600); err != nil {
			t.Fatal(err)
		}
		m, ok, err := readMarker(dir)
		if err != nil || ok != (m.Tool == markerTool) {
			t.Fatalf("%+v, %v, %v", m, ok, err)
		}
	})
}

func FuzzLastSwitch(f *testing.F) {
	f.Add([]byte("1\t0/3000000\tno recovery target specified\n2\t0/2000100\tbefore\n"))
	f.Add([]byte("# comment\n\n"))
	f.Add([]byte("1 x"))
	f.Fuzz(func(t *testing.T, content []byte) {
		if end, err := lastSwitch(content); err == nil && end != 0 && !strings.Contains(string(content), "/") {
			t.Fatalf("%s out of nothing", end)
		}
	})
}

// FuzzCommentOut: taking lines out keeps all others as they were.
func FuzzCommentOut(f *testing.F) {
	f.Add([]byte("a = 1\ninclude 'x'\nb = 2\n"), 2)
	f.Add([]byte("include 'x'"), 1)
	f.Add([]byte(""), 7)
	f.Fuzz(func(t *testing.T, content []byte, line int) {
		before := strings.SplitAfter(string(content), "\n")
		after := strings.SplitAfter(string(commentOut(content, []Change{{Line: line, Reason: "r"}})), "\n")
		if len(before) != len(after) {
			t.Fatalf("%d lines became %d", len(before), len(after))
		}
		for i := range before {
			if i != line-1 && before[i] != after[i] {
				t.Fatalf("line %d changed", i+1)
			}
		}
	})
}
