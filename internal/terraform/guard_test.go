package terraform

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFixtures(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.json")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		p, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		r := Check(p, nil)
		t.Logf("%s safe=%v unchanged=%d read=%d", f, r.Safe, r.Unchanged, r.Read)
		for _, v := range r.Verdicts {
			t.Logf("  %s %s %s %v\n      %s\n      %s %v", v.Level, v.Address, v.Action, v.Attributes, v.Reason, v.Do, v.Notes)
		}
	}
}
