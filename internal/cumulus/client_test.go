package cumulus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// fakeAPI answers as the archive API does when things go wrong. state is that of its one rule.
type fakeAPI struct {
	t       *testing.T
	state   string
	patch   func(w http.ResponseWriter, want string) // nil: as it should
	list    func(w http.ResponseWriter)
	gone    int // so many reads are not answered
	late    int // after so many reads the rule is as the last PATCH wanted it
	want    string
	patches int
	reads   int
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer good" {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"statusCode":401,"error":"Unauthorized","message":"Invalid access token"}`)
		return
	}
	if r.Method == http.MethodGet {
		f.reads++
		if f.gone > 0 {
			f.gone--
			w.WriteHeader(http.StatusGatewayTimeout)
			fmt.Fprint(w, `{"message":"Endpoint request timed out"}`)
			return
		}
		if f.late > 0 {
			if f.late--; f.late == 0 {
				f.state = f.want
			}
		}
	}
	rule := func() {
		fmt.Fprintf(w, `{"name":"r","state":%q,"workflow":"W","rule":{"type":"sns","value":"topic"}}`, f.state)
	}
	switch {
	case r.Method == http.MethodPatch:
		if r.Header.Get("Cumulus-API-Version") != "2" {
			f.t.Error("PATCH without the version that it needs")
		}
		f.patches++
		var body struct{ State string }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			f.t.Error(err)
		}
		f.want = body.State
		if f.patch != nil {
			f.patch(w, body.State)
			return
		}
		f.state = body.State
		rule()
	case strings.HasPrefix(r.URL.Path, "/rules/"):
		if r.URL.Path != "/rules/r" {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"statusCode":404,"error":"Not Found","message":"Rule 'x' not found"}`)
			return
		}
		rule()
	case f.list != nil:
		f.list(w)
	default:
		fmt.Fprintf(w, `{"meta":{"count":1,"limit":100,"page":1},"results":[{"name":"r","state":%q,"workflow":"W","rule":{"type":"sns","value":"topic"}}]}`, f.state)
	}
}

func newFake(t *testing.T, token string) (*fakeAPI, *Client) {
	f := &fakeAPI{t: t, state: Enabled}
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	c, err := NewClient(s.URL, func() (string, error) { return token, nil })
	if err != nil {
		t.Fatal(err)
	}
	c.pause, c.settle = time.Millisecond, 200*time.Millisecond
	return f, c
}

// A list that the database could not answer is never taken for an empty one.
func TestListsAreNotBelievedWithoutACount(t *testing.T) {
	for name, body := range map[string]string{
		"database away":  `{"name":"KnexTimeoutError"}`,
		"no meta":        `{"results":[]}`,
		"no count":       `{"meta":{"limit":10},"results":[]}`,
		"null count":     `{"meta":{"count":null},"results":[]}`,
		"negative count": `{"meta":{"count":-1},"results":[]}`,
		"no JSON":        `<html>`,
		"nothing":        ``,
	} {
		f, c := newFake(t, "good")
		f.list = func(w http.ResponseWriter) { fmt.Fprint(w, body) }
		if n, err := c.Count(t.Context(), "/executions", url.Values{"status": {"running"}}); err == nil {
			t.Errorf("%s: %d is believed", name, n)
		}
		if rules, err := c.Rules(t.Context()); err == nil {
			t.Errorf("%s: %d rules are believed", name, len(rules))
		}
	}
	f, c := newFake(t, "good")
	f.list = func(w http.ResponseWriter) { fmt.Fprint(w, `{"meta":{"count":"7"},"results":[]}`) }
	if n, err := c.Count(t.Context(), "/executions", nil); err != nil || n != 7 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := c.Rules(t.Context()); err == nil {
		t.Error("7 rules are counted and none is listed, and nobody minds")
	}
}

// What a PATCH did shows in the rule, not in its answer.
func TestStatesAreReadAgain(t *testing.T) {
	f, c := newFake(t, "good")
	f.patch = func(w http.ResponseWriter, want string) { // the row is committed, and then something fails
		f.state = want
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"statusCode":400,"error":"Bad Request","message":"No policy is associated with the given resource."}`)
	}
	if r, err := c.setState(t.Context(), "r", Disabled); err != nil || r.State != Disabled {
		t.Errorf("400 after the commit: %v", err)
	}
	f.state = Enabled
	f.patch = func(w http.ResponseWriter, _ string) { fmt.Fprint(w, `{"message":"ok"}`) }
	if _, err := c.setState(t.Context(), "r", Disabled); err == nil || !strings.Contains(err.Error(), "although") {
		t.Errorf("200 without an effect: %v", err)
	}
	f.patch = func(w http.ResponseWriter, _ string) {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, `{"error":"boom"}`)
	}
	if _, err := c.setState(t.Context(), "r", Disabled); err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("500: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f.patch = func(http.ResponseWriter, string) { cancel() }
	if _, err := c.setState(ctx, "r", Disabled); err == nil {
		t.Error("an answer that never came is taken for success")
	}
}

// After a timeout nobody knows: the rule is read until it is as asked for, and the PATCH, which is not safe to repeat, is not repeated.
func TestLostAnswers(t *testing.T) {
	lost := map[string]func(http.ResponseWriter, string){
		"gateway": func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusGatewayTimeout) },
		"hung up": func(http.ResponseWriter, string) { panic(http.ErrAbortHandler) },
	}
	for name, answer := range lost {
		f, c := newFake(t, "good")
		f.patch, f.late = answer, 5
		if r, err := c.setState(t.Context(), "r", Disabled); err != nil || r.State != Disabled || f.patches != 1 {
			t.Errorf("%s, and it happened later: %v, %d times asked", name, err, f.patches)
		}
		f, c = newFake(t, "good")
		f.patch = answer
		if _, err := c.setState(t.Context(), "r", Disabled); err == nil || f.patches != 1 {
			t.Errorf("%s, and it never happened: %v, %d times asked", name, err, f.patches)
		}
	}
}

// Reads are repeated while nothing answers, and not when the API has.
func TestReadsAreRepeated(t *testing.T) {
	f, c := newFake(t, "good")
	f.gone = repetitions - 1
	if _, ok, err := c.Rule(t.Context(), "r"); !ok || err != nil {
		t.Error(err)
	}
	f.gone = repetitions
	if _, err := c.Rules(t.Context()); err == nil {
		t.Error("nothing answered, and it is taken for rules")
	}
	f, c = newFake(t, "bad")
	if _, err := c.Rules(t.Context()); err == nil || f.reads != 0 {
		t.Error(err)
	}
	calls := 0
	f, c = newFake(t, "good")
	f.list = func(w http.ResponseWriter) { calls++; fmt.Fprint(w, `{"name":"KnexTimeoutError"}`) }
	if _, err := c.Rules(t.Context()); err == nil || calls != 1 {
		t.Errorf("asked %d times: %v", calls, err)
	}
	c.token = func() (string, error) { calls++; return "", errors.New("no such file") }
	calls = 0
	if _, err := c.Rules(t.Context()); err == nil || calls != 1 {
		t.Errorf("the token was asked for %d times: %v", calls, err)
	}
}

// Rules on many pages are all found, each once, also while a rule comes.
func TestPages(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, limit := 0, 0
		if _, err := fmt.Sscan(r.URL.Query().Get("page")+" "+r.URL.Query().Get("limit"), &page, &limit); err != nil {
			t.Error(err)
		}
		var results []string
		for i := (page - 1) * limit; i < min(page*limit, 250); i++ {
			results = append(results, fmt.Sprintf(`{"name":"r%03d","state":"ENABLED","rule":{"type":"onetime"}}`, max(0, i-1))) // the first is told twice
		}
		fmt.Fprintf(w, `{"meta":{"count":249},"results":[%s]}`, strings.Join(results, ","))
	}))
	defer s.Close()
	c, err := NewClient(s.URL, func() (string, error) { return "good", nil })
	if err != nil {
		t.Fatal(err)
	}
	rules, err := c.Rules(t.Context())
	if err != nil || len(rules) != 249 {
		t.Errorf("%d rules: %v", len(rules), err)
	}
}

func TestTokens(t *testing.T) {
	_, c := newFake(t, "old")
	_, err := c.Rules(t.Context())
	if err == nil || !strings.Contains(err.Error(), "token_file") || strings.Contains(err.Error(), "old") {
		t.Errorf("a bad token: %v", err)
	}
	_, c = newFake(t, "good")
	if _, ok, err := c.Rule(t.Context(), "x"); ok || err != nil {
		t.Errorf("a rule that is not there: %v %v", ok, err)
	}
	for _, bad := range []string{"", "ftp://x", "not a url at all\x7f", "/path"} {
		if _, err := NewClient(bad, nil); err == nil {
			t.Errorf("%q is taken for a URL", bad)
		}
	}
}

func TestConsumersOfADeployment(t *testing.T) {
	tr := &Triggers{prefix: "prod"}
	for function, want := range map[string]bool{
		"prod-messageConsumer": true,
		"arn:aws:lambda:us-east-1:1:function:prod-messageConsumer":           true,
		"arn:aws:lambda:us-east-1:1:function:prod-messageConsumer:$LATEST":   true,
		"arn:aws:lambda:us-east-1:1:function:prod-KinesisInboundEventLogger": true,
		"arn:aws:lambda:us-east-1:1:function:prod-2-messageConsumer":         false,
		"arn:aws:lambda:us-east-1:1:function:other":                          false,
	} {
		if got := tr.ours(function); got != want {
			t.Errorf("%s: %v", function, got)
		}
	}
}
