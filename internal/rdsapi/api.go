package rdsapi

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"pileus/internal/access"
	"pileus/internal/fleet"
	"pileus/internal/ledger"
)

const (
	namespace = "http://rds.amazonaws.com/doc/2014-10-31/"
	version   = "2014-10-31"
	maxBody   = 1 << 20 // bytes

	// Go's SDK closes the body of its request as soon as it has the head of the answer. If its transport has sent the
	// body but not looked for the end of it yet, it takes that for an error and drops the connection, with
	// what of the answer is not in its buffer; and the SDK repeats what was done already. No answer of AWS comes
	// so fast. So one that is larger than the buffer does not come sooner than a busy host needs for that look.
	largeAnswer = 3 << 10 // bytes; with its header it fits in a buffer of 4096
	largeAfter  = 50 * time.Millisecond
)

// Options is what the API works with.
type Options struct {
	Fleet           Fleet
	Keys            Keys
	Ledger          *ledger.Ledger // takes the audit
	Region, Account string
	Log             *slog.Logger
	Now             func() time.Time // nil: time.Now
}

// API answers requests. It is an http.Handler for concurrent use.
type API struct {
	o          Options
	operations map[string]operation
}

// operation is one action: whether it changes something, and how it is done. The result is
// encoded as XML; nil has no result element.
type operation struct {
	changes bool
	do      func(ctx context.Context, p *params) (any, error)
}

// problem is an error of the protocol itself.
type problem struct {
	code    string
	status  int
	message string
}

// New makes the API.
func New(o Options) *API {
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &API{o: o}
	a.operations = a.table()
	return a
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := requestID()
	w.Header().Set("X-Amzn-Requestid", id)
	arrived := time.Now()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			a.refuse(w, id, &problem{"RequestEntityTooLarge", http.StatusRequestEntityTooLarge, fmt.Sprintf("The request is larger than %d bytes.", maxBody)})
			return
		}
		a.refuse(w, id, &problem{"IncompleteBody", http.StatusBadRequest, "The request's body ended early."})
		return
	}
	key, prob := a.authenticate(r, body)
	if prob != nil {
		a.o.Log.Warn("a request was refused", "code", prob.code, "from", source(r), "request", id)
		a.refuse(w, id, prob)
		return
	}
	form, prob := parseForm(r, body)
	if prob != nil {
		a.refuse(w, id, prob)
		return
	}
	if text, ok := a.answer(w, r, id, key, form); ok {
		if len(text) > largeAnswer {
			pause(r.Context(), largeAfter-time.Since(arrived))
		}
		w.Header().Set("Content-Type", "text/xml")
		_, _ = w.Write(text) // the client is gone: nobody to tell
	}
}

// parseForm reads the parameters of a request that is known to be genuine.
func parseForm(r *http.Request, body []byte) (url.Values, *problem) {
	if r.Method != http.MethodPost {
		return nil, &problem{"InvalidAction", http.StatusMethodNotAllowed, "Use POST."}
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, &problem{"MalformedQueryString", http.StatusBadRequest, "The body must be application/x-www-form-urlencoded."}
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, &problem{"MalformedQueryString", http.StatusBadRequest, "The body is no form: " + err.Error()}
	}
	if v := form.Get("Version"); v != version {
		return nil, &problem{"NoSuchVersion", http.StatusBadRequest, "The version must be " + version + "."}
	}
	return form, nil
}

// answer does what an authenticated request asks for, if its key may. It returns the answer, or has refused.
func (a *API) answer(w http.ResponseWriter, r *http.Request, id string, key access.Key, form url.Values) ([]byte, bool) {
	action := form.Get("Action")
	op, ok := a.operations[action]
	if !ok {
		if action == "" {
			a.refuse(w, id, &problem{"MissingAction", http.StatusBadRequest, "The request must contain the parameter Action."})
			return nil, false
		}
		a.refuse(w, id, &problem{"InvalidAction", http.StatusBadRequest, "Could not find operation " + action + " for version " + version})
		return nil, false
	}
	var result any
	var err error
	p := &params{form: form}
	if op.changes && key.Role != access.Operator {
		err = &problem{"AccessDenied", http.StatusForbidden, "User: " + key.ID + " is not authorized to perform: rds:" + action + ": its key is read-only."}
	} else {
		result, err = op.do(r.Context(), p)
	}
	prob := a.problem(r.Context(), action, id, err)
	if op.changes {
		if aerr := a.audit(r, id, key, action, form, prob); aerr != nil {
			// It is done, and must be told; that the log lacks it is told here.
			a.o.Log.Error("the audit log did not take an entry", "request", id, "action", action, "error", aerr)
		}
	}
	if prob != nil {
		a.refuse(w, id, prob)
		return nil, false
	}
	text, err := encode(action, id, result)
	if err != nil {
		a.o.Log.Error("an answer could not be encoded", "action", action, "request", id, "error", err)
		a.refuse(w, id, internalProblem(id))
		return nil, false
	}
	return text, true
}

// pause returns after a while, or when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Error makes a problem an error that an operation can return.
func (p *problem) Error() string { return p.code + ": " + p.message }

// statuses are those of the codes; others are 400.
var statuses = map[fleet.Code]int{
	fleet.CodeClusterNotFound: 404, fleet.CodeSnapshotNotFound: 404, fleet.CodeBackupNotFound: 404, fleet.CodeInstanceNotFound: 404,
	fleet.CodeSubnetGroupNotFound: 404, fleet.CodeParameterGroupMissing: 404, fleet.CodeClusterGroupMissing: 404,
	fleet.CodeClusterQuota: 403, fleet.CodeInsufficientCapacity: 403, fleet.CodeInternal: 500,
}

func internalProblem(id string) *problem {
	return &problem{string(fleet.CodeInternal), http.StatusInternalServerError, "The request could not be carried out. The log of `pileus serve` says why, at request " + id + "."}
}

// problem turns an error into what the client is told: faults as they are, all else without details.
func (a *API) problem(ctx context.Context, action, id string, err error) *problem {
	var f *fleet.Fault
	var p *problem
	switch {
	case err == nil:
		return nil
	case errors.As(err, &p):
		return p
	case errors.As(err, &f):
		status, ok := statuses[f.Code]
		if !ok {
			status = http.StatusBadRequest
		}
		return &problem{string(f.Code), status, f.Message}
	case ctx.Err() != nil:
		return &problem{"ServiceUnavailable", http.StatusServiceUnavailable, "The service is ending, or the client went away."}
	}
	a.o.Log.Error("a request failed", "action", action, "request", id, "error", err)
	return internalProblem(id)
}

// secrets are parameters that appear in no log.
var secrets = []string{"password", "secret", "token"}

// Bounds of what the audit log keeps of a request: who may only read can fill no disk with it.
const (
	maxAuditValue  = 1024 // bytes
	maxAuditValues = 200
)

func (a *API) audit(r *http.Request, id string, key access.Key, action string, form url.Values, prob *problem) error {
	shown := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(form)) {
		if len(shown) == maxAuditValues {
			shown["(more)"] = fmt.Sprintf("%d parameters", len(form))
			break
		}
		value := shorten(strings.Join(form[name], ","))
		for _, s := range secrets {
			if strings.Contains(strings.ToLower(name), s) {
				value = "(hidden)"
			}
		}
		if name != "Action" && name != "Version" {
			shown[shorten(name)] = value
		}
	}
	e := ledger.AuditEntry{Time: a.o.Now().UTC(), RequestID: id, AccessKey: key.ID, Role: string(key.Role), SourceAddress: source(r), Action: action,
		Resource: shorten(resource(form)), Parameters: shown, Result: "ok", Status: http.StatusOK}
	if prob != nil {
		e.Result, e.Status = prob.code, prob.status
	}
	return a.o.Ledger.Audit(context.WithoutCancel(r.Context()), e)
}

// shorten keeps the beginning of a long text.
func shorten(s string) string {
	if len(s) <= maxAuditValue {
		return s
	}
	return strings.ToValidUTF8(s[:maxAuditValue], "") + "..."
}

// resource is what a request is mainly about.
func resource(form url.Values) string {
	for _, name := range []string{"DBClusterIdentifier", "DBClusterSnapshotIdentifier", "TargetDBClusterSnapshotIdentifier", "DBInstanceIdentifier", "DBSubnetGroupName",
		"DBClusterParameterGroupName", "DbClusterResourceId", "ResourceName"} {
		if v := form.Get(name); v != "" {
			return v
		}
	}
	return ""
}

func source(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// requestID looks like those of AWS.
func requestID() string {
	b := make([]byte, 16)
	rand.Read(b)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// encode writes an answer.
func encode(action, id string, result any) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(xml.Header)
	fmt.Fprintf(&b, "<%sResponse xmlns=%q>", action, namespace)
	if result != nil {
		if err := xml.NewEncoder(&b).EncodeElement(result, xml.StartElement{Name: xml.Name{Local: action + "Result"}}); err != nil {
			return nil, err
		}
	}
	fmt.Fprintf(&b, "<ResponseMetadata><RequestId>%s</RequestId></ResponseMetadata></%sResponse>\n", id, action)
	return b.Bytes(), nil
}

// refuse writes an error.
func (a *API) refuse(w http.ResponseWriter, id string, p *problem) {
	kind := "Sender"
	if p.status >= 500 {
		kind = "Receiver"
	}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	fmt.Fprintf(&b, "<ErrorResponse xmlns=%q><Error><Type>%s</Type><Code>%s</Code><Message>", namespace, kind, p.code)
	if err := xml.EscapeText(&b, []byte(p.message)); err != nil {
		a.o.Log.Error("an error could not be encoded", "request", id, "error", err)
	}
	fmt.Fprintf(&b, "</Message></Error><RequestId>%s</RequestId></ErrorResponse>\n", id)
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(p.status)
	_, _ = w.Write(b.Bytes()) // the client is gone: nobody to tell
}
