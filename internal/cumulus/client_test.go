package cumulus

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// fakeAPI answers as the archive API does when things go wrong. state is that of its one rule.
type fakeAPI struct {
	t       *testing.T
	state   string
	patch   func(w http.ResponseWriter, want string) // nil: as it should
	list    func(w http.ResponseWriter)
	patches int
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer good" {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"statusCode":401,"error":"Unauthorized","message":"Invalid access token"}`)
		return
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
