package cumulus

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

// A mapping is asked for once, and looked at until it is what it should be, although AWS tells for a while what it was.
func TestMappingsAreWaitedFor(t *testing.T) {
	for _, test := range []struct {
		states string // told one after the other, the last for ever
		on     bool
		asked  int
		ok     bool
	}{
		{"Enabled Enabled Disabling Disabled", false, 1, true},
		{"Disabled Disabled Disabled Enabling Enabled", true, 1, true},
		{"Enabling Enabled Disabling Disabled", false, 1, true},
		{"Disabling Disabled", false, 0, true},
		{"Enabled", true, 0, true},
		{"Enabled", false, 1, false},
	} {
		states, asked := strings.Fields(test.states), 0
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				asked++
			}
			fmt.Fprintf(w, `{"UUID":"m","State":%q}`, states[0])
			if r.Method == http.MethodGet && len(states) > 1 {
				states = states[1:]
			}
		}))
		tr := NewTriggers(aws.Config{Region: "us-east-1", BaseEndpoint: &s.URL, Credentials: credentials.NewStaticCredentialsProvider("x", "x", "")}, "p")
		lost, err := tr.setMappings(t.Context(), Record{Mappings: []Mapping{{UUID: "m", Enabled: true}, {UUID: "off"}}}, test.on, time.Millisecond)
		if (err == nil) != test.ok || len(lost) > 0 || asked != test.asked {
			t.Errorf("%s, to be enabled: %v: asked %d times, %v %v", test.states, test.on, asked, lost, err)
		}
		s.Close()
	}
}

// A mapping that is gone is no error, and does not keep the others from being changed.
func TestLostMappings(t *testing.T) {
	state := "Disabled"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/gone") {
			w.Header().Set("X-Amzn-ErrorType", "ResourceNotFoundException")
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"Message":"The resource you requested does not exist."}`)
			return
		}
		if r.Method == http.MethodPut {
			state = "Enabled"
		}
		fmt.Fprintf(w, `{"UUID":"there","State":%q}`, state)
	}))
	defer s.Close()
	tr := NewTriggers(aws.Config{Region: "us-east-1", BaseEndpoint: &s.URL, Credentials: credentials.NewStaticCredentialsProvider("x", "x", "")}, "p")
	lost, err := tr.setMappings(t.Context(), Record{Mappings: []Mapping{{UUID: "gone", Function: "f", Enabled: true}, {UUID: "there", Enabled: true}}}, true, time.Millisecond)
	if err != nil || len(lost) != 1 || lost[0] != "gone of f" || state != "Enabled" {
		t.Errorf("%v %v, the other is %s", lost, err, state)
	}
}
