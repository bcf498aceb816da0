package recovery

import "testing"

func TestPointed(t *testing.T) {
	at := Place{"new.example", 5433}
	for secret, want := range map[string]string{
		`{"host":"old","port":5432,"username":"u","n":12345678901234567890}`: `{"host":"new.example","n":12345678901234567890,"port":5433,"username":"u"}`,
		`{"host":"old","port":"5432"}`:                                       `{"host":"new.example","port":"5433"}`,
		`{"host":"old","database":"d","x":null}`:                             `{"database":"d","host":"new.example","x":null}`,
	} {
		got, changed, err := pointed(secret, at)
		if err != nil || !changed || got != want {
			t.Errorf("%s: %s, %v, %v", secret, got, changed, err)
		}
		if _, changed, err := pointed(got, at); err != nil || changed {
			t.Errorf("%s: done twice it changes again", secret)
		}
	}
	for _, bad := range []string{"", "[]", `"x"`, `{"username":"u"}`} {
		if got, _, err := pointed(bad, at); err == nil {
			t.Errorf("%q became %q", bad, got)
		}
	}
}
