package cumulus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Client speaks to the archive API.
type Client struct {
	base  *url.URL
	token func() (string, error)
	http  *http.Client
	// pause is before the first repetition of a request, and doubles; settle is for how long a change whose answer was
	// lost may still happen.
	pause, settle time.Duration
}

// Bounds of one request. The API itself gives up on its database after 60 seconds.
const (
	requestTime  = 90 * time.Second
	largestReply = 64 << 20
	pageSize     = 100
	// repetitions is how often something is read that could not be.
	repetitions = 4
	firstPause  = 500 * time.Millisecond
	// settleTime is beyond what a function behind an API gateway may go on for after the gateway has given up on it.
	settleTime = 100 * time.Second
)

// NewClient makes a client of the API at base. token is asked for each request, so that a renewed one is used. It is never
// renewed here: the API forgets a token when it hands out its successor, and a run that is killed then had none.
func NewClient(base string, token func() (string, error)) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is not the URL of an archive API", base)
	}
	return &Client{base: u, token: token, pause: firstPause, settle: settleTime, http: &http.Client{Timeout: requestTime, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // a redirect leads to a login, never to an answer
	}}}, nil
}

// APIError is an answer that is none.
type APIError struct {
	Method, Path string
	Status       int
	Says         string
}

func (e *APIError) Error() string {
	hint := ""
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		hint = ": the token is not valid (any more); get a new one, and write it into recovery.cumulus.token_file"
	case http.StatusOK:
		hint = ": it answered 200 without what was asked for, as it does when its database cannot be reached"
	}
	return fmt.Sprintf("%s %s of the archive API: %d %s%s", e.Method, e.Path, e.Status, e.Says, hint)
}

// notFound tells whether the API says that there is no such thing.
func notFound(err error) bool {
	var api *APIError
	return errors.As(err, &api) && api.Status == http.StatusNotFound
}

// unanswered tells whether nobody can say what became of a request: no answer came, or one of what is in front of the API.
func unanswered(err error) bool {
	var api *APIError
	if !errors.As(err, &api) {
		return err != nil && !errors.Is(err, errToken)
	}
	switch api.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// errToken is why a request was not made.
var errToken = errors.New("the archive API's token")

// get reads. That is safe to repeat, and is repeated while nothing answers; what the API itself says is final.
func (c *Client) get(ctx context.Context, path string, query url.Values, into any) error {
	pause := c.pause
	for i := 1; ; i++ {
		err := c.call(ctx, http.MethodGet, path, query, nil, into)
		if i == repetitions || !unanswered(err) || ctx.Err() != nil {
			return err
		}
		if wait(ctx, pause) != nil {
			return err
		}
		pause *= 2
	}
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (c *Client) call(ctx context.Context, method, path string, query url.Values, body, into any) error {
	u := c.base.JoinPath(path)
	u.RawQuery = query.Encode()
	var sent io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), sent)
	if err != nil {
		return err
	}
	token, err := c.token()
	if err != nil {
		return fmt.Errorf("%w: %w", errToken, err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Cumulus-API-Version", "2") // PATCH of rules needs it
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s of the archive API: %w", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, largestReply))
	if err != nil {
		return fmt.Errorf("%s %s of the archive API: %w", method, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return &APIError{method, path, resp.StatusCode, says(text)}
	}
	if err := json.Unmarshal(text, into); err != nil {
		return &APIError{method, path, resp.StatusCode, says(text)}
	}
	return nil
}

// says is what an error's body tells people.
func says(body []byte) string {
	var v struct{ Message, Error, Name string }
	if json.Unmarshal(body, &v) == nil {
		for _, s := range []string{v.Message, v.Error, v.Name} {
			if s != "" {
				return s
			}
		}
	}
	const most = 200
	s := strings.TrimSpace(string(body))
	if len(s) > most {
		s = s[:most] + "…"
	}
	return s
}

// list is the answer of every list. Without a count it is no answer.
type list struct {
	Meta *struct {
		Count *json.Number `json:"count"`
	} `json:"meta"`
	Results []json.RawMessage `json:"results"`
}

func (c *Client) list(ctx context.Context, path string, query url.Values) (list, int, error) {
	var l list
	if err := c.get(ctx, path, query, &l); err != nil {
		return l, 0, err
	}
	if l.Meta == nil || l.Meta.Count == nil {
		return l, 0, &APIError{http.MethodGet, path, http.StatusOK, "no meta.count"}
	}
	n, err := strconv.Atoi(l.Meta.Count.String())
	if err != nil || n < 0 {
		return l, 0, &APIError{http.MethodGet, path, http.StatusOK, "meta.count " + l.Meta.Count.String()}
	}
	return l, n, nil
}

// Count asks how many records a list has that match a filter, which must be one that the API knows: it ignores others.
func (c *Client) Count(ctx context.Context, path string, filter url.Values) (int, error) {
	q := url.Values{"estimateTableRowCount": {"false"}, "countOnly": {"true"}}
	for k, v := range filter {
		q[k] = v
	}
	_, n, err := c.list(ctx, path, q)
	return n, err
}

// Rules lists all rules.
func (c *Client) Rules(ctx context.Context) ([]Rule, error) {
	var out []Rule
	seen := map[string]bool{}
	for page := 1; ; page++ {
		l, n, err := c.list(ctx, "/rules", url.Values{"limit": {strconv.Itoa(pageSize)}, "page": {strconv.Itoa(page)},
			"estimateTableRowCount": {"false"}, "sort_by": {"name"}, "order": {"asc"}})
		if err != nil {
			return nil, err
		}
		for _, raw := range l.Results {
			r, err := parseRule(raw)
			if err != nil {
				return nil, err
			}
			if !seen[r.Name] { // a rule that came meanwhile moves others to the next page
				seen[r.Name] = true
				out = append(out, r)
			}
		}
		if len(l.Results) == 0 || page*pageSize >= n {
			if len(out) < n {
				return nil, fmt.Errorf("the archive API counts %d rules and lists %d: ask again", n, len(out))
			}
			return out, nil
		}
	}
}

// Rule reads one rule. ok is false if there is none of that name.
func (c *Client) Rule(ctx context.Context, name string) (r Rule, ok bool, err error) {
	var raw json.RawMessage
	err = c.get(ctx, "/rules/"+url.PathEscape(name), nil, &raw)
	if notFound(err) {
		return r, false, nil
	}
	if err == nil {
		r, err = parseRule(raw)
	}
	if err == nil && r.Name != name {
		err = fmt.Errorf("the archive API answers with rule %q when asked for %q", r.Name, name)
	}
	return r, err == nil, err
}

// setState asks for a state, once, and believes nothing but what the rule says afterwards. Where the answer was lost the
// change may still happen, so the rule is read until it has, or cannot any more.
func (c *Client) setState(ctx context.Context, name, state string) (Rule, error) {
	began := time.Now()
	var answer json.RawMessage
	asked := c.call(ctx, http.MethodPatch, "/rules/"+url.PathEscape(name), nil, map[string]any{"name": name, "state": state}, &answer)
	pause := c.pause
	for {
		r, ok, err := c.Rule(ctx, name)
		switch {
		case err != nil:
			return r, errors.Join(asked, fmt.Errorf("read rule %s again: %w", name, err))
		case !ok:
			return r, fmt.Errorf("rule %s is gone", name)
		case r.State == state:
			return r, nil // also after an error: the row is as it was asked for
		case asked == nil:
			return r, fmt.Errorf("rule %s is %s although the archive API accepted to make it %s", name, r.State, state)
		case !unanswered(asked) || time.Since(began) > c.settle:
			return r, fmt.Errorf("set rule %s %s: %w", name, state, asked)
		}
		if err := wait(ctx, pause); err != nil {
			return r, errors.Join(asked, err)
		}
		pause = min(2*pause, c.settle/10)
	}
}
